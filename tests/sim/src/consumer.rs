//! A member of the consumer group: joins, syncs, reads on from the committed offsets, commits, and sometimes leaves or dies.

use std::collections::BTreeMap;

use bytes::Bytes;
use millstream_core::{
    group::{
        Decision, GroupCoordinator, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeavingMember,
        OffsetCommitPartition, OffsetCommitRequest, OffsetFetchRequest, ParkedResponse, SyncGroupRequest, SyncGroupResponse, Token,
    },
    metadata::ClusterImage,
};
use millstream_history::history::{Answer, Call, CallId, Partition};
use millstream_protocol::ErrorCode;
use uuid::Uuid;

use crate::{groups::GroupAnswer, stage::Stage};

const GROUP: &str = "group";
const TOPIC: &str = "data";

/// A consumer.
pub struct Consumer {
    index: usize,
    /// The partitions of the topic, by number.
    partitions: Vec<Partition>,
    member_id: String,
    generation: i32,
    phase: Phase,
    /// Where to read on, by owned partition.
    positions: BTreeMap<i32, i64>,
    /// Requests besides the one of the phase.
    heartbeat: Option<Token>,
    commit: Option<(Token, Vec<CallId>)>,
}

/// What a consumer waits for.
enum Phase {
    Out,
    Joining(Token),
    Syncing(Token, CallId),
    Starting(Token, BTreeMap<i32, CallId>),
    Member,
}

impl Consumer {
    /// A consumer that has not joined.
    pub fn new(index: usize, partitions: &[Partition]) -> Self {
        Self {
            index,
            partitions: partitions.to_vec(),
            member_id: String::new(),
            generation: -1,
            phase: Phase::Out,
            positions: BTreeMap::new(),
            heartbeat: None,
            commit: None,
        }
    }

    /// Does one thing.
    pub fn act(&mut self, stage: &mut Stage) {
        if stage.node.process.is_none() {
            return;
        }
        match &self.phase {
            Phase::Out => self.join(stage),
            Phase::Joining(_) | Phase::Syncing(..) | Phase::Starting(..) => {
                if stage.rng.one_in(25) {
                    self.disconnected(stage);
                }
            }
            Phase::Member => match stage.rng.below(40) {
                0..20 => self.read(stage),
                20..30 => self.commit(stage),
                30 => self.leave(stage),
                31 => self.die(stage),
                _ => self.heartbeat(stage),
            },
        }
    }

    fn request(stage: &mut Stage, decide: impl FnOnce(&mut GroupCoordinator, i64, Token) -> Decision<Option<GroupAnswer>>) -> Token {
        let (token, now_ms) = (stage.token(), stage.now_ms);
        let outcome = stage
            .process()
            .map(|process| process.groups.run(now_ms, token, |groups| decide(groups, now_ms, token)));
        if let Some(Err(error)) = outcome {
            stage.broke(&error);
        }
        token
    }

