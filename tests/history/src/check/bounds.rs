//! I7, I8 and I11: what brokers say of where logs and epochs start and end.

use std::collections::BTreeMap;

use super::{Ended, Found};
use crate::history::{Answer, Call, Partition};

/// A number that must not fall: when it was told, and the largest told until then.
#[derive(Default)]
struct Rising(BTreeMap<usize, i64>);

impl Rising {
    /// What was told last before a question was asked.
    fn before(&self, invoked: usize) -> Option<i64> {
        self.0.range(..invoked).next_back().map(|(_, largest)| *largest)
    }

    fn raise(&mut self, told: usize, value: i64) {
        let largest = self.0.values().next_back().map_or(value, |largest| value.max(*largest));
        self.0.insert(told, largest);
    }
}

/// Answers in the order in which they came, so that each finds those before it.
fn in_order<'a, 'b>(calls: &'b [Ended<'a>]) -> Vec<(usize, &'a Answer, &'b Ended<'a>)> {
    let mut answers: Vec<_> = calls
        .iter()
        .filter_map(|ended| ended.ok().map(|(at, answer)| (at, answer, ended)))
        .collect();
    answers.sort_by_key(|(at, ..)| *at);
    answers
}

pub(super) fn check(calls: &[Ended<'_>], found: &mut Found) {
    let answers = in_order(calls);
    let mut rising: BTreeMap<(Partition, &str), Rising> = BTreeMap::new();
    // When it was told, the epoch, its end.
    let mut epochs: BTreeMap<Partition, Vec<(usize, i32, i64)>> = BTreeMap::new();
    let mut acknowledged: BTreeMap<Partition, Rising> = BTreeMap::new();
    for (at, answer, ended) in &answers {
        match (ended.call, answer) {
            (Call::Send { partition, values, .. }, Answer::Sent(base_offset)) => {
                let end = base_offset + values.len() as i64;
                acknowledged.entry(*partition).or_default().raise(*at, end);
            }
            (Call::Bounds { partition, last }, Answer::Bounds { start, stable, end }) => {
                for (name, value) in [("start", *start), ("last stable offset", *stable), ("end", *end)] {
                    let known = rising.entry((*partition, name)).or_default();
                    if let Some(before) = known.before(ended.invoked)
                        && value < before
                    {
                        found.add("I7", format!("{partition}: the {name} was {before}, and then {value}"));
                    }
                    known.raise(*at, value);
                }
                if stable > end || start > end {
                    found.add("I7", format!("{partition}: from {start} to {end}, stable up to {stable}"));
                }
                if *last && stable != end {
                    found.add("I7", format!("{partition}: a transaction is open at {stable} of {end}"));
                }
                if let Some(acknowledged) = acknowledged.get(partition).and_then(|known| known.before(ended.invoked))
                    && *end < acknowledged
                {
                    found.add("I8", format!("{partition}: ends at {end} after {acknowledged} was acknowledged"));
                }
            }
            (Call::EpochEnd { partition, epoch }, Answer::Offset(end)) => {
                let known = epochs.entry(*partition).or_default();
                let earlier = known.iter().filter(|(told, of, _)| *told < ended.invoked && *of <= *epoch);
                for (_, of, before) in earlier.filter(|(.., before)| end < before) {
                    found.add(
                        "I11",
                        format!("{partition}: epoch {epoch} ends at {end}, but epoch {of} ended at {before}"),
                    );
                }
                known.push((*at, *epoch, *end));
            }
            _ => {}
        }
    }
    check_times(calls, found);
}

/// I8: offsets by time.
fn check_times(calls: &[Ended<'_>], found: &mut Found) {
    // Sends with their times: acknowledged at, time, first offset, number of records.
    let mut sends: BTreeMap<Partition, Vec<(usize, i64, i64, i64)>> = BTreeMap::new();
    let mut deleted: BTreeMap<Partition, i64> = BTreeMap::new();
    for ended in calls {
        match (ended.call, ended.ok()) {
            (
                Call::Send {
                    partition,
                    values,
                    timestamp: Some(timestamp),
                    ..
                },
                Some((at, Answer::Sent(base_offset))),
            ) => {
                let known = (at, *timestamp, *base_offset, values.len() as i64);
                sends.entry(*partition).or_default().push(known);
            }
            (Call::DeleteRecords { partition, before }, _) if !ended.has_failed() => {
                let until = deleted.entry(*partition).or_default();
                *until = (*until).max(*before);
            }
            _ => {}
        }
    }
    for ended in calls {
        let (Call::OffsetAt { partition, timestamp }, Some((_, Answer::Offset(offset)))) = (ended.call, ended.ok()) else {
            continue;
        };
        let known = sends.get(partition).map(Vec::as_slice).unwrap_or_default();
        let kept_from = deleted.get(partition).copied().unwrap_or(0);
        let is_late = |time: i64| time >= *timestamp;
        let due = known
            .iter()
            .filter(|(at, time, base_offset, _)| *at < ended.invoked && is_late(*time) && *base_offset >= kept_from);
        let expected = due.map(|(_, _, base_offset, _)| *base_offset).min();
        if expected.is_some_and(|expected| *offset == -1 || *offset > expected) {
            found.add(
                "I8",
                format!("{partition}: the first record from {timestamp} on is said to be at {offset}, but {expected:?} was acknowledged"),
            );
        }
        let there = known
            .iter()
            .find(|(_, _, base_offset, count)| (*base_offset..base_offset + count).contains(offset));
        if let Some((_, time, ..)) = there
            && !is_late(*time)
        {
            found.add(
                "I8",
                format!("{partition}: the record at {offset} is of {time}, before {timestamp}"),
            );
        }
    }
}
