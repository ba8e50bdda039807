//! Share groups at work: sessions, deliveries, acknowledgements, dead letters (KIP-932).
//!
//! ```text
//! ShareService   share partitions by group, topic and partition; what handlers ask
//! sessions       what each member fetches, and whether its requests follow each other
//! delivery       reads the log for a member and gives it what is available
//! dead_letters   what is given up goes to the group's dead-letter topic
//! storage        the durable state of share partitions, one task per partition of `__share_group_state`
//! ```
//! A share partition is loaded on first use. Its state is written after every acknowledgement, before the member is told that it worked;
//! locks are in memory only. What is given up is written as such, and as done with only when it is in the dead-letter topic: it can be
//! there twice after a crash, never missing. While the dead-letter topic cannot take it, it is tried again once a second.

mod dead_letters;
mod delivery;
mod sessions;
mod storage;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use millstream_core::{
    group::modern::ModernKind,
    metadata::{
        ClusterImage,
        configs::{
            Overrides, Scope, ShareOffsetReset, effective_value,
            groups::{
                DEAD_LETTER_TOPIC, SHARE_AUTO_OFFSET_RESET, SHARE_DELIVERY_COUNT_LIMIT, SHARE_ISOLATION_LEVEL, SHARE_LOCK_DURATION_MS,
            },
        },
        names::SHARE_GROUP_STATE,
    },
    share::{AcknowledgeType, ShareCoordinator, ShareKey, ShareLimits, SharePartition, ShareState},
};
use millstream_protocol::ErrorCode;
use tokio::sync::Notify;

use self::storage::NoEffects;
pub(crate) use self::{
    delivery::{Delivered, DeliveryWish, deliver},
    sessions::{SessionRequest, ShareSessions},
};
use crate::{
    broker::Broker,
    clock::Clock,
    config::BrokerConfig,
    coordination::{ShardHandle, Shards},
    partition::{Isolation, Partition},
};

/// Pause between two looks for locks that ran out without anybody fetching.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

type ShareShard = ShardHandle<ShareCoordinator, NoEffects>;

/// What a group is configured with.
#[derive(Debug, Clone)]
pub(crate) struct ShareConfig {
    pub limits: ShareLimits,
    pub offset_reset: ShareOffsetReset,
    pub isolation: Isolation,
    pub dead_letter_topic: Option<String>,
}

/// A share partition in use.
pub(crate) struct Loaded {
    key: ShareKey,
    state: Mutex<SharePartition>,
    /// Who is woken when records become available again.
    waiters: Mutex<Vec<Weak<Notify>>>,
    /// Writes of one partition follow each other; whether the state was replaced or deleted meanwhile, so that nothing may be written.
    writing: tokio::sync::Mutex<bool>,
    /// Held by who sends records to the dead-letter topic; whether that failed the last time.
    burying: tokio::sync::Mutex<bool>,
}

impl Loaded {
    fn with<R>(&self, act: impl FnOnce(&mut SharePartition) -> R) -> R {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn wake_on_release(&self, waiter: &Arc<Notify>) {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        waiters.retain(|waiter| waiter.strong_count() > 0);
        waiters.push(Arc::downgrade(waiter));
    }

    fn wake(&self) {
        let waiters = std::mem::take(&mut *self.waiters.lock().unwrap_or_else(PoisonError::into_inner));
        waiters.iter().filter_map(Weak::upgrade).for_each(|waiter| waiter.notify_one());
    }
}

/// The share groups' partitions that this broker leads.
pub struct ShareService {
    in_flight_max: i64,
    shards: Shards<ShareCoordinator, NoEffects>,
    loaded: Mutex<BTreeMap<ShareKey, Arc<Loaded>>>,
    /// Loading shares it; who replaces or deletes states from outside has it alone.
    altering: tokio::sync::RwLock<()>,
    pub(crate) sessions: ShareSessions,
}

impl ShareService {
    /// A service without groups.
    pub fn new(config: &BrokerConfig, clock: &dyn Clock) -> Self {
        Self {
            in_flight_max: config.number("group.share.partition.max.record.locks"),
            shards: Shards::new(SHARE_GROUP_STATE, clock),
            loaded: Mutex::default(),
            altering: tokio::sync::RwLock::default(),
            sessions: ShareSessions::new(config.size("group.share.max.share.sessions")),
        }
    }