    fn join(&mut self, stage: &mut Stage) {
        let request = JoinGroupRequest {
            group_id: GROUP.to_owned(),
            member_id: self.member_id.clone(),
            group_instance_id: None,
            client_id: format!("consumer-{}", self.index),
            client_host: "/127.0.0.1".to_owned(),
            protocol_type: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))],
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 15_000,
            member_uuid: stage.rng.uuid(),
            requires_known_member_id: self.index.is_multiple_of(2),
            supports_skipping_assignment: true,
        };
        self.positions.clear();
        let image = ClusterImage::empty(Uuid::nil());
        let token = Self::request(stage, |groups, now_ms, token| {
            no_answer(groups.join_group(now_ms, token, request, &image))
        });
        self.phase = Phase::Joining(token);
    }

    fn on_joined(&mut self, stage: &mut Stage, response: JoinGroupResponse) {
        match response.error_code {
            ErrorCode::None => {
                self.member_id.clone_from(&response.member_id);
                self.generation = response.generation_id;
                let assignments = if response.leader == response.member_id {
                    self.assign(stage, &response)
                } else {
                    Vec::new()
                };
                self.sync(stage, assignments);
            }
            ErrorCode::MemberIdRequired => {
                self.member_id = response.member_id;
                self.phase = Phase::Out;
            }
            other => self.rejoin(other),
        }
    }

    /// Deals the partitions to the members, beginning with any of them.
    fn assign(&self, stage: &mut Stage, response: &JoinGroupResponse) -> Vec<(String, Bytes)> {
        let mut hands: Vec<(String, Vec<u8>)> = response
            .members
            .iter()
            .map(|member| (member.member_id.clone(), Vec::new()))
            .collect();
        let start = stage.rng.index(hands.len());
        for (index, number) in (0_u8..).enumerate().take(self.partitions.len()) {
            let taker = (start + index) % hands.len();
            hands[taker].1.push(number);
        }
        hands.into_iter().map(|(member, hand)| (member, hand.into())).collect()
    }

    fn sync(&mut self, stage: &mut Stage, assignments: Vec<(String, Bytes)>) {
        let call = stage.invoke(Call::Sync {
            generation: self.generation,
            member: self.member_id.clone(),
        });
        let request = SyncGroupRequest {
            group_id: GROUP.to_owned(),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: None,
            protocol_type: Some("consumer".to_owned()),
            protocol_name: Some("range".to_owned()),
            assignments,
        };
        let image = ClusterImage::empty(Uuid::nil());
        let token = Self::request(stage, |groups, now_ms, token| {
            no_answer(groups.sync_group(now_ms, token, request, &image))
        });
        self.phase = Phase::Syncing(token, call);
    }

    fn on_synced(&mut self, stage: &mut Stage, call: CallId, response: &SyncGroupResponse) {
        if response.error_code != ErrorCode::None {
            stage.fail(call, format!("{:?}", response.error_code));
            return self.rejoin(response.error_code);
        }
        let owned: Vec<i32> = response.assignment.iter().map(|number| i32::from(*number)).collect();
        stage.ok(call, Answer::Owns(owned.clone()));
        let (token, calls) = fetch_committed(stage, &self.partitions, &owned);
        self.phase = Phase::Starting(token, calls);
    }

    fn read(&mut self, stage: &mut Stage) {
        let Some((&number, &from)) = self.positions.iter().nth(stage.rng.index(self.positions.len().max(1))) else {
            return;
        };
        let Some(&partition) = usize::try_from(number).ok().and_then(|index| self.partitions.get(index)) else {
            return;
        };
        let call = stage.invoke(Call::Read {
            partition,
            from,
            committed: false,
            last: false,
        });
        match stage.process().map(|process| process.read(partition, from)) {
            Some(Ok(records)) => {
                if let Some((last, _)) = records.last() {
                    self.positions.insert(number, last + 1);
                }
                stage.ok(call, Answer::Records(records));
            }
            Some(Err(error)) => {
                stage.fail(call, format!("{error:#}"));
                stage.broke(&error);
            }
            None => stage.fail(call, "the node is down"),
        }
    }

    fn commit(&mut self, stage: &mut Stage) {
        if self.commit.is_some() || self.positions.is_empty() {
            return;
        }
        let mut calls = Vec::new();
        let mut offsets = Vec::new();
        for (&number, &offset) in &self.positions {
            let partition = Partition {
                number,
                ..self.partitions[0]
            };
            calls.push(stage.invoke(Call::Commit {
                group: GROUP.to_owned(),
                partition,
                offset,
            }));
            offsets.push(OffsetCommitPartition {
                partition: number,
                offset,
                leader_epoch: -1,
                metadata: None,
            });
        }
        let request = OffsetCommitRequest {
            group_id: GROUP.to_owned(),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: None,
            retention_time_ms: None,
            knows_group_id_not_found: true,
            topics: vec![(TOPIC.to_owned(), offsets)],
        };
        let token = Self::request(stage, |groups, now_ms, _| {
            answer(groups.commit_offsets(now_ms, request), |outcomes| {
                let codes = outcomes.into_iter().flat_map(|(_, partitions)| partitions);
                GroupAnswer::Code(
                    codes
                        .map(|(_, code)| code)
                        .find(|code| *code != ErrorCode::None)
                        .unwrap_or(ErrorCode::None),
                )
            })
        });
        self.commit = Some((token, calls));
    }

    fn heartbeat(&mut self, stage: &mut Stage) {
        let request = HeartbeatRequest {
            group_id: GROUP.to_owned(),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: None,
        };
        let token = Self::request(stage, |groups, now_ms, _| Decision {
            response: Some(GroupAnswer::Code(groups.heartbeat(now_ms, &request))),
            ..Decision::default()
        });
        self.heartbeat = Some(token);
    }

    fn leave(&mut self, stage: &mut Stage) {
        let request = LeaveGroupRequest {
            group_id: GROUP.to_owned(),
            members: vec![LeavingMember {
                member_id: self.member_id.clone(),
                group_instance_id: None,
            }],
        };
        Self::request(stage, |groups, now_ms, _| no_answer(groups.leave_group(now_ms, request)));
        self.die(stage);
    }

    /// The consumer is gone; a new one starts in its place.
    fn die(&mut self, stage: &mut Stage) {
        self.disconnected(stage);
        self.member_id.clear();
    }

    /// What a client does with an error of the group.
    fn rejoin(&mut self, error: ErrorCode) {
        if error == ErrorCode::UnknownMemberId {
            self.member_id.clear();
        }
        self.phase = Phase::Out;
        self.positions.clear();
    }

    /// An answer of the coordinator is on its way to whom it concerns. It gets lost, or it ends what it answers.
    pub fn on_answer(&mut self, stage: &mut Stage, token: Token, answer: &GroupAnswer) {
        if self.heartbeat == Some(token) {
            self.heartbeat = None;
            if let GroupAnswer::Code(code) = answer
                && *code != ErrorCode::None
            {
                self.rejoin(*code);
            }
        }
        if let Some((_, calls)) = self.commit.take_if(|(waiting, _)| *waiting == token) {
            let is_lost = stage.loses_answer();
            for call in calls {
                match answer {
                    GroupAnswer::Code(ErrorCode::None) if !is_lost => stage.ok(call, Answer::Done),
                    GroupAnswer::Code(code) if !is_lost => stage.fail(call, format!("{code:?}")),
                    _ => stage.unknown(call),
                }
            }
            if let GroupAnswer::Code(code) = answer
                && *code != ErrorCode::None
            {
                self.rejoin(*code);
            }
        }
        let is_awaited = match &self.phase {
            Phase::Joining(waiting) | Phase::Syncing(waiting, _) | Phase::Starting(waiting, _) => *waiting == token,
            Phase::Out | Phase::Member => false,
        };
        if is_awaited {
            self.on_phase_answer(stage, answer);
        }
    }

    fn on_phase_answer(&mut self, stage: &mut Stage, answer: &GroupAnswer) {
        match (std::mem::replace(&mut self.phase, Phase::Out), answer) {
            (Phase::Joining(_), GroupAnswer::Parked(ParkedResponse::Join(response))) => self.on_joined(stage, response.clone()),
            (Phase::Syncing(_, call), GroupAnswer::Parked(ParkedResponse::Sync(response))) => self.on_synced(stage, call, response),
            (Phase::Starting(_, calls), GroupAnswer::Committed(offsets)) => {
                for (number, offset) in end_fetch(stage, calls, offsets) {
                    self.positions.insert(number, offset.max(0));
                }
                self.phase = Phase::Member;
            }
            (phase, GroupAnswer::Lost) => {
                self.phase = phase;
                self.disconnected(stage);
            }
            _ => stage.surprise(format!("consumer {} got {answer:?}", self.index)),
        }
    }

    /// The connection broke, or the consumer lost its patience.
    pub fn disconnected(&mut self, stage: &mut Stage) {
        match std::mem::replace(&mut self.phase, Phase::Out) {
            Phase::Out | Phase::Joining(_) | Phase::Member => {}
            Phase::Syncing(_, call) => stage.unknown(call),
            Phase::Starting(_, calls) => calls.into_values().for_each(|call| stage.unknown(call)),
        }
        if let Some((_, calls)) = self.commit.take() {
            calls.into_iter().for_each(|call| stage.unknown(call));
        }
        self.heartbeat = None;
        self.positions.clear();
    }
}

