//! The partitions on this broker, and what follows for them when the metadata changes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use millstream_core::metadata::{
    ClusterImage,
    configs::{BrokerLayers, Overrides, TopicConfig},
    image::TopicImage,
};
use millstream_log::{
    LogConfig, LogDir, LogError,
    remote::{RemoteLog, TopicIdPartition},
};
use uuid::Uuid;

use crate::partition::{Partition, log_config};

/// Logs opened at the same time at start.
const PARALLEL_OPENS: usize = 8;

/// A partition that is to be opened.
struct Missing {
    id: TopicIdPartition,
    topic: String,
    leader_epoch: i32,
    config: Arc<TopicConfig>,
}

/// The image that the partitions agree with.
#[derive(Default)]
struct Followed {
    topics: BTreeMap<Uuid, Arc<TopicImage>>,
    broker_configs: (Overrides, Option<Overrides>),
}

/// The partitions of one broker.
pub struct Partitions {
    node_id: i32,
    dir: Arc<LogDir>,
    remote: Option<Arc<dyn RemoteLog>>,
    fixed_configs: Overrides,
    producer_id_expiration_ms: i64,
    map: RwLock<BTreeMap<TopicIdPartition, Arc<Partition>>>,
    followed: Mutex<Followed>,
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
            followed: Mutex::default(),
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

    /// Opens, reconfigures and deletes partitions so that they are those of `image`. Blocks on the disk. Topics that did not change since
    /// the last image cost a pointer comparison.
    pub fn follow(&self, image: &ClusterImage) -> Result<(), LogError> {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        self.delete_gone(image)?;
        let broker_configs = (
            image.broker_default_configs.clone(),
            image.broker_configs.get(&self.node_id).cloned(),
        );
        let all_changed = followed.broker_configs != broker_configs;
        let mut missing = Vec::new();
        for topic in image.topics.values() {
            let known = followed.topics.get(&topic.id).is_some_and(|known| Arc::ptr_eq(known, topic));
            if all_changed || !known {
                self.follow_topic(image, topic, &mut missing);
            }
        }
        self.open_all(&missing)?;
        followed.topics = image.topics.values().map(|topic| (topic.id, Arc::clone(topic))).collect();
        followed.broker_configs = broker_configs;
        Ok(())
    }

    fn follow_topic(&self, image: &ClusterImage, topic: &TopicImage, missing: &mut Vec<Missing>) {
        let config = Arc::new(image.topic_config(topic, self.node_id, &self.fixed_configs));
        for (number, replicas) in (0i32..).zip(&topic.partitions) {
            if replicas.leader != self.node_id {
                continue;
            }
            let id = TopicIdPartition {
                topic_id: topic.id,
                partition: number,
            };
            match self.get(id.topic_id, id.partition) {
                Some(partition) => {
                    partition.set_leader_epoch(replicas.leader_epoch);
                    let was_tiered = partition.topic_config().remote_storage_enable;
                    partition.set_topic_config(Arc::clone(&config), self.producer_id_expiration_ms);
                    if was_tiered && !config.remote_storage_enable {
                        self.leave_tier(&partition);
                    }
                    self.attach(&partition);
                }
                None => missing.push(Missing {
                    id,
                    topic: topic.name.clone(),
                    leader_epoch: replicas.leader_epoch,
                    config: Arc::clone(&config),
                }),
            }
        }
    }

    fn delete_gone(&self, image: &ClusterImage) -> Result<(), LogError> {
        let is_ours = |id: &TopicIdPartition| {
            let number = usize::try_from(id.partition).ok();
            let replicas = image
                .topic_by_id(id.topic_id)
                .zip(number)
                .and_then(|(topic, number)| topic.partitions.get(number));
            replicas.is_some_and(|replicas| replicas.leader == self.node_id)
        };
        let gone: Vec<Arc<Partition>> = {
            let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
            map.extract_if(.., |id, _| !is_ours(id)).map(|(_, partition)| partition).collect()
        };
        // All are closed before the first directory goes, so that a failure leaves none half alive.
        for partition in &gone {
            partition.close();
            if let Some(remote) = &self.remote {
                remote.detach(partition.id, true);
            }
        }
        let failures = gone.iter().filter_map(|partition| self.dir.delete_log(partition.log()).err());
        failures.last().map_or(Ok(()), Err)
    }

