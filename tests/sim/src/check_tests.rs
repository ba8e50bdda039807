//! The checker finds what it is there for: each test breaks a good history in one way.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::{
    check::violations,
    history::{Answer, Call, Event, History, Partition},
};

const TOPIC: Uuid = Uuid::from_u128(1);
const PARTITION: Partition = Partition { topic: TOPIC, number: 0 };

fn ok(history: &mut History, call: Call, answer: Answer) {
    let id = history.invoke(0, call);
    history.push(0, Event::Ok(id, answer));
}

fn send(values: &[u64]) -> Call {
    Call::Send {
        producer: 0,
        partition: PARTITION,
        values: values.to_vec(),
    }
}

fn read(history: &mut History, from: i64, values: &[u64], last: bool) {
    let call = Call::Read {
        partition: PARTITION,
        from,
        last,
    };
    let records = (from..).zip(values.iter().copied()).collect();
    ok(history, call, Answer::Records(records));
}

fn commit(history: &mut History, offset: i64) {
    let call = Call::Commit {
        partition: PARTITION,
        offset,
    };
    ok(history, call, Answer::Done);
}

fn fetch(history: &mut History, offset: i64) {
    ok(history, Call::FetchCommitted { partition: PARTITION }, Answer::Committed(offset));
}

fn sync(history: &mut History, generation: i32, member: &str, numbers: &[i32]) {
    let member = member.to_owned();
    ok(history, Call::Sync { generation, member }, Answer::Owns(numbers.to_vec()));
}

fn set_retention(value: &str) -> Call {
    Call::SetRetention {
        topic: TOPIC,
        value: value.to_owned(),
    }
}

fn list(history: &mut History, topics: &[(Uuid, Option<&str>)]) {
    let topics = topics.iter().map(|(id, retention)| (*id, retention.map(str::to_owned)));
    ok(history, Call::ListTopics, Answer::Topics(topics.collect::<BTreeMap<_, _>>()));
}

/// Values 1 and 2, acknowledged at offsets 0 and 1.
fn with_two_records() -> History {
    let mut history = History::default();
    ok(&mut history, send(&[1, 2]), Answer::Sent(0));
    history
}

/// The names of the broken invariants, each once.
fn broken(history: &History) -> Vec<&'static str> {
    let mut names: Vec<&str> = violations(history).into_iter().map(|violation| violation.invariant).collect();
    names.dedup();
    names
}

#[test]
fn good_history_is_good() {
    let mut history = with_two_records();
    history.invoke(0, send(&[3]));
    read(&mut history, 0, &[1], false);
    commit(&mut history, 1);
    fetch(&mut history, 1);
    read(&mut history, 1, &[2, 3], false);
    read(&mut history, 0, &[1, 2, 3], true);
    assert_eq!(broken(&history), [""; 0]);
}

#[test]
fn lost_write_is_found() {
    let mut history = with_two_records();
    read(&mut history, 0, &[1], true);
    assert_eq!(broken(&history), ["I1"]);
}

#[test]
fn lost_partition_is_found() {
    assert_eq!(broken(&with_two_records()), ["I1"]);
}

#[test]
fn record_that_was_read_and_is_lost_is_found() {
    let mut history = History::default();
    history.invoke(0, send(&[1]));
    read(&mut history, 0, &[1], false);
    read(&mut history, 0, &[], true);
    assert_eq!(broken(&history), ["I1"]);
}

#[test]
fn offset_with_two_values_is_found() {
    let mut history = with_two_records();
    history.invoke(0, send(&[3]));
    read(&mut history, 0, &[1, 3], false);
    read(&mut history, 0, &[1, 2], true);
    assert_eq!(broken(&history), ["I2"]);
}

#[test]
fn duplicate_is_found() {
    let mut history = with_two_records();
    read(&mut history, 0, &[1, 2, 2], true);
    assert_eq!(broken(&history), ["I3"]);
}

#[test]
fn reordered_records_are_found() {
    let mut history = History::default();
    history.invoke(0, send(&[1]));
    history.invoke(0, send(&[2]));
    read(&mut history, 0, &[2, 1], true);
    assert_eq!(broken(&history), ["I4"]);
}