/// Asks for the committed offsets of some partitions.
pub fn fetch_committed(stage: &mut Stage, partitions: &[Partition], numbers: &[i32]) -> (Token, BTreeMap<i32, CallId>) {
    let mut calls = BTreeMap::new();
    for partition in partitions.iter().filter(|partition| numbers.contains(&partition.number)) {
        let call = stage.invoke(Call::FetchCommitted {
            group: GROUP.to_owned(),
            partition: *partition,
        });
        calls.insert(partition.number, call);
    }
    let request = OffsetFetchRequest {
        group_id: GROUP.to_owned(),
        topics: Some(vec![(TOPIC.to_owned(), numbers.to_vec())]),
        member: None,
        require_stable: true,
    };
    let token = Consumer::request(stage, |groups, _, _| {
        let topics = groups.fetch_offsets(&request).unwrap_or_default().into_iter();
        let fetched = topics.flat_map(|(_, partitions)| partitions);
        Decision {
            response: Some(GroupAnswer::Committed(fetched.map(|one| (one.partition, one.offset)).collect())),
            ..Decision::default()
        }
    });
    (token, calls)
}

/// Ends the calls of [`fetch_committed`], and gives the offsets back.
pub fn end_fetch(stage: &mut Stage, calls: BTreeMap<i32, CallId>, offsets: &[(i32, i64)]) -> Vec<(i32, i64)> {
    for (number, offset) in offsets {
        match calls.get(number) {
            Some(call) => stage.ok(*call, Answer::Committed(*offset)),
            None => stage.surprise(format!("the offset of partition {number} was not asked for")),
        }
    }
    offsets.to_vec()
}

/// A decision whose caller is parked, or does not care.
fn no_answer<R>(decision: Decision<R>) -> Decision<Option<GroupAnswer>> {
    let Decision { records, replies, .. } = decision;
    Decision {
        records,
        replies,
        response: None,
    }
}

fn answer<R>(decision: Decision<R>, answer: impl FnOnce(R) -> GroupAnswer) -> Decision<Option<GroupAnswer>> {
    let Decision {
        records,
        replies,
        response,
    } = decision;
    Decision {
        records,
        replies,
        response: Some(answer(response)),
    }
}
