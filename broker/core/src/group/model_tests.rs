//! Random interleavings of several clients, time and failovers, checked against what must always hold:
//!
//! * every parked request is answered exactly once (the shell asserts "at most once", the end of the test "at least once");
//! * generations that one coordinator hands out never go back (I10);
//! * in one generation of one coordinator, a partition is owned by one client (I10);
//! * a committed offset is read back, also after a failover, and commits of old generations are refused (I9);
//! * replay of the emitted records gives the same hard state (the shell asserts it at every failover).

use std::collections::BTreeMap;

use bytes::Bytes;
use millstream_protocol::error_code::ErrorCode;
use proptest::prelude::*;

use super::{test_client::*, *};

const CLIENTS: usize = 4;
const PARTITIONS: usize = 6;

/// What a client does next.
#[derive(Debug, Clone)]
enum Step {
    Join(usize),
    /// Joins as if it had restarted and lost its id.
    Restart(usize),
    Sync(usize),
    /// Syncs without an assignment, whoever it is: a follower's request, or a broken leader.
    SyncEmpty(usize),
    /// Syncs with the generation before its own: a request that was long on its way.
    SyncLate(usize),
    Heartbeat(usize),
    Leave(usize),
    Commit(usize),
    Wait(i64),
    FailOver,
}

fn any_step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        6 => client.clone().prop_map(Step::Join),
        1 => client.clone().prop_map(Step::Restart),
        8 => client.clone().prop_map(Step::Sync),
        1 => client.clone().prop_map(Step::SyncEmpty),
        1 => client.clone().prop_map(Step::SyncLate),
        3 => client.clone().prop_map(Step::Heartbeat),
        1 => client.clone().prop_map(Step::Leave),
        3 => client.prop_map(Step::Commit),
        5 => prop_oneof![Just(0), Just(1), 1_i64..400, 400_i64..6_000].prop_map(Step::Wait),
        1 => Just(Step::FailOver),
    ]
}

/// A client as it knows itself. Client 0 is static; client 1 uses JoinGroup v3.
#[derive(Default)]
struct Client {
    member_id: String,
    generation: i32,
    /// Members to assign to, if it is leader.
    members: Vec<String>,
    join: Option<Token>,
    sync: Option<(Token, i32)>,
}

impl Client {
    /// As clients do when they start, and when they are told that they are unknown.
    fn forget_membership(&mut self) {
        self.member_id.clear();
        self.generation = 0;
        self.members.clear();
    }
}

struct Model {
    shell: Shell,
    clients: Vec<Client>,
    /// Requests whose client asked again meanwhile; the coordinator owes the answer all the same.
    given_up: Vec<Token>,
    /// Of this coordinator: the newest generation seen.
    generation: i32,
    /// Of this coordinator: who owns a partition, by generation.
    owners: BTreeMap<(i32, u8), usize>,
    committed: Option<i64>,
    next_offset: i64,
    answered: usize,
    asked: usize,
}

impl Model {
    fn new() -> Self {
        Self {
            shell: Shell::new(GroupConfig {
                initial_rebalance_delay_ms: 50,
                ..fast_config()
            }),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            given_up: Vec::new(),
            generation: 0,
            owners: BTreeMap::new(),
            committed: None,
            next_offset: 1,
            answered: 0,
            asked: 0,
        }
    }

    fn instance_id(client: usize) -> Option<String> {
        (client == 0).then(|| "i0".to_owned())
    }

    fn join(&mut self, client: usize) {
        let request = JoinGroupRequest {
            group_instance_id: Self::instance_id(client),
            requires_known_member_id: client != 1,
            ..join_request(&format!("c{client}"), &self.clients[client].member_id)
        };
        self.given_up.extend(self.clients[client].join.take());
        self.clients[client].join = Some(self.shell.join(request));
        self.asked += 1;
    }

    fn sync(&mut self, client: usize, assigns: bool, generations_late: i32) {
        let Client {
            member_id,
            generation,
            members,
            ..
        } = &self.clients[client];
        let generation = generation - generations_late;
        let mut assignments = vec![Vec::new(); members.len()];
        for partition in 0..PARTITIONS {
            if let Some(slot) = partition.checked_rem(members.len()) {
                assignments[slot].push(u8::try_from(partition).unwrap());
            }
        }
        let assignments = members.iter().cloned().zip(assignments.into_iter().map(Bytes::from)).collect();
        let request = SyncGroupRequest {
            group_instance_id: Self::instance_id(client),
            assignments: if assigns { assignments } else { Vec::new() },
            ..sync_request(member_id, generation, &[])
        };
        self.given_up.extend(self.clients[client].sync.take().map(|(token, _)| token));
        self.clients[client].sync = Some((self.shell.sync(request), generation));
        self.asked += 1;
    }

