//! LeaveGroup: members that go, one by one or in a batch, by member id or by instance id.

use millstream_protocol::error_code::ErrorCode;

use super::{
    GroupState, LeaveGroupRequest, LeavingMember,
    state::{ClassicGroup, Turn},
};

impl ClassicGroup {
    /// Removes the members and starts one rebalance for all of them. The outcomes are in request order.
    pub fn leave(&mut self, turn: &mut Turn<'_>, request: LeaveGroupRequest) -> Vec<(LeavingMember, ErrorCode)> {
        let mut outcomes = Vec::with_capacity(request.members.len());
        for leaving in request.members {
            let outcome = match self.leaving_id(&leaving) {
                Ok(member_id) => {
                    self.remove(turn, &member_id, ErrorCode::UnknownMemberId);
                    ErrorCode::None
                }
                Err(error) => error,
            };
            outcomes.push((leaving, outcome));
        }
        if outcomes.iter().any(|(_, outcome)| *outcome == ErrorCode::None) {
            match self.state() {
                GroupState::Stable | GroupState::CompletingRebalance => self.begin_rebalance(turn),
                GroupState::PreparingRebalance => self.complete_join_if_all_joined(turn),
                GroupState::Empty | GroupState::Dead => {}
            }
        }
        outcomes
    }

    /// The member or pending id that is meant.
    fn leaving_id(&self, leaving: &LeavingMember) -> Result<String, ErrorCode> {
        let instance_id = leaving.group_instance_id.as_deref();
        if leaving.member_id.is_empty() {
            // An administrator removes a static member by its instance id alone (KIP-345).
            return instance_id
                .and_then(|id| self.static_member_id(id))
                .cloned()
                .ok_or(ErrorCode::UnknownMemberId);
        }
        if !self.pending_joins.contains(&leaving.member_id) {
            self.validate_member(&leaving.member_id, instance_id)?;
        }
        Ok(leaving.member_id.clone())
    }
}
