//! Offset expiry, by Kafka's rules (KIP-211).
//!
//! | group | an offset expires when … |
//! |-------|--------------------------|
//! | any, the commit named its own time (OffsetCommit v2–v4) | that time is reached |
//! | Empty, had members | the group has been empty for `offsets.retention.minutes` |
//! | simple (never had members) | it was committed `offsets.retention.minutes` ago |
//! | Stable consumers, topic not subscribed | it was committed `offsets.retention.minutes` ago |
//! | all others | never |
//!
//! An Empty group that is left without offsets goes away itself.

use std::collections::BTreeSet;

use super::{
    CommittedOffset, Decision, GroupCoordinator, GroupState, admin::tombstone, modern::ModernKind, state::ClassicGroup,
    streams::StreamsGroup,
};

/// What the retention of a group's offsets counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RetentionBase {
    /// The commit.
    Commit,
    /// The moment the group became empty.
    Emptied(i64),
}

impl GroupCoordinator {
    /// One pass over all groups.
    pub(super) fn expire_offsets(&mut self, now_ms: i64, decision: &mut Decision) {
        let group_ids: BTreeSet<String> = self.groups.keys().chain(self.hard.groups_with_offsets()).cloned().collect();
        self.expire_modern_groups(decision);
        for group_id in group_ids {
            let all_expired = self.expire_group(now_ms, &group_id, decision);
            let has_pending_members = self.groups.get(&group_id).is_some_and(|group| !group.pending_joins.is_empty());
            let is_classic = self.hard.is_classic(&group_id);
            if all_expired && is_classic && !has_pending_members && self.state_of(&group_id) == GroupState::Empty {
                self.bury(&group_id, decision);
            }
        }
    }

    /// Empty consumer and streams groups without offsets go away. Share groups stay until somebody deletes them, as their state is elsewhere.
    fn expire_modern_groups(&mut self, decision: &mut Decision) {
        let groups = self.hard.modern_groups().iter();
        let unused = groups.filter(|(group_id, group)| {
            let is_empty = group.kind == ModernKind::Consumer && group.members.is_empty();
            is_empty && !self.hard.has_offsets(group_id)
        });
        let unused: Vec<String> = unused.map(|(group_id, _)| group_id.clone()).collect();
        for group_id in unused {
            self.bury_modern(&group_id, &mut decision.records);
        }
        let groups = self.hard.streams_groups().iter();
        let unused = groups.filter(|(group_id, group)| group.members.is_empty() && !self.hard.has_offsets(group_id));
        let unused: Vec<String> = unused.map(|(group_id, _)| group_id.clone()).collect();
        for group_id in unused {
            self.bury_streams(&group_id, &mut decision.records);
        }
    }

    /// Expires a group's offsets and says whether none is left.
    fn expire_group(&self, now_ms: i64, group_id: &str, decision: &mut Decision) -> bool {
        let group = self.groups.get(group_id);
        let Some(base) = retention_base(group) else { return false };
        let read_topics = self.hard.streams(group_id).map(StreamsGroup::read_topics).unwrap_or_default();
        let mut all_expired = !self.hard.has_any_pending(group_id);
        for (topic, partitions) in self.hard.offsets(group_id).into_iter().flatten() {
            let is_subscribed = group
                .and_then(|group| group.subscribed_topics.as_ref())
                .is_some_and(|topics| topics.contains(topic))
                || read_topics.contains(topic.as_str())
                || self.is_subscribed_modern(group_id, topic);
            for (partition, stored) in partitions {
                let is_expired =
                    !is_subscribed && self.is_expired(now_ms, base, &stored.commit) && !self.hard.has_pending(group_id, topic, *partition);
                if is_expired {
                    decision.records.push(tombstone(group_id, topic, *partition));
                } else {
                    all_expired = false;
                }
            }
        }
        all_expired
    }

    fn is_expired(&self, now_ms: i64, base: RetentionBase, commit: &CommittedOffset) -> bool {
        if let Some(expire_timestamp_ms) = commit.expire_timestamp_ms {
            return now_ms >= expire_timestamp_ms;
        }
        let since_ms = match base {
            RetentionBase::Commit => commit.commit_timestamp_ms,
            RetentionBase::Emptied(emptied_ms) => emptied_ms,
        };
        now_ms.saturating_sub(since_ms) >= self.config.offsets_retention_ms
    }
}

/// What retention counts from, `None` if the group's offsets do not expire now.
fn retention_base(group: Option<&ClassicGroup>) -> Option<RetentionBase> {
    let Some(group) = group.filter(|group| group.protocol_type.is_some()) else {
        return Some(RetentionBase::Commit);
    };
    match group.state() {
        // Records of old brokers do not say when the group became empty.
        GroupState::Empty => Some(group.state_timestamp_ms.map_or(RetentionBase::Commit, RetentionBase::Emptied)),
        // Without readable subscriptions (other protocol types) nothing is known to be unused.
        GroupState::Stable => group.subscribed_topics.as_ref().map(|_| RetentionBase::Commit),
        GroupState::PreparingRebalance | GroupState::CompletingRebalance | GroupState::Dead => None,
    }
}
