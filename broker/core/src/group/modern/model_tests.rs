//! Random interleavings of consumers of KIP-848, lost answers, time and failovers, checked against what must always hold. Some subscribe
//! by name, others by a pattern, and they change between both.
//!
//! * no partition is read by two members of the group at once (I10);
//! * when everybody is heard, all come to rest: each partition has one reader, and no member has two more than another;
//! * replay of the emitted records gives the same hard state (the shell asserts it at every failover).

use std::collections::{BTreeMap, BTreeSet};

use millstream_protocol::ErrorCode;
use proptest::prelude::*;
use uuid::Uuid;

use super::{ModernHeartbeat, ModernKind, TopicIdPartitions};
use crate::{
    group::test_client::{GROUP, Shell, fast_config, put_topic},
    metadata::ClusterImage,
};

const CLIENTS: usize = 4;
pub(super) const TOPIC_ID: Uuid = Uuid::from_u128(7);
const OTHER_ID: Uuid = Uuid::from_u128(8);
const SESSION_MS: i32 = 1_000;

#[derive(Debug, Clone)]
enum Step {
    /// A heartbeat; it joins if the client is no member.
    Beat(usize),
    /// A heartbeat whose answer is lost.
    Lost(usize),
    /// Stops reading what was taken away.
    Revoke(usize),
    Leave(usize),
    /// Leaves, and will join again under its id.
    Unsubscribe(usize),
    /// Forgets everything without a word, and will join again under its id.
    Restart(usize),
    /// Subscribes by a pattern from now on, or by name again.
    Resubscribe(usize, Option<&'static str>),
    Grow,
    Wait(i64),
    FailOver,
}

fn any_step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        10 => client.clone().prop_map(Step::Beat),
        2 => client.clone().prop_map(Step::Lost),
        6 => client.clone().prop_map(Step::Revoke),
        1 => client.clone().prop_map(Step::Leave),
        1 => client.clone().prop_map(Step::Unsubscribe),
        1 => client.clone().prop_map(Step::Restart),
        2 => (client, prop::sample::select(vec![None, Some("t.*"), Some("[s-u]"), Some("none")]))
            .prop_map(|(index, pattern)| Step::Resubscribe(index, pattern)),
        1 => Just(Step::Grow),
        3 => prop_oneof![0_i64..300, 300_i64..3_000].prop_map(Step::Wait),
        1 => Just(Step::FailOver),
    ]
}

/// A consumer as it knows itself.
#[derive(Default)]
struct Client {
    incarnation: usize,
    /// Its pattern, instead of the topic's name.
    pattern: Option<&'static str>,
    epoch: i32,
    /// What it may read.
    assigned: TopicIdPartitions,
    /// What it still reads.
    reads: TopicIdPartitions,
    has_to_tell: bool,
    /// An answer was lost: the next heartbeat says everything, and so asks for everything.
    is_unsure: bool,
}

impl Client {
    fn member_id(&self, index: usize) -> String {
        format!("c{index}-{}", self.incarnation)
    }

    /// What it subscribes to.
    fn topics(&self) -> &'static [Uuid] {
        match self.pattern {
            Some("none") => &[],
            Some("[s-u]") => &[TOPIC_ID, OTHER_ID],
            _ => &[TOPIC_ID],
        }
    }
}

struct Model {
    shell: Shell,
    image: ClusterImage,
    clients: Vec<Client>,
}

pub(super) fn image(partitions: usize, epoch: u64) -> ClusterImage {
    let mut image = ClusterImage::empty(Uuid::from_u128(1));
    put_topic(&mut image, "t", TOPIC_ID, partitions);
    put_topic(&mut image, "u", OTHER_ID, 3);
    image.epoch = epoch;
    image
}

impl Model {
    fn new() -> Self {
        Self {
            shell: Shell::new(fast_config()),
            image: image(5, 1),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
        }
    }

    fn heartbeat(&mut self, index: usize, epoch: i32, is_heard: bool) {
        let client = &mut self.clients[index];
        let is_full = epoch == 0 || client.is_unsure && epoch > 0;
        // What it owns is also told when it gave something up.
        let tells = is_full || client.has_to_tell;
        let request = ModernHeartbeat {
            kind: ModernKind::Consumer,
            group_id: GROUP.into(),
            member_id: client.member_id(index),
            member_epoch: epoch,
            instance_id: None,
            rack_id: None,
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            rebalance_timeout_ms: if is_full { 5_000 } else { -1 },
            topics: is_full.then(|| client.pattern.map_or_else(|| vec!["t".into()], |_| Vec::new())),
            regex: is_full.then(|| client.pattern.unwrap_or("").into()),
            assignor: None,
            owned: tells.then(|| client.reads.clone()),
            classic: None,
            session_timeout_ms: SESSION_MS,
            heartbeat_interval_ms: 100,
        };
        let decision = self.shell.coordinator.modern_heartbeat(self.shell.now_ms, &request, &self.image);
        let answer = self.shell.run(decision);
        let client = &mut self.clients[index];
        match answer {
            _ if !is_heard => client.is_unsure = true,
            Ok(response) => {
                client.is_unsure = false;
                client.has_to_tell = false;
                client.epoch = response.member_epoch.max(0);
                if let Some(assigned) = response.assignment {
                    client.assigned = assigned;
                    for (topic, partitions) in &client.assigned {
                        client.reads.entry(*topic).or_default().extend(partitions);
                    }
                }
            }
            Err(refusal) => {
                let expected = [ErrorCode::UnknownMemberId, ErrorCode::FencedMemberEpoch, ErrorCode::GroupIdNotFound];
                assert!(expected.contains(&refusal.code), "{refusal:?}");
                // It joins again under the same id.
                self.forget(index, 0);
            }
        }
    }

