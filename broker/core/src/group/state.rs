//! Soft state of one classic group: its members, who is parked, and the state it is in.
//!
//! Nothing here reaches the log by itself; [`ClassicGroup::to_metadata`] makes the record, [`ClassicGroup::from_metadata`] is its inverse after
//! a failover. Every path that takes a member out answers the requests it has parked.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use millstream_protocol::error_code::ErrorCode;

use crate::records::Reader;

use super::{
    Decision, GroupConfig, GroupMetadata, GroupState, JoinGroupMember, JoinGroupResponse, MemberMetadata, ParkedResponse, Reply,
    SyncGroupResponse, Token,
    timers::{TimerKey, Timers},
};

/// What a group's methods need besides the group, for the time of one call.
pub(super) struct Turn<'a> {
    pub now_ms: i64,
    pub config: &'a GroupConfig,
    pub timers: &'a mut Timers,
    pub decision: &'a mut Decision,
}

impl Turn<'_> {
    pub fn reply_join(&mut self, token: Token, response: JoinGroupResponse) {
        self.decision.replies.push(Reply {
            token,
            response: ParkedResponse::Join(response),
        });
    }

    pub fn reply_sync(&mut self, token: Token, response: SyncGroupResponse) {
        self.decision.replies.push(Reply {
            token,
            response: ParkedResponse::Sync(response),
        });
    }

    pub fn schedule(&mut self, key: TimerKey, delay_ms: i32) {
        self.timers.schedule(key, self.now_ms.saturating_add(delay_ms.into()));
    }
}

/// A member.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    /// Most wanted first.
    pub protocols: Vec<(String, Bytes)>,
    pub assignment: Bytes,
    pub awaiting_join: Option<Token>,
    pub awaiting_sync: Option<Token>,
    /// Its first JoinGroup is still parked, so it cannot heartbeat yet.
    pub is_new: bool,
}

impl Member {
    /// Its metadata for a protocol.
    pub fn metadata(&self, protocol: Option<&str>) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| Some(name.as_str()) == protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    /// A member with a parked request is alive without heartbeats, unless it never had a chance to send one.
    pub fn has_satisfied_heartbeat(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }

    fn protocol_names(&self) -> BTreeSet<&str> {
        self.protocols.iter().map(|(name, _)| name.as_str()).collect()
    }
}

/// The extendable wait of the first rebalance of an empty group (`group.initial.rebalance.delay.ms`).
#[derive(Debug, Clone, Copy)]
pub(super) struct InitialDelay {
    pub delay_ms: i32,
    pub remaining_ms: i32,
    /// Somebody joined during the current wait.
    pub member_added: bool,
}

/// A classic group.
#[derive(Debug)]
pub(super) struct ClassicGroup {
    pub id: String,
    state: GroupState,
    pub state_timestamp_ms: Option<i64>,
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Member id by `group.instance.id`.
    static_members: BTreeMap<String, String>,
    /// How many members can do a protocol.
    protocol_support: BTreeMap<String, usize>,
    awaiting_joins: usize,
    /// Ids given out with MEMBER_ID_REQUIRED.
    pub pending_joins: BTreeSet<String>,
    /// Members of this generation that did not sync yet.
    pub pending_syncs: BTreeSet<String>,
    /// Set exactly while the first rebalance of an empty group waits.
    pub initial_delay: Option<InitialDelay>,
    /// Topics of all members' subscriptions, if they are consumers whose metadata could be read.
    pub subscribed_topics: Option<BTreeSet<String>>,
}

impl ClassicGroup {
    /// An empty group.
    pub fn new(id: String, now_ms: i64) -> Self {
        Self::from_metadata(
            id,
            &GroupMetadata {
                state_timestamp_ms: Some(now_ms),
                ..GroupMetadata::default()
            },
        )
    }

