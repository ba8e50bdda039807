//! What the tests drive the coordinator with: a shell that appends, applies and delivers at once, and short requests.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use millstream_protocol::error_code::ErrorCode;
use uuid::Uuid;

use super::*;
use crate::metadata::{
    ClusterImage,
    image::{PartitionImage, TopicImage},
};

pub(super) const GROUP: &str = "g";

/// The coordinator, its log, and what its clients were told.
pub(super) struct Shell {
    pub coordinator: GroupCoordinator,
    pub now_ms: i64,
    pub image: ClusterImage,
    pub log: Vec<GroupRecord>,
    answers: BTreeMap<Token, ParkedResponse>,
    next_token: Token,
}

pub(super) fn fast_config() -> GroupConfig {
    GroupConfig {
        session_timeout_ms_min: 100,
        initial_rebalance_delay_ms: 0,
        ..GroupConfig::default()
    }
}

/// Puts a topic into the metadata.
pub(super) fn put_topic(image: &mut ClusterImage, name: &str, id: Uuid, partitions: usize) {
    let partition = PartitionImage {
        replicas: vec![1],
        isr: vec![1],
        leader: 1,
        leader_epoch: 0,
    };
    let topic = TopicImage {
        name: name.into(),
        id,
        partitions: vec![partition; partitions],
        configs: BTreeMap::new(),
        internal: false,
        created_ms: 0,
        bindings: Vec::new(),
        chain_version: 0,
    };
    image.topics.insert(name.into(), Arc::new(topic));
    image.names.insert(id, name.into());
}

/// Member id that the shell's uuid gives: client id and the token of the request.
pub(super) fn id_of(client: &str, token: Token) -> String {
    format!("{client}-{}", Uuid::from_u128(token.into()))
}

/// A consumer's subscription to topics, as the Java client encodes version 0 (without user data).
pub(super) fn subscription(topics: &[&str]) -> Bytes {
    let mut out = vec![0, 0, 0, 0, 0, u8::try_from(topics.len()).unwrap()];
    for topic in topics {
        out.extend([0, u8::try_from(topic.len()).unwrap()]);
        out.extend(topic.as_bytes());
    }
    out.extend([0xff; 4]);
    out.into()
}

pub(super) fn join_request(client: &str, member_id: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: GROUP.into(),
        member_id: member_id.into(),
        group_instance_id: None,
        client_id: client.into(),
        client_host: "/127.0.0.1".into(),
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), subscription(&["t"]))],
        session_timeout_ms: 1_000,
        rebalance_timeout_ms: 5_000,
        member_uuid: Uuid::nil(),
        requires_known_member_id: false,
        supports_skipping_assignment: true,
    }
}

pub(super) fn static_request(instance_id: &str, member_id: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_instance_id: Some(instance_id.into()),
        ..join_request("c", member_id)
    }
}

pub(super) fn sync_request(member_id: &str, generation_id: i32, assignments: &[(&str, &str)]) -> SyncGroupRequest {
    let assignments = assignments
        .iter()
        .map(|(id, text)| ((*id).to_owned(), Bytes::copy_from_slice(text.as_bytes())))
        .collect();
    SyncGroupRequest {
        group_id: GROUP.into(),
        generation_id,
        member_id: member_id.into(),
        group_instance_id: None,
        protocol_type: None,
        protocol_name: None,
        assignments,
    }
}

impl Shell {
    pub fn new(config: GroupConfig) -> Self {
        let mut coordinator = GroupCoordinator::new(config);
        assert_eq!(coordinator.loaded(0), Decision::default());
        Self {
            coordinator,
            now_ms: 0,
            image: ClusterImage::empty(Uuid::nil()),
            log: Vec::new(),
            answers: BTreeMap::new(),
            next_token: 1,
        }
    }

    /// Appends, applies, delivers.
    pub fn run<R>(&mut self, decision: Decision<R>) -> R {
        for record in &decision.records {
            let read_back = GroupRecord::decode(&record.encode_key(), record.encode_value().as_deref());
            assert_eq!(read_back, Ok(Some(record.clone())), "a record does not survive its encoding");
            self.coordinator.apply(record);
        }
        self.log.extend(decision.records);
        self.deliver(decision.replies);
        decision.response
    }

    fn deliver(&mut self, replies: Vec<Reply>) {
        for Reply { token, response } in replies {
            assert!(token < self.next_token, "token {token} was never parked");
            assert!(self.answers.insert(token, response).is_none(), "token {token} was answered twice");
        }
    }

    pub fn join(&mut self, mut request: JoinGroupRequest) -> Token {
        let token = self.next_token;
        self.next_token += 1;
        request.member_uuid = Uuid::from_u128(token.into());
        let decision = self.coordinator.join_group(self.now_ms, token, request, &self.image);
        self.run(decision);
        token
    }

    pub fn sync(&mut self, request: SyncGroupRequest) -> Token {
        let token = self.next_token;
        self.next_token += 1;
        let decision = self.coordinator.sync_group(self.now_ms, token, request, &self.image);
        self.run(decision);
        token
    }

