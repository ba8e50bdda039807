//! The invariants that every history must have, each a function of the history alone.
//!
//! | name | promise |
//! |---|---|
//! | I1 | an acknowledged record is there at the end, at its offset; so is whatever was read once |
//! | I2 | an offset of a partition has one value, for ever |
//! | I3 | a record that was sent once is there once |
//! | I4 | the records of one producer lie in a partition in the order in which it sent them |
//! | I5 | a read begins where it was asked to, and skips nothing |
//! | I6 | what was refused, or never sent, is never read; nor, by who wants committed records, what is aborted or still open; a transaction is read whole |
//! | I7 | a log starts where a deletion of records put it; its start, last stable offset and end never go back; no transaction stays open |
//! | I8 | a log's end and its offsets by time take account of every record acknowledged before the question |
//! | I9 | an acknowledged commit is read back, or a later one; only what was committed is read |
//! | I10 | no partition has two owners in a group, and at rest none has no owner |
//! | I11 | the end of a leader epoch never goes back, and lies at or below that of the next epoch |
//! | M1 | an acknowledged topic exists until somebody deletes it, a deleted one never again |
//! | M2 | an acknowledged configuration holds until somebody alters it |
//! | M3 | no producer id is given twice |

mod admin;
mod bounds;
mod groups;
mod records;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use crate::history::{Answer, Call, CallId, Event, History};

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
    records::check(history, &calls, &mut found);
    bounds::check(&calls, &mut found);
    groups::check_commits(&calls, &mut found);
    groups::check_generations(&calls, &mut found);
    groups::check_owners(history, &mut found);
    admin::check_topics(&calls, &mut found);
    admin::check_producer_ids(&calls, &mut found);
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
            Event::Invoke(..) | Event::Holds { .. } | Event::AtRest { .. } | Event::Compacted { .. } | Event::Fault(_) => continue,
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
