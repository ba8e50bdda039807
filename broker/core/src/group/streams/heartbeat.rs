//! StreamsGroupHeartbeat: joining, staying, changing and leaving are all one request (KIP-1071).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millstream_protocol::ErrorCode;
use uuid::Uuid;

use super::{
    CurrentTasks, Endpoint, MemberMetadata, NOT_VALIDATED, NUM_STANDBY_REPLICAS, RoleTasks, StreamsChange, StreamsGroup,
    StreamsHeartbeatResponse, StreamsMember, StreamsRecord, Subtopology, Task, TaskState, Topology,
    assignor::assign,
    leave::{delay_key, session_key},
    reconcile::next_tasks,
    topology::{Configured, configure},
    validate::{check_epoch, check_owned, validate},
};
use crate::{
    group::{
        Decision, GroupCoordinator, GroupRecord, GroupState,
        modern::{LEAVE_EPOCH, ModernRefusal, topic_or_view},
    },
    metadata::ClusterImage,
};

/// A heartbeat, free of wire versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamsHeartbeat {
    /// The group.
    pub group_id: String,
    /// The member, which chooses its id itself.
    pub member_id: String,
    /// Its epoch: 0 to join, -1 to leave.
    pub member_epoch: i32,
    /// `group.instance.id`, which is refused.
    pub instance_id: Option<String>,
    /// Its rack; `None` if it did not change.
    pub rack_id: Option<String>,
    /// Client id from the request header.
    pub client_id: String,
    /// Where it connects from, as Kafka shows it: `/10.0.0.1`.
    pub client_host: String,
    /// Time to give up tasks, -1 if it did not change.
    pub rebalance_timeout_ms: i32,
    /// What the application consists of; only when it joins.
    pub topology: Option<Topology>,
    /// What it has of each role; `None` if that did not change.
    pub owned: [Option<BTreeSet<Task>>; 3],
    /// Its process; `None` if it did not change.
    pub process_id: Option<String>,
    /// Where it is reached; `None` if that did not change.
    pub endpoint: Option<Endpoint>,
    /// `client.tag.*`; `None` if they did not change.
    pub client_tags: Option<Vec<(String, String)>>,
    /// It says how far its stores are, which is refused.
    pub has_task_offsets: bool,
    /// It says how far its changelogs are, which is refused.
    pub has_task_end_offsets: bool,
    /// It asks for the whole application to stop.
    pub shutdown_application: bool,
    /// The epoch of what it knows of endpoints, -1 for nothing.
    pub endpoint_epoch: i32,
    /// `streams.session.timeout.ms` of the group.
    pub session_timeout_ms: i32,
    /// `streams.heartbeat.interval.ms` of the group.
    pub heartbeat_interval_ms: i32,
    /// `streams.initial.rebalance.delay.ms` of the group.
    pub initial_rebalance_delay_ms: i32,
    /// `streams.num.standby.replicas` of the group.
    pub standby_replicas: i32,
}

impl StreamsHeartbeat {
    /// Everything that it has, if it says so.
    pub(super) fn owned_tasks(&self) -> Option<RoleTasks> {
        let [Some(active), Some(standby), Some(warmup)] = self.owned.clone() else {
            return None;
        };
        Some(RoleTasks { active, standby, warmup })
    }
}

pub(super) type Answer = Result<StreamsHeartbeatResponse, ModernRefusal>;

/// What a heartbeat comes to.
struct Granted {
    /// The group with the member as they are from now on.
    group: StreamsGroup,
    member: StreamsMember,
    configured: Arc<Configured>,
    before: CurrentTasks,
    /// The wait for more members begins or goes on.
    is_delayed: bool,
}

/// Where records of a group are added.
pub(super) struct Log<'a> {
    pub group_id: &'a str,
    pub records: &'a mut Vec<GroupRecord>,
}

impl Log<'_> {
    pub fn record(&mut self, change: StreamsChange) {
        self.records.push(GroupRecord::Streams(StreamsRecord {
            group_id: self.group_id.to_owned(),
            change,
        }));
    }
}

impl GroupCoordinator {
    /// A heartbeat. `image` is the metadata in which the application's topics are looked up.
    pub fn streams_heartbeat(&mut self, now_ms: i64, request: &StreamsHeartbeat, image: &ClusterImage) -> Decision<Answer> {
        let mut decision = Decision::default();
        let response = validate(request).and_then(|()| self.run_streams_heartbeat(now_ms, request, image, &mut decision));
        if response.is_err() {
            decision.records.clear();
        }
        decision.with_response(response)
    }

