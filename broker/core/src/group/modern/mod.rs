//! Groups whose coordinator assigns partitions: consumer groups of KIP-848, and share groups (KIP-932).
//!
//! There are no rebalances that everybody waits for. The *group epoch* counts changes of subscriptions and topics; the *target assignment*
//! is computed for an epoch; each member moves to it by its own heartbeats, at its own pace.
//!
//! A member of a consumer group:
//!
//! | state \ to          | Stable                                         | UnrevokedPartitions                      | UnreleasedPartitions                  |
//! |---------------------|------------------------------------------------|------------------------------------------|---------------------------------------|
//! | Stable              | new target, nothing to give up or wait for      | must give up what it still owns          | waits for what others still own       |
//! | UnrevokedPartitions | has given up all, gets the rest                 | next target takes more away              | has given up all, waits for others    |
//! | UnreleasedPartitions| others gave up what it waited for               | next target takes something away         | still waits                           |
//!
//! No partition is given to a member while another may still read it: a partition is free only when no member has it assigned or is
//! giving it up (I10). Members of share groups have their target at once, as partitions are shared.
//!
//! A consumer group can have members that speak the classic protocol, for the time in which an application moves from one to the other:
//! their JoinGroup counts as a heartbeat that says everything, SyncGroup gives them what they have, and Heartbeat tells them to join
//! again when there is something to give up or to get. `migration` says when a group becomes one kind or the other.

mod assignor;
mod classic;
mod heartbeat;
mod leave;
mod migration;
mod re2;
mod reconcile;
mod records;
mod regexes;
mod target;
mod validate;
mod views;

#[cfg(test)]
mod migration_model_tests;
#[cfg(test)]
mod migration_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod regex_tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
pub use heartbeat::{ClassicJoin, ModernHeartbeat, ModernHeartbeatResponse, ModernRefusal};
pub(super) use leave::session_key;
pub use records::{ModernChange, ModernRecord};
pub(super) use regexes::Regexes;
pub use regexes::compile as compile_pattern;
pub(super) use target::{topic_or_view, topics_hash};
use uuid::Uuid;
pub use views::{ModernDescription, ModernMemberDescription};

/// Partitions by topic id.
pub type TopicIdPartitions = BTreeMap<Uuid, BTreeSet<i32>>;

/// The epoch by which a member leaves.
pub(super) const LEAVE_EPOCH: i32 = -1;
/// The epoch by which a static member leaves to come back.
pub(super) const STATIC_LEAVE_EPOCH: i32 = -2;

/// The kinds of groups that are assigned by the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ModernKind {
    /// Each partition has one member.
    Consumer,
    /// Each partition can have many.
    Share,
}

impl ModernKind {
    /// Its name, as in lists of groups.
    pub fn name(self) -> &'static str {
        match self {
            Self::Consumer => "consumer",
            Self::Share => "share",
        }
    }
}

/// How far a member is on its way to the target assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum MemberState {
    /// It has what the target of its epoch says.
    #[default]
    Stable = 0,
    /// It was told to give up partitions and has not confirmed it.
    UnrevokedPartitions = 1,
    /// It waits for partitions that others still own.
    UnreleasedPartitions = 2,
}

/// What a classic member of a consumer group joined with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicProtocols {
    /// Its session timeout.
    pub session_timeout_ms: i32,
    /// Names and metadata, most wanted first.
    pub protocols: Vec<(String, Bytes)>,
}

/// What a member wants and who it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subscription {
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// Its rack.
    pub rack_id: Option<String>,
    /// Its client id.
    pub client_id: String,
    /// Where it connects from, as Kafka shows it: `/10.0.0.1`.
    pub client_host: String,
    /// Topics by name.
    pub topics: BTreeSet<String>,
    /// Topics by pattern.
    pub regex: Option<String>,
    /// Time it may take to give up partitions, in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// The assignor it prefers.
    pub assignor: Option<String>,
    /// Set for a member that speaks the classic protocol.
    pub classic: Option<ClassicProtocols>,
}

