//! JoinGroup: who may join, under which id, and whether that starts a rebalance.

use bytes::Bytes;
use millstream_protocol::error_code::ErrorCode;

use super::{
    GroupConfig, GroupRecord, GroupState, JoinGroupRequest, JoinGroupResponse, Token,
    state::{ClassicGroup, Member, Turn},
};
use crate::records::RECORD_STRING_BYTES_MAX;

/// Bytes of a client id or instance id that go into a member id; longer ones are cut.
const MEMBER_ID_PREFIX_BYTES_MAX: usize = 1_024;

/// Checks what needs no group.
pub(super) fn validate(request: &JoinGroupRequest, config: &GroupConfig) -> Result<(), ErrorCode> {
    if request.group_id.is_empty() || request.group_id.len() > RECORD_STRING_BYTES_MAX {
        return Err(ErrorCode::InvalidGroupId);
    }
    if !(config.session_timeout_ms_min..=config.session_timeout_ms_max).contains(&request.session_timeout_ms) {
        return Err(ErrorCode::InvalidSessionTimeout);
    }
    let instance_id = request.group_instance_id.as_deref().unwrap_or_default();
    let texts = [instance_id, &request.client_id, &request.client_host, &request.protocol_type];
    let names = request.protocols.iter().map(|(name, _)| name.as_str());
    if texts.into_iter().chain(names).any(|text| text.len() > RECORD_STRING_BYTES_MAX) {
        return Err(ErrorCode::InvalidRequest);
    }
    Ok(())
}

impl ClassicGroup {
    /// A validated JoinGroup. The token is answered now or later.
    pub fn join(&mut self, turn: &mut Turn<'_>, token: Token, request: JoinGroupRequest) {
        let is_new = request.member_id.is_empty();
        if !self.accepts(&request, turn.config) {
            self.remove(turn, &request.member_id, ErrorCode::GroupMaxSizeReached);
            turn.reply_join(token, JoinGroupResponse::error(ErrorCode::GroupMaxSizeReached, ""));
            self.complete_join_if_all_joined(turn);
        } else if !self.supports(&request.protocol_type, &request.protocols) {
            turn.reply_join(
                token,
                JoinGroupResponse::error(ErrorCode::InconsistentGroupProtocol, request.member_id),
            );
        } else if is_new {
            self.join_new(turn, token, request);
        } else if self.pending_joins.contains(&request.member_id) {
            let member_id = request.member_id.clone();
            self.add_and_rebalance(turn, token, member_id, request);
        } else {
            self.join_existing(turn, token, request);
        }
    }

    /// Whether the group has room. While it rebalances, those who already joined count, so the last to rejoin are left out.
    fn accepts(&self, request: &JoinGroupRequest, config: &GroupConfig) -> bool {
        let member = self.member(&request.member_id);
        let has_room = match self.state() {
            GroupState::Empty | GroupState::Dead => true,
            GroupState::PreparingRebalance => {
                member.is_some_and(|member| member.awaiting_join.is_some()) || self.awaiting_joins() < config.members_max
            }
            GroupState::CompletingRebalance | GroupState::Stable => member.is_some() || self.member_count() < config.members_max,
        };
        let becomes_pending = request.member_id.is_empty() && request.group_instance_id.is_none() && request.requires_known_member_id;
        has_room && !(becomes_pending && self.pending_joins.len() >= config.pending_members_max)
    }

    fn join_new(&mut self, turn: &mut Turn<'_>, token: Token, request: JoinGroupRequest) {
        let member_id = new_member_id(&request);
        let replaced = request
            .group_instance_id
            .as_deref()
            .and_then(|instance_id| self.static_member_id(instance_id).cloned());
        if let Some(old_id) = replaced {
            self.replace_static(turn, token, &old_id, member_id, request);
        } else if request.group_instance_id.is_none() && request.requires_known_member_id {
            // KIP-394: the id first, so that a client that never comes back leaves no member behind.
            self.pending_joins.insert(member_id.clone());
            turn.schedule(self.session_key(&member_id), request.session_timeout_ms);
            turn.reply_join(token, JoinGroupResponse::error(ErrorCode::MemberIdRequired, member_id));
        } else {
            self.add_and_rebalance(turn, token, member_id, request);
        }
    }

