//! One claim per rule of offsets: commit, fetch, transactions, deletion, expiry, and what administrators see.

use std::collections::BTreeSet;

use millstream_protocol::error_code::ErrorCode;

use super::{test_client::*, *};

const DAY_MS: i64 = 86_400_000;

fn commit_request(member_id: &str, generation_id: i32, topic: &str, offset: i64) -> OffsetCommitRequest {
    let commit = OffsetCommitPartition {
        partition: 0,
        offset,
        leader_epoch: 3,
        metadata: Some(format!("note {offset}")),
    };
    OffsetCommitRequest {
        group_id: GROUP.into(),
        generation_id,
        member_id: member_id.into(),
        group_instance_id: None,
        retention_time_ms: None,
        knows_group_id_not_found: true,
        topics: vec![(topic.to_owned(), vec![commit])],
    }
}

fn simple(topic: &str, offset: i64) -> OffsetCommitRequest {
    commit_request("", -1, topic, offset)
}

impl Shell {
    fn commit(&mut self, request: OffsetCommitRequest) -> ErrorCode {
        let decision = self.coordinator.commit_offsets(self.now_ms, request);
        let outcomes = self.run(decision);
        outcomes[0].1[0].1
    }

    fn fetch(&self, topic: &str, require_stable: bool) -> FetchedOffset {
        let topics = Some(vec![(topic.to_owned(), vec![0])]);
        let mut fetched = self.coordinator.fetch_offsets(&OffsetFetchRequest {
            member: None,
            group_id: GROUP.into(),
            topics,
            require_stable,
        });
        fetched.as_mut().unwrap().remove(0).1.remove(0)
    }

    fn offset(&self, topic: &str) -> i64 {
        self.fetch(topic, false).offset
    }

    fn transact(&mut self, producer_id: i64, topic: &str, offset: i64) {
        let decision = self.coordinator.commit_offsets_in_transaction(self.now_ms, simple(topic, offset));
        assert_eq!(decision.response[0].1[0].1, ErrorCode::None);
        decision
            .records
            .iter()
            .for_each(|record| self.coordinator.apply_transactional(producer_id, record));
    }
}

#[test]
fn unknown_group_fetches_minus_one_without_error() {
    let shell = Shell::new(fast_config());
    let none = FetchedOffset {
        partition: 0,
        offset: -1,
        leader_epoch: -1,
        metadata: String::new(),
        error_code: ErrorCode::None,
    };
    assert_eq!(shell.fetch("t", true), none);
    let all = OffsetFetchRequest {
        member: None,
        group_id: "nobody".into(),
        topics: None,
        require_stable: false,
    };
    assert_eq!(shell.coordinator.fetch_offsets(&all), Ok(Vec::new()));
}

#[test]
fn simple_consumer_commits_and_reads_back_also_after_failover() {
    let mut shell = Shell::new(fast_config());
    assert_eq!(shell.commit(simple("t", 7)), ErrorCode::None);
    shell.fail_over();
    let fetched = shell.fetch("t", true);
    assert_eq!((fetched.offset, fetched.leader_epoch, fetched.metadata.as_str()), (7, 3, "note 7"));
    assert_eq!(shell.state(), GroupState::Empty);
    assert_eq!(shell.log.len(), 1, "a group that only commits has no group record");
}

#[test]
fn commit_rules_of_members() {
    let mut shell = Shell::new(fast_config());
    let versions_below_9 = OffsetCommitRequest {
        knows_group_id_not_found: false,
        ..commit_request("m", 1, "t", 1)
    };
    assert_eq!(shell.commit(versions_below_9), ErrorCode::IllegalGeneration);
    assert_eq!(shell.commit(commit_request("m", 1, "t", 1)), ErrorCode::GroupIdNotFound);
    let ids = shell.stable_group(&["a", "b"]);
    assert_eq!(shell.commit(commit_request(&ids[0], 1, "t", 5)), ErrorCode::None);
    assert_eq!(shell.commit(commit_request(&ids[0], 0, "t", 6)), ErrorCode::IllegalGeneration);
    assert_eq!(shell.commit(commit_request("m", 1, "t", 6)), ErrorCode::UnknownMemberId);
    assert_eq!(
        shell.commit(simple("t", 6)),
        ErrorCode::UnknownMemberId,
        "nobody resets offsets of a running group"
    );
    shell.join(join_request("a", &ids[0]));
    assert_eq!(
        shell.commit(commit_request(&ids[1], 1, "t", 8)),
        ErrorCode::None,
        "members commit before they rejoin"
    );
    shell.join(join_request("b", &ids[1]));
    assert_eq!(shell.commit(commit_request(&ids[1], 2, "t", 9)), ErrorCode::RebalanceInProgress);
    assert_eq!(shell.offset("t"), 8);
    shell.leave(&[(&ids[0], None), (&ids[1], None)]);
    assert_eq!(
        shell.commit(simple("t", 2)),
        ErrorCode::None,
        "an administrator resets offsets of an empty group"
    );
    assert_eq!(shell.offset("t"), 2);
}