    fn run_streams_heartbeat(&mut self, now_ms: i64, request: &StreamsHeartbeat, image: &ClusterImage, decision: &mut Decision) -> Answer {
        if request.member_epoch == LEAVE_EPOCH {
            return self.leave_streams(request, decision);
        }
        if let Some(response) = self.settled(now_ms, request, image) {
            return Ok(response);
        }
        let granted = self.grant(request, image, decision)?;
        self.check_record_sizes(&decision.records)?;
        // From here on it is sure: now what the log does not hold may change.
        let group_id = &request.group_id;
        if let Some(classic) = self.groups.remove(group_id) {
            classic.cancel_timers(&mut self.timers);
        }
        let member = &granted.member;
        let next = &member.current;
        self.renew_streams_timers(now_ms, request, member, *next != granted.before);
        if granted.is_delayed {
            let deadline_ms = now_ms.saturating_add(request.initial_rebalance_delay_ms.into());
            self.timers.schedule_if_absent(delay_key(group_id), deadline_ms);
        }
        let has_news = request.member_epoch == 0 || next.assigned != granted.before.assigned;
        // Unlike Kafka, also a member that says it has something else: the answer with its tasks may have been lost.
        let tells = has_news || request.owned_tasks().is_some_and(|owned| owned != next.assigned.without_epochs());
        let memory = self.streams_memory.entry(group_id.clone()).or_default();
        memory.configured = Some((image.epoch, Arc::clone(&granted.configured)));
        if request.shutdown_application {
            memory.shutdown_requested_by.get_or_insert_with(|| request.member_id.clone());
        }
        // As in Kafka, the first heartbeat of a group does not count.
        if has_news && member.metadata.endpoint.is_some() && self.hard.streams(group_id).is_some() {
            memory.endpoint_epoch += 1;
        }
        Ok(self.streams_response(request, &granted.group, member, &granted.configured, granted.is_delayed, tells))
    }

    /// What the heartbeat of a member that stays comes to. Nothing changes here but the records to write.
    fn grant(&self, request: &StreamsHeartbeat, image: &ClusterImage, decision: &mut Decision) -> Result<Granted, ModernRefusal> {
        let known = match self.hard.streams(&request.group_id) {
            Some(group) => self.find_streams_member(group, request)?,
            None => None,
        };
        let mut group = self.streams_group_for(request, &mut decision.records)?;
        let mut log = Log {
            group_id: &request.group_id,
            records: &mut decision.records,
        };
        let was_empty = group.members.is_empty();
        let metadata = updated_metadata(request, known.as_ref());
        let mut has_changed = known.as_ref().is_none_or(|known| known.metadata != metadata);
        if has_changed {
            log.record(StreamsChange::Member(request.member_id.clone(), Some(metadata.clone())));
        }
        let before = known.map(|member| member.current).unwrap_or_default();
        let member = StreamsMember {
            metadata,
            current: before.clone(),
        };
        group.members.insert(request.member_id.clone(), member.clone());
        if let Some(topology) = &request.topology {
            initialize(&mut group, topology, &mut log)?;
            // Before anything is worked out from it.
            self.check_record_sizes(log.records)?;
        }
        let configured = self.configured(&request.group_id, &group, image)?;
        has_changed |= configured.topics_hash != group.topics_hash;
        let owned = request.owned_tasks();
        let topology_epoch = group.topology.as_ref().map(|topology| topology.epoch);
        let validated_epoch = topology_epoch.filter(|_| configured.is_ready()).unwrap_or(NOT_VALIDATED);
        if validated_epoch != NOT_VALIDATED {
            check_owned(request, &configured)?;
        }
        let assignment_configs = BTreeMap::from([(NUM_STANDBY_REPLICAS.to_owned(), request.standby_replicas.to_string())]);
        has_changed |= validated_epoch != group.validated_epoch || assignment_configs != group.assignment_configs;
        if has_changed {
            // The first epoch is 2, so that those who wait for the first target are in an epoch before it.
            group.epoch = if group.epoch == 0 { 2 } else { group.epoch + 1 };
            group.topics_hash = configured.topics_hash;
            group.validated_epoch = validated_epoch;
            group.assignment_configs = assignment_configs;
            log.record(StreamsChange::Group(Some(group.value())));
        }
        let waits = was_empty && request.initial_rebalance_delay_ms > 0 || self.timers.contains(&delay_key(&request.group_id));
        let is_delayed = waits && group.epoch > group.assignment_epoch;
        if group.epoch > group.assignment_epoch && !is_delayed {
            retarget(&mut group, &configured, &mut log);
        }
        let none = RoleTasks::default();
        let (target_epoch, target) = if is_delayed {
            (group.assignment_epoch.max(1), &none)
        } else {
            let target = group.target.get(&request.member_id);
            (group.assignment_epoch, target.unwrap_or(&none))
        };
        let next = next_tasks(&group, &request.member_id, &before, target_epoch, target, owned.as_ref())?;
        if next != before {
            log.record(StreamsChange::Current(request.member_id.clone(), Some(next.clone())));
        }
        let member = StreamsMember { current: next, ..member };
        group.members.insert(request.member_id.clone(), member.clone());
        Ok(Granted {
            group,
            member,
            configured,
            before,
            is_delayed,
        })
    }