/// What a member has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CurrentAssignment {
    /// Its epoch; -2 while a static member is away.
    pub epoch: i32,
    /// The epoch before, which a retried heartbeat may still name.
    pub previous_epoch: i32,
    /// The state.
    pub state: MemberState,
    /// Partitions it may read.
    pub assigned: TopicIdPartitions,
    /// Partitions it has to give up.
    pub revoking: TopicIdPartitions,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModernMember {
    /// What it wants.
    pub subscription: Subscription,
    /// What it has.
    pub current: CurrentAssignment,
}

/// What a pattern means.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResolvedRegex {
    /// Topics and views that it matches.
    pub topics: Arc<BTreeSet<String>>,
    /// Version of the metadata that it was matched with.
    pub version: u64,
    /// When, in milliseconds since the epoch.
    pub resolved_ms: i64,
}

/// A group, as the log defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModernGroup {
    /// Its kind.
    pub kind: ModernKind,
    /// Grows with each change of subscriptions or of their topics.
    pub epoch: i32,
    /// What the subscribed topics looked like at that epoch.
    pub topics_hash: u64,
    /// The epoch that the target was computed for.
    pub assignment_epoch: i32,
    /// Members by id.
    pub members: BTreeMap<String, ModernMember>,
    /// What each member is to have.
    pub target: BTreeMap<String, TopicIdPartitions>,
    /// What the patterns of its members mean, as far as they are resolved.
    pub regexes: BTreeMap<String, ResolvedRegex>,
}

/// The state of a whole group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModernState {
    /// No members.
    Empty,
    /// A new target is due.
    Assigning,
    /// Members are on their way to the target.
    Reconciling,
    /// All have their target.
    Stable,
}

impl ModernState {
    /// Its name in descriptions and lists.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

impl ModernGroup {
    pub(super) fn new(kind: ModernKind) -> Self {
        Self {
            kind,
            epoch: 0,
            topics_hash: 0,
            assignment_epoch: 0,
            members: BTreeMap::new(),
            target: BTreeMap::new(),
            regexes: BTreeMap::new(),
        }
    }

    /// The state that describes the group.
    pub fn state(&self) -> ModernState {
        let is_there = |member: &ModernMember| member.current.epoch == self.assignment_epoch && member.current.state == MemberState::Stable;
        if self.members.is_empty() {
            ModernState::Empty
        } else if self.kind == ModernKind::Share {
            ModernState::Stable
        } else if self.epoch > self.assignment_epoch {
            ModernState::Assigning
        } else if self.members.values().all(is_there) {
            ModernState::Stable
        } else {
            ModernState::Reconciling
        }
    }

    /// The member with this `group.instance.id`.
    pub(super) fn static_member(&self, instance_id: &str) -> Option<(&String, &ModernMember)> {
        let has_it = |member: &ModernMember| member.subscription.instance_id.as_deref() == Some(instance_id);
        self.members.iter().find(|(_, member)| has_it(member))
    }

    pub(super) fn apply(&mut self, change: &ModernChange) {
        match change {
            ModernChange::Group(value) => {
                if let Some((epoch, topics_hash)) = value {
                    self.epoch = *epoch;
                    self.topics_hash = *topics_hash;
                }
            }
            ModernChange::Member(member_id, Some(subscription)) => {
                let member = self.members.entry(member_id.clone()).or_default();
                member.subscription = subscription.clone();
            }
            ModernChange::Member(member_id, None) => {
                self.members.remove(member_id);
            }
            ModernChange::TargetEpoch(epoch) => self.assignment_epoch = epoch.unwrap_or(0),
            ModernChange::Target(member_id, Some(partitions)) => {
                self.target.insert(member_id.clone(), partitions.clone());
            }
            ModernChange::Target(member_id, None) => {
                self.target.remove(member_id);
            }
            ModernChange::Current(member_id, Some(current)) => {
                // Compaction can leave this record before the member's own.
                self.members.entry(member_id.clone()).or_default().current = current.clone();
            }
            ModernChange::Regex(regex, Some(resolved)) => {
                self.regexes.insert(regex.clone(), resolved.clone());
            }
            ModernChange::Regex(regex, None) => {
                self.regexes.remove(regex);
            }
            // Kafka writes this tombstone before the member's own.
            ModernChange::Current(member_id, None) => {
                if let Some(member) = self.members.get_mut(member_id) {
                    member.current = CurrentAssignment::default();
                }
            }
        }
    }
}
