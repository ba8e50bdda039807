//! Streams groups: the coordinator hands the *tasks* of a stream processing application to its members (KIP-1071).
//!
//! An application is a [`Topology`]: subtopologies, each with topics to read and topics of its own. A task is one partition of a
//! subtopology; it is *active* with one member, and subtopologies with state can have *standby* copies in other processes.
//!
//! ```text
//! topology    how many tasks there are, and which internal topics have to exist with how many partitions
//! assignor    who gets which task: stays where it was, then where a copy was, then where least is to do
//! reconcile   each member's next step to its target, by its own heartbeats
//! heartbeat   the one request of members, and its answer; leave ends them
//! views       what administrators and commits ask
//! ```
//!
//! As in consumer groups, the *group epoch* counts changes, the *target* is computed for an epoch, and a member moves to it at its own pace:
//!
//! | state \ to      | Stable                                     | UnrevokedTasks                      | UnreleasedTasks                    |
//! |-----------------|--------------------------------------------|-------------------------------------|------------------------------------|
//! | Stable          | new target, nothing to give up or wait for  | must give up what it still runs     | waits for what others still run    |
//! | UnrevokedTasks  | has given up all, gets the rest             | next target takes more away         | has given up all, waits for others |
//! | UnreleasedTasks | others gave up what it waited for           | next target takes something away    | still waits                        |
//!
//! No task is active with a member while another may still run it, and no process has two copies of one task.
//!
//! A group is ready when all topics it needs exist with fitting partition counts. Until then its target is empty, and every answer says
//! in its statuses what is missing. The shell creates the internal topics that an answer names.

mod answer;
mod assignor;
mod heartbeat;
mod leave;
mod reconcile;
mod records;
mod topology;
mod validate;
mod views;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod record_tests;
#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod test_app;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use answer::{EndpointTasks, StreamsHeartbeatResponse, StreamsStatus, StreamsStatusCode};
pub use heartbeat::StreamsHeartbeat;
pub use records::{GroupValue, StreamsChange, StreamsRecord};
use topology::Configured;
pub use topology::{InternalTopic, TASKS_MAX};

pub use views::{StreamsDescription, StreamsMemberDescription};

/// The epoch before any topology was found to be ready.
const NOT_VALIDATED: i32 = -1;
/// Name of this kind of groups.
const STREAMS: &str = "streams";
/// Name of the setting that the assignor works with.
const NUM_STANDBY_REPLICAS: &str = "num.standby.replicas";

/// One partition of a subtopology.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Task {
    /// Id of the subtopology, shared by its tasks.
    pub subtopology: Arc<str>,
    /// The partition.
    pub partition: i32,
}

/// A set of tasks.
pub type Tasks = BTreeSet<Task>;

/// Tasks by what is done with them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoleTasks {
    /// Run.
    pub active: Tasks,
    /// Copied, to take over when the active one fails.
    pub standby: Tasks,
    /// Copied, to become active. The coordinator gives none, as Kafka 4.2.
    pub warmup: Tasks,
}

/// Tasks that a member has; of active ones also the epoch in which it got them, from which on it may commit for them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeldTasks {
    /// Run, with the epoch of each.
    pub active: BTreeMap<Task, i32>,
    /// See [`RoleTasks::standby`].
    pub standby: Tasks,
    /// See [`RoleTasks::warmup`].
    pub warmup: Tasks,
}

impl HeldTasks {
    fn is_empty(&self) -> bool {
        self.active.is_empty() && self.standby.is_empty() && self.warmup.is_empty()
    }

    fn without_epochs(&self) -> RoleTasks {
        RoleTasks {
            active: self.active.keys().cloned().collect(),
            standby: self.standby.clone(),
            warmup: self.warmup.clone(),
        }
    }
}

/// A topic that belongs to the application.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// Its partitions; 0 lets the coordinator decide.
    pub partitions: i32,
    /// Its replicas; 0 is the cluster's default.
    pub replication_factor: i16,
    /// Its configuration.
    pub configs: Vec<(String, String)>,
}

/// Topics of a subtopology that need as many partitions as each other, by their indices in its lists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopartitionGroup {
    /// In [`Subtopology::sources`].
    pub sources: Vec<i16>,
    /// In [`Subtopology::source_regexes`].
    pub source_regexes: Vec<i16>,
    /// In [`Subtopology::repartition_sources`].
    pub repartition_sources: Vec<i16>,
}

/// A part of the application whose tasks do not depend on each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subtopology {
    /// Its id.
    pub id: String,
    /// Topics that it reads.
    pub sources: Vec<String>,
    /// Patterns of topics that it reads. Refused, as by Kafka 4.2.
    pub source_regexes: Vec<String>,
    /// Topics that its stores are restored from: with any, it has state.
    pub changelogs: Vec<TopicInfo>,
    /// Repartition topics that it writes.
    pub sinks: Vec<String>,
    /// Repartition topics that it reads.
    pub repartition_sources: Vec<TopicInfo>,
    /// Which of what it reads is joined.
    pub copartition_groups: Vec<CopartitionGroup>,
}

impl Subtopology {
    /// Every topic that it reads.
    fn inputs(&self) -> impl Iterator<Item = &str> {
        let repartitioned = self.repartition_sources.iter().map(|topic| topic.name.as_str());
        self.sources.iter().map(String::as_str).chain(repartitioned)
    }
}

/// What an application consists of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology {
    /// Its version, by the application.
    pub epoch: i32,
    /// Its parts.
    pub subtopologies: Vec<Subtopology>,
}

