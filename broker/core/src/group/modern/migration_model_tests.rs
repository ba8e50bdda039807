//! Consumers of both protocols in one group, which changes its kind as they come and go: random interleavings, time and failovers,
//! checked against what must always hold:
//!
//! * no partition is read by two members of the group at once (I10);
//! * when everybody is heard, all come to rest: each partition has one reader, and no member has two more than another;
//! * replay of the emitted records gives the same hard state (the shell asserts it at every failover).

use std::collections::{BTreeMap, BTreeSet};

use millstream_protocol::ErrorCode;
use proptest::prelude::*;

use super::{
    ModernKind,
    migration_tests::{PARTITIONS, beat, heartbeat, joining, numbers_of, shares},
    model_tests::image,
};
use crate::group::{
    GroupConfig, SyncGroupRequest, Token,
    test_client::{GROUP, Shell, fast_config, sync_request},
};

const CLIENTS: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Out,
    Joining(Token),
    Syncing(Token),
    In,
}

struct Client {
    name: String,
    is_new: bool,
    is_cooperative: bool,
    lives: usize,
    member_id: String,
    epoch: i32,
    phase: Phase,
    reads: BTreeSet<i32>,
    /// The group lost it while it was away, which it learns with its next assignment.
    is_lost: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Act(usize),
    /// Leaves, and comes back with the other protocol.
    Switch(usize),
    Vanish(usize),
    Wait(i64),
    FailOver,
}

fn any_step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        14 => client.clone().prop_map(Step::Act),
        2 => client.clone().prop_map(Step::Switch),
        1 => client.prop_map(Step::Vanish),
        3 => prop_oneof![0_i64..300, 300_i64..3_000].prop_map(Step::Wait),
        1 => Just(Step::FailOver),
    ]
}

struct Model {
    shell: Shell,
    clients: Vec<Client>,
}

impl Model {
    fn new() -> Self {
        let config = GroupConfig {
            // Which is everybody's after a failover.
            consumer_session_timeout_ms: 1_000,
            ..fast_config()
        };
        let mut shell = Shell::new(config);
        shell.image = image(PARTITIONS, 1);
        let client = |index: usize| Client {
            name: format!("c{index}"),
            is_new: index == 0,
            is_cooperative: index.is_multiple_of(2),
            lives: 0,
            member_id: String::new(),
            epoch: 0,
            phase: Phase::Out,
            reads: BTreeSet::new(),
            is_lost: false,
        };
        Self {
            shell,
            clients: (0..CLIENTS).map(client).collect(),
        }
    }

    fn act(&mut self, index: usize) {
        if self.clients[index].is_new {
            self.act_new(index);
        } else {
            self.act_classic(index);
        }
        self.check_readers();
    }

    fn act_new(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if client.member_id.is_empty() {
            client.lives += 1;
            client.member_id = format!("{}-new-{}", client.name, client.lives);
        }
        let mut request = heartbeat(&client.member_id, client.epoch, &client.reads);
        if !index.is_multiple_of(2) {
            (request.topics, request.regex) = (Some(Vec::new()), Some("[t]".into()));
        }
        match beat(&mut self.shell, &request) {
            Ok(response) => {
                client.epoch = response.member_epoch;
                let assigned: BTreeSet<i32> = response.assignment.unwrap_or_default().into_values().flatten().collect();
                // What it loses it stops to read before the next heartbeat; what it gets it reads at once.
                client.reads = assigned;
                client.is_lost = false;
                client.phase = Phase::In;
            }
            Err(refusal) => {
                let expected = [ErrorCode::UnknownMemberId, ErrorCode::FencedMemberEpoch, ErrorCode::GroupIdNotFound];
                assert!(expected.contains(&refusal.code), "{refusal:?}");
                client.reads.clear();
                client.epoch = 0;
            }
        }
    }

