//! Streams groups: one claim per rule. `model_tests` has the interleavings, the differential test compares with Kafka.

use millstream_protocol::ErrorCode;

use super::{
    Endpoint, EndpointTasks, StreamsHeartbeat, StreamsStatusCode, Task, Tasks,
    test_app::{beat, heartbeat, joining, owning, set_topic, task, topics, topology},
};
use crate::group::{
    GroupConfig, OffsetCommitPartition, OffsetCommitRequest,
    test_client::{GROUP, Shell, fast_config, join_request},
};

fn shell() -> Shell {
    Shell::new(GroupConfig {
        streams_session_timeout_ms: 1_000,
        ..fast_config()
    })
}

fn tasks(of: &[(&str, i32)]) -> Tasks {
    of.iter().map(|(id, partition)| task(id, *partition)).collect()
}

fn all() -> Tasks {
    tasks(&[("0", 0), ("0", 1), ("0", 2), ("1", 0), ("1", 1)])
}

fn refused(shell: &mut Shell, request: &StreamsHeartbeat) -> ErrorCode {
    let before = shell.log.len();
    let refusal = beat(shell, &topics(), request).unwrap_err();
    assert_eq!(shell.log.len(), before, "a refusal wrote something");
    refusal.code
}

#[test]
fn the_first_epoch_is_2_and_the_first_member_gets_everything() {
    let mut shell = shell();
    let answer = beat(&mut shell, &topics(), &joining("a", "p")).unwrap();
    let given = answer.tasks.unwrap();
    assert_eq!((answer.member_epoch, given.active, given.standby), (2, all(), Tasks::new()));
    assert_eq!(answer.statuses, Vec::new());
}

#[test]
fn a_group_waits_for_more_members_before_its_first_target() {
    let (mut shell, image) = (shell(), topics());
    let waiting = |id: &str, process: &str| StreamsHeartbeat {
        initial_rebalance_delay_ms: 500,
        ..joining(id, process)
    };
    let first = beat(&mut shell, &image, &waiting("a", "p")).unwrap();
    assert_eq!((first.member_epoch, first.tasks.unwrap().active), (1, Tasks::new()));
    assert_eq!(first.statuses[0].code, StreamsStatusCode::AssignmentDelayed);
    shell.advance(400);
    beat(&mut shell, &image, &waiting("b", "q")).unwrap();
    shell.advance(100);
    let group = shell.coordinator.describe_streams(GROUP, &image).unwrap();
    assert_eq!((group.epoch, group.assignment_epoch, group.state), (3, 3, "Reconciling"));
    let first = beat(&mut shell, &image, &heartbeat("a", 1)).unwrap();
    let second = beat(&mut shell, &image, &heartbeat("b", 1)).unwrap();
    assert_eq!((first.member_epoch, second.member_epoch), (3, 3));
    assert_eq!(first.tasks.unwrap().active.len() + second.tasks.unwrap().active.len(), 5);
}

#[test]
fn an_active_task_moves_only_when_it_was_given_up() {
    let (mut shell, image) = (shell(), topics());
    beat(&mut shell, &image, &joining("a", "p")).unwrap();
    let second = beat(&mut shell, &image, &joining("b", "q")).unwrap();
    assert_eq!((second.member_epoch, second.tasks.unwrap().active), (3, Tasks::new()));
    let first = beat(&mut shell, &image, &heartbeat("a", 2)).unwrap();
    let kept = first.tasks.unwrap().active;
    assert_eq!((first.member_epoch, kept.len()), (2, 3));
    assert_eq!(beat(&mut shell, &image, &heartbeat("b", 3)).unwrap().tasks, None);
    let first = beat(&mut shell, &image, &owning(heartbeat("a", 2), &kept, &Tasks::new())).unwrap();
    assert_eq!((first.member_epoch, first.tasks), (3, None));
    let second = beat(&mut shell, &image, &heartbeat("b", 3)).unwrap();
    let moved: Tasks = all().difference(&kept).cloned().collect();
    assert_eq!(second.tasks.unwrap().active, moved);
}

#[test]
fn a_member_that_does_not_give_up_in_time_is_removed() {
    let (mut shell, image) = (shell(), topics());
    beat(&mut shell, &image, &joining("a", "p")).unwrap();
    beat(&mut shell, &image, &joining("b", "q")).unwrap();
    // 5 s to give up, during which it heartbeats.
    for _ in 0..10 {
        beat(&mut shell, &image, &heartbeat("a", 2)).unwrap();
        beat(&mut shell, &image, &heartbeat("b", 3)).unwrap();
        shell.advance(500);
    }
    assert_eq!(refused(&mut shell, &heartbeat("a", 2)), ErrorCode::UnknownMemberId);
    let second = beat(&mut shell, &image, &heartbeat("b", 3)).unwrap();
    assert_eq!(second.tasks.unwrap().active, all());
}

