//! The invariants that every history must have, each a function of the history alone.
//!
//! | name | promise |
//! |---|---|
//! | I1 | an acknowledged record is there at the end, at its offset; so is whatever was read once |
//! | I2 | an offset of a partition has one value, for ever |
//! | I3 | a record that was sent once is there once |
//! | I4 | the records of one producer lie in a partition in the order in which it sent them |
//! | I5 | a read begins where it was asked to, and skips nothing |
//! | I6 | what was refused, or never sent, is never read |
//! | I7 | a log starts where a deletion of records put it |
//! | I9 | an acknowledged commit is read back, or a later one; only what was committed is read |
//! | I10 | no partition has two owners in one generation |
//! | M1 | an acknowledged topic exists until somebody deletes it, a deleted one never again |
//! | M2 | an acknowledged configuration holds until somebody alters it |
//! | M3 | no producer id is given twice |

use std::{collections::BTreeMap, fmt};

use uuid::Uuid;

use crate::history::{Answer, Call, CallId, Event, History, Partition};

/// A promise that a history breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub invariant: &'static str,
    /// How.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}

/// Everything that is wrong with a history.
pub fn violations(history: &History) -> Vec<Violation> {
    let calls = calls(history);
    let mut found = Found::default();
    check_records(&calls, &mut found);
    check_commits(&calls, &mut found);
    check_owners(&calls, &mut found);
    check_topics(&calls, &mut found);
    check_producer_ids(&calls, &mut found);
    found.0
}

#[derive(Default)]
struct Found(Vec<Violation>);

impl Found {
    fn add(&mut self, invariant: &'static str, detail: String) {
        self.0.push(Violation { invariant, detail });
    }
}

/// A call with its end; times are places in the history.
struct Ended<'a> {
    call: &'a Call,
    invoked: usize,
    end: End<'a>,
}

enum End<'a> {
    Ok(usize, &'a Answer),
    Fail,
    Unknown,
}

impl<'a> Ended<'a> {
    fn ok(&self) -> Option<(usize, &'a Answer)> {
        match self.end {
            End::Ok(at, answer) => Some((at, answer)),
            End::Fail | End::Unknown => None,
        }
    }

    fn has_failed(&self) -> bool {
        matches!(self.end, End::Fail)
    }
}

/// The calls in order of their invocation.
fn calls(history: &History) -> Vec<Ended<'_>> {
    let mut ends: BTreeMap<CallId, End<'_>> = BTreeMap::new();
    for (at, (_, event)) in history.events.iter().enumerate() {
        let (call, end) = match event {
            Event::Ok(call, answer) => (call, End::Ok(at, answer)),
            Event::Fail(call, _) => (call, End::Fail),
            Event::Unknown(call) => (call, End::Unknown),
            Event::Invoke(..) | Event::Fault(_) => continue,
        };
        assert!(ends.insert(*call, end).is_none(), "call {call} ended twice");
    }
    let invoked = history.events.iter().enumerate().filter_map(|(at, (_, event))| match event {
        Event::Invoke(id, call) => Some((at, id, call)),
        _ => None,
    });
    invoked
        .map(|(invoked, id, call)| Ended {
            call,
            invoked,
            end: ends.remove(id).unwrap_or(End::Unknown),
        })
        .collect()
}

