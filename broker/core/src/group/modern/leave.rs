//! How members go: by themselves, by an administrator, or because they were silent or slow for too long.

use std::collections::BTreeSet;

use millstream_protocol::ErrorCode;

use super::{
    CurrentAssignment, MemberState, ModernChange, ModernGroup, ModernHeartbeat, ModernHeartbeatResponse, ModernKind, ModernMember,
    ModernRecord, ModernRefusal, STATIC_LEAVE_EPOCH, TopicIdPartitions,
    heartbeat::{Answer, Turn},
    target::TOPICS_UNKNOWN,
};
use crate::group::{Decision, GroupCoordinator, GroupRecord, LeavingMember, timers::TimerKey};

impl GroupCoordinator {
    pub(super) fn leave_modern(&mut self, now_ms: i64, request: &ModernHeartbeat, group: &ModernGroup, decision: &mut Decision) -> Answer {
        let (_, member) = self.find_leaver(group, request)?;
        let response = ModernHeartbeatResponse {
            member_id: request.member_id.clone(),
            member_epoch: request.member_epoch,
            heartbeat_interval_ms: 0,
            assignment: None,
        };
        if request.member_epoch == STATIC_LEAVE_EPOCH {
            // It keeps its partitions until it is back or its session ends.
            let current = CurrentAssignment {
                epoch: STATIC_LEAVE_EPOCH,
                revoking: TopicIdPartitions::new(),
                state: MemberState::Stable,
                ..member.current
            };
            let mut turn = Turn {
                request,
                records: &mut decision.records,
            };
            turn.record(ModernChange::Current(request.member_id.clone(), Some(current)));
            return Ok(response);
        }
        self.fence(
            now_ms,
            request.kind,
            &request.group_id,
            &[request.member_id.clone()].into(),
            decision,
        );
        Ok(response)
    }

    fn find_leaver(&self, group: &ModernGroup, request: &ModernHeartbeat) -> Result<(String, ModernMember), ModernRefusal> {
        if let Some(instance_id) = &request.instance_id
            && group.static_member(instance_id).is_none()
        {
            let message = format!("Instance id {instance_id} is unknown.");
            return Err(ModernRefusal::new(ErrorCode::UnknownMemberId, message));
        }
        if let Some(instance_id) = &request.instance_id
            && let Some((holder, _)) = group.static_member(instance_id)
            && *holder != request.member_id
        {
            let message = format!(
                "Static member {} with instance id {instance_id} was fenced by member {holder}.",
                request.member_id
            );
            return Err(ModernRefusal::new(ErrorCode::FencedInstanceId, message));
        }
        match group.members.get(&request.member_id) {
            Some(member) => Ok((request.member_id.clone(), member.clone())),
            None => {
                let message = format!("Member {} is not a member of group {}.", request.member_id, request.group_id);
                Err(ModernRefusal::new(ErrorCode::UnknownMemberId, message))
            }
        }
    }

    /// LeaveGroup, by which administrators remove members of consumer groups.
    pub(in crate::group) fn leave_by_request(
        &mut self,
        now_ms: i64,
        group_id: &str,
        members: Vec<LeavingMember>,
        decision: &mut Decision,
    ) -> Vec<(LeavingMember, ErrorCode)> {
        let mut outcomes = Vec::with_capacity(members.len());
        let mut gone = BTreeSet::new();
        for leaving in members {
            let group = self.hard.modern(group_id).filter(|group| group.kind == ModernKind::Consumer);
            let by_instance = leaving
                .group_instance_id
                .as_deref()
                .map(|id| group.and_then(|group| group.static_member(id)));
            let found = match by_instance {
                Some(None) => Err(ErrorCode::UnknownMemberId),
                Some(Some((id, _))) if !leaving.member_id.is_empty() && *id != leaving.member_id => Err(ErrorCode::FencedInstanceId),
                Some(Some((id, _))) => Ok(id.clone()),
                None if group.is_some_and(|group| group.members.contains_key(&leaving.member_id)) => Ok(leaving.member_id.clone()),
                None => Err(ErrorCode::UnknownMemberId),
            };
            let outcome = match found {
                Ok(id) if gone.insert(id.clone()) => ErrorCode::None,
                Ok(_) => ErrorCode::UnknownMemberId,
                Err(error) => error,
            };
            outcomes.push((leaving, outcome));
        }
        if !gone.is_empty() {
            self.fence(now_ms, ModernKind::Consumer, group_id, &gone, decision);
        }
        outcomes
    }

