//! The course of a rebalance: it begins, waits for members, ends in a new generation, and waits for the leader's assignment.

use std::collections::BTreeMap;

use millstream_protocol::error_code::ErrorCode;

use super::{
    GroupRecord, GroupState, SyncGroupResponse,
    state::{ClassicGroup, InitialDelay, Member, Turn},
};

impl ClassicGroup {
    /// Begins a rebalance, or moves the running one on.
    pub fn rebalance_or_complete_join(&mut self, turn: &mut Turn<'_>) {
        match self.state() {
            GroupState::Empty | GroupState::CompletingRebalance | GroupState::Stable => self.begin_rebalance(turn),
            GroupState::PreparingRebalance => self.complete_join_if_all_joined(turn),
            GroupState::Dead => {}
        }
    }

    /// Enters PreparingRebalance. The first rebalance of an empty group waits a while for more members.
    pub fn begin_rebalance(&mut self, turn: &mut Turn<'_>) {
        if self.state() == GroupState::CompletingRebalance {
            self.reset_assignments(turn, ErrorCode::RebalanceInProgress);
        }
        self.pending_syncs.clear();
        turn.timers.cancel(&self.sync_key());

        let was_empty = self.state() == GroupState::Empty;
        self.transition(GroupState::PreparingRebalance, turn.now_ms);
        if was_empty {
            let delay_ms = turn.config.initial_rebalance_delay_ms;
            let remaining_ms = self.rebalance_timeout_ms().saturating_sub(delay_ms).max(0);
            self.initial_delay = Some(InitialDelay {
                delay_ms,
                remaining_ms,
                member_added: false,
            });
            turn.schedule(self.join_key(), delay_ms);
        } else if self.all_have_joined() {
            self.complete_join(turn);
        } else {
            turn.schedule(self.join_key(), self.rebalance_timeout_ms());
        }
    }

    /// Ends the join phase once all are there. The initial rebalance always waits for its delay.
    pub fn complete_join_if_all_joined(&mut self, turn: &mut Turn<'_>) {
        if self.state() == GroupState::PreparingRebalance && self.initial_delay.is_none() && self.all_have_joined() {
            self.complete_join(turn);
        }
    }

    /// The join timer fired: extend the initial delay if somebody came and time is left, else go on with those who joined.
    pub fn on_join_timer(&mut self, turn: &mut Turn<'_>) {
        if self.state() != GroupState::PreparingRebalance {
            return;
        }
        if let Some(delay) = &mut self.initial_delay
            && delay.member_added
            && delay.remaining_ms > 0
        {
            let next_ms = turn.config.initial_rebalance_delay_ms.min(delay.remaining_ms);
            let remaining_ms = delay.remaining_ms.saturating_sub(delay.delay_ms).max(0);
            *delay = InitialDelay {
                delay_ms: next_ms,
                remaining_ms,
                member_added: false,
            };
            turn.schedule(self.join_key(), next_ms);
        } else {
            self.complete_join(turn);
        }
    }

    /// Ends the join phase: dynamic members that did not join are out, the others become a new generation.
    pub fn complete_join(&mut self, turn: &mut Turn<'_>) {
        turn.timers.cancel(&self.join_key());
        self.initial_delay = None;

        let is_missing = |member: &Member| member.awaiting_join.is_none() && member.instance_id.is_none();
        let missing: Vec<String> = self
            .members()
            .filter(|member| is_missing(member))
            .map(|member| member.id.clone())
            .collect();
        for member_id in missing {
            self.remove(turn, &member_id, ErrorCode::UnknownMemberId);
        }

        if !self.elect_joined_leader() && self.member_count() > 0 {
            // Only static members are left and none of them joined: wait until one does, or until their sessions end.
            turn.schedule(self.join_key(), self.rebalance_timeout_ms());
            return;
        }
        self.begin_generation(turn);
    }