    /// The answer to a member that has all it should have and says nothing new: most heartbeats.
    fn settled(&mut self, now_ms: i64, request: &StreamsHeartbeat, image: &ClusterImage) -> Option<StreamsHeartbeatResponse> {
        let group = self.hard.streams(&request.group_id)?;
        let member = group.members.get(&request.member_id)?;
        let memory = self.streams_memory.get(&request.group_id)?;
        let (_, configured) = memory.configured.as_ref().filter(|(epoch, _)| *epoch == image.epoch)?;
        let (metadata, current) = (&member.metadata, &member.current);
        let is_settled =
            current.state == TaskState::Stable && [request.member_epoch, group.epoch, group.assignment_epoch] == [current.epoch; 3];
        let says_nothing = request.topology.is_none()
            && request.owned.iter().all(Option::is_none)
            && request.rack_id.is_none()
            && request.rebalance_timeout_ms == -1
            && request.process_id.is_none()
            && request.endpoint.is_none()
            && request.client_tags.is_none()
            && !request.shutdown_application
            && (&request.client_id, &request.client_host) == (&metadata.client_id, &metadata.client_host);
        let standby_replicas = group.assignment_configs.get(NUM_STANDBY_REPLICAS);
        let is_configured = standby_replicas.is_some_and(|number| *number == request.standby_replicas.to_string());
        if request.member_epoch <= 0 || !is_settled || !says_nothing || !is_configured {
            return None;
        }
        let response = self.streams_response(request, group, member, configured, false, false);
        let key = session_key(&request.group_id, &request.member_id);
        self.timers.schedule(key, now_ms.saturating_add(request.session_timeout_ms.into()));
        Some(response)
    }

    /// The group, which a member that joins brings into being. An empty classic group makes way.
    fn streams_group_for(&self, request: &StreamsHeartbeat, records: &mut Vec<GroupRecord>) -> Result<StreamsGroup, ModernRefusal> {
        let group_id = &request.group_id;
        if let Some(group) = self.hard.streams(group_id) {
            return Ok(group.clone());
        }
        let not_found = |message| Err(ModernRefusal::new(ErrorCode::GroupIdNotFound, message));
        match self.state_of(group_id) {
            _ if self.hard.modern(group_id).is_some() => not_found(format!("Group {group_id} is not a streams group.")),
            GroupState::Dead if request.member_epoch != 0 => not_found(format!("Streams group {group_id} not found.")),
            GroupState::Empty if request.member_epoch == 0 => {
                // Groups that only ever had offsets have no record.
                if self.groups.contains_key(group_id) {
                    records.push(GroupRecord::Group {
                        group_id: group_id.clone(),
                        value: None,
                    });
                }
                Ok(StreamsGroup::default())
            }
            GroupState::Dead => Ok(StreamsGroup::default()),
            GroupState::Empty | GroupState::PreparingRebalance | GroupState::CompletingRebalance | GroupState::Stable => {
                not_found(format!("Group {group_id} is not a streams group."))
            }
        }
    }

    /// The member that speaks; `None` if it is new.
    fn find_streams_member(&self, group: &StreamsGroup, request: &StreamsHeartbeat) -> Result<Option<StreamsMember>, ModernRefusal> {
        let max = self.config.streams_members_max;
        match group.members.get(&request.member_id) {
            // One that joins again keeps its epoch and its tasks.
            Some(member) if request.member_epoch == 0 => Ok(Some(member.clone())),
            Some(member) => check_epoch(request, &member.current).map(|()| Some(member.clone())),
            None if request.member_epoch != 0 => Err(unknown_member(request)),
            None if group.members.len() >= max => {
                let message = format!("The streams group has reached its maximum capacity of {max} members.");
                Err(ModernRefusal::new(ErrorCode::GroupMaxSizeReached, message))
            }
            None => Ok(None),
        }
    }

