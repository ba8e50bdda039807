//! Groups that change their protocol with members in them: one claim per rule. `migration_model_tests` has the interleavings.

use std::collections::BTreeSet;

use bytes::Bytes;
use millstream_protocol::ErrorCode;

use super::{
    ModernHeartbeat, ModernHeartbeatResponse, ModernKind, ModernRefusal, TopicIdPartitions,
    model_tests::{TOPIC_ID, image},
};
use crate::group::{
    GroupConfig, GroupState, JoinGroupMember, JoinGroupRequest, MigrationPolicy, OffsetCommitPartition, OffsetCommitRequest,
    SyncGroupRequest, Token,
    consumer_protocol::{read_assignment, read_subscription, write_assignment},
    test_client::{GROUP, Shell, fast_config, join_request, sync_request},
};

pub(super) const PARTITIONS: usize = 5;

/// A classic consumer's metadata, version 1: topic `t`, no user data, what it owns.
pub(super) fn metadata(owned: &BTreeSet<i32>) -> Bytes {
    let mut bytes = [
        &[0, 1, 0, 0, 0, 1, 0, 1, b't'][..],
        &[0xff; 4],
        &[0, 0, 0, u8::from(!owned.is_empty())],
    ]
    .concat();
    if !owned.is_empty() {
        bytes.extend([0, 1, b't']);
        bytes.extend((owned.len() as u32).to_be_bytes());
        owned.iter().for_each(|number| bytes.extend(number.to_be_bytes()));
    }
    bytes.into()
}

pub(super) fn joining(client: &str, member_id: &str, owned: &BTreeSet<i32>) -> JoinGroupRequest {
    JoinGroupRequest {
        protocols: vec![("range".to_owned(), metadata(owned))],
        ..join_request(client, member_id)
    }
}

pub(super) fn heartbeat(member_id: &str, epoch: i32, owned: &BTreeSet<i32>) -> ModernHeartbeat {
    let owned = if owned.is_empty() {
        TopicIdPartitions::new()
    } else {
        [(TOPIC_ID, owned.clone())].into()
    };
    ModernHeartbeat {
        kind: ModernKind::Consumer,
        group_id: GROUP.into(),
        member_id: member_id.into(),
        member_epoch: epoch,
        instance_id: None,
        rack_id: None,
        client_id: "new".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout_ms: 5_000,
        topics: Some(vec!["t".into()]),
        regex: None,
        assignor: None,
        owned: Some(owned),
        classic: None,
        session_timeout_ms: 1_000,
        heartbeat_interval_ms: 100,
    }
}

pub(super) fn beat(shell: &mut Shell, request: &ModernHeartbeat) -> Result<ModernHeartbeatResponse, ModernRefusal> {
    let image = shell.image.clone();
    let decision = shell.coordinator.modern_heartbeat(shell.now_ms, request, &image);
    shell.run(decision)
}

pub(super) fn numbers_of(assignment: &Bytes) -> BTreeSet<i32> {
    let assigned = read_assignment(assignment).unwrap().partitions;
    assigned.into_iter().flat_map(|(_, numbers)| numbers).collect()
}

/// What a leader decides: an even share for each, but nothing that another still owns.
pub(super) fn shares(members: &[JoinGroupMember], partitions: usize) -> Vec<(String, Bytes)> {
    let owned: Vec<BTreeSet<i32>> = members
        .iter()
        .map(|member| {
            read_subscription(&member.metadata)
                .unwrap()
                .owned
                .into_iter()
                .flat_map(|(_, numbers)| numbers)
                .collect()
        })
        .collect();
    let share = |index: usize| {
        let numbers = (0..partitions as i32).filter(|number| *number as usize % members.len() == index);
        let is_free = |number: &i32| {
            owned
                .iter()
                .enumerate()
                .all(|(other, owned)| other == index || !owned.contains(number))
        };
        numbers.filter(is_free).collect::<Vec<_>>()
    };
    let written = |index: usize| write_assignment(1, vec![("t".to_owned(), share(index))]).unwrap();
    members
        .iter()
        .enumerate()
        .map(|(index, member)| (member.member_id.clone(), written(index)))
        .collect()
}

/// A stable classic group of these clients, whose leader shared the topic out.
fn classic_group(config: GroupConfig, clients: &[&str]) -> (Shell, Vec<String>) {
    let mut shell = Shell::new(config);
    shell.image = image(PARTITIONS, 1);
    let tokens: Vec<Token> = clients
        .iter()
        .map(|client| shell.join(joining(client, "", &BTreeSet::new())))
        .collect();
    shell.advance(0);
    let joined: Vec<_> = tokens.into_iter().map(|token| shell.joined(token)).collect();
    let syncs: Vec<Token> = joined
        .iter()
        .map(|joined| {
            shell.sync(SyncGroupRequest {
                assignments: shares(&joined.members, PARTITIONS),
                ..sync_request(&joined.member_id, joined.generation_id, &[])
            })
        })
        .collect();
    for token in syncs {
        assert_eq!(shell.synced(token).error_code, ErrorCode::None);
    }
    (shell, joined.into_iter().map(|joined| joined.member_id).collect())
}

