//! [`GroupCoordinator`]: one value per partition of `__consumer_offsets`, its life cycle, and the entry points of members.

use std::collections::{BTreeMap, BTreeSet};

use millstream_protocol::error_code::ErrorCode;
use uuid::Uuid;

use super::{
    Decision, GroupConfig, GroupMetadata, GroupRecord, HardState, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, ParkedResponse, Reply, SyncGroupRequest, SyncGroupResponse, Token, join,
    modern::{ModernKind, Regexes, session_key},
    state::{ClassicGroup, Turn},
    streams::StreamsMemory,
    timers::{TimerKey, Timers},
};
use crate::metadata::ClusterImage;

/// Coordinates the groups of one partition. The module doc of [`super`] says how to drive it.
#[derive(Debug)]
pub struct GroupCoordinator {
    pub(super) config: GroupConfig,
    pub(super) hard: HardState,
    /// Every group with a record in `hard`, and those whose first record is on its way. A group that only ever committed offsets (a
    /// "simple" group) has no entry.
    pub(super) groups: BTreeMap<String, ClassicGroup>,
    pub(super) timers: Timers,
    /// What patterns mean, and what of that consumer groups have still to write down.
    pub(super) regexes: Regexes,
    /// The epoch that a streams member's timer for giving up tasks runs for.
    pub(super) revocation_epochs: BTreeMap<TimerKey, i32>,
    /// The image that a consumer or share group was last checked with.
    pub(super) checked_images: BTreeMap<String, u64>,
    /// What the log does not hold of streams groups.
    pub(super) streams_memory: BTreeMap<String, StreamsMemory>,
    /// Names of the topics and views that consumer groups subscribe to.
    pub(super) topic_names: BTreeMap<Uuid, String>,
}

impl GroupCoordinator {
    /// A coordinator without state, ready for replay.
    pub fn new(config: GroupConfig) -> Self {
        Self {
            config,
            hard: HardState::default(),
            groups: BTreeMap::new(),
            timers: Timers::default(),
            regexes: Regexes::default(),
            revocation_epochs: BTreeMap::new(),
            checked_images: BTreeMap::new(),
            streams_memory: BTreeMap::new(),
            topic_names: BTreeMap::new(),
        }
    }

    /// A record that the log took, outside a transaction: live after the append, and on replay.
    pub fn apply(&mut self, record: &GroupRecord) {
        self.hard.apply(record);
    }

    /// A record that the log took inside a producer's transaction (TxnOffsetCommit): pending until the marker.
    pub fn apply_transactional(&mut self, producer_id: i64, record: &GroupRecord) {
        self.hard.apply_transactional(producer_id, record);
    }

    /// The end marker of a producer's transaction.
    pub fn apply_marker(&mut self, producer_id: i64, committed: bool) {
        self.hard.apply_marker(producer_id, committed);
    }

    /// Replay is over: members' sessions start now, as in Kafka, since nobody knows when they were last heard.
    pub fn loaded(&mut self, now_ms: i64) -> Decision {
        self.start_streams_timers(now_ms);
        let Self {
            config,
            hard,
            groups,
            timers,
            regexes: _,
            revocation_epochs: _,
            checked_images: _,
            streams_memory: _,
            topic_names: _,
        } = self;
        for (group_id, group) in hard.modern_groups() {
            let timeout_ms = match group.kind {
                ModernKind::Consumer => config.consumer_session_timeout_ms,
                ModernKind::Share => config.share_session_timeout_ms,
            };
            for (member_id, member) in &group.members {
                let own = member.subscription.classic.as_ref().map(|classic| classic.session_timeout_ms);
                timers.schedule(
                    session_key(group.kind, group_id, member_id),
                    now_ms.saturating_add(own.unwrap_or(timeout_ms).into()),
                );
            }
        }
        let mut decision = Decision::default();
        for (group_id, metadata) in hard.groups() {
            let mut group = ClassicGroup::from_metadata(group_id.clone(), metadata);
            let mut turn = Turn {
                now_ms,
                config,
                timers,
                decision: &mut decision,
            };
            for member_id in group.member_ids() {
                group.renew_session(&mut turn, &member_id);
            }
            // If group.max.size became smaller, rejoining decides who stays. Without a leader a conversion was cut short.
            if group.member_count() > config.members_max || metadata.is_leaderless() {
                group.begin_rebalance(&mut turn);
            }
            groups.insert(group_id.clone(), group);
        }
        timers.schedule(
            TimerKey::OffsetExpiry,
            now_ms.saturating_add(config.offsets_retention_check_interval_ms),
        );
        decision
    }