    /// A stable group of consumers without a leader, which is to rebalance at once.
    pub fn of_consumers(id: String, generation: i32, members: Vec<Member>) -> Self {
        let metadata = GroupMetadata {
            protocol_type: "consumer".to_owned(),
            generation,
            ..GroupMetadata::default()
        };
        let mut group = Self::from_metadata(id, &metadata);
        group.state = GroupState::Stable;
        members.into_iter().for_each(|member| group.add(member));
        group.leader = None;
        group.protocol = group.select_protocol();
        group.subscribed_topics = group.read_subscribed_topics();
        group
    }

    /// The group as the log has it.
    pub fn from_metadata(id: String, metadata: &GroupMetadata) -> Self {
        let mut group = Self {
            id,
            state: if metadata.members.is_empty() {
                GroupState::Empty
            } else {
                GroupState::Stable
            },
            state_timestamp_ms: metadata.state_timestamp_ms,
            generation: metadata.generation,
            protocol_type: Some(metadata.protocol_type.clone()).filter(|protocol_type| !protocol_type.is_empty()),
            protocol: metadata.protocol.clone(),
            leader: metadata.leader.clone(),
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            protocol_support: BTreeMap::new(),
            awaiting_joins: 0,
            pending_joins: BTreeSet::new(),
            pending_syncs: BTreeSet::new(),
            initial_delay: None,
            subscribed_topics: None,
        };
        for member in &metadata.members {
            let rebalance_timeout_ms = if member.rebalance_timeout_ms < 0 {
                member.session_timeout_ms
            } else {
                member.rebalance_timeout_ms
            };
            group.add(Member {
                id: member.member_id.clone(),
                instance_id: member.group_instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                session_timeout_ms: member.session_timeout_ms,
                rebalance_timeout_ms,
                protocols: vec![(metadata.protocol.clone().unwrap_or_default(), member.subscription.clone())],
                assignment: member.assignment.clone(),
                awaiting_join: None,
                awaiting_sync: None,
                is_new: false,
            });
        }
        group.subscribed_topics = group.read_subscribed_topics();
        group
    }

    /// The group's record.
    pub fn to_metadata(&self) -> GroupMetadata {
        let member_metadata = |member: &Member| MemberMetadata {
            member_id: member.id.clone(),
            group_instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(self.protocol.as_deref()),
            assignment: member.assignment.clone(),
        };
        GroupMetadata {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_timestamp_ms: self.state_timestamp_ms,
            members: self.members.values().map(member_metadata).collect(),
        }
    }

    pub fn state(&self) -> GroupState {
        self.state
    }

    /// Enters a state.
    pub fn transition(&mut self, next: GroupState, now_ms: i64) {
        assert!(
            self.state.can_become(next),
            "group {} cannot go from {} to {next}",
            self.id,
            self.state
        );
        self.state = next;
        self.state_timestamp_ms = Some(now_ms);
    }

    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    pub fn member(&self, member_id: &str) -> Option<&Member> {
        self.members.get(member_id)
    }

    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    pub fn awaiting_joins(&self) -> usize {
        self.awaiting_joins
    }

    pub fn member_ids(&self) -> Vec<String> {
        self.members.keys().cloned().collect()
    }

    pub fn static_member_id(&self, instance_id: &str) -> Option<&String> {
        self.static_members.get(instance_id)
    }