    fn act_classic(&mut self, index: usize) {
        let partitions = self.shell.image.topics["t"].partitions.len();
        let is_member = self.members().contains(&self.clients[index].member_id);
        let client = &mut self.clients[index];
        match client.phase {
            Phase::Out => self.join(index),
            Phase::Joining(token) if self.shell.is_parked(token) => {}
            Phase::Joining(token) => {
                let joined = self.shell.joined(token);
                match joined.error_code {
                    ErrorCode::None => {
                        (client.member_id, client.epoch) = (joined.member_id.clone(), joined.generation_id);
                        let request = SyncGroupRequest {
                            assignments: shares(&joined.members, partitions),
                            ..sync_request(&joined.member_id, joined.generation_id, &[])
                        };
                        client.phase = Phase::Syncing(self.shell.sync(request));
                    }
                    error => self.recover(index, error),
                }
            }
            Phase::Syncing(token) if self.shell.is_parked(token) => {}
            Phase::Syncing(token) => {
                let synced = self.shell.synced(token);
                if synced.error_code != ErrorCode::None {
                    return self.recover(index, synced.error_code);
                }
                let assigned = numbers_of(&synced.assignment);
                let loses = !client.reads.is_subset(&assigned);
                client.is_lost = !is_member;
                client.reads = assigned;
                client.phase = Phase::In;
                // A cooperative consumer says at once that it gave something up.
                if loses {
                    self.join(index);
                }
            }
            Phase::In => {
                let error = self.shell.heartbeat(&client.member_id, client.epoch);
                if error != ErrorCode::None {
                    self.recover(index, error);
                }
            }
        }
    }

    fn join(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if !client.is_cooperative {
            client.reads.clear();
        }
        let request = joining(&client.name, &client.member_id, &client.reads);
        client.phase = Phase::Joining(self.shell.join(request));
    }

    fn recover(&mut self, index: usize, error: ErrorCode) {
        let client = &mut self.clients[index];
        match error {
            ErrorCode::RebalanceInProgress => {}
            ErrorCode::IllegalGeneration => client.reads.clear(),
            ErrorCode::UnknownMemberId => {
                client.reads.clear();
                client.member_id.clear();
            }
            // The coordinator went away; whether the request was heard nobody knows.
            ErrorCode::NotCoordinator => {}
            other => panic!("client {index} is told {other:?}"),
        }
        self.join(index);
    }

    fn switch(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if client.phase != Phase::In {
            return;
        }
        let member_id = client.member_id.clone();
        if client.is_new {
            let _it_may_be_unknown = beat(&mut self.shell, &heartbeat(&member_id, -1, &BTreeSet::new()));
        } else {
            self.shell.leave(&[(&member_id, None)]);
        }
        self.vanish(index);
        self.clients[index].is_new ^= true;
    }

    fn vanish(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.phase = Phase::Out;
        client.reads.clear();
        client.member_id.clear();
        client.epoch = 0;
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Act(index) => self.act(index),
            Step::Switch(index) => self.switch(index),
            Step::Vanish(index) => self.vanish(index),
            Step::Wait(ms) => self.shell.advance(ms),
            Step::FailOver => self.shell.fail_over(),
        }
        self.check_readers();
    }

    fn members(&self) -> BTreeSet<String> {
        let modern = self.shell.coordinator.describe_modern(ModernKind::Consumer, GROUP).ok();
        let modern = modern.into_iter().flat_map(|group| group.members).map(|member| member.member_id);
        let classic = self
            .shell
            .coordinator
            .describe_group(GROUP)
            .members
            .into_iter()
            .map(|member| member.member_id);
        modern.chain(classic).collect()
    }

    /// Whoever the group lost has to notice by itself, so only members count.
    fn check_readers(&mut self) {
        let members = self.members();
        let mut readers: BTreeMap<i32, usize> = BTreeMap::new();
        for (index, client) in self.clients.iter_mut().enumerate() {
            client.is_lost = !client.reads.is_empty() && (client.is_lost || !members.contains(&client.member_id));
            if client.is_lost {
                continue;
            }
            for partition in &client.reads {
                let other = readers.insert(*partition, index);
                assert_eq!(other, None, "partition {partition} is read by client {index} as well");
            }
        }
    }

    fn come_to_rest(&mut self) {
        for _ in 0..60 {
            (0..CLIENTS).for_each(|index| self.act(index));
            self.shell.advance(200);
        }
        let counts: Vec<usize> = self.clients.iter().map(|client| client.reads.len()).collect();
        assert_eq!(counts.iter().sum::<usize>(), PARTITIONS, "{counts:?}");
        assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        assert_eq!(self.members().len(), CLIENTS);
        let is_consumer = self.shell.coordinator.describe_modern(ModernKind::Consumer, GROUP).is_ok();
        let has_new = self.clients.iter().any(|client| client.is_new);
        assert!(is_consumer || !has_new, "a classic group has members of the new protocol");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn groups_of_both_protocols_have_one_reader_per_partition_and_come_to_rest(steps in prop::collection::vec(any_step(), 0..120)) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
        }
        model.come_to_rest();
        model.shell.fail_over();
        model.come_to_rest();
    }
}