    /// This node is no longer the coordinator, or an append failed: answers all that is parked. Drop the value afterwards.
    pub fn unload(&mut self, error: ErrorCode) -> Vec<Reply> {
        self.timers = Timers::default();
        let groups = std::mem::take(&mut self.groups);
        let mut replies = Vec::new();
        for member in groups.values().flat_map(ClassicGroup::members) {
            if let Some(token) = member.awaiting_join {
                let response = ParkedResponse::Join(JoinGroupResponse::error(error, member.id.as_str()));
                replies.push(Reply { token, response });
            }
            if let Some(token) = member.awaiting_sync {
                replies.push(Reply {
                    token,
                    response: ParkedResponse::Sync(SyncGroupResponse::error(error)),
                });
            }
        }
        replies
    }

    /// What the log defines; two coordinators that applied the same records have equal hard states.
    pub fn hard_state(&self) -> &HardState {
        &self.hard
    }

    /// When `tick` is due.
    pub fn next_deadline(&self) -> Option<i64> {
        self.timers.next_deadline()
    }

    /// Does what is due: sessions, join and sync phases, offset expiry.
    pub fn tick(&mut self, now_ms: i64) -> Decision {
        let mut decision = Decision::default();
        let mut changed: BTreeSet<String> = BTreeSet::new();
        while let Some(key) = self.timers.pop_due(now_ms) {
            let group = key.modern_group().map(str::to_owned);
            if group.as_ref().is_some_and(|group| changed.contains(group)) {
                // It must see what the records of this tick make of its group: the next tick is at once.
                self.timers.schedule(key, now_ms);
                break;
            }
            let records = decision.records.len();
            match key {
                TimerKey::Session { group_id, member_id } => {
                    self.with_group(now_ms, &group_id, &mut decision, |group, turn| {
                        group.on_session_timer(turn, &member_id)
                    });
                }
                TimerKey::Join { group_id } => {
                    self.with_group(now_ms, &group_id, &mut decision, |group, turn| group.on_join_timer(turn));
                }
                TimerKey::Sync { group_id } => {
                    self.with_group(now_ms, &group_id, &mut decision, |group, turn| group.on_sync_timer(turn));
                }
                TimerKey::ModernSession { kind, group_id, member_id } => {
                    self.on_modern_session(now_ms, kind, &group_id, member_id, &mut decision);
                }
                TimerKey::Rejoin { group_id, member_id } | TimerKey::MemberSync { group_id, member_id } => {
                    self.on_modern_session(now_ms, ModernKind::Consumer, &group_id, member_id, &mut decision);
                }
                TimerKey::Revocation { group_id, member_id } => {
                    self.on_revocation(now_ms, &group_id, &member_id, &mut decision);
                }
                TimerKey::Regexes { group_id } => self.on_regexes(now_ms, &group_id, &mut decision),
                TimerKey::StreamsSession { group_id, member_id } => self.on_streams_session(&group_id, &member_id, &mut decision),
                TimerKey::TaskRevocation { group_id, member_id } => self.on_task_revocation(&group_id, &member_id, &mut decision),
                TimerKey::StreamsDelay { group_id } => self.on_streams_delay(&group_id, &mut decision),
                TimerKey::OffsetExpiry => {
                    self.expire_offsets(now_ms, &mut decision);
                    // Never 0, or this loop would not end.
                    let interval_ms = self.config.offsets_retention_check_interval_ms.max(1);
                    self.timers.schedule(TimerKey::OffsetExpiry, now_ms.saturating_add(interval_ms));
                }
            }
            if decision.records.len() > records {
                changed.extend(group);
            }
        }
        decision
    }

