//! I1 to I7: what was sent, read and deleted, and what became of transactions.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::{End, Ended, Found};
use crate::history::{Answer, Call, Event, History, Partition, TransactionId};

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Aborted,
    Unknown,
    Committed,
}

/// A transaction.
struct Transaction {
    outcome: Outcome,
    /// When somebody first asked to commit it.
    commit_invoked: Option<usize>,
}

/// One attempt to send a value; what a transaction lost, another may send again.
#[derive(Debug, Clone, Copy)]
struct Sent {
    has_failed: bool,
    transaction: Option<TransactionId>,
}

/// What a history says of records, before anything is judged.
struct Facts<'a> {
    calls: &'a [Ended<'a>],
    sent: BTreeMap<(Partition, u64), Vec<Sent>>,
    /// The attempt that an offset was acknowledged to.
    acknowledged: BTreeMap<(Partition, i64), Sent>,
    transactions: BTreeMap<TransactionId, Transaction>,
    /// Keys per compacted topic.
    compacted: BTreeMap<Uuid, u64>,
    /// Topics whose logs hold more than what was sent: the markers of transactions.
    with_markers: BTreeSet<Uuid>,
    deleted_topics: BTreeSet<Uuid>,
    /// The offset below which somebody may have deleted everything.
    deleted_below: BTreeMap<Partition, i64>,
    /// Values by offset, as acknowledged or read.
    known: BTreeMap<Partition, BTreeMap<i64, u64>>,
}