#[test]
fn a_silent_member_is_removed() {
    let (mut shell, image) = (shell(), topics());
    beat(&mut shell, &image, &joining("a", "p")).unwrap();
    shell.advance(999);
    beat(&mut shell, &image, &heartbeat("a", 2)).unwrap();
    shell.advance(1_000);
    assert_eq!(refused(&mut shell, &heartbeat("a", 2)), ErrorCode::UnknownMemberId);
}

#[test]
fn a_lost_answer_is_told_again() {
    let (mut shell, image) = (shell(), topics());
    beat(&mut shell, &image, &joining("a", "p")).unwrap();
    beat(&mut shell, &image, &joining("b", "q")).unwrap();
    let lost = beat(&mut shell, &image, &heartbeat("a", 2)).unwrap();
    // It still has all, and says so, as clients do after a failure.
    let again = beat(&mut shell, &image, &owning(heartbeat("a", 2), &all(), &Tasks::new())).unwrap();
    assert_eq!(again.tasks, lost.tasks);
}

#[test]
fn a_copy_in_another_process_takes_over() {
    let (mut shell, image) = (shell(), topics());
    let with_standby = |mut request: StreamsHeartbeat| {
        request.standby_replicas = 1;
        request
    };
    beat(&mut shell, &image, &with_standby(joining("a", "p"))).unwrap();
    beat(&mut shell, &image, &with_standby(joining("b", "q"))).unwrap();
    let first = beat(&mut shell, &image, &with_standby(heartbeat("a", 2))).unwrap().tasks.unwrap();
    beat(
        &mut shell,
        &image,
        &with_standby(owning(heartbeat("a", 2), &first.active, &first.standby)),
    )
    .unwrap();
    let second = beat(&mut shell, &image, &with_standby(heartbeat("b", 3))).unwrap().tasks.unwrap();
    let copies: Tasks = first.active.iter().filter(|task| &*task.subtopology == "1").cloned().collect();
    assert_eq!(second.standby, copies);
    beat(&mut shell, &image, &with_standby(heartbeat("a", -1))).unwrap();
    let gives_up = beat(&mut shell, &image, &with_standby(heartbeat("b", 3))).unwrap().tasks.unwrap();
    assert_eq!(gives_up.standby, Tasks::new());
    let mut epoch = 3;
    let mut active = gives_up.active;
    for _ in 0..2 {
        let answer = beat(
            &mut shell,
            &image,
            &with_standby(owning(heartbeat("b", epoch), &active, &Tasks::new())),
        )
        .unwrap();
        epoch = answer.member_epoch;
        active = answer.tasks.map_or(active, |tasks| tasks.active);
    }
    assert_eq!(active, all());
}

#[test]
fn internal_topics_are_asked_for_until_they_exist() {
    let (mut shell, mut image) = (shell(), topics());
    set_topic(&mut image, "log", 0);
    let answer = beat(&mut shell, &image, &joining("a", "p")).unwrap();
    assert_eq!(answer.statuses[0].code, StreamsStatusCode::MissingInternalTopics);
    assert_eq!(
        (answer.missing_topics[0].name.as_str(), answer.missing_topics[0].partitions),
        ("log", 2)
    );
    let group = shell.coordinator.describe_streams(GROUP, &image).unwrap();
    assert_eq!(
        (group.state, group.topology.subtopologies[1].changelogs[0].partitions),
        ("NotReady", 0)
    );
    set_topic(&mut image, "log", 2);
    let answer = beat(&mut shell, &image, &heartbeat("a", 2)).unwrap();
    assert_eq!((answer.member_epoch, answer.tasks.unwrap().active), (3, all()));
    assert!(answer.statuses.is_empty() && answer.missing_topics.is_empty());
    let group = shell.coordinator.describe_streams(GROUP, &image).unwrap();
    assert_eq!(
        (group.state, group.topology.subtopologies[1].changelogs[0].partitions),
        ("Stable", 2)
    );
}

#[test]
fn heartbeats_that_say_nothing_new_write_nothing() {
    let (mut shell, image) = (shell(), topics());
    beat(&mut shell, &image, &joining("a", "p")).unwrap();
    let before = shell.log.len();
    beat(&mut shell, &image, &owning(heartbeat("a", 2), &all(), &Tasks::new())).unwrap();
    beat(&mut shell, &image, &heartbeat("a", 2)).unwrap();
    beat(&mut shell, &image, &joining("a", "p")).unwrap();
    assert_eq!(shell.log.len(), before);
}