#[test]
fn skipped_offset_is_found() {
    let mut history = with_two_records();
    let call = Call::Read {
        partition: PARTITION,
        from: 0,
        last: false,
    };
    ok(&mut history, call, Answer::Records(vec![(1, 2)]));
    read(&mut history, 0, &[1, 2], true);
    assert_eq!(broken(&history), ["I5"]);
}

#[test]
fn refused_and_invented_records_are_found() {
    let mut history = with_two_records();
    let refused = history.invoke(0, send(&[3]));
    history.push(0, Event::Fail(refused, "full".to_owned()));
    read(&mut history, 0, &[1, 2, 3, 4], true);
    assert_eq!(violations(&history).len(), 2);
    assert_eq!(broken(&history), ["I6"]);
}

#[test]
fn deleted_records_may_go_and_must_not_come_back() {
    let mut history = with_two_records();
    let call = Call::DeleteRecords {
        partition: PARTITION,
        before: 1,
    };
    ok(&mut history, call, Answer::Done);
    let mut good = history.clone();
    read(&mut good, 1, &[2], true);
    assert_eq!(broken(&good), [""; 0]);
    read(&mut history, 0, &[1, 2], true);
    assert_eq!(broken(&history), ["I7"]);
}

#[test]
fn regressed_commit_is_found() {
    let mut history = History::default();
    commit(&mut history, 3);
    commit(&mut history, 7);
    fetch(&mut history, 3);
    assert_eq!(broken(&history), ["I9"]);
}

#[test]
fn offset_that_nobody_committed_is_found() {
    let mut history = History::default();
    commit(&mut history, 3);
    fetch(&mut history, 4);
    assert_eq!(broken(&history), ["I9"]);
}

#[test]
fn commit_without_answer_may_have_happened_or_not() {
    for outcome in [3, 7] {
        let mut history = History::default();
        commit(&mut history, 3);
        history.invoke(
            0,
            Call::Commit {
                partition: PARTITION,
                offset: 7,
            },
        );
        fetch(&mut history, outcome);
        assert_eq!(broken(&history), [""; 0]);
    }
}

#[test]
fn two_owners_in_one_generation_are_found() {
    let mut history = History::default();
    sync(&mut history, 1, "a", &[0, 1]);
    sync(&mut history, 1, "b", &[2]);
    sync(&mut history, 2, "b", &[0, 1]);
    assert_eq!(broken(&history), [""; 0]);
    sync(&mut history, 1, "b", &[1]);
    assert_eq!(broken(&history), ["I10"]);
}

#[test]
fn lost_and_resurrected_topics_are_found() {
    let mut history = History::default();
    ok(&mut history, Call::CreateTopic { topic: TOPIC }, Answer::Done);
    list(&mut history, &[(TOPIC, None)]);
    assert_eq!(broken(&history), [""; 0]);
    let mut lost = history.clone();
    list(&mut lost, &[]);
    assert_eq!(broken(&lost), ["M1"]);
    ok(&mut history, Call::DeleteTopic { topic: TOPIC }, Answer::Done);
    list(&mut history, &[(TOPIC, None)]);
    assert_eq!(broken(&history), ["M1"]);
}

#[test]
fn lost_configuration_is_found() {
    let mut history = History::default();
    ok(&mut history, set_retention("1"), Answer::Done);
    history.invoke(0, set_retention("2"));
    list(&mut history, &[(TOPIC, Some("1"))]);
    list(&mut history, &[(TOPIC, Some("2"))]);
    assert_eq!(broken(&history), [""; 0]);
    list(&mut history, &[(TOPIC, None)]);
    assert_eq!(broken(&history), ["M2"]);
}

#[test]
fn producer_id_given_twice_is_found() {
    let mut history = History::default();
    ok(&mut history, Call::TakeProducerIds, Answer::ProducerIds(0..10));
    ok(&mut history, Call::TakeProducerIds, Answer::ProducerIds(9..19));
    assert_eq!(broken(&history), ["M3"]);
}
