//! Random interleavings of the members of an application, lost answers, topics that come and go, time and failovers, checked against what
//! must always hold:
//!
//! * no task runs with two members of the group at once (I10), and no process has two copies of one;
//! * when everybody is heard, all come to rest: each task runs once, and has a copy in another process where it has state;
//! * replay of the emitted records gives the same hard state (the shell asserts it at every failover).

use std::collections::BTreeMap;

use millstream_protocol::ErrorCode;
use proptest::prelude::*;

use super::{
    StreamsStatusCode, Task, Tasks,
    test_app::{beat, heartbeat, joining, owning, set_topic, topics},
};
use crate::{
    group::{
        GroupConfig,
        test_client::{GROUP, Shell, fast_config},
    },
    metadata::ClusterImage,
};

const CLIENTS: usize = 5;
const DELAY_MS: i32 = 150;

#[derive(Debug, Clone)]
enum Step {
    /// A heartbeat; it joins if the client is no member.
    Beat(usize),
    /// A heartbeat whose answer is lost.
    Lost(usize),
    /// Stops what was taken away.
    Revoke(usize),
    Leave(usize),
    /// A topic gets this many partitions; none deletes it.
    Topic(&'static str, usize),
    Standbys(i32),
    Wait(i64),
    FailOver,
}

fn any_step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        10 => client.clone().prop_map(Step::Beat),
        2 => client.clone().prop_map(Step::Lost),
        6 => client.clone().prop_map(Step::Revoke),
        1 => client.prop_map(Step::Leave),
        1 => (0..5_usize).prop_map(|partitions| Step::Topic("in", partitions)),
        1 => prop_oneof![Just(0), Just(2)].prop_map(|partitions| Step::Topic("log", partitions)),
        1 => (0..3).prop_map(Step::Standbys),
        3 => prop_oneof![0_i64..300, 300_i64..3_000].prop_map(Step::Wait),
        1 => Just(Step::FailOver),
    ]
}

/// A member as it knows itself.
#[derive(Default)]
struct Client {
    incarnation: usize,
    epoch: i32,
    /// What it is to run and to copy.
    active: Tasks,
    standby: Tasks,
    /// What it still runs and copies.
    runs: Tasks,
    copies: Tasks,
    has_to_tell: bool,
}

impl Client {
    fn member_id(&self, index: usize) -> String {
        format!("c{index}-{}", self.incarnation)
    }
}

/// Two clients share a process.
fn process(index: usize) -> String {
    format!("p{}", index / 2)
}

struct Model {
    shell: Shell,
    image: ClusterImage,
    clients: Vec<Client>,
    standbys: i32,
}

impl Model {
    fn new() -> Self {
        Self {
            shell: Shell::new(GroupConfig {
                streams_session_timeout_ms: 1_000,
                ..fast_config()
            }),
            image: topics(),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            standbys: 1,
        }
    }

    fn heartbeat(&mut self, index: usize, epoch: i32, is_heard: bool) {
        let client = &self.clients[index];
        let id = client.member_id(index);
        let mut request = match epoch {
            0 => joining(&id, &process(index)),
            epoch if client.has_to_tell && epoch > 0 => owning(heartbeat(&id, epoch), &client.runs, &client.copies),
            epoch => heartbeat(&id, epoch),
        };
        request.initial_rebalance_delay_ms = DELAY_MS;
        request.standby_replicas = self.standbys;
        let answer = beat(&mut self.shell, &self.image, &request);
        let client = &mut self.clients[index];
        match answer {
            _ if !is_heard => client.has_to_tell = true,
            Ok(response) => {
                client.has_to_tell = false;
                client.epoch = response.member_epoch.max(0);
                if let Some(tasks) = response.tasks {
                    // It starts at once what is new, and stops later what is gone.
                    client.runs.extend(tasks.active.iter().cloned());
                    client.copies.extend(tasks.standby.iter().cloned());
                    (client.active, client.standby) = (tasks.active, tasks.standby);
                    client.has_to_tell = true;
                }
                for topic in &*response.missing_topics {
                    set_topic(&mut self.image, &topic.name, topic.partitions as usize);
                }
            }
            Err(refusal) => {
                // A task that is gone with its topic's partitions may still be named once: Kafka refuses that, and the client starts over.
                let expected = [
                    ErrorCode::UnknownMemberId,
                    ErrorCode::FencedMemberEpoch,
                    ErrorCode::GroupIdNotFound,
                    ErrorCode::InvalidRequest,
                ];
                assert!(expected.contains(&refusal.code), "{refusal:?}");
                self.forget(index, usize::from(refusal.code == ErrorCode::InvalidRequest));
            }
        }
    }