    pub fn heartbeat(&mut self, member_id: &str, generation_id: i32) -> ErrorCode {
        let (group_id, member_id) = (GROUP.to_owned(), member_id.to_owned());
        self.coordinator.heartbeat(
            self.now_ms,
            &HeartbeatRequest {
                group_id,
                generation_id,
                member_id,
                group_instance_id: None,
            },
        )
    }

    pub fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Vec<ErrorCode> {
        let leaving = |(id, instance): &(&str, Option<&str>)| LeavingMember {
            member_id: (*id).to_owned(),
            group_instance_id: instance.map(str::to_owned),
        };
        let request = LeaveGroupRequest {
            group_id: GROUP.into(),
            members: members.iter().map(leaving).collect(),
        };
        let decision = self.coordinator.leave_group(self.now_ms, request);
        self.run(decision).members.into_iter().map(|(_, outcome)| outcome).collect()
    }

    /// Lets time pass, firing every timer at its own time.
    pub fn advance(&mut self, by_ms: i64) {
        let until_ms = self.now_ms + by_ms;
        while let Some(deadline_ms) = self.coordinator.next_deadline().filter(|deadline_ms| *deadline_ms <= until_ms) {
            self.now_ms = self.now_ms.max(deadline_ms);
            let decision = self.coordinator.tick(self.now_ms);
            self.run(decision);
        }
        self.now_ms = until_ms;
    }

    /// The coordinator moves: all that is parked is refused, the next one replays the log.
    pub fn fail_over(&mut self) {
        let replies = self.coordinator.unload(ErrorCode::NotCoordinator);
        self.deliver(replies);
        let mut next = GroupCoordinator::new(self.coordinator.config.clone());
        self.log.iter().for_each(|record| next.apply(record));
        assert_eq!(next.hard_state(), self.coordinator.hard_state(), "replay gives another hard state");
        let mut compacted = GroupCoordinator::new(self.coordinator.config.clone());
        self.compacted_log().for_each(|record| compacted.apply(record));
        let (some, all) = (compacted.hard_state(), next.hard_state());
        assert_eq!(some.modern_groups(), all.modern_groups(), "compaction changes consumer groups");
        assert_eq!(some.groups(), all.groups(), "compaction changes classic groups");
        assert_eq!(some.streams_groups(), all.streams_groups(), "compaction changes streams groups");
        self.coordinator = next;
        let decision = self.coordinator.loaded(self.now_ms);
        self.run(decision);
    }

    /// What is left of the log when it is compacted: the last record of each key, if that is no tombstone.
    fn compacted_log(&self) -> impl Iterator<Item = &GroupRecord> {
        let last: BTreeMap<Bytes, usize> = self.log.iter().map(GroupRecord::encode_key).zip(0..).collect();
        let is_kept = move |(index, record): &(usize, &GroupRecord)| last.get(&record.encode_key()) == Some(index);
        let kept = self.log.iter().enumerate().filter(is_kept).map(|(_, record)| record);
        kept.filter(|record| record.encode_value().is_some())
    }

    pub fn take(&mut self, token: Token) -> Option<ParkedResponse> {
        self.answers.remove(&token)
    }

    pub fn joined(&mut self, token: Token) -> JoinGroupResponse {
        match self.take(token) {
            Some(ParkedResponse::Join(response)) => response,
            other => panic!("token {token} has no answer to a join but {other:?}"),
        }
    }

    pub fn synced(&mut self, token: Token) -> SyncGroupResponse {
        match self.take(token) {
            Some(ParkedResponse::Sync(response)) => response,
            other => panic!("token {token} has no answer to a sync but {other:?}"),
        }
    }

    pub fn is_parked(&self, token: Token) -> bool {
        !self.answers.contains_key(&token)
    }

    pub fn state(&self) -> GroupState {
        self.coordinator.describe_group(GROUP).state
    }

    /// A stable group of these clients; the ids in the order of the clients, the first is the leader (name them in order).
    pub fn stable_group(&mut self, clients: &[&str]) -> Vec<String> {
        let tokens: Vec<Token> = clients.iter().map(|client| self.join(join_request(client, ""))).collect();
        self.advance(0);
        self.settle(&tokens)
    }

    /// Takes the answers of joins that are done and syncs everybody; the leader assigns each member its own id as text.
    pub fn settle(&mut self, joins: &[Token]) -> Vec<String> {
        let joined: Vec<JoinGroupResponse> = joins.iter().map(|token| self.joined(*token)).collect();
        let mut syncs = Vec::new();
        for response in &joined {
            assert_eq!(response.error_code, ErrorCode::None);
            let ids: Vec<(&str, &str)> = response
                .members
                .iter()
                .map(|member| (member.member_id.as_str(), member.member_id.as_str()))
                .collect();
            syncs.push(self.sync(sync_request(&response.member_id, response.generation_id, &ids)));
        }
        for (token, response) in syncs.into_iter().zip(&joined) {
            assert_eq!(self.synced(token).assignment.as_ref(), response.member_id.as_bytes());
        }
        assert_eq!(self.state(), GroupState::Stable);
        joined.into_iter().map(|response| response.member_id).collect()
    }
}