#[test]
fn topologies_that_kafka_fails_on_are_refused() {
    let with = |change: &dyn Fn(&mut super::Topology)| {
        let mut request = joining("a", "p");
        let mut topology = topology();
        change(&mut topology);
        request.topology = Some(topology);
        request
    };
    let group = |index| super::CopartitionGroup {
        sources: vec![index],
        ..super::CopartitionGroup::default()
    };
    let bad = [
        with(&|topology| topology.epoch = -1),
        with(&|topology| topology.subtopologies[1].id = "0".to_owned()),
        with(&|topology| topology.subtopologies[0].copartition_groups.push(group(1))),
        with(&|topology| topology.subtopologies[0].copartition_groups.push(group(-1))),
        with(&|topology| {
            let log = topology.subtopologies[1].changelogs[0].clone();
            topology.subtopologies[1].changelogs.push(log);
        }),
        with(&|topology| {
            let twice = ("a".to_owned(), "b".to_owned());
            topology.subtopologies[1].changelogs[0].configs = vec![twice.clone(), twice];
        }),
    ];
    for request in bad {
        assert_eq!(
            refused(&mut shell(), &request),
            ErrorCode::StreamsInvalidTopology,
            "{:?}",
            request.topology
        );
    }
}

#[test]
fn what_records_cannot_hold_is_refused() {
    let long = "x".repeat(40_000);
    let mut client = joining("a", "p");
    client.client_id.clone_from(&long);
    let mut process = joining("a", &long);
    process.process_id = Some(long.clone());
    let mut tag = joining("a", "p");
    tag.client_tags = Some(vec![("k".to_owned(), long)]);
    let mut twice = joining("a", "p");
    twice.client_tags = Some(vec![("k".to_owned(), "1".to_owned()), ("k".to_owned(), "2".to_owned())]);
    for request in [client, process, tag, twice] {
        assert_eq!(refused(&mut shell(), &request), ErrorCode::InvalidRequest);
    }
    let mut small = Shell::new(GroupConfig {
        group_record_bytes_max: 1_024,
        ..fast_config()
    });
    let mut request = joining("a", "p");
    request.client_tags = Some(vec![("k".to_owned(), "x".repeat(2_000))]);
    assert_eq!(refused(&mut small, &request), ErrorCode::InvalidRequest);
}

#[test]
fn a_full_group_takes_nobody_but_its_members() {
    let mut shell = Shell::new(GroupConfig {
        streams_members_max: 1,
        ..fast_config()
    });
    beat(&mut shell, &topics(), &joining("a", "p")).unwrap();
    assert_eq!(refused(&mut shell, &joining("b", "q")), ErrorCode::GroupMaxSizeReached);
    assert_eq!(beat(&mut shell, &topics(), &joining("a", "p")).unwrap().member_epoch, 2);
}

fn commit(member_id: &str, epoch: i32, topic: &str, partition: i32) -> OffsetCommitRequest {
    let offset = OffsetCommitPartition {
        partition,
        offset: 1,
        leader_epoch: -1,
        metadata: None,
    };
    OffsetCommitRequest {
        group_id: GROUP.into(),
        generation_id: epoch,
        member_id: member_id.into(),
        group_instance_id: None,
        retention_time_ms: None,
        knows_group_id_not_found: true,
        topics: vec![(topic.into(), vec![offset])],
    }
}

#[test]
fn a_task_may_commit_under_the_epochs_in_which_its_member_had_it() {
    let (mut shell, image) = (shell(), topics());
    beat(&mut shell, &image, &joining("a", "p")).unwrap();
    beat(&mut shell, &image, &joining("b", "q")).unwrap();
    let kept = beat(&mut shell, &image, &heartbeat("a", 2)).unwrap().tasks.unwrap().active;
    beat(&mut shell, &image, &owning(heartbeat("a", 2), &kept, &Tasks::new())).unwrap();
    let moved = beat(&mut shell, &image, &heartbeat("b", 3)).unwrap().tasks.unwrap().active;
    let topic = |task: &Task| if &*task.subtopology == "0" { "in" } else { "state" };
    let mut outcome = |member: &str, epoch, task: &Task| {
        let decision = shell
            .coordinator
            .commit_offsets(shell.now_ms, commit(member, epoch, topic(task), task.partition));
        shell.run(decision)[0].1[0].1
    };
    let (old, new) = (kept.first().unwrap(), moved.first().unwrap());
    assert_eq!(outcome("a", 3, old), ErrorCode::None);
    assert_eq!(outcome("a", 2, old), ErrorCode::None);
    assert_eq!(outcome("a", 2, new), ErrorCode::StaleMemberEpoch);
    assert_eq!(outcome("b", 3, new), ErrorCode::None);
    assert_eq!(outcome("b", 2, new), ErrorCode::StaleMemberEpoch);
    assert_eq!(outcome("a", 4, old), ErrorCode::StaleMemberEpoch);
    assert_eq!(outcome("x", 3, old), ErrorCode::UnknownMemberId);
}