    /// A consumer that is no member any more reads nothing.
    fn forget(&mut self, index: usize, incarnations: usize) {
        let client = &mut self.clients[index];
        *client = Client {
            incarnation: client.incarnation + incarnations,
            pattern: client.pattern,
            ..Client::default()
        };
    }

    fn revoke(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if client.reads != client.assigned {
            client.reads = client.assigned.clone();
            client.has_to_tell = true;
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Beat(index) => self.heartbeat(index, self.clients[index].epoch, true),
            Step::Lost(index) => self.heartbeat(index, self.clients[index].epoch, false),
            Step::Revoke(index) => self.revoke(index),
            Step::Leave(index) if self.clients[index].epoch > 0 => {
                self.heartbeat(index, -1, true);
                self.forget(index, 1);
            }
            Step::Unsubscribe(index) if self.clients[index].epoch > 0 => {
                self.heartbeat(index, -1, true);
                self.forget(index, 0);
            }
            Step::Leave(_) | Step::Unsubscribe(_) => {}
            Step::Restart(index) => self.forget(index, 0),
            Step::Resubscribe(index, pattern) => {
                self.clients[index].pattern = pattern;
                self.clients[index].is_unsure = true;
            }
            Step::Grow => {
                let partitions = self.image.topics["t"].partitions.len() + 1;
                self.image = image(partitions, self.image.epoch + 1);
            }
            Step::Wait(ms) => self.shell.advance(ms),
            Step::FailOver => self.shell.fail_over(),
        }
        self.check_readers();
    }

    /// Whoever the group lost has to notice by itself, so only members count.
    fn check_readers(&self) {
        let group = self.shell.coordinator.describe_modern(ModernKind::Consumer, GROUP);
        let members = group.map(|group| group.members).unwrap_or_default();
        let mut readers: BTreeMap<(Uuid, i32), usize> = BTreeMap::new();
        for (index, client) in self.clients.iter().enumerate() {
            if !members.iter().any(|member| member.member_id == client.member_id(index)) {
                continue;
            }
            for (topic, partitions) in &client.reads {
                for partition in partitions {
                    let other = readers.insert((*topic, *partition), index);
                    assert_eq!(other, None, "partition {partition} of {topic} is read by client {index} as well");
                }
            }
        }
    }

    fn come_to_rest(&mut self) {
        for _ in 0..12 {
            for index in 0..CLIENTS {
                self.step(Step::Beat(index));
                // What patterns mean is known a moment later.
                self.step(Step::Wait(0));
                self.step(Step::Revoke(index));
                self.step(Step::Beat(index));
            }
        }
        let group = self.shell.coordinator.describe_modern(ModernKind::Consumer, GROUP).unwrap();
        assert_eq!((group.state, group.members.len()), ("Stable", CLIENTS));
        for (name, id) in [("t", TOPIC_ID), ("u", OTHER_ID)] {
            let subscribers = self.clients.iter().filter(|client| client.topics().contains(&id));
            let others = self.clients.iter().filter(|client| !client.topics().contains(&id));
            let count = |client: &Client| client.reads.get(&id).map_or(0, BTreeSet::len);
            assert_eq!(others.map(count).sum::<usize>(), 0, "{name} is read by one who does not want it");
            let counts: Vec<usize> = subscribers.map(count).collect();
            let all = if counts.is_empty() {
                0
            } else {
                self.image.topics[name].partitions.len()
            };
            assert_eq!(counts.iter().sum::<usize>(), all, "{name}: {counts:?}");
        }
        if self.clients.iter().all(|client| client.topics() == self.clients[0].topics()) {
            let loads = || {
                self.clients
                    .iter()
                    .map(|client| client.reads.values().map(BTreeSet::len).sum::<usize>())
            };
            assert!(
                loads().max() <= loads().min().map(|least| least + 1),
                "{:?}",
                loads().collect::<Vec<_>>()
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn partitions_have_one_reader_and_everybody_comes_to_rest(steps in prop::collection::vec(any_step(), 0..120)) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
        }
        model.come_to_rest();
        model.shell.fail_over();
    }
}