    /// Starts to load what the log knows, and looks after locks.
    pub fn load(&self, broker: &Arc<Broker>) {
        for partition in self.shards.partitions(broker) {
            if let Err(error) = self.shard(&partition) {
                tracing::warn!(partition = partition.id.partition, ?error, "share groups are not loaded");
            }
        }
        let broker = Arc::clone(broker);
        tokio::spawn(async move {
            loop {
                // Cancel safe: both only wait.
                tokio::select! {
                    () = tokio::time::sleep(SWEEP_INTERVAL) => sweep(&broker),
                    () = broker.stopped() => return,
                }
            }
        });
    }

    /// Ends all shards.
    pub async fn stop(&self) {
        self.shards.stop().await;
    }

    /// Makes sure that a share partition has a coordinator, and that it is this broker.
    pub(crate) async fn find(&self, broker: &Arc<Broker>, key: &str) -> Result<(), ErrorCode> {
        self.shard(&self.shards.partition_of(broker, key).await?).map(|_| ())
    }

    /// The group's settings.
    pub(crate) fn config(&self, broker: &Broker, image: &ClusterImage, group_id: &str) -> ShareConfig {
        let none = Overrides::new();
        let overrides = image.group_configs.get(group_id).unwrap_or(&none);
        let layers = image.broker_layers(Some(broker.config.node_id), &broker.config.values);
        let text = |name: &str| effective_value(Scope::Group, name, overrides, &layers).unwrap_or_default();
        let number = |name: &str| text(name).trim().parse::<i64>().unwrap_or(i64::MAX);
        ShareConfig {
            limits: ShareLimits {
                in_flight_max: self.in_flight_max,
                delivery_count_max: i16::try_from(number(SHARE_DELIVERY_COUNT_LIMIT)).unwrap_or(i16::MAX),
                lock_duration_ms: number(SHARE_LOCK_DURATION_MS),
            },
            offset_reset: ShareOffsetReset::parse(&text(SHARE_AUTO_OFFSET_RESET)).unwrap_or(ShareOffsetReset::Latest),
            isolation: if text(SHARE_ISOLATION_LEVEL).trim() == "read_committed" {
                Isolation::Committed
            } else {
                Isolation::Uncommitted
            },
            dead_letter_topic: Some(text(DEAD_LETTER_TOPIC)).filter(|topic| !topic.is_empty()),
        }
    }

    /// A share partition, loaded or begun anew where the group's configuration says.
    pub(crate) async fn partition(
        &self,
        broker: &Arc<Broker>,
        key: &ShareKey,
        partition: &Arc<Partition>,
        config: &ShareConfig,
    ) -> Result<Arc<Loaded>, ErrorCode> {
        if let Some(loaded) = self.known(key) {
            return Ok(loaded);
        }
        let _loading = self.altering.read().await;
        let state = match self.read(broker, key).await? {
            Some(state) => SharePartition::from_state(&state),
            None => {
                let kind = ModernKind::Share;
                let group = broker.groups.describe_modern(broker, kind, key.group_id.clone()).await?;
                // Nobody would ever delete the state of a group that is only a name.
                group.map_err(|_| ErrorCode::UnknownServerError)?;
                SharePartition::starting_at(first_offset(broker, partition, config).await?)
            }
        };
        let loaded = Arc::new(Loaded {
            key: key.clone(),
            state: Mutex::new(state),
            waiters: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
            burying: tokio::sync::Mutex::default(),
        });
        let loaded = {
            let mut all = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(key.clone()).or_insert(loaded))
        };
        // Where it begins must not change when it is loaded again.
        self.write(broker, &loaded).await?;
        Ok(loaded)
    }

