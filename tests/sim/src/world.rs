//! A run: actors and faults take turns as the seed says; at the end everything is mended, restarted and read.

use anyhow::{Context, Result};
use millstream_core::group::Token;
use millstream_history::history::{Answer, Call, Event, History, Partition};

use crate::{
    admin::Admin,
    consumer::{Consumer, end_fetch, fetch_committed},
    groups::GroupAnswer,
    node::{Stop, Which},
    producer::Producer,
    rng::Rng,
    stage::Stage,
};

/// Turns of a run.
const TURNS: usize = 600;
/// Partitions of the topic that the group reads.
const GROUP_PARTITIONS: i32 = 3;
/// The longest jump of the clock: long against session timeouts, short against the expiry of producer ids.
const JUMP_MS_MAX: u64 = 30 * 60_000;

/// What a run left.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    /// What the clients saw.
    pub history: History,
    /// What must not happen whatever the clients saw.
    pub surprises: Vec<String>,
}

/// Plays the run of a seed.
pub fn run(seed: u64) -> Run {
    play(World::new(seed))
}

/// Plays it with a broker that breaks a rule.
#[cfg(test)]
pub(crate) fn run_flawed(seed: u64, flaw: crate::node::Flaw) -> Run {
    let mut world = World::new(seed);
    world.stage.node.flaw = Some(flaw);
    play(world)
}

fn play(mut world: World) -> Run {
    let outcome = world.open().and_then(|()| {
        (0..TURNS).for_each(|_| world.turn());
        world.conclude()
    });
    if let Err(error) = outcome {
        world.stage.surprise(format!("{error:#}"));
    }
    Run {
        history: world.stage.history,
        surprises: world.stage.surprises,
    }
}