/// Where others reach a member, for interactive queries.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// Who a member is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberMetadata {
    /// `group.instance.id`; static members do not exist in streams groups yet, but records have the field.
    pub instance_id: Option<String>,
    /// Its rack.
    pub rack_id: Option<String>,
    /// Its client id.
    pub client_id: String,
    /// Where it connects from, as Kafka shows it: `/10.0.0.1`.
    pub client_host: String,
    /// Time it may take to give up tasks, in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// The epoch of its topology.
    pub topology_epoch: i32,
    /// The process that it runs in: members of one process share its state.
    pub process_id: String,
    /// Where it is reached.
    pub endpoint: Option<Endpoint>,
    /// `client.tag.*`
    pub client_tags: BTreeMap<String, String>,
}

/// How far a member is on its way to the target assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum TaskState {
    /// It has what the target of its epoch says.
    #[default]
    Stable,
    /// It was told to give up tasks and has not confirmed it.
    UnrevokedTasks,
    /// It waits for tasks that others still have.
    UnreleasedTasks,
    /// Written by a version that knows more states: the member has to start over.
    Unknown,
}

/// What a member has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CurrentTasks {
    /// Its epoch.
    pub epoch: i32,
    /// The epoch before, which a retried heartbeat may still name.
    pub previous_epoch: i32,
    /// The state.
    pub state: TaskState,
    /// Tasks that it may run.
    pub assigned: HeldTasks,
    /// Tasks that it has to give up.
    pub revoking: HeldTasks,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamsMember {
    /// Who it is.
    pub metadata: MemberMetadata,
    /// What it has.
    pub current: CurrentTasks,
}

/// A group, as the log defines it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamsGroup {
    /// Grows with each change of members, of their topics or of settings. The first is 2.
    pub epoch: i32,
    /// What the topics looked like at that epoch.
    pub topics_hash: u64,
    /// The topology's epoch if it was ready at the group's epoch, else -1.
    pub validated_epoch: i32,
    /// Settings of the assignor at that epoch.
    pub assignment_configs: BTreeMap<String, String>,
    /// What the application consists of.
    pub topology: Option<Arc<Topology>>,
    /// The epoch that the target was computed for.
    pub assignment_epoch: i32,
    /// Members by id.
    pub members: BTreeMap<String, StreamsMember>,
    /// What each member is to have.
    pub target: BTreeMap<String, RoleTasks>,
}

/// The state of a whole group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamsState {
    /// No members.
    Empty,
    /// Topics are missing or do not fit.
    NotReady,
    /// A new target is due.
    Assigning,
    /// Members are on their way to the target.
    Reconciling,
    /// All have their target.
    Stable,
}

impl StreamsState {
    /// Its name in descriptions and lists.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::NotReady => "NotReady",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

impl StreamsGroup {
    /// The state that describes the group.
    pub fn state(&self) -> StreamsState {
        let is_there = |member: &StreamsMember| member.current.epoch == self.assignment_epoch && member.current.state == TaskState::Stable;
        if self.members.is_empty() {
            StreamsState::Empty
        } else if self.topology.as_ref().is_none_or(|topology| topology.epoch != self.validated_epoch) {
            StreamsState::NotReady
        } else if self.epoch > self.assignment_epoch {
            StreamsState::Assigning
        } else if self.members.values().all(is_there) {
            StreamsState::Stable
        } else {
            StreamsState::Reconciling
        }
    }

    fn value(&self) -> GroupValue {
        GroupValue {
            epoch: self.epoch,
            topics_hash: self.topics_hash,
            validated_epoch: self.validated_epoch,
            assignment_configs: self.assignment_configs.clone(),
        }
    }

    pub(super) fn apply(&mut self, change: &StreamsChange) {
        match change {
            StreamsChange::Group(Some(value)) => {
                self.epoch = value.epoch;
                self.topics_hash = value.topics_hash;
                self.validated_epoch = value.validated_epoch;
                self.assignment_configs.clone_from(&value.assignment_configs);
            }
            // The whole group goes with it.
            StreamsChange::Group(None) => {}
            StreamsChange::Topology(topology) => self.topology.clone_from(topology),
            StreamsChange::Member(member_id, Some(metadata)) => {
                self.members.entry(member_id.clone()).or_default().metadata = metadata.clone();
            }
            StreamsChange::Member(member_id, None) => {
                self.members.remove(member_id);
            }
            StreamsChange::TargetEpoch(epoch) => self.assignment_epoch = epoch.unwrap_or(0),
            StreamsChange::Target(member_id, Some(tasks)) => {
                self.target.insert(member_id.clone(), tasks.clone());
            }
            StreamsChange::Target(member_id, None) => {
                self.target.remove(member_id);
            }
            StreamsChange::Current(member_id, Some(current)) => {
                // Compaction can leave this record before the member's own.
                self.members.entry(member_id.clone()).or_default().current = current.clone();
            }
            // This tombstone is written before the member's own.
            StreamsChange::Current(member_id, None) => {
                if let Some(member) = self.members.get_mut(member_id) {
                    member.current = CurrentTasks::default();
                }
            }
        }
    }
}

/// What the coordinator remembers of a group and the log does not.
#[derive(Debug, Clone, Default)]
pub(super) struct StreamsMemory {
    /// What the topics come to, and the image that they were looked up in.
    configured: Option<(u64, Arc<Configured>)>,
    /// Grows when the tasks of a member with an endpoint change.
    endpoint_epoch: i32,
    /// The member that asked for the whole application to stop.
    shutdown_requested_by: Option<String>,
}