    fn commit(&mut self, client: usize) {
        let Client { member_id, generation, .. } = &self.clients[client];
        let is_current = self
            .shell
            .coordinator
            .describe_group(GROUP)
            .members
            .iter()
            .any(|member| member.member_id == *member_id)
            && *generation == self.generation;
        let (offset, partition) = (self.next_offset, 0);
        self.next_offset += 1;
        let request = OffsetCommitRequest {
            group_id: GROUP.into(),
            generation_id: *generation,
            member_id: member_id.clone(),
            group_instance_id: Self::instance_id(client),
            retention_time_ms: None,
            knows_group_id_not_found: true,
            topics: vec![(
                "t".into(),
                vec![OffsetCommitPartition {
                    partition,
                    offset,
                    leader_epoch: -1,
                    metadata: None,
                }],
            )],
        };
        let decision = self.shell.coordinator.commit_offsets(self.shell.now_ms, request);
        let outcome = self.shell.run(decision)[0].1[0].1;
        if outcome == ErrorCode::None {
            assert!(
                is_current,
                "client {client} committed without being a member of generation {}",
                self.generation
            );
            self.committed = Some(offset);
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Join(client) => self.join(client),
            Step::Restart(client) => {
                self.clients[client].forget_membership();
                self.join(client);
            }
            Step::Sync(client) => self.sync(client, true, 0),
            Step::SyncEmpty(client) => self.sync(client, false, 0),
            Step::SyncLate(client) => self.sync(client, true, 1),
            Step::Heartbeat(client) => {
                let Client { member_id, generation, .. } = &self.clients[client];
                let (member_id, generation) = (member_id.clone(), *generation);
                self.shell.heartbeat(&member_id, generation);
            }
            Step::Leave(client) => {
                let member_id = self.clients[client].member_id.clone();
                self.shell.leave(&[(&member_id, None)]);
            }
            Step::Commit(client) => self.commit(client),
            Step::Wait(by_ms) => self.shell.advance(by_ms),
            Step::FailOver => self.fail_over(),
        }
        self.read_answers();
        let topics = Some(vec![("t".to_owned(), vec![0])]);
        let fetched = self.shell.coordinator.fetch_offsets(&OffsetFetchRequest {
            member: None,
            group_id: GROUP.into(),
            topics,
            require_stable: true,
        });
        assert_eq!(fetched.unwrap()[0].1[0].offset, self.committed.unwrap_or(-1));
    }

    fn fail_over(&mut self) {
        self.shell.fail_over();
        self.read_answers();
        assert!(
            self.clients.iter().all(|client| client.join.is_none() && client.sync.is_none()) && self.given_up.is_empty(),
            "unload left a request parked"
        );
        // The next coordinator knows generations from the log only.
        self.generation = self
            .shell
            .coordinator
            .group_metadata(GROUP)
            .map_or(0, |metadata| metadata.generation);
        self.owners.retain(|(generation, _), _| *generation <= self.generation);
    }

    fn read_answers(&mut self) {
        let owed = self.given_up.len();
        self.given_up.retain(|token| self.shell.take(*token).is_none());
        self.answered += owed - self.given_up.len();
        for client in 0..CLIENTS {
            if let Some(token) = self.clients[client].join
                && !self.shell.is_parked(token)
            {
                self.clients[client].join = None;
                self.answered += 1;
                let response = self.shell.joined(token);
                self.on_joined(client, response);
            }
            if let Some((token, generation)) = self.clients[client].sync
                && !self.shell.is_parked(token)
            {
                self.clients[client].sync = None;
                self.answered += 1;
                let response = self.shell.synced(token);
                self.on_synced(client, generation, &response);
            }
        }
    }

    fn on_joined(&mut self, client: usize, response: JoinGroupResponse) {
        match response.error_code {
            ErrorCode::None => {
                assert!(
                    response.generation_id >= self.generation,
                    "generation went back to {}",
                    response.generation_id
                );
                self.generation = response.generation_id;
                let members = response.members.into_iter().map(|member| member.member_id).collect();
                // A restarted leader is told to keep the assignment.
                let members = if response.skip_assignment { Vec::new() } else { members };
                let Client { join, sync, .. } = std::mem::take(&mut self.clients[client]);
                self.clients[client] = Client {
                    member_id: response.member_id,
                    generation: response.generation_id,
                    members,
                    join,
                    sync,
                };
            }
            ErrorCode::MemberIdRequired => self.clients[client].member_id = response.member_id,
            ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => self.clients[client].forget_membership(),
            ErrorCode::RebalanceInProgress | ErrorCode::NotCoordinator => {}
            other => panic!("client {client} joined with {other:?}"),
        }
    }

    fn on_synced(&mut self, client: usize, generation: i32, response: &SyncGroupResponse) {
        if response.error_code != ErrorCode::None {
            return;
        }
        let logged = self
            .shell
            .coordinator
            .group_metadata(GROUP)
            .map_or(0, |metadata| metadata.generation);
        assert!(
            logged >= generation,
            "the assignment of generation {generation} was told but not logged"
        );
        for partition in &response.assignment {
            let owner = *self.owners.entry((generation, *partition)).or_insert(client);
            assert_eq!(owner, client, "partition {partition} has two owners in generation {generation}");
        }
    }

    /// Everybody stops: after the longest timeout the group is empty and nobody is still waiting.
    fn finish(mut self) {
        self.shell.advance(2 * 300_000);
        self.read_answers();
        assert!(
            matches!(self.shell.state(), GroupState::Empty | GroupState::Dead),
            "group ends as {}",
            self.shell.state()
        );
        assert_eq!(self.answered, self.asked, "requests without an answer");
        self.shell.fail_over();
        assert!(matches!(self.shell.state(), GroupState::Empty | GroupState::Dead));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_keeps_the_invariants(steps in proptest::collection::vec(any_step(), 1..120)) {
        let mut model = Model::new();
        for step in &steps {
            model.step(step);
        }
        model.finish();
    }
}