fn commit(shell: &mut Shell, member_id: &str, generation_id: i32) -> ErrorCode {
    let partition = OffsetCommitPartition {
        partition: 0,
        offset: 1,
        leader_epoch: -1,
        metadata: None,
    };
    let request = OffsetCommitRequest {
        group_id: GROUP.into(),
        generation_id,
        member_id: member_id.into(),
        group_instance_id: None,
        retention_time_ms: None,
        topics: vec![("t".into(), vec![partition])],
        knows_group_id_not_found: false,
    };
    let decision = shell.coordinator.commit_offsets(shell.now_ms, request);
    shell.run(decision)[0].1[0].1
}

#[test]
fn member_of_the_new_protocol_makes_a_consumer_group_of_a_classic_one() {
    let (mut shell, ids) = classic_group(fast_config(), &["a"]);
    let response = beat(&mut shell, &heartbeat("m", 0, &BTreeSet::new())).unwrap();
    assert_eq!(
        (response.member_epoch, response.assignment),
        (2, Some(TopicIdPartitions::new())),
        "all is owned by the other"
    );
    // The classic member keeps its generation until it joins again, and may commit under it.
    assert_eq!(commit(&mut shell, &ids[0], 1), ErrorCode::None);
    assert_eq!(commit(&mut shell, &ids[0], 2), ErrorCode::IllegalGeneration);
    assert_eq!(shell.heartbeat(&ids[0], 1), ErrorCode::RebalanceInProgress);
    let token = shell.join(joining("a", &ids[0], &BTreeSet::new()));
    let joined = shell.joined(token);
    assert_eq!(
        (joined.error_code, joined.generation_id, joined.leader.as_str()),
        (ErrorCode::None, 2, "")
    );
    assert_eq!((joined.protocol_name.as_deref(), joined.members.len()), (Some("range"), 0));
    let token = shell.sync(sync_request(&ids[0], 2, &[]));
    assert_eq!(numbers_of(&shell.synced(token).assignment).len(), 3);
    assert_eq!(shell.heartbeat(&ids[0], 2), ErrorCode::None);
    let response = beat(&mut shell, &heartbeat("m", 2, &BTreeSet::new())).unwrap();
    assert_eq!(response.assignment.unwrap()[&TOPIC_ID].len(), 2);
}

#[test]
fn requests_parked_in_a_classic_group_are_sent_back_by_its_upgrade() {
    let (mut shell, ids) = classic_group(fast_config(), &["a", "b"]);
    let parked = shell.join(joining("a", &ids[0], &BTreeSet::new()));
    assert!(shell.is_parked(parked));
    beat(&mut shell, &heartbeat("m", 0, &BTreeSet::new())).unwrap();
    let answer = shell.joined(parked);
    assert_eq!((answer.error_code, &answer.member_id), (ErrorCode::RebalanceInProgress, &ids[0]));
    // It can come back, and who does not is out when its session ends.
    let token = shell.join(joining("a", &ids[0], &BTreeSet::new()));
    assert_eq!(shell.joined(token).error_code, ErrorCode::None);
    shell.advance(1_500);
    assert_eq!(shell.heartbeat(&ids[1], 1), ErrorCode::UnknownMemberId);
}

#[test]
fn groups_that_cannot_be_upgraded_stay_as_they_are() {
    let disabled = GroupConfig {
        migration: MigrationPolicy::Downgrade,
        ..fast_config()
    };
    let small = GroupConfig {
        consumer_members_max: 1,
        ..fast_config()
    };
    for (config, code) in [(disabled, ErrorCode::GroupIdNotFound), (small, ErrorCode::GroupIdNotFound)] {
        let (mut shell, ids) = classic_group(config, &["a", "b"]);
        let refusal = beat(&mut shell, &heartbeat("m", 0, &BTreeSet::new())).unwrap_err();
        assert_eq!(refusal.code, code);
        assert_eq!((shell.state(), shell.heartbeat(&ids[0], 1)), (GroupState::Stable, ErrorCode::None));
    }
    // A leader that keeps more than partitions in its assignments.
    let (mut shell, ids) = classic_group(fast_config(), &["a"]);
    let token = shell.join(joining("a", &ids[0], &BTreeSet::new()));
    let joined = shell.joined(token);
    let with_user_data = Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 9]);
    shell.sync(SyncGroupRequest {
        assignments: vec![(ids[0].clone(), with_user_data)],
        ..sync_request(&ids[0], joined.generation_id, &[])
    });
    let refusal = beat(&mut shell, &heartbeat("m", 0, &BTreeSet::new())).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::GroupIdNotFound);
    // A refusal after the checks, for another reason, changes nothing either.
    let (mut shell, ids) = classic_group(fast_config(), &["a"]);
    let too_large = ModernHeartbeat {
        topics: Some((0..9_000).map(|index| format!("{index:0200}")).collect()),
        ..heartbeat("m", 0, &BTreeSet::new())
    };
    assert_eq!(beat(&mut shell, &too_large).unwrap_err().code, ErrorCode::InvalidRequest);
    assert_eq!(shell.heartbeat(&ids[0], 1), ErrorCode::None);
}