    /// JoinGroup. Answered under `token`, in this decision or a later one. `image` is the metadata that the subscriptions of a consumer
    /// group are resolved with.
    pub fn join_group(&mut self, now_ms: i64, token: Token, request: JoinGroupRequest, image: &ClusterImage) -> Decision {
        let mut decision = Decision::default();
        let validated = join::validate(&request, &self.config);
        if validated.is_ok() && self.is_consumer_group(&request.group_id) {
            return self.join_consumer_group(now_ms, token, request, image);
        }
        let is_known = self.groups.contains_key(&request.group_id);
        let refused = match validated {
            Ok(()) if self.keeps_classic_out(&request.group_id) => Some(ErrorCode::InconsistentGroupProtocol),
            // A group springs into being for a member without id only; any other lost its group.
            Ok(()) if !is_known && !request.member_id.is_empty() => Some(ErrorCode::UnknownMemberId),
            Ok(()) if !is_known && (request.protocol_type.is_empty() || request.protocols.is_empty()) => {
                Some(ErrorCode::InconsistentGroupProtocol)
            }
            Ok(()) => None,
            Err(error) => Some(error),
        };
        let refused = refused.or_else(|| self.make_way_for_classic(&request.group_id, &mut decision.records).err());
        if let Some(error) = refused {
            let member_id = match error {
                ErrorCode::InconsistentGroupProtocol => String::new(),
                _ => request.member_id,
            };
            let response = ParkedResponse::Join(JoinGroupResponse::error(error, member_id));
            decision.replies.push(Reply { token, response });
            return decision;
        }
        let group_id = request.group_id.clone();
        if !is_known {
            let group = ClassicGroup::new(group_id.clone(), now_ms);
            // A new group is in the log from its first request on, as in Kafka, so that it is listed after a failover.
            decision.records.push(GroupRecord::Group {
                group_id: group_id.clone(),
                value: Some(group.to_metadata()),
            });
            self.groups.insert(group_id.clone(), group);
        }
        self.with_group(now_ms, &group_id, &mut decision, |group, turn| group.join(turn, token, request));
        decision
    }

    /// SyncGroup. Answered under `token`, in this decision or a later one.
    pub fn sync_group(&mut self, now_ms: i64, token: Token, request: SyncGroupRequest, image: &ClusterImage) -> Decision {
        let mut decision = Decision::default();
        if self.is_consumer_group(&request.group_id) {
            let response = ParkedResponse::Sync(self.sync_consumer_group(now_ms, request, image));
            decision.replies.push(Reply { token, response });
            return decision;
        }
        let group_id = request.group_id.clone();
        if self
            .with_group(now_ms, &group_id, &mut decision, |group, turn| group.sync(turn, token, request))
            .is_none()
        {
            let error = unknown_group(&group_id);
            decision.replies.push(Reply {
                token,
                response: ParkedResponse::Sync(SyncGroupResponse::error(error)),
            });
        }
        decision
    }

    /// Heartbeat.
    pub fn heartbeat(&mut self, now_ms: i64, request: &HeartbeatRequest) -> ErrorCode {
        if self.is_consumer_group(&request.group_id) {
            return self.heartbeat_consumer_group(now_ms, request);
        }
        let mut decision = Decision::default();
        let outcome = self.with_group(now_ms, &request.group_id, &mut decision, |group, turn| {
            group.heartbeat(turn, request)
        });
        assert!(
            decision == Decision::default(),
            "a heartbeat in group {} had effects",
            request.group_id
        );
        outcome.unwrap_or_else(|| unknown_group(&request.group_id))
    }

    /// LeaveGroup.
    pub fn leave_group(&mut self, now_ms: i64, request: LeaveGroupRequest) -> Decision<LeaveGroupResponse> {
        let mut decision = Decision::default();
        if request.group_id.is_empty() {
            return decision.with_response(LeaveGroupResponse {
                error_code: ErrorCode::InvalidGroupId,
                members: Vec::new(),
            });
        }
        let group_id = request.group_id.clone();
        let members = if self.hard.modern(&group_id).is_some() {
            self.leave_by_request(now_ms, &group_id, request.members, &mut decision)
        } else if self.groups.contains_key(&group_id) {
            self.with_group(now_ms, &group_id, &mut decision, |group, turn| group.leave(turn, request))
                .unwrap_or_default()
        } else {
            request
                .members
                .into_iter()
                .map(|member| (member, ErrorCode::UnknownMemberId))
                .collect()
        };
        decision.with_response(LeaveGroupResponse {
            error_code: ErrorCode::None,
            members,
        })
    }

    /// Lets a group's method run with all it needs; `None` if there is no such group.
    pub(super) fn with_group<R>(
        &mut self,
        now_ms: i64,
        group_id: &str,
        decision: &mut Decision,
        act: impl FnOnce(&mut ClassicGroup, &mut Turn<'_>) -> R,
    ) -> Option<R> {
        let group = self.groups.get_mut(group_id)?;
        let mut turn = Turn {
            now_ms,
            config: &self.config,
            timers: &mut self.timers,
            decision,
        };
        Some(act(group, &mut turn))
    }

    /// The last applied record of a group.
    pub fn group_metadata(&self, group_id: &str) -> Option<&GroupMetadata> {
        self.hard.groups().get(group_id)
    }
}

fn unknown_group(group_id: &str) -> ErrorCode {
    if group_id.is_empty() {
        ErrorCode::InvalidGroupId
    } else {
        ErrorCode::UnknownMemberId
    }
}
