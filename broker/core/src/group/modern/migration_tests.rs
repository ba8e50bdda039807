//! Consumers of both protocols in one group, which changes its kind as they come and go: random interleavings, time and failovers,
//! checked against what must always hold (I10), and that all come to rest. Then one claim per rule.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use millstream_protocol::ErrorCode;
use proptest::prelude::*;

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

const CLIENTS: usize = 4;
const PARTITIONS: usize = 5;

/// A classic consumer's metadata: topic `t` and what it owns.
fn metadata(owned: &BTreeSet<i32>) -> Bytes {
    let mut bytes = vec![
        0,
        1,
        0,
        0,
        0,
        1,
        0,
        1,
        b't',
        0xff,
        0xff,
        0xff,
        0xff,
        0,
        0,
        0,
        u8::from(!owned.is_empty()),
    ];
    if !owned.is_empty() {
        bytes.extend([0, 1, b't']);
        bytes.extend((owned.len() as u32).to_be_bytes());
        owned.iter().for_each(|number| bytes.extend(number.to_be_bytes()));
    }
    bytes.into()
}

fn joining(client: &str, member_id: &str, owned: &BTreeSet<i32>) -> JoinGroupRequest {
    JoinGroupRequest {
        protocols: vec![("range".to_owned(), metadata(owned))],
        ..join_request(client, member_id)
    }
}

fn heartbeat(member_id: &str, epoch: i32, owned: &BTreeSet<i32>) -> ModernHeartbeat {
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

fn beat(shell: &mut Shell, request: &ModernHeartbeat) -> Result<ModernHeartbeatResponse, ModernRefusal> {
    let image = shell.image.clone();
    let decision = shell.coordinator.modern_heartbeat(shell.now_ms, request, &image);
    shell.run(decision)
}

fn numbers_of(assignment: &Bytes) -> BTreeSet<i32> {
    let assigned = read_assignment(assignment).unwrap().partitions;
    assigned.into_iter().flat_map(|(_, numbers)| numbers).collect()
}

/// What a leader decides: an even share for each, but nothing that another still owns.
fn shares(members: &[JoinGroupMember], partitions: usize) -> Vec<(String, Bytes)> {
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

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Out,
    Joining(Token),
    Syncing(Token),
    In,
}

struct Client {
    name: String,
    is_new: bool,
    is_cooperative: bool,
    lives: usize,
    member_id: String,
    epoch: i32,
    phase: Phase,
    reads: BTreeSet<i32>,
    /// The group lost it while it was away, which it learns with its next assignment.
    is_lost: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Act(usize),
    /// Leaves, and comes back with the other protocol.
    Switch(usize),
    Vanish(usize),
    Wait(i64),
    FailOver,
}

fn any_step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        14 => client.clone().prop_map(Step::Act),
        2 => client.clone().prop_map(Step::Switch),
        1 => client.prop_map(Step::Vanish),
        3 => prop_oneof![0_i64..300, 300_i64..3_000].prop_map(Step::Wait),
        1 => Just(Step::FailOver),
    ]
}

struct Model {
    shell: Shell,
    clients: Vec<Client>,
}

impl Model {
    fn new() -> Self {
        let config = GroupConfig {
            // Which is everybody's after a failover.
            consumer_session_timeout_ms: 1_000,
            ..fast_config()
        };
        let mut shell = Shell::new(config);
        shell.image = image(PARTITIONS, 1);
        let client = |index: usize| Client {
            name: format!("c{index}"),
            is_new: index == 0,
            is_cooperative: index.is_multiple_of(2),
            lives: 0,
            member_id: String::new(),
            epoch: 0,
            phase: Phase::Out,
            reads: BTreeSet::new(),
            is_lost: false,
        };
        Self {
            shell,
            clients: (0..CLIENTS).map(client).collect(),
        }
    }

    fn act(&mut self, index: usize) {
        if self.clients[index].is_new {
            self.act_new(index);
        } else {
            self.act_classic(index);
        }
        self.check_readers();
    }

    fn act_new(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if client.member_id.is_empty() {
            client.lives += 1;
            client.member_id = format!("{}-new-{}", client.name, client.lives);
        }
        match beat(&mut self.shell, &heartbeat(&client.member_id, client.epoch, &client.reads)) {
            Ok(response) => {
                client.epoch = response.member_epoch;
                let assigned: BTreeSet<i32> = response.assignment.unwrap_or_default().into_values().flatten().collect();
                // What it loses it stops to read before the next heartbeat; what it gets it reads at once.
                client.reads = assigned;
                client.is_lost = false;
                client.phase = Phase::In;
            }
            Err(refusal) => {
                let expected = [ErrorCode::UnknownMemberId, ErrorCode::FencedMemberEpoch, ErrorCode::GroupIdNotFound];
                assert!(expected.contains(&refusal.code), "{refusal:?}");
                client.reads.clear();
                client.epoch = 0;
            }
        }
    }

