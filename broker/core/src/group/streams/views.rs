//! What administrators see of streams groups, and what commits and fetches of offsets check.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millstream_protocol::ErrorCode;

use super::{
    RoleTasks, STREAMS, StreamsChange, StreamsGroup, StreamsMember, Subtopology, Task, TopicInfo, Topology, heartbeat::Log,
    leave::delay_key, topology::Configured,
};
use crate::{
    group::{GroupCoordinator, GroupRecord, OffsetCommitRequest, modern::ModernRefusal},
    metadata::ClusterImage,
};

/// A group as StreamsGroupDescribe shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamsDescription {
    /// The group.
    pub group_id: String,
    /// Name of its state.
    pub state: &'static str,
    /// Its epoch.
    pub epoch: i32,
    /// The epoch of its target.
    pub assignment_epoch: i32,
    /// Its topology; of a ready group with the partition counts that were decided.
    pub topology: Topology,
    /// Its members.
    pub members: Vec<StreamsMemberDescription>,
}

/// A member with its id and target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamsMemberDescription {
    /// Its id.
    pub member_id: String,
    /// What the log says of it.
    pub member: StreamsMember,
    /// What it is to have.
    pub target: RoleTasks,
}

impl GroupCoordinator {
    /// Describes a streams group.
    pub fn describe_streams(&self, group_id: &str, image: &ClusterImage) -> Result<StreamsDescription, ModernRefusal> {
        let group = self.hard.streams(group_id).ok_or_else(|| self.no_such_group(STREAMS, group_id))?;
        let members = group.members.iter().map(|(member_id, member)| StreamsMemberDescription {
            member_id: member_id.clone(),
            member: member.clone(),
            target: group.target.get(member_id).cloned().unwrap_or_default(),
        });
        let raw = group
            .topology
            .as_ref()
            .map(|topology| Topology::clone(topology))
            .unwrap_or_default();
        let configured = self
            .configured(group_id, group, image)
            .ok()
            .filter(|configured| configured.is_ready());
        Ok(StreamsDescription {
            group_id: group_id.to_owned(),
            state: group.state().name(),
            epoch: group.epoch,
            assignment_epoch: group.assignment_epoch,
            topology: decided(raw, configured.as_deref()),
            members: members.collect(),
        })
    }

    /// Whether a member of a streams group may commit these offsets.
    ///
    /// A task keeps the right to commit under the epochs in which it had the task, as the member learns of a new one a heartbeat later.
    pub(in crate::group) fn check_streams_commit(&self, group: &StreamsGroup, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
        let epoch = request.generation_id;
        if epoch < 0 && group.members.is_empty() {
            return Ok(());
        }
        let member = group.members.get(&request.member_id).ok_or(ErrorCode::UnknownMemberId)?;
        let current = &member.current;
        if epoch == current.epoch {
            return Ok(());
        }
        if epoch > current.epoch || epoch < 0 {
            return Err(ErrorCode::StaleMemberEpoch);
        }
        let topics: BTreeSet<&str> = request.topics.iter().map(|(topic, _)| topic.as_str()).collect();
        let parts = group.topology.iter().flat_map(|topology| &topology.subtopologies);
        let mut readers: BTreeMap<&str, Arc<str>> = BTreeMap::new();
        for part in parts {
            let id: Arc<str> = part.id.as_str().into();
            let wanted = part.inputs().filter(|topic| topics.contains(topic));
            readers.extend(wanted.map(|topic| (topic, Arc::clone(&id))));
        }
        let had_it = |subtopology: &Arc<str>, partition: i32| {
            let task = Task {
                subtopology: Arc::clone(subtopology),
                partition,
            };
            let since = current.assigned.active.get(&task).or_else(|| current.revoking.active.get(&task));
            since.is_some_and(|since| epoch >= *since)
        };
        let may_commit = request.topics.iter().all(|(topic, partitions)| {
            let reader = readers.get(topic.as_str());
            reader.is_some_and(|id| partitions.iter().all(|commit| had_it(id, commit.partition)))
        });
        if may_commit { Ok(()) } else { Err(ErrorCode::StaleMemberEpoch) }
    }

    /// Whether a member of a streams group may fetch offsets under this epoch.
    pub(in crate::group) fn check_streams_fetch(group: &StreamsGroup, member_id: &str, epoch: i32) -> Result<(), ErrorCode> {
        let member = group.members.get(member_id).ok_or(ErrorCode::UnknownMemberId)?;
        if member.current.epoch == epoch {
            Ok(())
        } else {
            Err(ErrorCode::StaleMemberEpoch)
        }
    }

    /// Removes an empty group.
    pub(in crate::group) fn bury_streams(&mut self, group_id: &str, records: &mut Vec<GroupRecord>) {
        let Some(group) = self.hard.streams(group_id) else { return };
        assert!(group.members.is_empty(), "group {group_id} is deleted with members");
        let mut log = Log { group_id, records };
        log.record(StreamsChange::TargetEpoch(None));
        log.record(StreamsChange::Group(None));
        log.record(StreamsChange::Topology(None));
        self.streams_memory.remove(group_id);
        self.timers.cancel(&delay_key(group_id));
    }
}

impl StreamsGroup {
    /// The topics that the members read.
    pub(in crate::group) fn read_topics(&self) -> BTreeSet<&str> {
        let topology = self.topology.as_ref().filter(|_| !self.members.is_empty());
        let parts = topology.into_iter().flat_map(|topology| &topology.subtopologies);
        parts.flat_map(Subtopology::inputs).collect()
    }
}

/// The topology as it is described: all lists in order, with the partition counts that were decided.
fn decided(mut topology: Topology, configured: Option<&Configured>) -> Topology {
    topology.subtopologies.sort_by(|one, other| one.id.cmp(&other.id));
    for part in &mut topology.subtopologies {
        if let Some(configured) = configured {
            let tasks = configured.parts.get(&part.id).map_or(0, |part| part.tasks);
            part.changelogs.iter_mut().for_each(|topic| topic.partitions = tasks);
            for topic in part.repartition_sources.iter_mut().filter(|topic| topic.partitions == 0) {
                topic.partitions = configured.repartition_counts.get(&topic.name).copied().unwrap_or(0);
            }
        }
        sort(part);
    }
    topology
}

fn sort(part: &mut Subtopology) {
    let by_name = |one: &TopicInfo, other: &TopicInfo| one.name.cmp(&other.name);
    part.sources.sort();
    part.sinks.sort();
    part.changelogs.sort_by(by_name);
    part.repartition_sources.sort_by(by_name);
}
