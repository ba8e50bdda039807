//! [`ShareCoordinator`]: the durable state of share partitions, for one partition of `__share_group_state`.

use std::collections::BTreeMap;

use super::{ShareKey, ShareRecord, ShareState};

/// Keeps what share partitions wrote. A key-value store with a log: each method returns the records to append.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ShareCoordinator {
    states: BTreeMap<ShareKey, ShareState>,
}

impl ShareCoordinator {
    /// A record that the log took: live after the append, and on replay.
    pub fn apply(&mut self, record: &ShareRecord) {
        match &record.value {
            Some(state) => drop(self.states.insert(record.key.clone(), state.clone())),
            None => drop(self.states.remove(&record.key)),
        }
    }

    /// The state of a partition, if anything was written.
    pub fn read(&self, key: &ShareKey) -> Option<&ShareState> {
        self.states.get(key)
    }

    /// All partitions of a group.
    pub fn of_group<'a>(&'a self, group_id: &'a str) -> impl Iterator<Item = (&'a ShareKey, &'a ShareState)> {
        self.states.iter().filter(move |(key, _)| key.group_id == group_id)
    }

    /// Forgets partitions that are wanted no more.
    pub fn forget(&self, is_gone: impl Fn(&ShareKey) -> bool) -> Vec<ShareRecord> {
        let gone = self.states.keys().filter(|key| is_gone(key));
        gone.map(|key| ShareRecord {
            key: key.clone(),
            value: None,
        })
        .collect()
    }
}
