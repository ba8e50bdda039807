//! What a heartbeat is answered: statuses, tasks, and what is read where.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Endpoint, InternalTopic, RoleTasks, StreamsGroup, StreamsHeartbeat, StreamsMember, Subtopology, Task, topology::Configured};
use crate::group::GroupCoordinator;

/// Codes of [`StreamsStatus`], as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StreamsStatusCode {
    /// The member runs an older topology than the group.
    StaleTopology = 0,
    /// Topics that the application reads do not exist.
    MissingSourceTopics = 1,
    /// Topics do not have the partitions that they need.
    IncorrectlyPartitionedTopics = 2,
    /// Topics of the application do not exist yet.
    MissingInternalTopics = 3,
    /// A member asked for the whole application to stop.
    ShutdownApplication = 4,
    /// The group waits for more members.
    AssignmentDelayed = 5,
}

/// Something that a member has to know of its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamsStatus {
    /// What.
    pub code: StreamsStatusCode,
    /// For people.
    pub detail: String,
}

/// The partitions that are read at an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointTasks {
    /// Where.
    pub endpoint: Endpoint,
    /// Partitions by topic that active tasks read.
    pub active: Vec<(String, Vec<i32>)>,
    /// The same of standby tasks.
    pub standby: Vec<(String, Vec<i32>)>,
}

/// Answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamsHeartbeatResponse {
    /// The member.
    pub member_id: String,
    /// Its epoch from now on.
    pub member_epoch: i32,
    /// When to come again.
    pub heartbeat_interval_ms: i32,
    /// What it has to know.
    pub statuses: Vec<StreamsStatus>,
    /// Its tasks; `None` if they did not change.
    pub tasks: Option<RoleTasks>,
    /// The epoch of `endpoints`.
    pub endpoint_epoch: i32,
    /// What is read where; `None` if the member knows it.
    pub endpoints: Option<Vec<EndpointTasks>>,
    /// Topics that the shell has to create on the member's behalf.
    pub missing_topics: Arc<[InternalTopic]>,
}

impl GroupCoordinator {
    pub(super) fn streams_response(
        &self,
        request: &StreamsHeartbeat,
        group: &StreamsGroup,
        member: &StreamsMember,
        configured: &Configured,
        is_delayed: bool,
        tells: bool,
    ) -> StreamsHeartbeatResponse {
        let memory = self.streams_memory.get(&request.group_id);
        let endpoint_epoch = memory.map_or(0, |memory| memory.endpoint_epoch);
        let requester = memory.and_then(|memory| memory.shutdown_requested_by.as_deref());
        let knows_endpoints = endpoint_epoch == request.endpoint_epoch;
        StreamsHeartbeatResponse {
            member_id: request.member_id.clone(),
            member_epoch: member.current.epoch,
            heartbeat_interval_ms: request.heartbeat_interval_ms,
            statuses: statuses(group, member, configured, is_delayed, requester),
            tasks: tells.then(|| member.current.assigned.without_epochs()),
            endpoint_epoch,
            endpoints: (!knows_endpoints).then(|| endpoints(group, &request.member_id, configured)),
            missing_topics: Arc::clone(&configured.missing),
        }
    }
}

fn statuses(
    group: &StreamsGroup,
    member: &StreamsMember,
    configured: &Configured,
    is_delayed: bool,
    shutdown_requested_by: Option<&str>,
) -> Vec<StreamsStatus> {
    let mut statuses = Vec::new();
    let mut add = |code, detail: String| statuses.push(StreamsStatus { code, detail });
    let own = member.metadata.topology_epoch;
    if let Some(epoch) = group.topology.as_ref().map(|topology| topology.epoch).filter(|epoch| *epoch > own) {
        let detail = format!("The member's topology epoch {own} is behind the group's topology epoch {epoch}.");
        add(StreamsStatusCode::StaleTopology, detail);
    }
    if is_delayed {
        let detail = "Assignment delayed due to the configured initial rebalance delay.";
        add(StreamsStatusCode::AssignmentDelayed, detail.to_owned());
    }
    if let Some((code, detail)) = &configured.problem {
        add(*code, detail.clone());
    }
    if let Some(requester) = shutdown_requested_by {
        let detail =
            format!("Streams group member {requester} encountered a fatal error and requested a shutdown for the entire application.");
        add(StreamsStatusCode::ShutdownApplication, detail);
    }
    statuses
}

/// What is read at each endpoint: the others', then the member's own.
fn endpoints(group: &StreamsGroup, member_id: &str, configured: &Configured) -> Vec<EndpointTasks> {
    let Some(topology) = &group.topology else { return Vec::new() };
    let parts: BTreeMap<&str, &Subtopology> = topology.subtopologies.iter().map(|part| (part.id.as_str(), part)).collect();
    let read = |tasks: &mut dyn Iterator<Item = &Task>| -> Vec<(String, Vec<i32>)> {
        let mut by_part: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for task in tasks {
            by_part.entry(&task.subtopology).or_default().push(task.partition);
        }
        let mut topics = Vec::new();
        for (id, partitions) in by_part {
            let inputs: BTreeSet<&str> = parts.get(id).into_iter().flat_map(|part| part.inputs()).collect();
            for name in inputs {
                let count = configured.counts.get(name).copied().unwrap_or(0);
                let read: Vec<i32> = partitions.iter().copied().filter(|partition| *partition < count).collect();
                if !read.is_empty() {
                    topics.push((name.to_owned(), read));
                }
            }
        }
        topics
    };
    let is_own = |id: &str| id == member_id;
    let (own, others): (Vec<_>, Vec<_>) = group.members.iter().partition(|(id, _)| is_own(id));
    let reached = others.into_iter().chain(own).filter_map(|(_, member)| {
        let assigned = &member.current.assigned;
        Some(EndpointTasks {
            endpoint: member.metadata.endpoint.clone()?,
            active: read(&mut assigned.active.keys()),
            standby: read(&mut assigned.standby.iter()),
        })
    });
    reached.collect()
}