    fn add_and_rebalance(&mut self, turn: &mut Turn<'_>, token: Token, member_id: String, request: JoinGroupRequest) {
        if let Some(delay) = &mut self.initial_delay {
            delay.member_added = true;
        }
        if self.member_count() == 0 {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        let rebalance_timeout_ms = rebalance_timeout_ms(&request);
        self.add(Member {
            id: member_id.clone(),
            instance_id: request.group_instance_id,
            client_id: request.client_id,
            client_host: request.client_host,
            session_timeout_ms: request.session_timeout_ms,
            rebalance_timeout_ms,
            protocols: request.protocols,
            assignment: Bytes::new(),
            awaiting_join: Some(token),
            awaiting_sync: None,
            is_new: true,
        });
        // It cannot heartbeat before it has an answer, and a broken connection is not seen: bound the wait of defunct members.
        turn.schedule(self.session_key(&member_id), turn.config.new_member_join_timeout_ms);
        self.rebalance_or_complete_join(turn);
    }

    fn join_existing(&mut self, turn: &mut Turn<'_>, token: Token, request: JoinGroupRequest) {
        let member_id = request.member_id.clone();
        if let Err(error) = self.validate_member(&member_id, request.group_instance_id.as_deref()) {
            turn.reply_join(token, JoinGroupResponse::error(error, member_id));
            return;
        }
        let is_unchanged = self.member(&member_id).is_some_and(|member| member.protocols == request.protocols);
        let is_leader = self.is_leader(&member_id);
        match self.state() {
            GroupState::PreparingRebalance => self.update_and_rebalance(turn, token, request),
            // Most likely the answer to the first JoinGroup was lost: tell it again.
            GroupState::CompletingRebalance if is_unchanged => turn.reply_join(token, self.join_response(&member_id, is_leader)),
            // A follower without news only needs the generation to go on with SyncGroup. The leader may know of changes that are not in its
            // metadata, for example new partitions.
            GroupState::Stable if is_unchanged && !is_leader => turn.reply_join(token, self.join_response(&member_id, false)),
            GroupState::CompletingRebalance | GroupState::Stable => self.update_and_rebalance(turn, token, request),
            GroupState::Empty | GroupState::Dead => {
                turn.reply_join(token, JoinGroupResponse::error(ErrorCode::UnknownMemberId, member_id));
            }
        }
    }

    fn update_and_rebalance(&mut self, turn: &mut Turn<'_>, token: Token, request: JoinGroupRequest) {
        let member_id = request.member_id.clone();
        self.update_from(&member_id, request);
        self.park_join(turn, &member_id, token);
        self.rebalance_or_complete_join(turn);
    }

    fn update_from(&mut self, member_id: &str, request: JoinGroupRequest) {
        let rebalance_timeout_ms = rebalance_timeout_ms(&request);
        self.update(member_id, |member| {
            member.protocols = request.protocols;
            member.session_timeout_ms = request.session_timeout_ms;
            member.rebalance_timeout_ms = rebalance_timeout_ms;
        });
    }

    /// A static member restarted: the new id takes the place of the old one, which is fenced (KIP-345).
    fn replace_static(&mut self, turn: &mut Turn<'_>, token: Token, old_id: &str, new_id: String, request: JoinGroupRequest) {
        let old_leader = self.leader.clone();
        let was_leader = self.is_leader(old_id);
        let was_pending_sync = self.pending_syncs.contains(old_id);
        let Some(old) = self.remove(turn, old_id, ErrorCode::FencedInstanceId) else {
            return;
        };
        let (client_id, client_host) = (request.client_id.clone(), request.client_host.clone());
        self.add(Member {
            id: new_id.clone(),
            client_id,
            client_host,
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
            ..old
        });
        if was_leader {
            self.leader = Some(new_id.clone());
        }
        if was_pending_sync {
            self.pending_syncs.insert(new_id.clone());
        }
        let skips_assignment = request.supports_skipping_assignment;
        self.update_from(&new_id, request);
        self.renew_session(turn, &new_id);

        match self.state() {
            GroupState::Stable if self.select_protocol() == self.protocol => {
                // Nothing changes for the others: only the new id must be durable. From v9 a leader stays leader and is told to keep the
                // assignment (KIP-814). Before, it is told the old leader's id, so that it does not take itself for the leader.
                turn.decision.records.push(GroupRecord::Group {
                    group_id: self.id.clone(),
                    value: Some(self.to_metadata()),
                });
                let is_leader = self.is_leader(&new_id);
                let mut response = self.join_response(&new_id, is_leader && skips_assignment);
                response.skip_assignment = is_leader && skips_assignment;
                if !skips_assignment {
                    response.leader = old_leader.unwrap_or_default();
                }
                turn.reply_join(token, response);
            }
            // In CompletingRebalance the leader may already assign to the old id, which would leave the new one without.
            GroupState::Stable | GroupState::CompletingRebalance => {
                self.park_join(turn, &new_id, token);
                self.begin_rebalance(turn);
            }
            GroupState::PreparingRebalance => {
                self.park_join(turn, &new_id, token);
                self.complete_join_if_all_joined(turn);
            }
            GroupState::Empty | GroupState::Dead => {
                unreachable!("group {} is {} and has the static member {old_id}", self.id, self.state())
            }
        }
    }
}

pub(super) fn rebalance_timeout_ms(request: &JoinGroupRequest) -> i32 {
    if request.rebalance_timeout_ms < 0 {
        request.session_timeout_ms
    } else {
        request.rebalance_timeout_ms
    }
}

/// `group.instance.id` or client id, a dash, and the uuid.
pub(super) fn new_member_id(request: &JoinGroupRequest) -> String {
    let prefix = request.group_instance_id.as_deref().unwrap_or(&request.client_id);
    let cut = prefix.floor_char_boundary(MEMBER_ID_PREFIX_BYTES_MAX);
    format!("{}-{}", prefix.get(..cut).unwrap_or_default(), request.member_uuid)
}