struct World {
    stage: Stage,
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
    admin: Admin,
    group_partitions: Vec<Partition>,
    /// Turns between two faults, on average.
    calm: u64,
    /// A sync will fail, or has.
    sync_fails: bool,
    disk_is_full: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let topic = rng.uuid();
        let group_partitions: Vec<Partition> = (0..GROUP_PARTITIONS).map(|number| Partition { topic, number }).collect();
        Self {
            producers: (0..5).map(|index| Producer::new(index, index < 3)).collect(),
            consumers: (0..3).map(|index| Consumer::new(index, &group_partitions)).collect(),
            admin: Admin::default(),
            group_partitions,
            calm: 8 + rng.below(80),
            sync_fails: false,
            disk_is_full: false,
            stage: Stage::new(rng),
        }
    }

    /// Starts the node and creates what the clients need; no fault strikes here.
    fn open(&mut self) -> Result<()> {
        let now_ms = self.stage.now_ms;
        self.stage.node.start(now_ms).context("the first start")?;
        self.admin
            .create_topic(&mut self.stage, self.group_partitions[0].topic, "data", GROUP_PARTITIONS);
        self.sync(Which::Metadata);
        self.admin.take_producer_ids(&mut self.stage);
        self.sync(Which::Metadata);
        Ok(())
    }

    fn turn(&mut self) {
        self.stage.now_ms += i64::try_from(self.stage.rng.below(250)).unwrap_or_default();
        if self.stage.rng.one_in(self.calm) {
            self.fault();
        }
        if self.stage.node.process.is_none() {
            return self.try_start();
        }
        match self.stage.rng.below(100) {
            0..30 => {
                let index = self.stage.rng.index(self.producers.len());
                self.producers[index].act(&mut self.stage);
            }
            30..68 => {
                let index = self.stage.rng.index(self.consumers.len());
                self.consumers[index].act(&mut self.stage);
            }
            68..75 => self.admin.act(&mut self.stage, self.group_partitions[0].topic),
            _ => {
                let logs = self.stage.process().map(|process| process.logs()).unwrap_or_default();
                // Every step of a group waits for its log, so that one has more turns than the others.
                let is_groups = self.stage.rng.one_in(3);
                let which = if is_groups {
                    Which::Groups
                } else {
                    logs[self.stage.rng.index(logs.len())]
                };
                self.sync(which);
            }
        }
        self.tick();
        self.deliver();
        self.bury_the_broken();
    }

    fn sync(&mut self, which: Which) {
        let now_ms = self.stage.now_ms;
        if let Some(Err(error)) = self.stage.process().map(|process| process.sync(which, now_ms)) {
            self.stage.broke(&error);
        }
        self.deliver();
    }

    fn tick(&mut self) {
        let now_ms = self.stage.now_ms;
        if let Some(Err(error)) = self.stage.process().map(|process| process.groups.tick(now_ms)) {
            self.stage.broke(&error);
        }
    }

    /// Lets answers leave that wait for nothing more.
    fn deliver(&mut self) {
        let Some(process) = self.stage.process() else { return };
        let (sent, answers, decided) = (process.take_sent(), process.take_answers(), process.take_decided());
        for sent in sent {
            self.producers[sent.producer].on_sent(&mut self.stage, sent);
        }
        for (token, answer) in answers {
            for consumer in &mut self.consumers {
                consumer.on_answer(&mut self.stage, token, &answer);
            }
        }
        match decided {
            Ok(None) => {}
            Ok(Some((call, answer))) => {
                // The follower comes before the answer: who hears of a topic can use it.
                if let Some(Err(error)) = self.stage.process().map(|process| process.follow_metadata()) {
                    return self.stage.broke(&error);
                }
                self.admin.on_answer(&mut self.stage, call, answer);
            }
            Err(error) => self.stage.surprise(format!("M0 {error:#}")),
        }
    }

    fn fault(&mut self) {
        match self.stage.rng.below(16) {
            0..4 => self.lose_power(),
            4..6 => self.stop(Stop::Kill),
            6 | 7 => self.stop(Stop::Clean),
            8..10 => {
                let successes = self.stage.rng.below(6);
                self.stage.fault(format!("syncs fail after {successes}"));
                self.stage.node.disk.fail_sync_after(successes);
                self.sync_fails = true;
            }
            10..12 if !self.disk_is_full => {
                let used = self.stage.process().map_or(0, |process| process.partition_bytes());
                let capacity = used + self.stage.rng.below(4_000);
                self.stage.fault("the disk is full");
                self.stage.node.disk.set_capacity(Some(capacity));
                self.disk_is_full = true;
            }
            10..14 => self.mend_disk(),
            _ => {
                let jump_ms = self.stage.rng.below(JUMP_MS_MAX);
                self.stage.fault(format!("the clock jumps by {jump_ms} ms"));
                self.stage.now_ms += i64::try_from(jump_ms).unwrap_or_default();
            }
        }
    }

    fn mend_disk(&mut self) {
        self.stage.fault("the disk works again");
        self.stage.node.disk.set_capacity(None);
        self.stage.node.disk.fail_sync_after(u64::MAX);
        (self.disk_is_full, self.sync_fails) = (false, false);
    }

    fn lose_power(&mut self) {
        let unsynced = self.stage.node.disk.unsynced_bytes();
        let surviving_bytes = self.stage.rng.index(unsynced + 1);
        self.stop(Stop::PowerLoss { surviving_bytes });
        // The disk after power loss is a new one.
        self.mend_disk();
    }

    fn stop(&mut self, stop: Stop) {
        self.stage.fault(format!("stop: {stop:?}"));
        let memory_is_the_logs = self
            .stage
            .process()
            .filter(|process| !process.is_offline())
            .map(|process| process.groups.agrees_with_log());
        match memory_is_the_logs {
            Some(Ok(false)) => self.stage.surprise("G1 a replay gives another group state"),
            Some(Err(error)) => self.stage.surprise(format!("G1 the groups' log cannot be replayed: {error:#}")),
            Some(Ok(true)) | None => {}
        }
        let now_ms = self.stage.now_ms;
        if let Err(error) = self.stage.node.stop(stop, now_ms) {
            self.excuse("stop", &format!("{error:#}"));
        }
        self.stage.broken = None;
        self.producers
            .iter_mut()
            .for_each(|producer| producer.disconnected(&mut self.stage));
        self.consumers
            .iter_mut()
            .for_each(|consumer| consumer.disconnected(&mut self.stage));
        self.admin.disconnected(&mut self.stage);
    }

    /// An error while the disk is fine is none that a fault explains.
    fn excuse(&mut self, what: &str, error: &str) {
        if self.sync_fails || self.disk_is_full {
            self.stage.fault(format!("{what} failed: {error}"));
        } else {
            self.stage.surprise(format!("R0 {what} failed on a healthy disk: {error}"));
        }
    }

    fn bury_the_broken(&mut self) {
        let is_offline = self.stage.process().is_some_and(|process| process.is_offline());
        let broken = self.stage.broken.take().or_else(|| is_offline.then(|| "offline".to_owned()));
        let Some(reason) = broken else { return };
        self.excuse("work", &reason);
        if self.stage.rng.one_in(2) {
            self.lose_power();
        } else {
            self.stop(Stop::Kill);
        }
    }

    fn try_start(&mut self) {
        if !self.stage.rng.one_in(4) {
            return;
        }
        let now_ms = self.stage.now_ms;
        match self.stage.node.start(now_ms) {
            Ok(()) => {
                self.stage.fault("started");
                Admin::list_topics(&mut self.stage);
                self.deliver();
            }
            Err(error) => {
                self.excuse("start", &format!("{error:#}"));
                match self.stage.rng.below(3) {
                    0 => self.lose_power(),
                    1 => self.mend_disk(),
                    _ => {}
                }
            }
        }
    }

    /// The last stop, the last start, and a look at all that is there.
    fn conclude(&mut self) -> Result<()> {
        if self.stage.rng.one_in(3) {
            self.mend_disk();
            self.stop(Stop::Clean);
        } else {
            self.lose_power();
        }
        let now_ms = self.stage.now_ms;
        self.stage.node.start(now_ms).context("R0 the last start")?;
        Admin::list_topics(&mut self.stage);
        let process = self.stage.process().context("the node runs")?;
        for partition in process.partitions() {
            self.read_all(partition)?;
        }
        let numbers: Vec<i32> = (0..GROUP_PARTITIONS).collect();
        let (token, calls) = fetch_committed(&mut self.stage, &self.group_partitions, &numbers);
        let process = self.stage.process().context("the node runs")?;
        let is_ours = |(waiting, answer): (Token, GroupAnswer)| (waiting == token).then_some(answer);
        match process.take_answers().into_iter().find_map(is_ours) {
            Some(GroupAnswer::Committed(offsets)) => end_fetch(&mut self.stage, calls, &offsets),
            other => anyhow::bail!("L1 the last fetch of offsets got {other:?}"),
        };
        Ok(())
    }

    fn read_all(&mut self, partition: Partition) -> Result<()> {
        let start = self.stage.process().context("the node runs")?.range(partition)?.start;
        let call = self.stage.invoke(Call::Read {
            partition,
            from: start,
            committed: false,
            last: true,
        });
        let mut all: Vec<(i64, u64)> = Vec::new();
        loop {
            let from = all.last().map_or(start, |(offset, _)| offset + 1);
            let process = self.stage.process().context("the node runs")?;
            let records = process.read(partition, from).context("R0 the last read")?;
            if records.is_empty() {
                break;
            }
            all.extend(records);
        }
        self.stage.history.push(self.stage.now_ms, Event::Ok(call, Answer::Records(all)));
        Ok(())
    }
}
