//! How members go: by themselves, or because they were silent or slow for too long. And the other timers of a group.

use std::sync::Arc;

use super::{
    STREAMS, StreamsChange, StreamsHeartbeat, StreamsHeartbeatResponse, StreamsMember, TaskState,
    heartbeat::{Answer, Log, retarget, unknown_member},
};
use crate::group::{Decision, GroupCoordinator, timers::TimerKey};

impl GroupCoordinator {
    pub(super) fn leave_streams(&mut self, request: &StreamsHeartbeat, decision: &mut Decision) -> Answer {
        let group_id = &request.group_id;
        let Some(group) = self.hard.streams(group_id) else {
            return Err(self.no_such_group(STREAMS, group_id));
        };
        if !group.members.contains_key(&request.member_id) {
            return Err(unknown_member(request));
        }
        if request.shutdown_application {
            let memory = self.streams_memory.entry(group_id.clone()).or_default();
            memory.shutdown_requested_by.get_or_insert_with(|| request.member_id.clone());
        }
        self.remove_streams_member(group_id, &request.member_id, decision);
        Ok(StreamsHeartbeatResponse {
            member_id: request.member_id.clone(),
            member_epoch: request.member_epoch,
            heartbeat_interval_ms: 0,
            statuses: Vec::new(),
            tasks: None,
            endpoint_epoch: 0,
            endpoints: None,
            missing_topics: Arc::default(),
        })
    }

    /// Takes a member out. The next heartbeat of another one computes the target without it.
    fn remove_streams_member(&mut self, group_id: &str, member_id: &str, decision: &mut Decision) {
        let Some(group) = self.hard.streams(group_id) else { return };
        let mut value = group.value();
        value.epoch += 1;
        let is_last = group.members.len() == 1;
        let mut log = Log {
            group_id,
            records: &mut decision.records,
        };
        log.record(StreamsChange::Current(member_id.to_owned(), None));
        log.record(StreamsChange::Target(member_id.to_owned(), None));
        log.record(StreamsChange::Member(member_id.to_owned(), None));
        log.record(StreamsChange::Group(Some(value)));
        self.timers.cancel(&session_key(group_id, member_id));
        self.cancel_task_revocation(group_id, member_id);
        if is_last && let Some(memory) = self.streams_memory.get_mut(group_id) {
            memory.shutdown_requested_by = None;
        }
    }

    /// A member was silent for too long.
    pub(in crate::group) fn on_streams_session(&mut self, group_id: &str, member_id: &str, decision: &mut Decision) {
        let group = self.hard.streams(group_id);
        if group.is_some_and(|group| group.members.contains_key(member_id)) {
            self.remove_streams_member(group_id, member_id, decision);
        }
    }

    /// A member did not give up its tasks in time.
    pub(in crate::group) fn on_task_revocation(&mut self, group_id: &str, member_id: &str, decision: &mut Decision) {
        let Some(epoch) = self.revocation_epochs.remove(&revocation_key(group_id, member_id)) else {
            return;
        };
        let member = self.hard.streams(group_id).and_then(|group| group.members.get(member_id));
        if member.is_some_and(|member| member.current.epoch == epoch && member.current.state == TaskState::UnrevokedTasks) {
            self.remove_streams_member(group_id, member_id, decision);
        }
    }

    /// Enough was waited for more members: those that are there get their first target.
    pub(in crate::group) fn on_streams_delay(&mut self, group_id: &str, decision: &mut Decision) {
        let Some(group) = self.hard.streams(group_id) else { return };
        let memory = self.streams_memory.get(group_id).and_then(|memory| memory.configured.as_ref());
        let Some((_, configured)) = memory else { return };
        if group.members.is_empty() || group.epoch <= group.assignment_epoch {
            return;
        }
        let mut records = Vec::new();
        let mut log = Log {
            group_id,
            records: &mut records,
        };
        retarget(&mut group.clone(), configured, &mut log);
        // What does not fit is told to the member that is heard next.
        if self.check_record_sizes(&records).is_ok() {
            decision.records.extend(records);
        }
    }

    /// A member was heard: its session begins anew, and so does what it has to give up, if that changed.
    pub(super) fn renew_streams_timers(&mut self, now_ms: i64, request: &StreamsHeartbeat, member: &StreamsMember, has_changed: bool) {
        let (group_id, member_id) = (&request.group_id, &request.member_id);
        let deadline_ms = now_ms.saturating_add(request.session_timeout_ms.into());
        self.timers.schedule(session_key(group_id, member_id), deadline_ms);
        if has_changed {
            self.cancel_task_revocation(group_id, member_id);
            if member.current.state == TaskState::UnrevokedTasks {
                self.time_task_revocation(
                    now_ms,
                    group_id,
                    member_id,
                    member.metadata.rebalance_timeout_ms,
                    member.current.epoch,
                );
            }
        }
    }

    /// Begins the time in which a member has to give up what it was told to in an epoch.
    fn time_task_revocation(&mut self, now_ms: i64, group_id: &str, member_id: &str, timeout_ms: i32, epoch: i32) {
        let key = revocation_key(group_id, member_id);
        // At least 1: a timer that comes back at once would never let a tick end.
        self.timers.schedule(key.clone(), now_ms.saturating_add(timeout_ms.max(1).into()));
        self.revocation_epochs.insert(key, epoch);
    }

    fn cancel_task_revocation(&mut self, group_id: &str, member_id: &str) {
        let key = revocation_key(group_id, member_id);
        self.timers.cancel(&key);
        self.revocation_epochs.remove(&key);
    }

    /// After a failover all times begin anew.
    pub(in crate::group) fn start_streams_timers(&mut self, now_ms: i64) {
        let mut members = Vec::new();
        for (group_id, group) in self.hard.streams_groups() {
            for (member_id, member) in &group.members {
                let revokes = member.current.state == TaskState::UnrevokedTasks;
                let revocation = revokes.then_some((member.metadata.rebalance_timeout_ms, member.current.epoch));
                members.push((group_id.clone(), member_id.clone(), revocation));
            }
        }
        for (group_id, member_id, revocation) in members {
            let deadline_ms = now_ms.saturating_add(self.config.streams_session_timeout_ms.into());
            self.timers.schedule(session_key(&group_id, &member_id), deadline_ms);
            if let Some((timeout_ms, epoch)) = revocation {
                self.time_task_revocation(now_ms, &group_id, &member_id, timeout_ms, epoch);
            }
        }
    }
}

pub(super) fn session_key(group_id: &str, member_id: &str) -> TimerKey {
    TimerKey::StreamsSession {
        group_id: group_id.to_owned(),
        member_id: member_id.to_owned(),
    }
}

fn revocation_key(group_id: &str, member_id: &str) -> TimerKey {
    TimerKey::TaskRevocation {
        group_id: group_id.to_owned(),
        member_id: member_id.to_owned(),
    }
}

pub(super) fn delay_key(group_id: &str) -> TimerKey {
    TimerKey::StreamsDelay {
        group_id: group_id.to_owned(),
    }
}