    /// Finishes deletions that a crash interrupted: logs in the directory that no topic knows, and their objects in the bucket.
    pub fn delete_strays(&self) -> Result<(), LogError> {
        for name in self.dir.log_names()? {
            let Some(id) = parse_log_name(&name).filter(|id| self.get(id.topic_id, id.partition).is_none()) else {
                continue;
            };
            tracing::warn!(log = %name, "deleting a log whose topic is gone");
            let log = self.dir.open_log(&name, LogConfig::default())?;
            let config = Arc::new(TopicConfig::resolve(&Overrides::new(), &BrokerLayers::none()));
            let partition = Partition::new(id, name, 0, log, Arc::clone(&self.dir), config);
            if let Some(remote) = &self.remote {
                remote.attach(id, Arc::<Partition>::clone(&partition) as _);
                remote.detach(id, true);
            }
            partition.close();
            self.dir.delete_log(partition.log())?;
        }
        Ok(())
    }

    fn open_all(&self, missing: &[Missing]) -> Result<(), LogError> {
        if missing.is_empty() {
            return Ok(());
        }
        let open = |part: &[Missing]| -> Result<Vec<Arc<Partition>>, LogError> {
            let open_one = |missing: &Missing| {
                let Missing {
                    id,
                    topic,
                    leader_epoch,
                    config,
                } = missing;
                let log = self
                    .dir
                    .open_log(&Self::log_name(*id), log_config(config, self.producer_id_expiration_ms))?;
                Ok(Partition::new(
                    *id,
                    topic.clone(),
                    *leader_epoch,
                    log,
                    Arc::clone(&self.dir),
                    Arc::clone(config),
                ))
            };
            part.iter().map(open_one).collect()
        };
        let opened = if missing.len() < PARALLEL_OPENS {
            open(missing)?
        } else {
            std::thread::scope(|scope| {
                let parts: Vec<_> = missing
                    .chunks(missing.len().div_ceil(PARALLEL_OPENS))
                    .map(|part| scope.spawn(move || open(part)))
                    .collect();
                let mut opened = Vec::with_capacity(missing.len());
                for part in parts {
                    opened.extend(part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
                }
                Ok::<_, LogError>(opened)
            })?
        };
        // Before anybody can write to them: an acknowledged record must be found after power loss.
        self.dir.sync_names()?;
        for partition in opened {
            self.attach(&partition);
            self.map
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(partition.id, partition);
        }
        Ok(())
    }

    /// Tiering was turned off with `remote.log.delete.on.disable`: what lies in the bucket only is gone.
    fn leave_tier(&self, partition: &Partition) {
        if let Err(error) = partition.log().advance_log_start(partition.log().local_start_offset()) {
            tracing::warn!(topic = %partition.topic, partition = partition.id.partition, %error, "log start not raised after tiering was turned off");
        }
        if let Some(remote) = &self.remote {
            remote.detach(partition.id, true);
        }
    }

    fn attach(&self, partition: &Arc<Partition>) {
        if let Some(remote) = &self.remote
            && partition.topic_config().remote_storage_enable
        {
            remote.attach(partition.id, Arc::<Partition>::clone(partition) as _);
        }
    }
}

/// The partition whose log has this directory name.
fn parse_log_name(name: &str) -> Option<TopicIdPartition> {
    let (topic_id, partition) = name.rsplit_once('-')?;
    Some(TopicIdPartition {
        topic_id: Uuid::parse_str(topic_id).ok()?,
        partition: partition.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_names_are_read_back_and_nothing_else_is_taken_for_one() {
        let id = TopicIdPartition {
            topic_id: Uuid::from_u128(7),
            partition: 12,
        };
        assert_eq!(parse_log_name(&Partitions::log_name(id)), Some(id));
        assert_eq!(parse_log_name("metadata"), None);
        assert_eq!(parse_log_name("00000000-0000-0000-0000-000000000007"), None);
    }
}
