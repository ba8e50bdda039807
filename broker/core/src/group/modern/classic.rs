//! Classic members of consumer groups: what their JoinGroup, SyncGroup and Heartbeat mean here (KIP-848, "online migration").
//!
//! A JoinGroup is a heartbeat that says everything, answered at once: its generation is the member's epoch, and nobody is leader. The
//! partitions that it says it owns confirm what it gave up. SyncGroup tells what it has. Heartbeat sends it back to JoinGroup when there
//! is something to give up or to get.

use std::collections::BTreeSet;

use bytes::Bytes;
use millstream_protocol::ErrorCode;

use super::{
    ClassicJoin, ClassicProtocols, MemberState, ModernGroup, ModernHeartbeat, ModernKind, ModernMember, ModernRefusal, TopicIdPartitions,
    heartbeat::unknown_member,
    leave::{member_sync_key, rejoin_key, session_key},
    reconcile::waits_for_others,
    target::topic_or_view,
};
use crate::{
    group::{
        Decision, GroupCoordinator, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, MigrationPolicy, ParkedResponse, Reply,
        SyncGroupRequest, SyncGroupResponse, Token,
        consumer_protocol::{NamedPartitions, read_subscription, version_of, write_assignment},
        join::{new_member_id, rebalance_timeout_ms},
        state::Member,
    },
    metadata::ClusterImage,
};

/// The protocol type of all consumers.
pub(super) const CONSUMER: &str = "consumer";

impl GroupCoordinator {
    /// Whether classic members of this group are served here.
    pub(in crate::group) fn is_consumer_group(&self, group_id: &str) -> bool {
        let group = self.hard.modern(group_id).filter(|_| !self.groups.contains_key(group_id));
        group.is_some_and(|group| group.kind == ModernKind::Consumer && !group.members.is_empty())
    }

    /// JoinGroup to a consumer group with members. It is answered in this decision, unless the group becomes classic by it.
    pub(in crate::group) fn join_consumer_group(
        &mut self,
        now_ms: i64,
        token: Token,
        request: JoinGroupRequest,
        image: &ClusterImage,
    ) -> Decision {
        let mut decision = Decision::default();
        let response = match self.try_join(now_ms, token, request, image, &mut decision) {
            Ok(None) => return decision,
            Ok(Some(response)) => response,
            Err(error) => JoinGroupResponse::error(error, ""),
        };
        decision.replies.push(Reply {
            token,
            response: ParkedResponse::Join(response),
        });
        decision
    }

