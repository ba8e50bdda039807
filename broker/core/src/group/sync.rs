//! SyncGroup and Heartbeat: how an assignment reaches the members, and how they stay in the group.

use std::collections::BTreeMap;

use millstream_protocol::error_code::ErrorCode;

use super::{
    GroupMetadata, GroupRecord, GroupState, HeartbeatRequest, SyncGroupRequest, SyncGroupResponse, Token,
    state::{ClassicGroup, Turn},
};

impl ClassicGroup {
    /// A SyncGroup. The token is answered now or later.
    pub fn sync(&mut self, turn: &mut Turn<'_>, token: Token, request: SyncGroupRequest) {
        if let Err(error) = self.validate_sync(&request) {
            turn.reply_sync(token, SyncGroupResponse::error(error));
            return;
        }
        let member_id = request.member_id.as_str();
        match self.state() {
            GroupState::PreparingRebalance => turn.reply_sync(token, SyncGroupResponse::error(ErrorCode::RebalanceInProgress)),
            GroupState::CompletingRebalance => {
                self.park_sync(turn, member_id, token);
                self.note_synced(turn, member_id);
                if self.is_leader(member_id) {
                    self.assign(turn, request);
                }
            }
            GroupState::Stable => {
                self.note_synced(turn, member_id);
                turn.reply_sync(token, self.sync_response(member_id));
            }
            GroupState::Empty | GroupState::Dead => turn.reply_sync(token, SyncGroupResponse::error(ErrorCode::UnknownMemberId)),
        }
    }

    fn validate_sync(&self, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        self.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        // KIP-559: from v5 the client says what it believes the group runs.
        let differs = |expected: &Option<String>, actual: &Option<String>| expected.is_some() && expected != actual;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol_name, &self.protocol) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn note_synced(&mut self, turn: &mut Turn<'_>, member_id: &str) {
        self.pending_syncs.remove(member_id);
        if self.pending_syncs.is_empty() {
            turn.timers.cancel(&self.sync_key());
        }
    }

    /// The leader's assignment: make it durable, then tell everybody who waits.
    fn assign(&mut self, turn: &mut Turn<'_>, request: SyncGroupRequest) {
        self.set_assignments(request.assignments.into_iter().collect::<BTreeMap<_, _>>());
        let metadata = GroupMetadata {
            state_timestamp_ms: Some(turn.now_ms),
            ..self.to_metadata()
        };
        if metadata.encode().len() > turn.config.group_record_bytes_max {
            // The log would refuse the record. As Kafka does with RECORD_TOO_LARGE: nobody gets an assignment, all join again.
            self.reset_assignments(turn, ErrorCode::UnknownServerError);
            self.begin_rebalance(turn);
            return;
        }
        self.transition(GroupState::Stable, turn.now_ms);
        turn.decision.records.push(GroupRecord::Group {
            group_id: self.id.clone(),
            value: Some(metadata),
        });
        self.answer_syncs(turn, Self::sync_response);
    }

    /// A heartbeat. While the group rebalances it keeps the session alive all the same, and tells the member to join again.
    pub fn heartbeat(&mut self, turn: &mut Turn<'_>, request: &HeartbeatRequest) -> ErrorCode {
        if let Err(error) = self.validate_member(&request.member_id, request.group_instance_id.as_deref()) {
            return error;
        }
        if request.generation_id != self.generation {
            return ErrorCode::IllegalGeneration;
        }
        let outcome = match self.state() {
            GroupState::Empty | GroupState::Dead => return ErrorCode::UnknownMemberId,
            GroupState::PreparingRebalance => ErrorCode::RebalanceInProgress,
            GroupState::CompletingRebalance | GroupState::Stable => ErrorCode::None,
        };
        self.renew_session(turn, &request.member_id);
        outcome
    }
}
