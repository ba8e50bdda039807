//! The shards of one internal topic: found by the hash of a key, started on first use, stopped together.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use millstream_core::group::partition_for;
use millstream_protocol::ErrorCode;
use tokio::{sync::watch, task::JoinHandle};

use super::{
    Core, Effects,
    shard::{self, ShardHandle},
    time::CoordinatorTime,
};
use crate::{broker::Broker, clock::Clock, partition::Partition};

/// A shard that was started; it may have ended since.
struct Running<C: Core, E> {
    handle: ShardHandle<C, E>,
    task: JoinHandle<()>,
}

/// The coordinators of which this broker leads the partition of their topic.
pub(crate) struct Shards<C: Core, E> {
    topic: &'static str,
    time: CoordinatorTime,
    /// By partition.
    running: Mutex<BTreeMap<i32, Running<C, E>>>,
    stopping: watch::Sender<bool>,
}

impl<C: Core, E: Effects<C>> Shards<C, E> {
    /// No shards yet.
    pub fn new(topic: &'static str, clock: &dyn Clock) -> Self {
        Self {
            topic,
            time: CoordinatorTime::start(clock),
            running: Mutex::default(),
            stopping: watch::Sender::new(false),
        }
    }

    /// The partition that coordinates a key. The topic springs into being for the first one.
    pub async fn partition_of(&self, broker: &Arc<Broker>, key: &str) -> Result<Arc<Partition>, ErrorCode> {
        if let Some(partition) = self.open_partition(broker, key) {
            return Ok(partition);
        }
        // Also when the topic is known and its logs are not open yet: the answer comes after they are.
        let created = broker.auto_create(vec![self.topic.to_owned()]).await;
        if let Some(partition) = self.open_partition(broker, key) {
            return Ok(partition);
        }
        let refusal = created.map(|outcomes| outcomes.into_iter().find_map(Result::err));
        tracing::warn!(
            topic = self.topic,
            key,
            ?refusal,
            "no partition of the coordinators' topic for the key"
        );
        Err(ErrorCode::CoordinatorNotAvailable)
    }

    fn open_partition(&self, broker: &Broker, key: &str) -> Option<Arc<Partition>> {
        let topic = broker.internal_topic(self.topic)?;
        broker.partition(
            &topic,
            partition_for(key, i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX)),
        )
    }

    /// All partitions of the topic that are open here.
    pub fn partitions(&self, broker: &Broker) -> Vec<Arc<Partition>> {
        let Some(topic) = broker.internal_topic(self.topic) else {
            return Vec::new();
        };
        let numbers = (0_i32..).zip(&topic.partitions).map(|(number, _)| number);
        numbers.filter_map(|number| broker.partition(&topic, number)).collect()
    }

    /// The shard of a partition; `make` makes one that is not running.
    pub fn shard(&self, partition: &Arc<Partition>, make: impl FnOnce() -> (C, E)) -> Result<ShardHandle<C, E>, ErrorCode> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // A shard on a closed log could only load and fail.
        if *self.stopping.borrow() || partition.is_closed() {
            return Err(ErrorCode::NotCoordinator);
        }
        let number = partition.id.partition;
        if let Some(running) = running.get(&number).filter(|shard| !shard.handle.has_ended()) {
            return Ok(running.handle.clone());
        }
        let (core, effects) = make();
        let (handle, task) = shard::start(Arc::clone(partition), core, effects, self.time, self.stopping.subscribe());
        let started = Running {
            handle: handle.clone(),
            task,
        };
        running.insert(number, started);
        Ok(handle)
    }

    /// Ends all shards: what is parked is answered, and new requests are refused.
    pub async fn stop(&self) {
        let ended = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            self.stopping.send_replace(true);
            std::mem::take(&mut *running)
        };
        for shard in ended.into_values() {
            if let Err(error) = shard.task.await {
                tracing::error!(topic = self.topic, %error, "a coordinator did not end well");
            }
        }
    }
}