    fn try_join(
        &mut self,
        now_ms: i64,
        token: Token,
        request: JoinGroupRequest,
        image: &ClusterImage,
        decision: &mut Decision,
    ) -> Result<Option<JoinGroupResponse>, ErrorCode> {
        let group = self.hard.modern(&request.group_id).ok_or(ErrorCode::UnknownMemberId)?;
        if self.config.migration == MigrationPolicy::Disabled {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        if group.members.len() >= self.config.consumer_members_max && !group.members.contains_key(&request.member_id) {
            return Err(ErrorCode::GroupMaxSizeReached);
        }
        let (name, metadata) = request.protocols.first().ok_or(ErrorCode::InconsistentGroupProtocol)?;
        if request.protocol_type != CONSUMER || !group.can_all_do_one_of(&request.protocols) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        let is_new_id = request.member_id.is_empty();
        let member_id = if is_new_id {
            new_member_id(&request)
        } else {
            request.member_id.clone()
        };
        if is_new_id && request.group_instance_id.is_none() && request.requires_known_member_id {
            return Ok(Some(JoinGroupResponse::error(ErrorCode::MemberIdRequired, member_id)));
        }
        let subscribed = read_subscription(metadata).ok_or(ErrorCode::InconsistentGroupProtocol)?;
        let timeout_ms = rebalance_timeout_ms(&request);
        let replaced = request.group_instance_id.as_deref().and_then(|id| group.static_member(id));
        if let Some((old_id, old)) = replaced
            && is_new_id
            && old.subscription.classic.is_none()
        {
            // The last member of the new protocol may be the one that is replaced.
            let joiner = Member {
                id: member_id.clone(),
                instance_id: request.group_instance_id.clone(),
                client_id: request.client_id.clone(),
                client_host: request.client_host.clone(),
                session_timeout_ms: request.session_timeout_ms,
                rebalance_timeout_ms: timeout_ms,
                protocols: request.protocols.clone(),
                assignment: Bytes::new(),
                awaiting_join: Some(token),
                awaiting_sync: None,
                is_new: false,
            };
            let removed = BTreeSet::from([old_id.clone()]);
            if let Some(classic) = self.downgraded(group, &request.group_id, &removed, Some(joiner)) {
                self.become_classic(now_ms, &request.group_id, classic, decision);
                return Ok(None);
            }
        }
        let name = name.clone();
        let heartbeat = ModernHeartbeat {
            kind: ModernKind::Consumer,
            group_id: request.group_id,
            member_id: member_id.clone(),
            member_epoch: 0,
            instance_id: request.group_instance_id,
            rack_id: subscribed.rack_id,
            client_id: request.client_id,
            client_host: request.client_host,
            rebalance_timeout_ms: timeout_ms,
            topics: Some(subscribed.topics),
            regex: Some(String::new()),
            assignor: None,
            owned: Some(by_id(&subscribed.owned, image)),
            session_timeout_ms: request.session_timeout_ms,
            heartbeat_interval_ms: 0,
            classic: Some(ClassicJoin {
                protocols: ClassicProtocols {
                    session_timeout_ms: request.session_timeout_ms,
                    protocols: request.protocols,
                },
                is_new_id,
            }),
        };
        let joined = self
            .run_heartbeat(now_ms, &heartbeat, image, decision)
            .map_err(|refusal| refusal.code)?;
        Ok(Some(JoinGroupResponse {
            error_code: ErrorCode::None,
            generation_id: joined.member_epoch,
            protocol_type: Some(CONSUMER.to_owned()),
            protocol_name: Some(name),
            leader: String::new(),
            skip_assignment: false,
            member_id,
            members: Vec::new(),
        }))
    }

    /// As `find_member`, for a JoinGroup: there are no epochs, and a member keeps its own when it joins again.
    pub(super) fn find_classic_member(
        &self,
        group: &ModernGroup,
        request: &ModernHeartbeat,
        classic: &ClassicJoin,
    ) -> Result<(Option<String>, Option<ModernMember>), ModernRefusal> {
        let holder = request.instance_id.as_deref().map(|id| group.static_member(id));
        match holder {
            Some(Some((id, member))) if classic.is_new_id => {
                let mut taken = member.clone();
                (taken.current.epoch, taken.current.previous_epoch) = (0, 0);
                Ok((Some(id.clone()), Some(taken)))
            }
            Some(Some((id, _))) if *id != request.member_id => Err(ModernRefusal::new(
                ErrorCode::FencedInstanceId,
                "another member has the instance id",
            )),
            Some(Some((_, member))) => Ok((None, Some(member.clone()))),
            Some(None) if !classic.is_new_id => Err(unknown_member(request)),
            Some(None) => self.room_for_one(group).map(|()| (None, None)),
            None => match group.members.get(&request.member_id) {
                Some(member) => Ok((None, Some(member.clone()))),
                None => self.room_for_one(group).map(|()| (None, None)),
            },
        }
    }

    fn classic_member(
        &self,
        group_id: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(&ModernGroup, &ModernMember, &ClassicProtocols), ErrorCode> {
        let group = self.hard.modern(group_id).ok_or(ErrorCode::UnknownMemberId)?;
        if let Some(instance_id) = instance_id {
            let (holder, _) = group.static_member(instance_id).ok_or(ErrorCode::UnknownMemberId)?;
            if holder != member_id {
                return Err(ErrorCode::FencedInstanceId);
            }
        }
        let member = group.members.get(member_id).ok_or(ErrorCode::UnknownMemberId)?;
        let classic = member.subscription.classic.as_ref().ok_or(ErrorCode::UnknownMemberId)?;
        if generation != member.current.epoch {
            return Err(ErrorCode::IllegalGeneration);
        }
        Ok((group, member, classic))
    }

    /// SyncGroup of a classic member of a consumer group.
    pub(in crate::group) fn sync_consumer_group(
        &mut self,
        now_ms: i64,
        request: SyncGroupRequest,
        image: &ClusterImage,
    ) -> SyncGroupResponse {
        let instance_id = request.group_instance_id.as_deref();
        let found = self.classic_member(&request.group_id, &request.member_id, instance_id, request.generation_id);
        let (group, member, classic) = match found {
            Ok(found) => found,
            Err(error) => return SyncGroupResponse::error(error),
        };
        let (name, metadata) = classic
            .protocols
            .first()
            .map_or(("", Bytes::new()), |(name, metadata)| (name, metadata.clone()));
        let differs = |told: &Option<String>, known: &str| told.as_deref().is_some_and(|told| told != known);
        if differs(&request.protocol_type, CONSUMER) || differs(&request.protocol_name, name) {
            return SyncGroupResponse::error(ErrorCode::InconsistentGroupProtocol);
        }
        let timeout_ms = member.subscription.rebalance_timeout_ms;
        if member.current.epoch < group.epoch && member.current.state != MemberState::UnrevokedPartitions {
            self.await_rejoin(now_ms, &request.group_id, &request.member_id, timeout_ms);
            return SyncGroupResponse::error(ErrorCode::RebalanceInProgress);
        }
        let Some(assignment) = write_assignment(version_of(&metadata), by_name(&member.current.assigned, image)) else {
            return SyncGroupResponse::error(ErrorCode::UnknownServerError);
        };
        let session_ms = classic.session_timeout_ms;
        self.timers.cancel(&member_sync_key(&request.group_id, &request.member_id));
        self.renew_classic_session(now_ms, &request.group_id, &request.member_id, session_ms);
        SyncGroupResponse {
            error_code: ErrorCode::None,
            protocol_type: request.protocol_type,
            protocol_name: request.protocol_name,
            assignment,
        }
    }

    /// Heartbeat of a classic member of a consumer group.
    pub(in crate::group) fn heartbeat_consumer_group(&mut self, now_ms: i64, request: &HeartbeatRequest) -> ErrorCode {
        let instance_id = request.group_instance_id.as_deref();
        let found = self.classic_member(&request.group_id, &request.member_id, instance_id, request.generation_id);
        let (group, member, classic) = match found {
            Ok(found) => found,
            Err(error) => return error,
        };
        let must_rejoin = member.current.epoch < group.epoch
            || match member.current.state {
                MemberState::Stable => false,
                MemberState::UnrevokedPartitions => true,
                MemberState::UnreleasedPartitions => !waits_for_others(group, &request.member_id),
            };
        let (session_ms, timeout_ms) = (classic.session_timeout_ms, member.subscription.rebalance_timeout_ms);
        self.renew_classic_session(now_ms, &request.group_id, &request.member_id, session_ms);
        if !must_rejoin {
            return ErrorCode::None;
        }
        self.await_rejoin(now_ms, &request.group_id, &request.member_id, timeout_ms);
        ErrorCode::RebalanceInProgress
    }

    fn renew_classic_session(&mut self, now_ms: i64, group_id: &str, member_id: &str, session_ms: i32) {
        let key = session_key(ModernKind::Consumer, group_id, member_id);
        self.timers.schedule(key, now_ms.saturating_add(session_ms.into()));
    }

    fn await_rejoin(&mut self, now_ms: i64, group_id: &str, member_id: &str, timeout_ms: i32) {
        let deadline_ms = now_ms.saturating_add(timeout_ms.into());
        self.timers.schedule_if_absent(rejoin_key(group_id, member_id), deadline_ms);
    }
}

impl ModernGroup {
    /// Whether all classic members, if there are any, can do one of these protocols.
    fn can_all_do_one_of(&self, protocols: &[(String, Bytes)]) -> bool {
        let classic = || self.members.values().filter_map(|member| member.subscription.classic.as_ref());
        let can = |classic: &ClassicProtocols, name: &str| classic.protocols.iter().any(|(known, _)| known == name);
        protocols.iter().any(|(name, _)| classic().all(|classic| can(classic, name)))
    }
}

/// Partitions by the id of their topic or view; those that do not exist are left out.
pub(super) fn by_id(partitions: &NamedPartitions, image: &ClusterImage) -> TopicIdPartitions {
    let mut known = TopicIdPartitions::new();
    for (name, numbers) in partitions {
        if let Some((id, _)) = topic_or_view(image, name) {
            known.entry(id).or_default().extend(numbers);
        }
    }
    known
}

fn by_name(partitions: &TopicIdPartitions, image: &ClusterImage) -> NamedPartitions {
    let named = |(id, numbers): (&uuid::Uuid, &BTreeSet<i32>)| Some((image.names.get(id)?.clone(), numbers.iter().copied().collect()));
    partitions.iter().filter_map(named).collect()
}
