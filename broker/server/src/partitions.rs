//! The partitions on this broker, and what follows for them when the metadata changes.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use millstream_core::metadata::{ClusterImage, configs::Overrides, image::TopicImage};
use millstream_log::{
    LogDir, LogError,
    remote::{RemoteLog, TopicIdPartition},
};
use uuid::Uuid;

use crate::partition::{Partition, log_config};

/// Logs opened at the same time at start.
const PARALLEL_OPENS: usize = 8;

/// The partitions of one broker.
pub struct Partitions {
    node_id: i32,
    dir: Arc<LogDir>,
    remote: Option<Arc<dyn RemoteLog>>,
    fixed_configs: Overrides,
    producer_id_expiration_ms: i64,
    map: RwLock<BTreeMap<TopicIdPartition, Arc<Partition>>>,
}

impl Partitions {
    pub fn new(
        node_id: i32,
        dir: Arc<LogDir>,
        remote: Option<Arc<dyn RemoteLog>>,
        fixed_configs: Overrides,
        producer_id_expiration_ms: i64,
    ) -> Self {
        Self {
            node_id,
            dir,
            remote,
            fixed_configs,
            producer_id_expiration_ms,
            map: RwLock::default(),
        }
    }

    /// A partition by topic id and number.
    pub fn get(&self, topic_id: Uuid, partition: i32) -> Option<Arc<Partition>> {
        let id = TopicIdPartition { topic_id, partition };
        self.map.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// All partitions, in order.
    pub fn all(&self) -> Vec<Arc<Partition>> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Name of a partition's directory: the topic's id, never its name (names come from the network).
    fn log_name(id: TopicIdPartition) -> String {
        id.to_string()
    }

    /// Opens, reconfigures and deletes partitions so that they are those of `image`. Blocks on the disk.
    pub fn follow(&self, image: &ClusterImage) -> Result<(), LogError> {
        let mut wanted = BTreeMap::new();
        for topic in image.topics.values() {
            for (number, partition) in (0i32..).zip(&topic.partitions) {
                if partition.leader == self.node_id {
                    wanted.insert(
                        TopicIdPartition {
                            topic_id: topic.id,
                            partition: number,
                        },
                        (topic, partition.leader_epoch),
                    );
                }
            }
        }
        self.delete_gone(&wanted)?;
        let mut missing = Vec::new();
        for (id, (topic, leader_epoch)) in wanted {
            match self.get(id.topic_id, id.partition) {
                Some(partition) => {
                    partition.set_leader_epoch(leader_epoch);
                    partition.set_topic_config(
                        Arc::new(image.topic_config(topic, self.node_id, &self.fixed_configs)),
                        self.producer_id_expiration_ms,
                    );
                    self.attach(&partition);
                }
                None => missing.push((id, topic, leader_epoch)),
            }
        }
        self.open_all(image, &missing)
    }

    fn delete_gone(&self, wanted: &BTreeMap<TopicIdPartition, (&Arc<TopicImage>, i32)>) -> Result<(), LogError> {
        let gone: Vec<Arc<Partition>> = {
            let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
            let gone = map
                .values()
                .filter(|partition| !wanted.contains_key(&partition.id))
                .cloned()
                .collect();
            map.retain(|id, _| wanted.contains_key(id));
            gone
        };
        for partition in gone {
            partition.close();
            if let Some(remote) = &self.remote {
                remote.detach(partition.id, true);
            }
            self.dir.delete_log(&Self::log_name(partition.id))?;
        }
        Ok(())
    }

    fn open_all(&self, image: &ClusterImage, missing: &[(TopicIdPartition, &Arc<TopicImage>, i32)]) -> Result<(), LogError> {
        if missing.is_empty() {
            return Ok(());
        }
        let open = |part: &[(TopicIdPartition, &Arc<TopicImage>, i32)]| -> Result<(), LogError> {
            for (id, topic, leader_epoch) in part {
                let config = Arc::new(image.topic_config(topic, self.node_id, &self.fixed_configs));
                let log = self
                    .dir
                    .open_log(&Self::log_name(*id), log_config(&config, self.producer_id_expiration_ms))?;
                let partition = Partition::new(*id, topic.name.clone(), *leader_epoch, log, Arc::clone(&self.dir), config);
                self.attach(&partition);
                self.map.write().unwrap_or_else(PoisonError::into_inner).insert(*id, partition);
            }
            Ok(())
        };
        if missing.len() < PARALLEL_OPENS {
            open(missing)?;
        } else {
            std::thread::scope(|scope| {
                let parts: Vec<_> = missing
                    .chunks(missing.len().div_ceil(PARALLEL_OPENS))
                    .map(|part| scope.spawn(move || open(part)))
                    .collect();
                for part in parts {
                    part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                }
                Ok::<(), LogError>(())
            })?;
        }
        self.dir.sync_names()
    }

    fn attach(&self, partition: &Arc<Partition>) {
        if let Some(remote) = &self.remote
            && partition.topic_config().remote_storage_enable
        {
            remote.attach(partition.id, Arc::<Partition>::clone(partition) as _);
        }
    }
}