    fn act_classic(&mut self, index: usize) {
        let partitions = self.shell.image.topics["t"].partitions.len();
        let is_member = self.members().contains(&self.clients[index].member_id);
        let client = &mut self.clients[index];
        match client.phase {
            Phase::Out => self.join(index),
            Phase::Joining(token) if self.shell.is_parked(token) => {}
            Phase::Joining(token) => {
                let joined = self.shell.joined(token);
                match joined.error_code {
                    ErrorCode::None => {
                        (client.member_id, client.epoch) = (joined.member_id.clone(), joined.generation_id);
                        let request = SyncGroupRequest {
                            assignments: shares(&joined.members, partitions),
                            ..sync_request(&joined.member_id, joined.generation_id, &[])
                        };
                        client.phase = Phase::Syncing(self.shell.sync(request));
                    }
                    error => self.recover(index, error),
                }
            }
            Phase::Syncing(token) if self.shell.is_parked(token) => {}
            Phase::Syncing(token) => {
                let synced = self.shell.synced(token);
                if synced.error_code != ErrorCode::None {
                    return self.recover(index, synced.error_code);
                }
                let assigned = numbers_of(&synced.assignment);
                let loses = !client.reads.is_subset(&assigned);
                client.is_lost = !is_member;
                client.reads = assigned;
                client.phase = Phase::In;
                // A cooperative consumer says at once that it gave something up.
                if loses {
                    self.join(index);
                }
            }
            Phase::In => {
                let error = self.shell.heartbeat(&client.member_id, client.epoch);
                if error != ErrorCode::None {
                    self.recover(index, error);
                }
            }
        }
    }

    fn join(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if !client.is_cooperative {
            client.reads.clear();
        }
        let request = joining(&client.name, &client.member_id, &client.reads);
        client.phase = Phase::Joining(self.shell.join(request));
    }

    fn recover(&mut self, index: usize, error: ErrorCode) {
        let client = &mut self.clients[index];
        match error {
            ErrorCode::RebalanceInProgress => {}
            ErrorCode::IllegalGeneration => client.reads.clear(),
            ErrorCode::UnknownMemberId => {
                client.reads.clear();
                client.member_id.clear();
            }
            // The coordinator went away; whether the request was heard nobody knows.
            ErrorCode::NotCoordinator => {}
            other => panic!("client {index} is told {other:?}"),
        }
        self.join(index);
    }

    fn switch(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if client.phase != Phase::In {
            return;
        }
        let member_id = client.member_id.clone();
        if client.is_new {
            let _it_may_be_unknown = beat(&mut self.shell, &heartbeat(&member_id, -1, &BTreeSet::new()));
        } else {
            self.shell.leave(&[(&member_id, None)]);
        }
        self.vanish(index);
        self.clients[index].is_new ^= true;
    }

    fn vanish(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.phase = Phase::Out;
        client.reads.clear();
        client.member_id.clear();
        client.epoch = 0;
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Act(index) => self.act(index),
            Step::Switch(index) => self.switch(index),
            Step::Vanish(index) => self.vanish(index),
            Step::Wait(ms) => self.shell.advance(ms),
            Step::FailOver => self.shell.fail_over(),
        }
        self.check_readers();
    }

    fn members(&self) -> BTreeSet<String> {
        let modern = self.shell.coordinator.describe_modern(ModernKind::Consumer, GROUP);
        let modern = modern.into_iter().flat_map(|group| group.members).map(|member| member.member_id);
        let classic = self
            .shell
            .coordinator
            .describe_group(GROUP)
            .members
            .into_iter()
            .map(|member| member.member_id);
        modern.chain(classic).collect()
    }

    /// Whoever the group lost has to notice by itself, so only members count.
    fn check_readers(&mut self) {
        let members = self.members();
        let mut readers: BTreeMap<i32, usize> = BTreeMap::new();
        for (index, client) in self.clients.iter_mut().enumerate() {
            client.is_lost = !client.reads.is_empty() && (client.is_lost || !members.contains(&client.member_id));
            if client.is_lost {
                continue;
            }
            for partition in &client.reads {
                let other = readers.insert(*partition, index);
                assert_eq!(other, None, "partition {partition} is read by client {index} as well");
            }
        }
    }

    fn come_to_rest(&mut self) {
        for _ in 0..60 {
            (0..CLIENTS).for_each(|index| self.act(index));
            self.shell.advance(200);
        }
        let counts: Vec<usize> = self.clients.iter().map(|client| client.reads.len()).collect();
        assert_eq!(counts.iter().sum::<usize>(), PARTITIONS, "{counts:?}");
        assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        assert_eq!(self.members().len(), CLIENTS);
        let is_consumer = self.shell.coordinator.describe_modern(ModernKind::Consumer, GROUP).is_some();
        let has_new = self.clients.iter().any(|client| client.is_new);
        assert!(is_consumer || !has_new, "a classic group has members of the new protocol");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn groups_of_both_protocols_have_one_reader_per_partition_and_come_to_rest(steps in prop::collection::vec(any_step(), 0..120)) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
        }
        model.come_to_rest();
        model.shell.fail_over();
        model.come_to_rest();
    }
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

#[test]
fn static_member_takes_its_own_place_with_the_other_protocol() {
    let instance = |request: JoinGroupRequest| JoinGroupRequest {
        group_instance_id: Some("i".into()),
        ..request
    };
    let mut shell = Shell::new(fast_config());
    shell.image = image(PARTITIONS, 1);
    let token = shell.join(instance(joining("a", "", &BTreeSet::new())));
    shell.advance(0);
    let joined = shell.joined(token);
    let token = shell.sync(SyncGroupRequest {
        assignments: shares(&joined.members, PARTITIONS),
        group_instance_id: Some("i".into()),
        ..sync_request(&joined.member_id, 1, &[])
    });
    assert_eq!(shell.synced(token).error_code, ErrorCode::None);
    let new = ModernHeartbeat {
        instance_id: Some("i".into()),
        ..heartbeat("m", 0, &BTreeSet::new())
    };
    let response = beat(&mut shell, &new).unwrap();
    assert_eq!(
        (response.member_epoch, response.assignment.unwrap()[&TOPIC_ID].len()),
        (1, PARTITIONS),
        "nothing moved"
    );
    let token = shell.join(instance(joining("a", "", &BTreeSet::new())));
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