/// I1 to I7: what was sent, read and deleted.
fn check_records(calls: &[Ended<'_>], found: &mut Found) {
    let mut last_reads: BTreeMap<Partition, &[(i64, u64)]> = BTreeMap::new();
    let mut known: BTreeMap<(Partition, i64), u64> = BTreeMap::new();
    let mut learn = |partition: Partition, offset: i64, value: u64, found: &mut Found| {
        let before = *known.entry((partition, offset)).or_insert(value);
        if before != value {
            found.add("I2", format!("{partition} offset {offset}: {before:#x}, then {value:#x}"));
        }
    };
    for ended in calls {
        match (ended.call, ended.ok()) {
            (Call::Send { partition, values, .. }, Some((_, Answer::Sent(base_offset)))) => {
                let records = (*base_offset..).zip(values);
                records.for_each(|(offset, value)| learn(*partition, offset, *value, found));
            }
            (Call::Read { partition, from, last }, Some((_, Answer::Records(records)))) => {
                for ((offset, value), expected) in records.iter().zip(*from..) {
                    learn(*partition, *offset, *value, found);
                    if *offset != expected {
                        found.add("I5", format!("{partition}: offset {offset} was read where {expected} was next"));
                    }
                }
                if *last {
                    last_reads.insert(*partition, records);
                    check_order(*partition, records, found);
                    check_start(calls, *partition, *from, found);
                }
            }
            _ => {}
        }
    }
    check_kept(calls, &last_reads, &known, found);
    check_sent(calls, &known, found);
}

/// I1: whatever is known and was not deleted is there in the end.
fn check_kept(
    calls: &[Ended<'_>],
    last_reads: &BTreeMap<Partition, &[(i64, u64)]>,
    known: &BTreeMap<(Partition, i64), u64>,
    found: &mut Found,
) {
    let may_be_deleted = |partition: Partition, offset: i64| {
        calls.iter().filter(|ended| !ended.has_failed()).any(|ended| match ended.call {
            Call::DeleteTopic { topic } => *topic == partition.topic,
            Call::DeleteRecords { partition: of, before } => *of == partition && offset < *before,
            _ => false,
        })
    };
    for ((partition, offset), value) in known {
        let records = last_reads.get(partition).copied().unwrap_or_default();
        let there = records.binary_search_by_key(offset, |(at, _)| *at).map(|index| records[index].1);
        if there != Ok(*value) && !may_be_deleted(*partition, *offset) {
            found.add(
                "I1",
                format!("{partition} offset {offset}: {value:#x} is not there in the end, but {there:x?}"),
            );
        }
    }
}

/// I6: whatever is known was sent.
fn check_sent(calls: &[Ended<'_>], known: &BTreeMap<(Partition, i64), u64>, found: &mut Found) {
    let mut sent: BTreeMap<(Partition, u64), bool> = BTreeMap::new();
    for ended in calls {
        if let Call::Send { partition, values, .. } = ended.call {
            sent.extend(values.iter().map(|value| ((*partition, *value), ended.has_failed())));
        }
    }
    for ((partition, offset), value) in known {
        match sent.get(&(*partition, *value)) {
            None => found.add("I6", format!("{partition} offset {offset}: {value:#x} was never sent")),
            Some(true) => found.add("I6", format!("{partition} offset {offset}: {value:#x} was refused")),
            Some(false) => {}
        }
    }
}

/// I7: the log starts where somebody asked for it, and not before what was acknowledged.
fn check_start(calls: &[Ended<'_>], partition: Partition, start: i64, found: &mut Found) {
    let mut acknowledged = 0;
    let mut possible = vec![0];
    for ended in calls.iter().filter(|ended| !ended.has_failed()) {
        match ended.call {
            Call::DeleteRecords { partition: of, before } if *of == partition => {
                possible.push(*before);
                if ended.ok().is_some() {
                    acknowledged = acknowledged.max(*before);
                }
            }
            _ => {}
        }
    }
    if start < acknowledged || !possible.contains(&start) {
        found.add(
            "I7",
            format!("{partition} starts at {start}; deletions asked for {possible:?}, and {acknowledged} was acknowledged"),
        );
    }
}

/// I3 and I4: every record once, and each producer's in order.
fn check_order(partition: Partition, records: &[(i64, u64)], found: &mut Found) {
    let mut offsets: BTreeMap<u64, i64> = BTreeMap::new();
    // A value's upper half is its producer.
    let mut newest: BTreeMap<u64, u64> = BTreeMap::new();
    for (offset, value) in records {
        if let Some(before) = offsets.insert(*value, *offset) {
            found.add("I3", format!("{partition}: {value:#x} is at offsets {before} and {offset}"));
            continue;
        }
        let before = newest.insert(value >> 32, *value).unwrap_or(0);
        if before > *value {
            found.add("I4", format!("{partition} offset {offset}: {value:#x} after {before:#x}"));
        }
    }
}

/// I9: commits. Members read on from what was committed and never go back, so the group's commits only grow.
fn check_commits(calls: &[Ended<'_>], found: &mut Found) {
    let mut commits: BTreeMap<Partition, Vec<(&Ended<'_>, i64)>> = BTreeMap::new();
    for ended in calls {
        if let Call::Commit { partition, offset } = ended.call {
            commits.entry(*partition).or_default().push((ended, *offset));
        }
    }
    for ended in calls {
        let (Call::FetchCommitted { partition }, Some((answered, Answer::Committed(committed)))) = (ended.call, ended.ok()) else {
            continue;
        };
        let of_partition = commits.get(partition).map(Vec::as_slice).unwrap_or_default();
        let acknowledged = of_partition
            .iter()
            .filter(|(commit, _)| commit.ok().is_some_and(|(at, _)| at < ended.invoked))
            .map(|(_, offset)| *offset)
            .max();
        if acknowledged.is_some_and(|acknowledged| *committed < acknowledged) {
            found.add(
                "I9",
                format!("{partition}: {committed} is committed after {acknowledged:?} was acknowledged"),
            );
        }
        let is_known = |(commit, offset): &(&Ended<'_>, i64)| offset == committed && commit.invoked < answered && !commit.has_failed();
        if *committed != -1 && !of_partition.iter().any(is_known) {
            found.add("I9", format!("{partition}: nobody committed {committed}"));
        }
    }
}

/// I10: owners.
fn check_owners(calls: &[Ended<'_>], found: &mut Found) {
    let mut owners: BTreeMap<(i32, i32), &str> = BTreeMap::new();
    for ended in calls {
        let (Call::Sync { generation, member }, Some((_, Answer::Owns(numbers)))) = (ended.call, ended.ok()) else {
            continue;
        };
        for number in numbers {
            let owner = owners.entry((*generation, *number)).or_insert(member);
            if *owner != member {
                found.add(
                    "I10",
                    format!("generation {generation}: {owner} and {member} own partition {number}"),
                );
            }
        }
    }
}

/// M1 and M2: topics and their configurations.
fn check_topics(calls: &[Ended<'_>], found: &mut Found) {
    for listed in calls {
        let (Call::ListTopics, Some((_, Answer::Topics(topics)))) = (listed.call, listed.ok()) else {
            continue;
        };
        let before: Vec<&Ended<'_>> = calls.iter().take_while(|ended| ended.invoked < listed.invoked).collect();
        let is_done = |ended: &Ended<'_>| ended.ok().is_some_and(|(at, _)| at < listed.invoked);
        for ended in &before {
            let deletion = |topic: &Uuid| {
                before
                    .iter()
                    .find(|other| *other.call == Call::DeleteTopic { topic: *topic } && !other.has_failed())
            };
            match ended.call {
                Call::CreateTopic { topic } if is_done(ended) && deletion(topic).is_none() && !topics.contains_key(topic) => {
                    found.add("M1", format!("{topic} was created, and is gone"));
                }
                Call::CreateTopic { topic } if ended.has_failed() && topics.contains_key(topic) => {
                    found.add("M1", format!("{topic} was refused, and is there"));
                }
                Call::DeleteTopic { topic } if is_done(ended) && topics.contains_key(topic) => {
                    found.add("M1", format!("{topic} was deleted, and is there"));
                }
                _ => {}
            }
        }
        for (topic, retention) in topics {
            check_retention(&before, is_done, topic, retention.as_ref(), found);
        }
    }
}

/// Decisions are made one at a time, so a value can be the last acknowledged one, or one that was tried after it.
fn check_retention(
    before: &[&Ended<'_>],
    is_done: impl Fn(&Ended<'_>) -> bool,
    topic: &Uuid,
    retention: Option<&String>,
    found: &mut Found,
) {
    let mut possible = vec![None];
    for ended in before {
        match ended.call {
            Call::SetRetention { topic: of, value } if of == topic && !ended.has_failed() => {
                if is_done(ended) {
                    possible.clear();
                }
                possible.push(Some(value));
            }
            _ => {}
        }
    }
    if !possible.contains(&retention) {
        found.add(
            "M2",
            format!("{topic} has retention.ms {retention:?}, which should be one of {possible:?}"),
        );
    }
}

/// M3: producer ids.
fn check_producer_ids(calls: &[Ended<'_>], found: &mut Found) {
    let mut next = i64::MIN;
    for ended in calls {
        if let Some((_, Answer::ProducerIds(ids))) = ended.ok() {
            if ids.start < next {
                found.add("M3", format!("producer ids {ids:?} were given after those below {next}"));
            }
            next = next.max(ids.end);
        }
    }
}