    pub fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    /// Checks that the member is in the group and, if static, was not replaced by a newer instance.
    pub fn validate_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            let current = self.static_members.get(instance_id).ok_or(ErrorCode::UnknownMemberId)?;
            if current != member_id {
                return Err(ErrorCode::FencedInstanceId);
            }
        }
        if self.members.contains_key(member_id) {
            Ok(())
        } else {
            Err(ErrorCode::UnknownMemberId)
        }
    }

    /// Whether a member with these protocols fits: the same type, and one protocol that every member can do.
    pub fn supports(&self, protocol_type: &str, protocols: &[(String, Bytes)]) -> bool {
        if self.state == GroupState::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type) && protocols.iter().any(|(name, _)| self.is_common(name))
    }

    fn is_common(&self, protocol: &str) -> bool {
        self.protocol_support.get(protocol).copied().unwrap_or(0) == self.members.len()
    }

    /// The protocol most members want, of those that all can do. A tie goes to the first by name.
    pub fn select_protocol(&self) -> Option<String> {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| self.is_common(name)) {
                *votes.entry(name.as_str()).or_default() += 1;
            }
        }
        let most = votes.values().max()?;
        votes.iter().find(|(_, count)| *count == most).map(|(name, _)| (*name).to_owned())
    }

    /// Adds a member; the first one becomes leader and gives the group its protocol type.
    pub fn add(&mut self, member: Member) {
        for name in member.protocol_names() {
            *self.protocol_support.entry(name.to_owned()).or_default() += 1;
        }
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), member.id.clone());
        }
        if member.awaiting_join.is_some() {
            self.awaiting_joins += 1;
        }
        self.pending_joins.remove(&member.id);
        self.leader.get_or_insert_with(|| member.id.clone());
        self.members.insert(member.id.clone(), member);
    }

    /// Takes a member (or a pending id) out, answers what it has parked with `error`, and forgets its session.
    pub fn remove(&mut self, turn: &mut Turn<'_>, member_id: &str, error: ErrorCode) -> Option<Member> {
        turn.timers.cancel(&self.session_key(member_id));
        self.pending_joins.remove(member_id);
        self.pending_syncs.remove(member_id);
        // Kafka answers with the unknown (empty) member id, so that the client starts over; a fenced instance is told its own.
        let told_id = if error == ErrorCode::FencedInstanceId { member_id } else { "" };
        self.answer_join(turn, member_id, JoinGroupResponse::error(error, told_id));
        self.answer_sync(turn, member_id, SyncGroupResponse::error(error));
        let member = self.members.remove(member_id)?;
        self.forget_protocols(&member);
        if let Some(instance_id) = &member.instance_id
            && self.static_members.get(instance_id) == Some(&member.id)
        {
            self.static_members.remove(instance_id);
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    fn forget_protocols(&mut self, member: &Member) {
        for name in member.protocol_names() {
            if let Some(count) = self.protocol_support.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.protocol_support.remove(name);
                }
            }
        }
    }

    /// Changes a member in place. Its protocols are counted anew.
    pub fn update(&mut self, member_id: &str, change: impl FnOnce(&mut Member)) {
        let Some(mut member) = self.members.remove(member_id) else { return };
        self.forget_protocols(&member);
        change(&mut member);
        for name in member.protocol_names() {
            *self.protocol_support.entry(name.to_owned()).or_default() += 1;
        }
        self.members.insert(member.id.clone(), member);
    }

    /// Its first JoinGroup is answered: from now on it must heartbeat.
    pub fn mark_known(&mut self, member_id: &str) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.is_new = false;
        }
    }

    /// Gives every member its assignment, those not named the empty one.
    pub fn set_assignments(&mut self, mut assignments: BTreeMap<String, Bytes>) {
        for member in self.members.values_mut() {
            member.assignment = assignments.remove(&member.id).unwrap_or_default();
        }
    }

    /// Parks a JoinGroup. A request that the client gave up and repeated is answered at last.
    pub fn park_join(&mut self, turn: &mut Turn<'_>, member_id: &str, token: Token) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        match member.awaiting_join.replace(token) {
            Some(old) => turn.reply_join(old, JoinGroupResponse::error(ErrorCode::RebalanceInProgress, member_id)),
            None => self.awaiting_joins += 1,
        }
    }

    /// Parks a SyncGroup. A request that the client gave up and repeated is answered at last.
    pub fn park_sync(&mut self, turn: &mut Turn<'_>, member_id: &str, token: Token) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        if let Some(old) = member.awaiting_sync.replace(token) {
            turn.reply_sync(old, SyncGroupResponse::error(ErrorCode::RebalanceInProgress));
        }
    }

    /// Answers the parked JoinGroup, if there is one.
    pub fn answer_join(&mut self, turn: &mut Turn<'_>, member_id: &str, response: JoinGroupResponse) {
        if let Some(token) = self.members.get_mut(member_id).and_then(|member| member.awaiting_join.take()) {
            self.awaiting_joins -= 1;
            turn.reply_join(token, response);
        }
    }

    /// Answers the parked SyncGroup, if there is one, and says whether there was.
    pub fn answer_sync(&mut self, turn: &mut Turn<'_>, member_id: &str, response: SyncGroupResponse) -> bool {
        let token = self.members.get_mut(member_id).and_then(|member| member.awaiting_sync.take());
        if let Some(token) = token {
            turn.reply_sync(token, response);
        }
        token.is_some()
    }

    /// Whether every member, and everybody who was given an id, has joined.
    pub fn all_have_joined(&self) -> bool {
        self.members.len() == self.awaiting_joins && self.pending_joins.is_empty()
    }

    /// The longest rebalance timeout of a member. At least 1: a timer that comes back at once would never let a tick end.
    pub fn rebalance_timeout_ms(&self) -> i32 {
        self.members
            .values()
            .map(|member| member.rebalance_timeout_ms)
            .max()
            .unwrap_or(0)
            .max(1)
    }

    /// Starts a member's session anew.
    pub fn renew_session(&self, turn: &mut Turn<'_>, member_id: &str) {
        if let Some(member) = self.members.get(member_id) {
            turn.schedule(self.session_key(member_id), member.session_timeout_ms);
        }
    }

    pub fn session_key(&self, member_id: &str) -> TimerKey {
        TimerKey::Session {
            group_id: self.id.clone(),
            member_id: member_id.to_owned(),
        }
    }

    pub fn join_key(&self) -> TimerKey {
        TimerKey::Join { group_id: self.id.clone() }
    }

    pub fn sync_key(&self) -> TimerKey {
        TimerKey::Sync { group_id: self.id.clone() }
    }

    /// Forgets all timers of a group that goes away.
    pub fn cancel_timers(&self, timers: &mut Timers) {
        timers.cancel(&self.join_key());
        timers.cancel(&self.sync_key());
        for member_id in self.members.keys().chain(&self.pending_joins) {
            timers.cancel(&self.session_key(member_id));
        }
    }

    /// A successful JoinGroup answer for a member of the current generation.
    pub fn join_response(&self, member_id: &str, with_members: bool) -> JoinGroupResponse {
        let join_member = |member: &Member| JoinGroupMember {
            member_id: member.id.clone(),
            group_instance_id: member.instance_id.clone(),
            metadata: member.metadata(self.protocol.as_deref()),
        };
        JoinGroupResponse {
            error_code: ErrorCode::None,
            generation_id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members: if with_members {
                self.members.values().map(join_member).collect()
            } else {
                Vec::new()
            },
        }
    }

    /// A successful SyncGroup answer for a member.
    pub fn sync_response(&self, member_id: &str) -> SyncGroupResponse {
        SyncGroupResponse {
            error_code: ErrorCode::None,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            assignment: self
                .members
                .get(member_id)
                .map(|member| member.assignment.clone())
                .unwrap_or_default(),
        }
    }

    /// Topics that the members subscribe to; `None` if they are no consumers or one's metadata cannot be read.
    pub fn read_subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if self.protocol_type.as_deref() != Some("consumer") {
            return None;
        }
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(read_subscription(&member.metadata(self.protocol.as_deref()))?);
        }
        Some(topics)
    }
}

/// The topics of a `ConsumerProtocolSubscription`: `i16` version, then an array of strings; later fields are not needed.
fn read_subscription(metadata: &[u8]) -> Option<Vec<String>> {
    let mut reader = Reader::new(metadata);
    reader.i16().ok()?;
    let count = reader.array_length().ok()?;
    let mut topics = Vec::new();
    for _ in 0..count {
        topics.push(reader.string().ok()?);
    }
    Some(topics)
}