pub(super) fn check(history: &History, calls: &[Ended<'_>], found: &mut Found) {
    let mut facts = Facts::of(history, calls);
    facts.learn(found);
    let mut last_reads: BTreeMap<Partition, &[(i64, u64)]> = BTreeMap::new();
    for ended in calls {
        if let (
            Call::Read {
                partition,
                from,
                committed,
                last,
            },
            Some((answered, Answer::Records(records))),
        ) = (ended.call, ended.ok())
        {
            facts.check_read(*partition, *from, records, found);
            if *committed {
                facts.check_committed(*partition, answered, records, found);
            }
            if *last {
                last_reads.insert(*partition, records);
                check_order(*partition, records, found);
                facts.check_start(*partition, *from, found);
            }
        }
    }
    facts.check_kept(&last_reads, found);
    facts.check_torn(&last_reads, found);
    facts.check_sent(found);
}

impl<'a> Facts<'a> {
    fn of(history: &History, calls: &'a [Ended<'a>]) -> Self {
        let compacted = history.events.iter().filter_map(|(_, event)| match event {
            Event::Compacted { topic, keys } => Some((*topic, *keys)),
            _ => None,
        });
        let mut facts = Self {
            calls,
            sent: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            transactions: BTreeMap::new(),
            compacted: compacted.collect(),
            with_markers: BTreeSet::new(),
            deleted_topics: BTreeSet::new(),
            deleted_below: BTreeMap::new(),
            known: BTreeMap::new(),
        };
        for ended in calls {
            facts.note(ended);
        }
        facts
    }

    fn note(&mut self, ended: &Ended<'_>) {
        match ended.call {
            Call::Send {
                partition,
                values,
                transaction,
                ..
            } => {
                let sent = Sent {
                    has_failed: ended.has_failed(),
                    transaction: *transaction,
                };
                for value in values {
                    self.sent.entry((*partition, *value)).or_default().push(sent);
                }
                if let Some((_, Answer::Sent(base_offset))) = ended.ok() {
                    let offsets = (*base_offset..).take(values.len());
                    self.acknowledged.extend(offsets.map(|offset| ((*partition, offset), sent)));
                }
                if let Some(transaction) = transaction {
                    self.with_markers.insert(partition.topic);
                    self.transaction(*transaction);
                }
            }
            Call::EndTransaction { transaction, commit } => {
                let known = self.transaction(*transaction);
                if *commit {
                    known.commit_invoked.get_or_insert(ended.invoked);
                }
                known.outcome = match (known.outcome, *commit, &ended.end) {
                    (Outcome::Committed, ..) | (_, true, End::Ok(..)) => Outcome::Committed,
                    (_, true, End::Unknown) => Outcome::Unknown,
                    // An abort that succeeded ends what a lost commit left open.
                    (_, false, End::Ok(..)) => Outcome::Aborted,
                    (before, ..) => before,
                };
            }
            Call::DeleteTopic { topic } if !ended.has_failed() => {
                self.deleted_topics.insert(*topic);
            }
            Call::DeleteRecords { partition, before } if !ended.has_failed() => {
                let until = self.deleted_below.entry(*partition).or_default();
                *until = (*until).max(*before);
            }
            _ => {}
        }
    }

    /// One that nobody asks to commit is aborted in the end, by its timeout.
    fn transaction(&mut self, id: TransactionId) -> &mut Transaction {
        self.transactions.entry(id).or_insert(Transaction {
            outcome: Outcome::Aborted,
            commit_invoked: None,
        })
    }

    /// I2: collects the values of all offsets.
    fn learn(&mut self, found: &mut Found) {
        for ended in self.calls {
            match (ended.call, ended.ok()) {
                (Call::Send { partition, values, .. }, Some((_, Answer::Sent(base_offset)))) => {
                    let of_partition = self.known.entry(*partition).or_default();
                    for (offset, value) in (*base_offset..).zip(values) {
                        learn_one(of_partition, *partition, offset, *value, found);
                    }
                }
                (Call::Read { partition, .. }, Some((_, Answer::Records(records)))) => {
                    let of_partition = self.known.entry(*partition).or_default();
                    for (offset, value) in records {
                        learn_one(of_partition, *partition, *offset, *value, found);
                    }
                }
                _ => {}
            }
        }
    }

    /// The attempts that may have put a value where it is.
    fn attempts(&self, partition: Partition, offset: i64, value: u64) -> &[Sent] {
        match self.acknowledged.get(&(partition, offset)) {
            Some(sent) => std::slice::from_ref(sent),
            None => self.sent.get(&(partition, value)).map(Vec::as_slice).unwrap_or_default(),
        }
    }

    fn outcomes(&self, partition: Partition, offset: i64, value: u64) -> impl Iterator<Item = Outcome> {
        let transactions = self.attempts(partition, offset, value).iter().map(|sent| sent.transaction);
        transactions.map(|id| id.map_or(Outcome::Committed, |id| self.transactions[&id].outcome))
    }

    /// Whether a known record may be missing from what is read.
    fn may_be_missing(&self, partition: Partition, offset: i64, value: u64) -> bool {
        self.deleted_topics.contains(&partition.topic)
            || self.deleted_below.get(&partition).is_some_and(|until| offset < *until)
            || self.outcomes(partition, offset, value).any(|outcome| outcome != Outcome::Committed)
            || self.is_superseded(partition, offset, value)
    }

    /// Whether a later record has the key of this one.
    fn is_superseded(&self, partition: Partition, offset: i64, value: u64) -> bool {
        let Some(keys) = self.compacted.get(&partition.topic) else {
            return false;
        };
        let later = self.known.get(&partition).into_iter().flat_map(|known| known.range(offset + 1..));
        later
            .filter(|(_, other)| **other % keys == value % keys)
            .any(|(at, other)| self.outcomes(partition, *at, *other).any(|outcome| outcome != Outcome::Aborted))
    }

    /// I5: a read begins where it was asked to, and skips nothing.
    fn check_read(&self, partition: Partition, from: i64, records: &[(i64, u64)], found: &mut Found) {
        let is_dense = !self.with_markers.contains(&partition.topic) && !self.compacted.contains_key(&partition.topic);
        let known = self.known.get(&partition);
        let mut expected = from;
        for (offset, _) in records {
            if *offset < expected || (is_dense && *offset != expected) {
                found.add("I5", format!("{partition}: offset {offset} was read where {expected} was next"));
            } else if *offset > expected {
                let skipped = known.into_iter().flat_map(|known| known.range(expected..*offset));
                for (hole, value) in skipped.filter(|(hole, value)| !self.may_be_missing(partition, **hole, **value)) {
                    found.add(
                        "I5",
                        format!("{partition}: offset {hole} ({value:#x}) was left out before {offset}"),
                    );
                }
            }
            expected = offset + 1;
        }
    }

    /// I6: nothing aborted or open is read as committed.
    fn check_committed(&self, partition: Partition, answered: usize, records: &[(i64, u64)], found: &mut Found) {
        for (offset, value) in records {
            let attempts = self.attempts(partition, *offset, *value);
            // One without a transaction, or a value that nobody sent, which is judged elsewhere.
            let Some(transactions) = attempts.iter().map(|sent| sent.transaction).collect::<Option<Vec<_>>>() else {
                continue;
            };
            let possible = transactions.iter().map(|id| &self.transactions[id]);
            let possible: Vec<_> = possible.filter(|transaction| transaction.outcome != Outcome::Aborted).collect();
            let is_asked_for = |transaction: &&Transaction| transaction.commit_invoked.is_some_and(|invoked| invoked < answered);
            if attempts.is_empty() {
                continue;
            } else if possible.is_empty() {
                found.add("I6", format!("{partition} offset {offset}: {value:#x} was aborted"));
            } else if !possible.iter().any(is_asked_for) {
                found.add("I6", format!("{partition} offset {offset}: {value:#x} was read before its commit"));
            }
        }
    }

    /// I6: of a transaction with an unknown end, all that was acknowledged is there in the end, or nothing.
    fn check_torn(&self, last_reads: &BTreeMap<Partition, &[(i64, u64)]>, found: &mut Found) {
        let mut parts: BTreeMap<TransactionId, (usize, usize)> = BTreeMap::new();
        for (partition, known) in &self.known {
            let Some(records) = last_reads.get(partition) else { continue };
            for (offset, value) in known {
                let [Sent { transaction: Some(id), .. }] = self.attempts(*partition, *offset, *value) else {
                    continue;
                };
                if self.transactions[id].outcome != Outcome::Unknown {
                    continue;
                }
                let is_deleted = self.deleted_below.get(partition).is_some_and(|until| offset < until);
                if is_deleted || self.deleted_topics.contains(&partition.topic) || self.is_superseded(*partition, *offset, *value) {
                    continue;
                }
                let (there, gone) = parts.entry(*id).or_default();
                match records.binary_search_by_key(offset, |(at, _)| *at) {
                    Ok(_) => *there += 1,
                    Err(_) => *gone += 1,
                }
            }
        }
        for (transaction, (there, gone)) in parts {
            if there > 0 && gone > 0 {
                found.add(
                    "I6",
                    format!("transaction {transaction}: {there} of its records are there, {gone} are not"),
                );
            }
        }
    }

    /// I1: whatever is known and was not deleted is there in the end.
    fn check_kept(&self, last_reads: &BTreeMap<Partition, &[(i64, u64)]>, found: &mut Found) {
        for (partition, known) in &self.known {
            let records = last_reads.get(partition).copied().unwrap_or_default();
            for (offset, value) in known {
                let there = records.binary_search_by_key(offset, |(at, _)| *at).map(|index| records[index].1);
                if there != Ok(*value) && !self.may_be_missing(*partition, *offset, *value) {
                    found.add(
                        "I1",
                        format!("{partition} offset {offset}: {value:#x} is not there in the end, but {there:x?}"),
                    );
                }
            }
        }
    }

    /// I6: whatever is known was sent.
    fn check_sent(&self, found: &mut Found) {
        for (partition, known) in &self.known {
            for (offset, value) in known {
                let attempts = self.attempts(*partition, *offset, *value);
                if attempts.is_empty() {
                    found.add("I6", format!("{partition} offset {offset}: {value:#x} was never sent"));
                } else if attempts.iter().all(|sent| sent.has_failed) {
                    found.add("I6", format!("{partition} offset {offset}: {value:#x} was refused"));
                }
            }
        }
    }

    /// I7: the log starts where somebody asked for it, and not before what was acknowledged.
    fn check_start(&self, partition: Partition, start: i64, found: &mut Found) {
        let mut acknowledged = 0;
        let mut possible = vec![0];
        for ended in self.calls.iter().filter(|ended| !ended.has_failed()) {
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
}

fn learn_one(known: &mut BTreeMap<i64, u64>, partition: Partition, offset: i64, value: u64, found: &mut Found) {
    let before = *known.entry(offset).or_insert(value);
    if before != value {
        found.add("I2", format!("{partition} offset {offset}: {before:#x}, then {value:#x}"));
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
