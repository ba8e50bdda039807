//! What administrators ask: DescribeGroups, ListGroups, DeleteGroups, OffsetDelete, and the deletion of a topic.

use std::collections::BTreeSet;

use bytes::Bytes;
use millstream_protocol::error_code::ErrorCode;

use super::{
    Decision, GroupCoordinator, GroupDescription, GroupRecord, GroupState, ListedGroup, MemberDescription, OffsetDeleteResponse,
    modern::ModernKind,
    state::{ClassicGroup, Member},
    streams::StreamsGroup,
};

/// What ListGroups calls our groups in its types filter.
const GROUP_TYPE: &str = "classic";

impl GroupCoordinator {
    /// DescribeGroups for one group. An unknown group is Dead.
    pub fn describe_group(&self, group_id: &str) -> GroupDescription {
        let mut description = GroupDescription {
            error_code: ErrorCode::None,
            is_other_kind: !self.hard.is_classic(group_id),
            group_id: group_id.to_owned(),
            state: GroupState::Empty,
            protocol_type: String::new(),
            protocol: String::new(),
            members: Vec::new(),
        };
        if description.is_other_kind {
            description.error_code = ErrorCode::GroupIdNotFound;
            description.state = GroupState::Dead;
        } else if let Some(group) = self.groups.get(group_id) {
            let is_stable = group.state() == GroupState::Stable;
            description.state = group.state();
            description.protocol_type = group.protocol_type.clone().unwrap_or_default();
            description.protocol = group.protocol.clone().filter(|_| is_stable).unwrap_or_default();
            description.members = describe_members(group, is_stable);
        } else if !self.hard.has_offsets(group_id) {
            description.error_code = ErrorCode::GroupIdNotFound;
            description.state = GroupState::Dead;
        }
        description
    }