    /// Keeps the leader if it joined, else elects the first member that did. Says whether there is such a leader.
    fn elect_joined_leader(&mut self) -> bool {
        let has_joined = |member_id: &String| self.member(member_id).is_some_and(|member| member.awaiting_join.is_some());
        if self.leader.as_ref().is_some_and(has_joined) {
            return true;
        }
        let elected = self
            .members()
            .find(|member| member.awaiting_join.is_some())
            .map(|member| member.id.clone());
        let found = elected.is_some();
        if found {
            self.leader = elected;
        }
        found
    }

    fn begin_generation(&mut self, turn: &mut Turn<'_>) {
        // Generations stay positive, also after 2^31 rebalances.
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.pending_syncs.clear();
        self.protocol = self.select_protocol();
        self.subscribed_topics = self.read_subscribed_topics();
        if self.member_count() == 0 {
            self.leader = None;
            self.transition(GroupState::Empty, turn.now_ms);
            turn.decision.records.push(GroupRecord::Group {
                group_id: self.id.clone(),
                value: Some(self.to_metadata()),
            });
            return;
        }
        self.transition(GroupState::CompletingRebalance, turn.now_ms);
        for member_id in self.member_ids() {
            let response = self.join_response(&member_id, self.is_leader(&member_id));
            self.answer_join(turn, &member_id, response);
            self.renew_session(turn, &member_id);
            self.mark_known(&member_id);
            self.pending_syncs.insert(member_id);
        }
        turn.schedule(self.sync_key(), self.rebalance_timeout_ms());
    }

    /// The wait for SyncGroup is over: who did not sync is out (KIP-345's answer to members stuck between join and sync).
    pub fn on_sync_timer(&mut self, turn: &mut Turn<'_>) {
        match self.state() {
            GroupState::CompletingRebalance | GroupState::Stable if !self.pending_syncs.is_empty() => {
                for member_id in std::mem::take(&mut self.pending_syncs) {
                    self.remove(turn, &member_id, ErrorCode::UnknownMemberId);
                }
                self.begin_rebalance(turn);
            }
            GroupState::CompletingRebalance
            | GroupState::Stable
            | GroupState::Empty
            | GroupState::PreparingRebalance
            | GroupState::Dead => {}
        }
    }

    /// A session ended without a heartbeat.
    pub fn on_session_timer(&mut self, turn: &mut Turn<'_>, member_id: &str) {
        let is_gone = match self.member(member_id) {
            Some(member) => !member.has_satisfied_heartbeat(),
            None => self.pending_joins.contains(member_id),
        };
        if !is_gone {
            return;
        }
        let was_member = self.remove(turn, member_id, ErrorCode::UnknownMemberId).is_some();
        match self.state() {
            GroupState::Stable | GroupState::CompletingRebalance if was_member => self.begin_rebalance(turn),
            // Also during the initial delay: everybody who is left is there.
            GroupState::PreparingRebalance if self.all_have_joined() => self.complete_join(turn),
            GroupState::Stable
            | GroupState::CompletingRebalance
            | GroupState::PreparingRebalance
            | GroupState::Empty
            | GroupState::Dead => {}
        }
    }

    /// Takes all assignments back and answers every parked SyncGroup with `error`.
    pub fn reset_assignments(&mut self, turn: &mut Turn<'_>, error: ErrorCode) {
        self.set_assignments(BTreeMap::new());
        self.answer_syncs(turn, |_, _| SyncGroupResponse::error(error));
    }

    /// Answers every parked SyncGroup. Those members' sessions start anew: an expiry during the wait was ignored.
    pub fn answer_syncs(&mut self, turn: &mut Turn<'_>, response: impl Fn(&Self, &str) -> SyncGroupResponse) {
        for member_id in self.member_ids() {
            let response = response(self, &member_id);
            if self.answer_sync(turn, &member_id, response) {
                self.renew_session(turn, &member_id);
            }
        }
    }
}