    /// Takes members out: they left, or were silent or slow for too long. If only classic members are left the group becomes classic.
    pub(in crate::group) fn fence(
        &mut self,
        now_ms: i64,
        kind: ModernKind,
        group_id: &str,
        ids: &BTreeSet<String>,
        decision: &mut Decision,
    ) {
        let Some(group) = self.hard.modern(group_id) else { return };
        if let Some(classic) = self.downgraded(group, group_id, ids, None) {
            return self.become_classic(now_ms, group_id, classic, decision);
        }
        // What the others want comes to other topics perhaps; the next heartbeat knows the metadata.
        let epoch = (group.epoch + 1, TOPICS_UNKNOWN);
        let mut record = |change| {
            decision.records.push(GroupRecord::Modern(ModernRecord {
                kind,
                group_id: group_id.to_owned(),
                change,
            }));
        };
        for id in ids {
            record(ModernChange::Current(id.clone(), None));
            record(ModernChange::Target(id.clone(), None));
            record(ModernChange::Member(id.clone(), None));
        }
        for regex in group.forgotten_regexes(ids) {
            record(ModernChange::Regex(regex, None));
        }
        record(ModernChange::Group(Some(epoch)));
        for id in ids {
            self.forget_timers(kind, group_id, id);
        }
    }

    pub(super) fn forget_timers(&mut self, kind: ModernKind, group_id: &str, member_id: &str) {
        self.timers.cancel(&session_key(kind, group_id, member_id));
        self.timers.cancel(&rejoin_key(group_id, member_id));
        self.timers.cancel(&member_sync_key(group_id, member_id));
        self.timers.cancel(&revocation_key(group_id, member_id));
    }

    /// A member was silent for too long, or did not join or sync when it was its turn.
    pub(in crate::group) fn on_modern_session(
        &mut self,
        now_ms: i64,
        kind: ModernKind,
        group_id: &str,
        member_id: String,
        decision: &mut Decision,
    ) {
        let group = self.hard.modern(group_id);
        if group.is_some_and(|group| group.members.contains_key(&member_id)) {
            self.fence(now_ms, kind, group_id, &[member_id].into(), decision);
        }
    }

    /// A member did not give up its partitions in time.
    pub(in crate::group) fn on_revocation(&mut self, now_ms: i64, group_id: &str, member_id: &str, decision: &mut Decision) {
        let member = self.hard.modern(group_id).and_then(|group| group.members.get(member_id));
        if member.is_some_and(|member| member.current.state == MemberState::UnrevokedPartitions) {
            self.fence(now_ms, ModernKind::Consumer, group_id, &[member_id.to_owned()].into(), decision);
        }
    }

    /// A member was heard: its session begins anew, and so does what it has to do next.
    pub(super) fn renew_modern_timers(&mut self, now_ms: i64, request: &ModernHeartbeat, member: &ModernMember) {
        let next = &member.current;
        let group = self.hard.modern(&request.group_id);
        let known = group.and_then(|group| group.members.get(&request.member_id));
        // What is taken away later has its own time.
        let is_new = known.is_none_or(|known| known.current != *next);
        // At least 1: a timer that comes back at once would never let a tick end.
        let timeout_ms = member.subscription.rebalance_timeout_ms.max(1);
        let key = session_key(request.kind, &request.group_id, &request.member_id);
        self.timers.schedule(key, now_ms.saturating_add(request.session_timeout_ms.into()));
        self.timers.cancel(&rejoin_key(&request.group_id, &request.member_id));
        let key = member_sync_key(&request.group_id, &request.member_id);
        if request.classic.is_some() {
            self.timers.schedule(key, now_ms.saturating_add(timeout_ms.into()));
        } else {
            self.timers.cancel(&key);
        }
        let key = revocation_key(&request.group_id, &request.member_id);
        // A classic member that has to give something up must join again in time, which has its own timer.
        if next.state != MemberState::UnrevokedPartitions || request.classic.is_some() {
            self.timers.cancel(&key);
        } else if is_new || !self.timers.contains(&key) {
            self.timers.schedule(key, now_ms.saturating_add(timeout_ms.into()));
        }
    }
}

pub(in crate::group) fn session_key(kind: ModernKind, group_id: &str, member_id: &str) -> TimerKey {
    TimerKey::ModernSession {
        kind,
        group_id: group_id.to_owned(),
        member_id: member_id.to_owned(),
    }
}

pub(super) fn rejoin_key(group_id: &str, member_id: &str) -> TimerKey {
    TimerKey::Rejoin {
        group_id: group_id.to_owned(),
        member_id: member_id.to_owned(),
    }
}

pub(super) fn member_sync_key(group_id: &str, member_id: &str) -> TimerKey {
    TimerKey::MemberSync {
        group_id: group_id.to_owned(),
        member_id: member_id.to_owned(),
    }
}

fn revocation_key(group_id: &str, member_id: &str) -> TimerKey {
    TimerKey::Revocation {
        group_id: group_id.to_owned(),
        member_id: member_id.to_owned(),
    }
}