#[test]
fn commit_keeps_the_session_alive() {
    let mut shell = Shell::new(fast_config());
    let ids = shell.stable_group(&["a"]);
    for _ in 0..5 {
        shell.advance(900);
        assert_eq!(shell.commit(commit_request(&ids[0], 1, "t", 1)), ErrorCode::None);
    }
    assert_eq!(shell.state(), GroupState::Stable);
}

#[test]
fn metadata_is_bounded_per_partition() {
    let mut shell = Shell::new(GroupConfig {
        offset_metadata_bytes_max: 4,
        ..fast_config()
    });
    let commit = |partition, metadata: &str| OffsetCommitPartition {
        partition,
        offset: 1,
        leader_epoch: -1,
        metadata: Some(metadata.into()),
    };
    let request = OffsetCommitRequest {
        topics: vec![("t".into(), vec![commit(0, "1234"), commit(1, "12345")])],
        ..simple("t", 1)
    };
    let decision = shell.coordinator.commit_offsets(0, request);
    let outcomes = shell.run(decision);
    assert_eq!(
        outcomes,
        [("t".to_owned(), vec![(0, ErrorCode::None), (1, ErrorCode::OffsetMetadataTooLarge)])]
    );
    let all = OffsetFetchRequest {
        member: None,
        group_id: GROUP.into(),
        topics: None,
        require_stable: false,
    };
    assert_eq!(shell.coordinator.fetch_offsets(&all).unwrap()[0].1.len(), 1);
}

#[test]
fn transactional_offset_shows_only_after_the_commit_marker() {
    let mut shell = Shell::new(fast_config());
    shell.commit(simple("t", 1));
    shell.transact(9, "t", 5);
    assert_eq!(shell.offset("t"), 1);
    assert_eq!(shell.fetch("t", true).error_code, ErrorCode::UnstableOffsetCommit);
    shell.coordinator.apply_marker(9, false);
    assert_eq!(shell.fetch("t", true).offset, 1);
    shell.transact(9, "t", 6);
    shell.coordinator.apply_marker(9, true);
    assert_eq!(shell.fetch("t", true).offset, 6);
}

#[test]
fn later_plain_commit_wins_over_an_earlier_transactional_one() {
    let mut shell = Shell::new(fast_config());
    shell.transact(9, "t", 5);
    shell.commit(simple("t", 8));
    shell.coordinator.apply_marker(9, true);
    assert_eq!(shell.offset("t"), 8);
}

#[test]
fn only_empty_groups_are_deleted_and_their_offsets_with_them() {
    let mut shell = Shell::new(fast_config());
    let ids = shell.stable_group(&["a"]);
    shell.commit(commit_request(&ids[0], 1, "t", 5));
    let names = [GROUP.to_owned(), "nobody".to_owned()];
    let decision = shell.coordinator.delete_groups(&names);
    let outcomes: Vec<_> = shell.run(decision).into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes, [ErrorCode::NonEmptyGroup, ErrorCode::GroupIdNotFound]);
    shell.leave(&[(&ids[0], None)]);
    let decision = shell.coordinator.delete_groups(&[GROUP.to_owned(), GROUP.to_owned()]);
    let outcomes: Vec<_> = shell.run(decision).into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes, [ErrorCode::None, ErrorCode::GroupIdNotFound]);
    assert_eq!((shell.state(), shell.offset("t")), (GroupState::Dead, -1));
    shell.fail_over();
    assert_eq!(shell.state(), GroupState::Dead);
}

#[test]
fn offsets_of_subscribed_topics_are_not_deleted() {
    let mut shell = Shell::new(fast_config());
    assert_eq!(
        shell.coordinator.delete_offsets(GROUP, &[]).response.error_code,
        ErrorCode::GroupIdNotFound
    );
    let ids = shell.stable_group(&["a"]);
    shell.commit(commit_request(&ids[0], 1, "t", 5));
    shell.commit(commit_request(&ids[0], 1, "old", 6));
    let request = [("t".to_owned(), vec![0]), ("old".to_owned(), vec![0, 1])];
    let decision = shell.coordinator.delete_offsets(GROUP, &request);
    let response = shell.run(decision);
    assert_eq!(response.topics[0].1, [(0, ErrorCode::GroupSubscribedToTopic)]);
    assert_eq!(response.topics[1].1, [(0, ErrorCode::None), (1, ErrorCode::None)]);
    assert_eq!((shell.offset("t"), shell.offset("old")), (5, -1));
}

#[test]
fn offsets_of_running_non_consumers_are_not_deleted() {
    let mut shell = Shell::new(fast_config());
    shell.join(JoinGroupRequest {
        protocol_type: "connect".into(),
        ..join_request("a", "")
    });
    let response = shell.coordinator.delete_offsets(GROUP, &[("t".to_owned(), vec![0])]).response;
    assert_eq!((response.error_code, response.topics), (ErrorCode::NonEmptyGroup, Vec::new()));
}