#[test]
fn endpoints_are_told_when_they_change() {
    let (mut shell, image) = (shell(), topics());
    let at = |port| Endpoint {
        host: "h".to_owned(),
        port,
    };
    beat(&mut shell, &image, &joining("a", "p")).unwrap();
    let mut joins = joining("b", "q");
    joins.endpoint = Some(at(7));
    let joined = beat(&mut shell, &image, &joins).unwrap();
    let nothing = EndpointTasks {
        endpoint: at(7),
        active: Vec::new(),
        standby: Vec::new(),
    };
    assert_eq!((joined.endpoint_epoch, joined.endpoints), (1, Some(vec![nothing])));
    let kept = beat(&mut shell, &image, &heartbeat("a", 2)).unwrap().tasks.unwrap().active;
    beat(&mut shell, &image, &owning(heartbeat("a", 2), &kept, &Tasks::new())).unwrap();
    let knows = |request: StreamsHeartbeat, endpoint_epoch| StreamsHeartbeat { endpoint_epoch, ..request };
    let answer = beat(&mut shell, &image, &knows(heartbeat("b", 3), 1)).unwrap();
    let told = answer.endpoints.unwrap();
    let read: usize = told[0].active.iter().map(|(_, partitions)| partitions.len()).sum();
    assert_eq!((answer.endpoint_epoch, told.len(), read), (2, 1, 2));
    assert_eq!(beat(&mut shell, &image, &knows(heartbeat("a", 3), 2)).unwrap().endpoints, None);
    assert_eq!(
        beat(&mut shell, &image, &knows(heartbeat("a", 3), 1)).unwrap().endpoints,
        Some(told)
    );
}

#[test]
fn a_shutdown_reaches_all_until_the_group_is_empty() {
    let (mut shell, image) = (shell(), topics());
    beat(&mut shell, &image, &joining("a", "p")).unwrap();
    beat(&mut shell, &image, &joining("b", "q")).unwrap();
    let mut leaving = heartbeat("b", -1);
    leaving.shutdown_application = true;
    beat(&mut shell, &image, &leaving).unwrap();
    let codes = |answer: super::StreamsHeartbeatResponse| answer.statuses.iter().map(|status| status.code).collect::<Vec<_>>();
    let heard = codes(beat(&mut shell, &image, &heartbeat("a", 2)).unwrap());
    assert_eq!(heard, [StreamsStatusCode::ShutdownApplication]);
    beat(&mut shell, &image, &heartbeat("a", -1)).unwrap();
    assert_eq!(codes(beat(&mut shell, &image, &joining("c", "p")).unwrap()), []);
}

#[test]
fn groups_change_their_kind_only_while_they_are_empty() {
    let (mut shell, image) = (shell(), topics());
    beat(&mut shell, &image, &joining("a", "p")).unwrap();
    let token = shell.join(join_request("c", ""));
    let refused = shell.joined(token);
    assert_eq!(refused.error_code, ErrorCode::InconsistentGroupProtocol);
    beat(&mut shell, &image, &heartbeat("a", -1)).unwrap();
    let token = shell.join(join_request("c", ""));
    shell.advance(0);
    shell.settle(&[token]);
    assert_eq!(
        shell.coordinator.describe_streams(GROUP, &image).unwrap_err().code,
        ErrorCode::GroupIdNotFound
    );
    assert_eq!(
        beat(&mut shell, &image, &joining("a", "p")).unwrap_err().code,
        ErrorCode::GroupIdNotFound
    );
    shell.fail_over();
}

#[test]
fn an_unused_group_goes_away_with_its_topology() {
    let (mut shell, image) = (shell(), topics());
    beat(&mut shell, &image, &joining("a", "p")).unwrap();
    beat(&mut shell, &image, &heartbeat("a", -1)).unwrap();
    shell.advance(GroupConfig::default().offsets_retention_check_interval_ms);
    assert!(shell.coordinator.describe_streams(GROUP, &image).is_err());
    assert!(shell.coordinator.list_groups(&[], &[]).is_empty());
    shell.fail_over();
    let mut other = joining("a", "p");
    other.topology.as_mut().unwrap().epoch = 5;
    assert!(beat(&mut shell, &image, &other).is_ok());
}