    fn known(&self, key: &ShareKey) -> Option<Arc<Loaded>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn all(&self) -> Vec<Arc<Loaded>> {
        self.loaded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// A member's answers for records of one partition. Durable when this returns.
    pub(crate) async fn acknowledge(
        &self,
        broker: &Arc<Broker>,
        key: &ShareKey,
        member: &str,
        answers: Vec<(i64, i64, Vec<AcknowledgeType>)>,
    ) -> Result<(), ErrorCode> {
        let image = broker.metadata.image();
        let config = self.config(broker, &image, &key.group_id);
        let Some(loaded) = self.known(key) else {
            return Err(ErrorCode::InvalidRecordState);
        };
        let now_ms = broker.clock.wall_ms();
        loaded.with(|state| {
            state.expire_locks(now_ms, &config.limits);
            state.acknowledge(now_ms, member, &config.limits, &answers)
        })?;
        let outcome = self.settle(broker, &loaded, &config).await;
        loaded.wake();
        outcome
    }

    /// A connection is over, and the sessions that it opened: what their members hold is free again.
    pub(crate) async fn connection_ended(&self, broker: &Arc<Broker>, client: SocketAddr) {
        for (group_id, member) in self.sessions.end_of(client) {
            self.release(broker, &group_id, &member).await;
        }
    }

    /// A member's session is over.
    pub(crate) async fn release(&self, broker: &Arc<Broker>, group_id: &str, member: &str) {
        let image = broker.metadata.image();
        let config = self.config(broker, &image, group_id);
        let held: Vec<Arc<Loaded>> = self.all().into_iter().filter(|loaded| loaded.key.group_id == group_id).collect();
        // At once in all of them: what the member acquires in its next session, while this is written, is not given back.
        for loaded in &held {
            loaded.with(|state| state.release_all(member, &config.limits));
        }
        for loaded in held {
            loaded.wake();
            if let Err(error) = self.settle(broker, &loaded, &config).await {
                tracing::warn!(
                    group_id,
                    ?error,
                    "the end of a share session could not be written; it is tried again"
                );
            }
        }
    }

    /// Writes what changed; what is given up is on its way to the dead-letter topic, if there is one, when this returns.
    async fn settle(&self, broker: &Arc<Broker>, loaded: &Arc<Loaded>, config: &ShareConfig) -> Result<(), ErrorCode> {
        if config.dead_letter_topic.is_none() {
            loaded.with(|state| state.bury(&state.given_up(&config.limits)));
        } else if loaded.with(|state| !state.given_up(&config.limits).is_empty()) {
            let (broker, loaded, config) = (Arc::clone(broker), Arc::clone(loaded), config.clone());
            tokio::spawn(async move { broker.shares.bury(&broker, &loaded, &config).await });
        }
        self.write(broker, loaded).await
    }

    /// Sends what is given up to the dead-letter topic.
    async fn bury(&self, broker: &Arc<Broker>, loaded: &Arc<Loaded>, config: &ShareConfig) {
        let (Some(topic), Ok(mut is_failing)) = (&config.dead_letter_topic, loaded.burying.try_lock()) else {
            // Who does it now is followed by the next look for what is due.
            return;
        };
        let image = broker.metadata.image();
        for gone in loaded.with(|state| state.given_up(&config.limits)) {
            match dead_letters::send(broker, &image, &loaded.key, topic, gone).await {
                Ok(()) => {
                    *is_failing = false;
                    loaded.with(|state| state.bury(&[gone]));
                }
                Err(error) => {
                    let (group_id, offset) = (&loaded.key.group_id, gone.first_offset);
                    if !std::mem::replace(&mut *is_failing, true) {
                        tracing::warn!(
                            group_id,
                            topic,
                            offset,
                            ?error,
                            "records wait for the dead-letter topic; it is tried again every second"
                        );
                    }
                    break;
                }
            }
        }
        if let Err(error) = self.write(broker, loaded).await {
            tracing::warn!(
                group_id = loaded.key.group_id,
                ?error,
                "share state could not be written; it is tried again"
            );
        }
        loaded.wake();
    }

    /// Writes a share partition's state, if it changed.
    async fn write(&self, broker: &Arc<Broker>, loaded: &Arc<Loaded>) -> Result<(), ErrorCode> {
        let is_gone = loaded.writing.lock().await;
        if *is_gone {
            return Err(ErrorCode::InvalidRecordState);
        }
        let now_ms = broker.clock.wall_ms();
        let Some(state) = loaded.with(|state| state.take_dirty().then(|| state.to_state(now_ms))) else {
            return Ok(());
        };
        let stored = self.store(broker, &loaded.key, Some(state)).await;
        if stored.is_err() {
            // Nobody must take it for written.
            loaded.with(SharePartition::set_dirty);
        }
        stored
    }

    /// Ends the use of states that are replaced or deleted: a write that comes later must not bring them back.
    async fn retire(&self, is_gone: impl Fn(&ShareKey) -> bool) {
        let retired: Vec<_> = {
            let mut all = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
            let keys: Vec<ShareKey> = all.keys().filter(|key| is_gone(key)).cloned().collect();
            keys.iter().filter_map(|key| all.remove(key)).collect()
        };
        for loaded in retired {
            *loaded.writing.lock().await = true;
        }
    }

    async fn shard_of(&self, broker: &Arc<Broker>, key: &ShareKey) -> Result<ShareShard, ErrorCode> {
        self.shard(&self.shards.partition_of(broker, &key.coordinator_key()).await?)
    }

    fn shard(&self, partition: &Arc<Partition>) -> Result<ShareShard, ErrorCode> {
        self.shards.shard(partition, || (ShareCoordinator::default(), NoEffects))
    }

    async fn read(&self, broker: &Arc<Broker>, key: &ShareKey) -> Result<Option<ShareState>, ErrorCode> {
        let key = key.clone();
        let shard = self.shard_of(broker, &key).await?;
        shard.call(move |core, _| (storage::nothing(), core.read(&key).cloned())).await
    }

    async fn store(&self, broker: &Arc<Broker>, key: &ShareKey, state: Option<ShareState>) -> Result<(), ErrorCode> {
        let shard = self.shard_of(broker, key).await?;
        let key = key.clone();
        shard.call(move |_, _| (storage::one(key, state), ())).await
    }

    /// The start offsets that a group has, by partition, with records above them that are done with.
    pub(crate) async fn offsets(&self, broker: &Arc<Broker>, group_id: &str) -> Result<BTreeMap<ShareKey, (i64, i64)>, ErrorCode> {
        let mut offsets = BTreeMap::new();
        for partition in self.shards.partitions(broker) {
            let group_id = group_id.to_owned();
            let shard = self.shard(&partition)?;
            let found = shard.call(move |core, _| {
                let states = core.of_group(&group_id).map(|(key, state)| (key.clone(), state.clone()));
                (storage::nothing(), states.collect::<Vec<_>>())
            });
            for (key, state) in found.await? {
                let state = SharePartition::from_state(&state);
                offsets.insert(key, (state.start_offset(), state.done_above_start()));
            }
        }
        Ok(offsets)
    }

    /// Moves a group without members to another place in a partition.
    pub(crate) async fn set_offset(&self, broker: &Arc<Broker>, key: ShareKey, offset: i64) -> Result<(), ErrorCode> {
        let state = SharePartition::starting_at(offset).to_state(broker.clock.wall_ms());
        let _altering = self.altering.write().await;
        self.retire(|other| *other == key).await;
        self.store(broker, &key, Some(state)).await
    }

    /// Forgets what groups and topics had that are no more.
    pub(crate) async fn forget(
        &self,
        broker: &Arc<Broker>,
        is_gone: impl Fn(&ShareKey) -> bool + Clone + Send + 'static,
    ) -> Result<(), ErrorCode> {
        let _altering = self.altering.write().await;
        self.retire(&is_gone).await;
        for partition in self.shards.partitions(broker) {
            let is_gone = is_gone.clone();
            self.shard(&partition)?
                .call(move |core, _| (storage::all(core.forget(is_gone)), ()))
                .await?;
        }
        Ok(())
    }
}

/// Where a group begins that never read the partition.
async fn first_offset(broker: &Arc<Broker>, partition: &Arc<Partition>, config: &ShareConfig) -> Result<i64, ErrorCode> {
    match config.offset_reset {
        ShareOffsetReset::Latest => Ok(partition.readable_end(config.isolation)),
        ShareOffsetReset::Earliest => Ok(partition.log().log_start_offset()),
        ShareOffsetReset::ByDuration(ago_ms) => {
            let since_ms = broker.clock.wall_ms().saturating_sub(ago_ms);
            let found = crate::handlers::list_offsets::by_time(broker, partition, since_ms, config.isolation).await?;
            Ok(found.map_or_else(|| partition.readable_end(config.isolation), |found| found.offset))
        }
    }
}

/// Frees what nobody answered for in time, also when nobody fetches, and tries again what did not work.
fn sweep(broker: &Arc<Broker>) {
    let image = broker.metadata.image();
    let now_ms = broker.clock.wall_ms();
    for loaded in broker.shares.all() {
        let config = broker.shares.config(broker, &image, &loaded.key.group_id);
        let is_due = loaded.with(|state| {
            let is_late = state.next_deadline().is_some_and(|deadline_ms| deadline_ms <= now_ms);
            state.expire_locks(now_ms, &config.limits);
            is_late || state.is_dirty() || !state.given_up(&config.limits).is_empty()
        });
        if !is_due || loaded.writing.try_lock().is_err() {
            continue;
        }
        loaded.wake();
        let broker = Arc::clone(broker);
        tokio::spawn(async move {
            if let Err(error) = broker.shares.settle(&broker, &loaded, &config).await {
                tracing::warn!(
                    group_id = loaded.key.group_id,
                    ?error,
                    "share state could not be written; it is tried again"
                );
            }
        });
    }
}