    /// ListGroups: groups whose state and type are in the filters; an empty filter lets all through. Names match in any case.
    pub fn list_groups(&self, states: &[String], types: &[String]) -> Vec<ListedGroup> {
        let lower = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase()).collect::<BTreeSet<_>>();
        let (states, types) = (lower(states), lower(types));
        let matches = |filter: &BTreeSet<String>, name: &str| filter.is_empty() || filter.contains(&name.to_ascii_lowercase());
        let ids: BTreeSet<&String> = self.groups.keys().chain(self.hard.groups_with_offsets()).collect();
        let classic = ids.into_iter().filter(|group_id| self.hard.is_classic(group_id));
        let listed = classic.map(|group_id| {
            let group = self.groups.get(group_id);
            ListedGroup {
                group_id: group_id.clone(),
                protocol_type: group.and_then(|group| group.protocol_type.clone()).unwrap_or_default(),
                state: group.map_or(GroupState::Empty, ClassicGroup::state).name(),
                group_type: GROUP_TYPE,
            }
        });
        let modern = self.hard.modern_groups().iter().map(|(group_id, group)| {
            let name = group.kind.name();
            ListedGroup {
                group_id: group_id.clone(),
                protocol_type: name.to_owned(),
                state: group.state().name(),
                group_type: name,
            }
        });
        let streams = self.hard.streams_groups().iter().map(|(group_id, group)| ListedGroup {
            group_id: group_id.clone(),
            protocol_type: "streams".to_owned(),
            state: group.state().name(),
            group_type: "streams",
        });
        let wanted = |group: &ListedGroup| matches(&states, group.state) && matches(&types, group.group_type);
        listed.chain(modern).chain(streams).filter(wanted).collect()
    }

    /// DeleteGroups: removes empty groups with all their offsets. The outcomes are in request order.
    pub fn delete_groups(&mut self, group_ids: &[String]) -> Decision<Vec<(String, ErrorCode)>> {
        let mut deleted = BTreeSet::new();
        let mut outcomes = Vec::with_capacity(group_ids.len());
        for group_id in group_ids {
            let outcome = match self.state_of(group_id) {
                _ if self.has_other_members(group_id) => ErrorCode::NonEmptyGroup,
                GroupState::Dead => ErrorCode::GroupIdNotFound,
                GroupState::Empty if deleted.contains(group_id.as_str()) => ErrorCode::GroupIdNotFound,
                GroupState::Empty => ErrorCode::None,
                GroupState::PreparingRebalance | GroupState::CompletingRebalance | GroupState::Stable => ErrorCode::NonEmptyGroup,
            };
            if outcome == ErrorCode::None {
                deleted.insert(group_id.as_str());
            }
            outcomes.push((group_id.clone(), outcome));
        }
        let records = self.offset_tombstones(|group_id, _| deleted.contains(group_id));
        let mut decision = Decision {
            records,
            ..Decision::<()>::default()
        };
        for group_id in deleted {
            if self.hard.modern(group_id).is_some() {
                self.bury_modern(group_id, &mut decision.records);
            } else if self.hard.streams(group_id).is_some() {
                self.bury_streams(group_id, &mut decision.records);
            } else {
                self.bury(group_id, &mut decision);
            }
        }
        decision.with_response(outcomes)
    }

    /// OffsetDelete. Partitions of topics that a running group subscribes to are refused.
    pub fn delete_offsets(&self, group_id: &str, topics: &[(String, Vec<i32>)]) -> Decision<OffsetDeleteResponse> {
        let mut decision = Decision::<()>::default();
        let group = self.groups.get(group_id);
        let error_code = match self.state_of(group_id) {
            _ if group_id.is_empty() => ErrorCode::InvalidGroupId,
            GroupState::Dead => ErrorCode::GroupIdNotFound,
            GroupState::Empty => ErrorCode::None,
            // What members of other kinds of groups read is not known here.
            GroupState::PreparingRebalance | GroupState::CompletingRebalance | GroupState::Stable => {
                let is_consumer = group.is_some_and(|group| group.protocol_type.as_deref() == Some("consumer"));
                if is_consumer { ErrorCode::None } else { ErrorCode::NonEmptyGroup }
            }
        };
        if error_code != ErrorCode::None {
            return decision.with_response(OffsetDeleteResponse {
                error_code,
                topics: Vec::new(),
            });
        }
        let read_topics = self.hard.streams(group_id).map(StreamsGroup::read_topics).unwrap_or_default();
        let mut outcomes = Vec::with_capacity(topics.len());
        for (topic, partitions) in topics {
            // What a consumer reads whose subscription cannot be read is not known, and so may be this.
            let is_subscribed = group
                .filter(|group| group.state() != GroupState::Empty)
                .is_some_and(|group| group.subscribed_topics.as_ref().is_none_or(|topics| topics.contains(topic)))
                || read_topics.contains(topic.as_str())
                || self.is_subscribed_modern(group_id, topic);
            let outcome = if is_subscribed {
                ErrorCode::GroupSubscribedToTopic
            } else {
                ErrorCode::None
            };
            outcomes.push((topic.clone(), partitions.iter().map(|partition| (*partition, outcome)).collect()));
            let committed = partitions
                .iter()
                .filter(|partition| self.hard.offset(group_id, topic, **partition).is_some());
            for partition in committed.filter(|_| !is_subscribed) {
                decision.records.push(tombstone(group_id, topic, *partition));
            }
        }
        decision.with_response(OffsetDeleteResponse {
            error_code,
            topics: outcomes,
        })
    }

    /// Topics were deleted: so are all offsets for them.
    pub fn topics_deleted(&self, topics: &BTreeSet<String>) -> Decision {
        let records = self.offset_tombstones(|_, topic| topics.contains(topic));
        Decision {
            records,
            ..Decision::default()
        }
    }

    fn offset_tombstones(&self, wanted: impl Fn(&str, &str) -> bool) -> Vec<GroupRecord> {
        let keys = self.hard.offset_keys(wanted);
        keys.into_iter()
            .map(|(group_id, topic, partition)| GroupRecord::Offset {
                group_id,
                topic,
                partition,
                value: None,
            })
            .collect()
    }

    /// The state that a request sees: a group that only has offsets is Empty.
    pub(super) fn state_of(&self, group_id: &str) -> GroupState {
        match self.groups.get(group_id) {
            Some(group) => group.state(),
            None if !self.hard.is_classic(group_id) || self.hard.has_offsets(group_id) => GroupState::Empty,
            None => GroupState::Dead,
        }
    }

    /// Whether the group is of a kind that no classic member joins now.
    pub(super) fn keeps_classic_out(&self, group_id: &str) -> bool {
        let is_share = self.hard.modern(group_id).is_some_and(|group| group.kind == ModernKind::Share);
        is_share || self.has_other_members(group_id)
    }

    /// Whether the group has members that are assigned by the coordinator.
    pub(super) fn has_other_members(&self, group_id: &str) -> bool {
        let has_streams_members = self.hard.streams(group_id).is_some_and(|group| !group.members.is_empty());
        has_streams_members || self.hard.modern(group_id).is_some_and(|group| !group.members.is_empty())
    }

    /// Removes an empty group itself.
    pub(super) fn bury(&mut self, group_id: &str, decision: &mut Decision) {
        if let Some(group) = self.groups.remove(group_id) {
            assert!(
                group.state() == GroupState::Empty,
                "group {group_id} is deleted in state {}",
                group.state()
            );
            group.cancel_timers(&mut self.timers);
        }
        decision.records.push(GroupRecord::Group {
            group_id: group_id.to_owned(),
            value: None,
        });
    }
}

pub(super) fn tombstone(group_id: &str, topic: &str, partition: i32) -> GroupRecord {
    GroupRecord::Offset {
        group_id: group_id.to_owned(),
        topic: topic.to_owned(),
        partition,
        value: None,
    }
}

fn describe_members(group: &ClassicGroup, is_stable: bool) -> Vec<MemberDescription> {
    let describe = |member: &Member| MemberDescription {
        member_id: member.id.clone(),
        group_instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        metadata: if is_stable {
            member.metadata(group.protocol.as_deref())
        } else {
            Bytes::new()
        },
        assignment: member.assignment.clone(),
    };
    group.members().map(describe).collect()
}
