//! The checker finds what it is there for: each test breaks a good history in one way.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::violations;
use crate::history::{Answer, Call, Event, History, Partition};

const TOPIC: Uuid = Uuid::from_u128(1);
const GROUP: &str = "readers";
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
        transaction: None,
        timestamp: None,
    }
}

fn read(history: &mut History, from: i64, values: &[u64], last: bool) {
    let call = Call::Read {
        partition: PARTITION,
        from,
        committed: false,
        last,
    };
    let records = (from..).zip(values.iter().copied()).collect();
    ok(history, call, Answer::Records(records));
}

fn commit(history: &mut History, offset: i64) {
    let call = Call::Commit {
        group: GROUP.to_owned(),
        partition: PARTITION,
        offset,
    };
    ok(history, call, Answer::Done);
}

fn fetch(history: &mut History, offset: i64) {
    let group = GROUP.to_owned();
    let call = Call::FetchCommitted {
        group,
        partition: PARTITION,
    };
    ok(history, call, Answer::Committed(offset));
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
        committed: false,
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
                group: GROUP.to_owned(),
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

/// A transaction with two records at offsets 0 and 1, and how it ended if somebody ended it.
fn with_transaction(commit: Option<(bool, Event)>) -> History {
    let mut history = History::default();
    for (offset, value) in [(0, 1), (1, 2)] {
        let call = Call::Send {
            producer: 0,
            partition: PARTITION,
            values: vec![value],
            transaction: Some(7),
            timestamp: None,
        };
        ok(&mut history, call, Answer::Sent(offset));
    }
    if let Some((commit, end)) = commit {
        let id = history.invoke(0, Call::EndTransaction { transaction: 7, commit });
        let end = match end {
            Event::Ok(_, answer) => Event::Ok(id, answer),
            Event::Fail(_, why) => Event::Fail(id, why),
            _ => Event::Unknown(id),
        };
        history.push(0, end);
    }
    history
}

fn read_committed(history: &mut History, records: &[(i64, u64)], last: bool) {
    let call = Call::Read {
        partition: PARTITION,
        from: 0,
        committed: true,
        last,
    };
    ok(history, call, Answer::Records(records.to_vec()));
}

#[test]
fn aborted_and_open_transactions_are_not_read_as_committed() {
    let aborted = || with_transaction(Some((false, Event::Ok(0, Answer::Done))));
    let refused = || with_transaction(Some((true, Event::Fail(0, "fenced".to_owned()))));
    for mut history in [with_transaction(None), aborted(), refused()] {
        read_committed(&mut history, &[], true);
        assert_eq!(broken(&history), [""; 0]);
        read_committed(&mut history, &[(0, 1)], false);
        assert_eq!(broken(&history), ["I6"]);
    }
    let mut history = with_transaction(None);
    read_committed(&mut history, &[(0, 1)], false);
    let call = Call::EndTransaction {
        transaction: 7,
        commit: true,
    };
    ok(&mut history, call, Answer::Done);
    read_committed(&mut history, &[(0, 1), (1, 2)], true);
    assert_eq!(broken(&history), ["I6"]);
}

#[test]
fn committed_transactions_are_read_whole_and_unknown_ones_whole_or_not_at_all() {
    let mut committed = with_transaction(Some((true, Event::Ok(0, Answer::Done))));
    let unknown = with_transaction(Some((true, Event::Unknown(0))));
    for records in [&[][..], &[(0, 1), (1, 2)]] {
        let mut history = unknown.clone();
        read_committed(&mut history, records, true);
        assert_eq!(broken(&history), [""; 0]);
    }
    let mut torn = unknown;
    read_committed(&mut torn, &[(1, 2)], true);
    assert_eq!(broken(&torn), ["I6"]);
    read_committed(&mut committed, &[(0, 1)], true);
    assert_eq!(broken(&committed), ["I1"]);
}

#[test]
fn only_superseded_records_of_a_compacted_topic_may_go() {
    let mut history = History::default();
    history.push(0, Event::Compacted { topic: TOPIC, keys: 2 });
    ok(&mut history, send(&[1, 2, 3]), Answer::Sent(0));
    let last = |records: &[(i64, u64)]| {
        let mut history = history.clone();
        read_committed(&mut history, records, true);
        history
    };
    assert_eq!(broken(&last(&[(1, 2), (2, 3)])), [""; 0]);
    assert_eq!(broken(&last(&[(2, 3)])), ["I5", "I1"]);
    assert_eq!(broken(&last(&[(0, 1), (1, 2)])), ["I1"]);
}

fn bounds(history: &mut History, start: i64, stable: i64, end: i64, last: bool) {
    let call = Call::Bounds {
        partition: PARTITION,
        last,
    };
    ok(history, call, Answer::Bounds { start, stable, end });
}

#[test]
fn bounds_that_go_back_and_transactions_that_stay_open_are_found() {
    let mut history = History::default();
    bounds(&mut history, 0, 3, 5, false);
    bounds(&mut history, 1, 5, 5, true);
    assert_eq!(broken(&history), [""; 0]);
    for (start, stable, end, last) in [
        (0, 5, 5, false),
        (1, 4, 5, false),
        (1, 4, 4, false),
        (1, 6, 5, false),
        (1, 5, 6, true),
    ] {
        let mut history = history.clone();
        bounds(&mut history, start, stable, end, last);
        assert_eq!(broken(&history), ["I7"], "{start} {stable} {end}");
    }
}

#[test]
fn end_and_offsets_by_time_must_know_acknowledged_records() {
    let mut history = History::default();
    for (offset, timestamp) in [(0, 100), (1, 200), (2, 300)] {
        let call = Call::Send {
            producer: 0,
            partition: PARTITION,
            values: vec![timestamp as u64],
            transaction: None,
            timestamp: Some(timestamp),
        };
        ok(&mut history, call, Answer::Sent(offset));
    }
    read(&mut history, 0, &[100, 200, 300], true);
    let with = |timestamp, offset| {
        let mut history = history.clone();
        let call = Call::OffsetAt {
            partition: PARTITION,
            timestamp,
        };
        ok(&mut history, call, Answer::Offset(offset));
        history
    };
    assert_eq!(broken(&with(150, 1)), [""; 0]);
    assert_eq!(broken(&with(301, -1)), [""; 0]);
    for (timestamp, offset) in [(150, 2), (150, -1), (150, 0)] {
        assert_eq!(broken(&with(timestamp, offset)), ["I8"], "{timestamp} {offset}");
    }
    bounds(&mut history, 0, 2, 2, false);
    assert_eq!(broken(&history), ["I8"]);
}

fn holds(history: &mut History, member: &str, numbers: &[i32]) {
    holds_or_lost(history, member, numbers, false);
}

fn holds_or_lost(history: &mut History, member: &str, numbers: &[i32], lost: bool) {
    let partitions = numbers.iter().map(|number| Partition {
        topic: TOPIC,
        number: *number,
    });
    let event = Event::Holds {
        group: GROUP.to_owned(),
        member: member.to_owned(),
        partitions: partitions.collect(),
        lost,
    };
    history.push(0, event);
}

#[test]
fn two_owners_at_a_time_and_none_at_rest_are_found() {
    let mut history = History::default();
    holds(&mut history, "a", &[0, 1]);
    holds(&mut history, "a", &[0]);
    holds(&mut history, "b", &[1]);
    let at_rest = Event::AtRest {
        group: GROUP.to_owned(),
        partitions: vec![PARTITION],
    };
    history.push(0, at_rest.clone());
    assert_eq!(broken(&history), [""; 0]);
    let mut twice = history.clone();
    holds(&mut twice, "b", &[0, 1]);
    assert_eq!(broken(&twice), ["I10"]);
    holds(&mut history, "a", &[]);
    history.push(0, at_rest);
    assert_eq!(broken(&history), ["I10"]);
}

#[test]
fn a_member_that_was_silent_loses_to_another_and_says_so() {
    let overlap = |lost| {
        let mut history = History::default();
        holds(&mut history, "a", &[0, 1]);
        holds(&mut history, "b", &[1]);
        holds_or_lost(&mut history, "a", &[0], lost);
        holds(&mut history, "b", &[1, 2]);
        broken(&history)
    };
    assert_eq!(overlap(true), [""; 0]);
    assert_eq!(overlap(false), ["I10"]);
}

#[test]
fn epoch_that_ends_earlier_than_before_is_found() {
    let mut history = History::default();
    let mut tell = |epoch, end| {
        let call = Call::EpochEnd {
            partition: PARTITION,
            epoch,
        };
        ok(&mut history, call, Answer::Offset(end));
        broken(&history)
    };
    assert_eq!(tell(1, 5), [""; 0]);
    assert_eq!(tell(0, 3), [""; 0]);
    assert_eq!(tell(1, 4), ["I11"]);
}

#[test]
fn history_is_read_back_from_its_lines() {
    let mut history = with_transaction(Some((true, Event::Unknown(0))));
    holds(&mut history, "a", &[0]);
    let lines: Vec<String> = history.events.iter().map(|event| serde_json::to_string(event).unwrap()).collect();
    let again = History::read(lines.join("\n").as_bytes()).unwrap();
    assert_eq!(again.events, history.events);
    assert!(History::read(&b"[1,{\"invoke\":[1,{}]}]"[..]).is_err());
}

#[test]
fn value_that_was_sent_again_after_an_abort_is_there_once() {
    let mut history = with_transaction(Some((false, Event::Ok(0, Answer::Done))));
    let call = Call::Send {
        producer: 1,
        partition: PARTITION,
        values: vec![1],
        transaction: Some(8),
        timestamp: None,
    };
    ok(&mut history, call, Answer::Sent(5));
    let call = Call::EndTransaction {
        transaction: 8,
        commit: true,
    };
    ok(&mut history, call, Answer::Done);
    let mut good = history.clone();
    read_committed(&mut good, &[(5, 1)], true);
    assert_eq!(broken(&good), [""; 0]);
    let mut lost = history.clone();
    read_committed(&mut lost, &[], true);
    assert_eq!(broken(&lost), ["I1"]);
    read_committed(&mut history, &[(0, 1), (5, 1)], true);
    assert_eq!(broken(&history), ["I6", "I3"]);
}