    /// Who is no member any more runs nothing.
    fn forget(&mut self, index: usize, incarnations: usize) {
        let client = &mut self.clients[index];
        *client = Client {
            incarnation: client.incarnation + incarnations,
            ..Client::default()
        };
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Beat(index) => self.heartbeat(index, self.clients[index].epoch, true),
            Step::Lost(index) => self.heartbeat(index, self.clients[index].epoch, false),
            Step::Revoke(index) => {
                let client = &mut self.clients[index];
                if (&client.runs, &client.copies) != (&client.active, &client.standby) {
                    (client.runs, client.copies) = (client.active.clone(), client.standby.clone());
                    client.has_to_tell = true;
                }
            }
            Step::Leave(index) if self.clients[index].epoch > 0 => {
                self.heartbeat(index, -1, true);
                self.forget(index, 1);
            }
            Step::Leave(_) => {}
            Step::Topic(name, partitions) => set_topic(&mut self.image, name, partitions),
            Step::Standbys(number) => self.standbys = number,
            Step::Wait(ms) => self.shell.advance(ms),
            Step::FailOver => self.shell.fail_over(),
        }
        self.check();
    }

    fn members(&self) -> Vec<String> {
        let group = self.shell.coordinator.describe_streams(GROUP, &self.image);
        let members = group.map(|group| group.members).unwrap_or_default();
        members.into_iter().map(|member| member.member_id).collect()
    }

    /// Whoever the group lost has to notice by itself, so only members count.
    fn check(&self) {
        let members = self.members();
        let mut runs: BTreeMap<&Task, usize> = BTreeMap::new();
        let mut copies: BTreeMap<(String, &Task), usize> = BTreeMap::new();
        for (index, client) in self.clients.iter().enumerate() {
            if !members.contains(&client.member_id(index)) {
                continue;
            }
            for task in &client.runs {
                assert_eq!(runs.insert(task, index), None, "{task:?} is run by client {index} as well");
            }
            for task in client.runs.iter().chain(client.copies.difference(&client.runs)) {
                let other = copies.insert((process(index), task), index);
                assert_eq!(other, None, "{task:?} is twice in the process of client {index}");
            }
        }
    }

    fn come_to_rest(&mut self) {
        set_topic(&mut self.image, "in", 4);
        self.standbys = 1;
        for _ in 0..12 {
            for index in 0..CLIENTS {
                self.step(Step::Beat(index));
                self.step(Step::Revoke(index));
                self.step(Step::Beat(index));
            }
            self.step(Step::Wait(DELAY_MS.into()));
        }
        let all = |tasks: fn(&Client) -> &Tasks| {
            let mut all: Vec<(String, i32)> = Vec::new();
            for client in &self.clients {
                all.extend(tasks(client).iter().map(|task| (task.subtopology.to_string(), task.partition)));
            }
            all.sort();
            all
        };
        let named = |names: &[(&str, i32)]| -> Vec<(String, i32)> { names.iter().map(|(id, task)| ((*id).to_owned(), *task)).collect() };
        assert_eq!(
            all(|client| &client.runs),
            named(&[("0", 0), ("0", 1), ("0", 2), ("0", 3), ("1", 0), ("1", 1)])
        );
        assert_eq!(all(|client| &client.copies), named(&[("1", 0), ("1", 1)]));
        let group = self.shell.coordinator.describe_streams(GROUP, &self.image).unwrap();
        assert_eq!((group.state, group.members.len()), ("Stable", CLIENTS));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn tasks_run_once_and_everybody_comes_to_rest(steps in prop::collection::vec(any_step(), 0..120)) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
        }
        model.come_to_rest();
        model.shell.fail_over();
    }
}

#[test]
fn a_topic_that_is_deleted_takes_all_tasks_away_and_gives_them_back() {
    let mut model = Model::new();
    model.come_to_rest();
    model.step(Step::Topic("in", 0));
    let answer = beat(&mut model.shell, &model.image, &{
        let client = &model.clients[0];
        let mut request = heartbeat(&client.member_id(0), client.epoch);
        request.standby_replicas = 1;
        request
    });
    assert_eq!(answer.unwrap().statuses[0].code, StreamsStatusCode::MissingSourceTopics);
    model.clients[0].has_to_tell = true;
    for _ in 0..3 {
        for index in 0..CLIENTS {
            model.step(Step::Beat(index));
            model.step(Step::Revoke(index));
        }
    }
    assert!(
        model
            .clients
            .iter()
            .all(|client| client.runs.is_empty() && client.copies.is_empty())
    );
    model.come_to_rest();
}