/// A consumer group with one member of each protocol, both at rest; the id of the classic one, and its generation.
fn mixed_group() -> (Shell, String, i32) {
    let mut shell = Shell::new(fast_config());
    shell.image = image(PARTITIONS, 1);
    let all = beat(&mut shell, &heartbeat("m", 0, &BTreeSet::new())).unwrap().assignment.unwrap()[&TOPIC_ID].clone();
    assert_eq!(all.len(), PARTITIONS);
    let token = shell.join(joining("a", "", &BTreeSet::new()));
    let joined = shell.joined(token);
    assert_eq!(joined.error_code, ErrorCode::None);
    let token = shell.sync(sync_request(&joined.member_id, joined.generation_id, &[]));
    assert!(numbers_of(&shell.synced(token).assignment).is_empty());
    assert_eq!(
        shell.heartbeat(&joined.member_id, joined.generation_id),
        ErrorCode::None,
        "there is nothing to get yet"
    );
    let told = beat(&mut shell, &heartbeat("m", 1, &all)).unwrap();
    let kept = told.assignment.unwrap()[&TOPIC_ID].clone();
    beat(&mut shell, &heartbeat("m", told.member_epoch, &kept)).unwrap();
    assert_eq!(
        shell.heartbeat(&joined.member_id, joined.generation_id),
        ErrorCode::RebalanceInProgress
    );
    let token = shell.join(joining("a", &joined.member_id, &BTreeSet::new()));
    let joined = shell.joined(token);
    let token = shell.sync(sync_request(&joined.member_id, joined.generation_id, &[]));
    assert_eq!(numbers_of(&shell.synced(token).assignment).len() + kept.len(), PARTITIONS);
    (shell, joined.member_id, joined.generation_id)
}

#[test]
fn group_becomes_classic_when_its_last_new_member_is_gone() {
    type Removal = fn(&mut Shell);
    let removals: [Removal; 3] = [
        |shell| assert!(beat(shell, &heartbeat("m", -1, &BTreeSet::new())).is_ok()),
        |shell| assert_eq!(shell.leave(&[("m", None)]), [ErrorCode::None]),
        |shell| shell.advance(999),
    ];
    for (index, remove) in removals.into_iter().enumerate() {
        let (mut shell, id, generation) = mixed_group();
        shell.advance(500);
        assert_eq!(shell.heartbeat(&id, generation), ErrorCode::None);
        remove(&mut shell);
        assert_eq!(shell.state(), GroupState::PreparingRebalance, "removal {index}");
        assert_eq!(shell.heartbeat(&id, generation), ErrorCode::RebalanceInProgress);
        if index == 0 {
            // Also for a coordinator that only knows the log.
            shell.fail_over();
            assert_eq!(shell.heartbeat(&id, generation), ErrorCode::RebalanceInProgress);
        }
        let token = shell.join(joining("a", &id, &BTreeSet::new()));
        let joined = shell.joined(token);
        assert_eq!(
            (joined.error_code, joined.generation_id, &joined.leader),
            (ErrorCode::None, generation + 1, &id)
        );
    }
}

#[test]
fn classic_member_that_does_not_come_back_in_time_is_out() {
    let (mut shell, id, generation) = mixed_group();
    let grown = image(PARTITIONS + 1, 2);
    shell.image = grown;
    let told = beat(&mut shell, &heartbeat("m", generation, &[0, 1].into()));
    assert!(told.is_ok(), "{told:?}");
    for _ in 0..5 {
        assert_eq!(shell.heartbeat(&id, generation), ErrorCode::RebalanceInProgress);
        shell.advance(900);
        beat(
            &mut shell,
            &ModernHeartbeat {
                member_epoch: told.as_ref().unwrap().member_epoch,
                ..heartbeat("m", 0, &[0, 1].into())
            },
        )
        .unwrap();
    }
    shell.advance(600);
    assert_eq!(shell.heartbeat(&id, generation), ErrorCode::UnknownMemberId);
}

