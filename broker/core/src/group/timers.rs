//! Deadlines by key, ordered by time: what Kafka's coordinator timer is, without a clock.

use std::collections::{BTreeMap, BTreeSet};

use super::modern::ModernKind;

/// What a deadline is for. Setting a key again replaces its deadline.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TimerKey {
    /// A member's session, or the wait of a pending or new member.
    Session {
        /// The group.
        group_id: String,
        /// The member.
        member_id: String,
    },
    /// The end of a join phase.
    Join {
        /// The group.
        group_id: String,
    },
    /// The end of the wait for SyncGroup.
    Sync {
        /// The group.
        group_id: String,
    },
    /// The session of a member of a consumer or share group.
    ModernSession {
        /// The kind of the group.
        kind: ModernKind,
        /// The group.
        group_id: String,
        /// The member.
        member_id: String,
    },
    /// The end of a member's time to give up partitions.
    Revocation {
        /// The group.
        group_id: String,
        /// The member.
        member_id: String,
    },
    /// The wait for a classic member of a consumer group that was told to join again.
    Rejoin {
        /// The group.
        group_id: String,
        /// The member.
        member_id: String,
    },
    /// The wait for the SyncGroup of a classic member of a consumer group that joined.
    MemberSync {
        /// The group.
        group_id: String,
        /// The member.
        member_id: String,
    },
    /// What the patterns of a consumer group mean is known, and to be written down.
    Regexes {
        /// The group.
        group_id: String,
    },
    /// The session of a member of a streams group.
    StreamsSession {
        /// The group.
        group_id: String,
        /// The member.
        member_id: String,
    },
    /// The end of a member's time to give up tasks.
    TaskRevocation {
        /// The group.
        group_id: String,
        /// The member.
        member_id: String,
    },
    /// The end of a streams group's wait for its first members.
    StreamsDelay {
        /// The group.
        group_id: String,
    },
    /// The next pass of offset expiry.
    OffsetExpiry,
}

impl TimerKey {
    /// The group that it is about, if its coordinator assigns what members do.
    pub fn modern_group(&self) -> Option<&str> {
        match self {
            Self::ModernSession { group_id, .. }
            | Self::Revocation { group_id, .. }
            | Self::Rejoin { group_id, .. }
            | Self::MemberSync { group_id, .. }
            | Self::StreamsSession { group_id, .. }
            | Self::TaskRevocation { group_id, .. }
            | Self::Regexes { group_id }
            | Self::StreamsDelay { group_id } => Some(group_id),
            Self::Session { .. } | Self::Join { .. } | Self::Sync { .. } | Self::OffsetExpiry => None,
        }
    }
}

/// A set of deadlines.
#[derive(Debug, Default)]
pub(super) struct Timers {
    deadline_by_key: BTreeMap<TimerKey, i64>,
    by_deadline: BTreeSet<(i64, TimerKey)>,
}

impl Timers {
    /// Sets or moves the deadline of a key.
    pub fn schedule(&mut self, key: TimerKey, deadline_ms: i64) {
        if let Some(old_ms) = self.deadline_by_key.insert(key.clone(), deadline_ms) {
            self.by_deadline.remove(&(old_ms, key.clone()));
        }
        self.by_deadline.insert((deadline_ms, key));
    }

    /// Sets the deadline of a key that has none.
    pub fn schedule_if_absent(&mut self, key: TimerKey, deadline_ms: i64) {
        if !self.deadline_by_key.contains_key(&key) {
            self.schedule(key, deadline_ms);
        }
    }

    /// Whether a key has a deadline.
    pub fn contains(&self, key: &TimerKey) -> bool {
        self.deadline_by_key.contains_key(key)
    }

    /// Forgets a key.
    pub fn cancel(&mut self, key: &TimerKey) {
        if let Some((key, deadline_ms)) = self.deadline_by_key.remove_entry(key) {
            self.by_deadline.remove(&(deadline_ms, key));
        }
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<i64> {
        self.by_deadline.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// Takes the earliest key whose deadline is not after `now_ms`.
    pub fn pop_due(&mut self, now_ms: i64) -> Option<TimerKey> {
        if self.next_deadline()? > now_ms {
            return None;
        }
        let (_, key) = self.by_deadline.pop_first()?;
        self.deadline_by_key.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(group_id: &str) -> TimerKey {
        TimerKey::Join {
            group_id: group_id.to_owned(),
        }
    }

    #[test]
    fn due_keys_come_out_in_order_of_deadline_and_only_once() {
        let mut timers = Timers::default();
        timers.schedule(join("b"), 20);
        timers.schedule(join("a"), 30);
        timers.schedule(join("c"), 10);
        timers.schedule(join("c"), 25);
        timers.cancel(&join("a"));
        assert_eq!(timers.next_deadline(), Some(20));
        assert_eq!(timers.pop_due(19), None);
        assert_eq!(timers.pop_due(25), Some(join("b")));
        assert_eq!(timers.pop_due(25), Some(join("c")));
        assert_eq!(timers.pop_due(i64::MAX), None);
        assert_eq!(timers.next_deadline(), None);
    }
}