    /// What the group's topology comes to on the topics of an image.
    pub(super) fn configured(&self, group_id: &str, group: &StreamsGroup, image: &ClusterImage) -> Result<Arc<Configured>, ModernRefusal> {
        let Some(topology) = &group.topology else {
            return Ok(Arc::default());
        };
        let is_same = |known: &StreamsGroup| known.topology.as_ref().is_some_and(|known| Arc::ptr_eq(known, topology));
        let memory = self.streams_memory.get(group_id).and_then(|memory| memory.configured.as_ref());
        if let Some((epoch, configured)) = memory
            && *epoch == image.epoch
            && self.hard.streams(group_id).is_some_and(is_same)
        {
            return Ok(Arc::clone(configured));
        }
        let lookup = |name: &str| -> Option<(Uuid, i32)> { topic_or_view(image, name) };
        configure(topology, lookup).map(Arc::new)
    }

    /// What could not be read back from the log must not get there.
    pub(super) fn check_record_sizes(&self, records: &[GroupRecord]) -> Result<(), ModernRefusal> {
        let mut sizes = records.iter().map(|record| record.encode_value().map_or(0, |value| value.len()));
        if sizes.any(|size| size > self.config.group_record_bytes_max) {
            let message = "The topology or its assignment is too large.";
            return Err(ModernRefusal::new(ErrorCode::InvalidRequest, message));
        }
        Ok(())
    }
}

fn by_id(topology: &Topology) -> BTreeMap<&str, &Subtopology> {
    topology.subtopologies.iter().map(|part| (part.id.as_str(), part)).collect()
}

/// The first topology is the group's. Another must be the same, or older.
fn initialize(group: &mut StreamsGroup, topology: &Topology, log: &mut Log<'_>) -> Result<(), ModernRefusal> {
    match &group.topology {
        Some(known) if known.epoch > topology.epoch => Ok(()),
        Some(known) if known.epoch == topology.epoch && by_id(known) == by_id(topology) => Ok(()),
        Some(_) => Err(ModernRefusal::new(
            ErrorCode::InvalidRequest,
            "Topology updates are not supported yet.",
        )),
        None => {
            let topology = Arc::new(topology.clone());
            group.topology = Some(Arc::clone(&topology));
            log.record(StreamsChange::Topology(Some(topology)));
            Ok(())
        }
    }
}

/// Computes a target for the group's epoch and records what changes.
pub(super) fn retarget(group: &mut StreamsGroup, configured: &Configured, log: &mut Log<'_>) {
    let standby_replicas = group.assignment_configs.get(NUM_STANDBY_REPLICAS);
    let standby_replicas = standby_replicas.and_then(|number| number.parse().ok()).unwrap_or(0);
    let target = if configured.is_ready() {
        assign(group, configured, standby_replicas)
    } else {
        group.members.keys().map(|id| (id.clone(), RoleTasks::default())).collect()
    };
    for (member_id, tasks) in &target {
        if group.target.get(member_id) != Some(tasks) {
            log.record(StreamsChange::Target(member_id.clone(), Some(tasks.clone())));
        }
    }
    group.target = target;
    group.assignment_epoch = group.epoch;
    log.record(StreamsChange::TargetEpoch(Some(group.epoch)));
}

fn updated_metadata(request: &StreamsHeartbeat, known: Option<&StreamsMember>) -> MemberMetadata {
    let fresh = || MemberMetadata {
        topology_epoch: -1,
        rebalance_timeout_ms: -1,
        ..MemberMetadata::default()
    };
    let mut updated = known.map_or_else(fresh, |member| member.metadata.clone());
    updated.client_id.clone_from(&request.client_id);
    updated.client_host.clone_from(&request.client_host);
    if request.rack_id.is_some() {
        updated.rack_id.clone_from(&request.rack_id);
    }
    if request.rebalance_timeout_ms != -1 {
        updated.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    if let Some(topology) = &request.topology {
        updated.topology_epoch = topology.epoch;
    }
    if let Some(process_id) = &request.process_id {
        updated.process_id.clone_from(process_id);
    }
    if request.endpoint.is_some() {
        updated.endpoint.clone_from(&request.endpoint);
    }
    if let Some(tags) = &request.client_tags {
        updated.client_tags = tags.iter().cloned().collect();
    }
    updated
}

pub(super) fn unknown_member(request: &StreamsHeartbeat) -> ModernRefusal {
    let (member_id, group_id) = (&request.member_id, &request.group_id);
    let message = format!("Member {member_id} is not a member of group {group_id}.");
    ModernRefusal::new(ErrorCode::UnknownMemberId, message)
}