#[test]
fn offsets_of_deleted_topics_go_away() {
    let mut shell = Shell::new(fast_config());
    shell.commit(simple("t", 1));
    shell.commit(simple("kept", 2));
    shell.transact(9, "t", 5);
    let decision = shell.coordinator.topics_deleted(&BTreeSet::from(["t".to_owned()]));
    shell.run(decision);
    shell.coordinator.apply_marker(9, true);
    assert_eq!((shell.offset("t"), shell.offset("kept")), (-1, 2));
}

#[test]
fn simple_group_expires_by_commit_time_and_disappears() {
    let mut shell = Shell::new(fast_config());
    shell.commit(simple("t", 1));
    shell.advance(DAY_MS);
    shell.commit(simple("u", 1));
    shell.advance(6 * DAY_MS);
    assert_eq!((shell.offset("t"), shell.offset("u")), (-1, 1));
    shell.advance(DAY_MS);
    assert_eq!(shell.state(), GroupState::Dead);
}

#[test]
fn group_with_members_expires_by_the_time_it_became_empty() {
    let mut shell = Shell::new(fast_config());
    let long = JoinGroupRequest {
        session_timeout_ms: 1_800_000,
        ..join_request("a", "")
    };
    let token = shell.join(long);
    shell.advance(0);
    let ids = shell.settle(&[token]);
    shell.commit(commit_request(&ids[0], 1, "t", 1));
    for _ in 0..10 * 48 {
        shell.advance(DAY_MS / 48 - 1);
        assert_eq!(shell.heartbeat(&ids[0], 1), ErrorCode::None);
    }
    assert_eq!(shell.offset("t"), 1, "ten days old, but the topic is subscribed");
    shell.leave(&[(&ids[0], None)]);
    shell.fail_over();
    shell.advance(7 * DAY_MS - 600_000);
    assert_eq!(shell.offset("t"), 1);
    shell.advance(1_200_000);
    assert_eq!((shell.offset("t"), shell.state()), (-1, GroupState::Dead));
}

#[test]
fn stable_consumers_lose_offsets_of_topics_they_no_longer_subscribe_to() {
    let mut shell = Shell::new(GroupConfig {
        offsets_retention_ms: 60_000,
        offsets_retention_check_interval_ms: 1,
        ..fast_config()
    });
    let token = shell.join(JoinGroupRequest {
        session_timeout_ms: 1_000_000,
        ..join_request("a", "")
    });
    shell.advance(0);
    let ids = shell.settle(&[token]);
    shell.commit(commit_request(&ids[0], 1, "t", 1));
    shell.commit(commit_request(&ids[0], 1, "old", 1));
    shell.now_ms = 59_999;
    shell.advance(0);
    assert_eq!(shell.offset("old"), 1);
    shell.advance(1);
    assert_eq!((shell.offset("t"), shell.offset("old")), (1, -1));
}

#[test]
fn commit_with_its_own_retention_expires_by_it() {
    let mut shell = Shell::new(fast_config());
    shell.commit(OffsetCommitRequest {
        retention_time_ms: Some(1_000),
        ..simple("t", 1)
    });
    shell.advance(600_000);
    assert_eq!((shell.offset("t"), shell.state()), (-1, GroupState::Dead));
}

#[test]
fn description_shows_metadata_of_stable_groups_only() {
    let mut shell = Shell::new(fast_config());
    let unknown = shell.coordinator.describe_group(GROUP);
    assert_eq!((unknown.state, unknown.error_code), (GroupState::Dead, ErrorCode::GroupIdNotFound));
    let ids = shell.stable_group(&["a"]);
    let stable = shell.coordinator.describe_group(GROUP);
    assert_eq!((stable.protocol.as_str(), stable.protocol_type.as_str()), ("range", "consumer"));
    assert_eq!(stable.members[0].assignment.as_ref(), ids[0].as_bytes());
    assert_eq!(stable.members[0].metadata, subscription(&["t"]));
    shell.join(join_request("b", ""));
    let preparing = shell.coordinator.describe_group(GROUP);
    assert_eq!((preparing.state, preparing.protocol.as_str()), (GroupState::PreparingRebalance, ""));
    assert!(preparing.members.iter().all(|member| member.metadata.is_empty()));
    assert_eq!(
        preparing.members[0].assignment, stable.members[0].assignment,
        "it still works by it"
    );
}

#[test]
fn list_filters_by_state_and_type() {
    let mut shell = Shell::new(fast_config());
    shell.stable_group(&["a"]);
    let decision = shell.coordinator.commit_offsets(
        0,
        OffsetCommitRequest {
            group_id: "simple".into(),
            ..simple("t", 1)
        },
    );
    shell.run(decision);
    let list = |states: &[&str], types: &[&str]| -> Vec<String> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        shell
            .coordinator
            .list_groups(&owned(states), &owned(types))
            .into_iter()
            .map(|group| group.group_id)
            .collect()
    };
    assert_eq!(list(&[], &[]), ["g", "simple"]);
    assert_eq!(list(&["stable"], &[]), ["g"]);
    assert_eq!(list(&["Empty", "Nonsense"], &["Classic"]), ["simple"]);
    assert_eq!(list(&[], &["consumer"]), Vec::<String>::new());
}