fn static_joining() -> JoinGroupRequest {
    JoinGroupRequest {
        group_instance_id: Some("i".into()),
        ..joining("a", "", &BTreeSet::new())
    }
}

fn static_heartbeat() -> ModernHeartbeat {
    ModernHeartbeat {
        instance_id: Some("i".into()),
        ..heartbeat("m", 0, &BTreeSet::new())
    }
}

/// A stable classic group of the static member `i`.
fn static_group() -> Shell {
    let mut shell = Shell::new(fast_config());
    shell.image = image(PARTITIONS, 1);
    let token = shell.join(static_joining());
    shell.advance(0);
    let joined = shell.joined(token);
    let token = shell.sync(SyncGroupRequest {
        assignments: shares(&joined.members, PARTITIONS),
        group_instance_id: Some("i".into()),
        ..sync_request(&joined.member_id, 1, &[])
    });
    assert_eq!(shell.synced(token).error_code, ErrorCode::None);
    shell
}

#[test]
fn static_member_takes_its_own_place_with_the_other_protocol() {
    let mut shell = static_group();
    let new = static_heartbeat();
    let response = beat(&mut shell, &new).unwrap();
    assert_eq!(
        (response.member_epoch, response.assignment.unwrap()[&TOPIC_ID].len()),
        (1, PARTITIONS),
        "nothing moved"
    );
    let token = shell.join(static_joining());
    let joined = shell.joined(token);
    assert_eq!(
        (joined.error_code, &joined.leader),
        (ErrorCode::None, &joined.member_id),
        "the group is classic again"
    );
    assert_eq!(
        beat(&mut shell, &ModernHeartbeat { member_epoch: 1, ..new }).unwrap_err().code,
        ErrorCode::GroupIdNotFound
    );
}

#[test]
fn group_that_was_not_at_rest_gets_a_new_target_when_it_is_upgraded() {
    let mut shell = static_group();
    // The topic grew, and another member waits to be let in.
    shell.image = image(PARTITIONS + 1, 2);
    let parked = shell.join(joining("b", "", &BTreeSet::new()));
    let new = static_heartbeat();
    let response = beat(&mut shell, &new).unwrap();
    assert_eq!(response.member_epoch, 2);
    let waiting = shell.joined(parked).member_id;
    let token = shell.join(joining("b", &waiting, &BTreeSet::new()));
    let joined = shell.joined(token);
    let token = shell.sync(sync_request(&waiting, joined.generation_id, &[]));
    let own = response.assignment.unwrap()[&TOPIC_ID].len();
    assert_eq!(own + numbers_of(&shell.synced(token).assignment).len(), PARTITIONS + 1);
}

#[test]
fn classic_members_are_refused_as_kafka_does() {
    let (mut shell, id, generation) = mixed_group();
    let mut join = |request: JoinGroupRequest| {
        let token = shell.join(request);
        shell.joined(token).error_code
    };
    let other_type = JoinGroupRequest {
        protocol_type: "connect".into(),
        ..joining("b", "", &BTreeSet::new())
    };
    assert_eq!(join(other_type), ErrorCode::InconsistentGroupProtocol);
    let other_protocol = JoinGroupRequest {
        protocols: vec![("sticky".to_owned(), metadata(&BTreeSet::new()))],
        ..joining("b", "", &BTreeSet::new())
    };
    assert_eq!(join(other_protocol), ErrorCode::InconsistentGroupProtocol);
    let garbage = JoinGroupRequest {
        protocols: vec![("range".to_owned(), Bytes::from_static(&[0]))],
        ..joining("b", "", &BTreeSet::new())
    };
    assert_eq!(join(garbage), ErrorCode::InconsistentGroupProtocol);
    let without_id = JoinGroupRequest {
        requires_known_member_id: true,
        ..joining("b", "", &BTreeSet::new())
    };
    assert_eq!(join(without_id), ErrorCode::MemberIdRequired);
    assert_eq!(shell.heartbeat("m", 2), ErrorCode::UnknownMemberId, "it speaks the new protocol");
    assert_eq!(shell.heartbeat(&id, generation + 1), ErrorCode::IllegalGeneration);
    let mut sync = |request: SyncGroupRequest| {
        let token = shell.sync(request);
        shell.synced(token).error_code
    };
    assert_eq!(sync(sync_request("nobody", generation, &[])), ErrorCode::UnknownMemberId);
    assert_eq!(sync(sync_request(&id, generation - 1, &[])), ErrorCode::IllegalGeneration);
    let other_name = SyncGroupRequest {
        protocol_name: Some("sticky".into()),
        ..sync_request(&id, generation, &[])
    };
    assert_eq!(sync(other_name), ErrorCode::InconsistentGroupProtocol);
}
