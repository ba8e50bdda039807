//! One replica of a partition on this broker, which leads it: its log, its high watermark, and who waits for it.
//!
//! With one replica the high watermark follows what is safe: the durable end of the log under `millstream.durability=fsync`,
//! so that no consumer ever sees a record that power loss could take back; the log end under `page-cache`.

use std::sync::{
    Arc, Mutex, PoisonError, RwLock, Weak,
    atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering},
};

use bytes::Bytes;
use millstream_core::metadata::configs::{Durability, TimestampType as ConfiguredTimestampType, TopicConfig};
use millstream_log::{
    AppendError, Appended, Log, LogConfig, LogDir, LogError, LogObserver, VerificationGuard,
    remote::{EpochEntry, SealedSegment, TierConfig, TieredSource, TopicIdPartition},
};
use millstream_protocol::record::{BatchHeader, TimestampType};
use tokio::sync::{Notify, watch};

/// Nothing waits for a sync.
const CLEAN: i64 = -1;
/// Bytes in the page cache before a sync is asked for, whatever the durability: more would stall appends for long.
const DIRTY_BYTES_MAX: u64 = 16 << 20;

/// Waiters, dead ones included, below which nobody looks for the dead.
const WAITERS_KEPT: usize = 64;

/// How far a partition is readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// First offset that is not safe yet.
    pub high_watermark: i64,
    /// The log directory is offline or the partition was deleted; nothing more will come.
    pub closed: bool,
}

/// What a reader wants to see of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Everything below the high watermark.
    Uncommitted,
    /// Everything below the last stable offset; the reader leaves out what was aborted.
    Committed,
}

impl Isolation {
    /// The isolation of a request: 1 is read_committed.
    pub fn from_wire(level: i8) -> Self {
        if level == 1 { Self::Committed } else { Self::Uncommitted }
    }
}

/// A partition that this broker leads.
pub struct Partition {
    /// Topic id and number.
    pub id: TopicIdPartition,
    /// The topic's name.
    pub topic: String,
    log: Arc<Log>,
    dir: Arc<LogDir>,
    leader_epoch: AtomicI32,
    config: RwLock<Arc<TopicConfig>>,
    progress: watch::Sender<Progress>,
    high_watermark: AtomicI64,
    waiters: Mutex<Vec<Weak<Notify>>>,
    deleted: AtomicBool,
    /// Since when records are in the page cache only, under `page-cache`.
    dirty_since_ms: AtomicI64,
}

impl Partition {
    /// Takes over a log. Everything in it is durable, as it was just opened.
    pub fn new(
        id: TopicIdPartition,
        topic: String,
        leader_epoch: i32,
        log: Arc<Log>,
        dir: Arc<LogDir>,
        config: Arc<TopicConfig>,
    ) -> Arc<Self> {
        let high_watermark = log.log_end_offset();
        let partition = Arc::new(Self {
            id,
            topic,
            log,
            dir,
            leader_epoch: AtomicI32::new(leader_epoch),
            config: RwLock::new(config),
            progress: watch::Sender::new(Progress {
                high_watermark,
                closed: false,
            }),
            high_watermark: AtomicI64::new(high_watermark),
            waiters: Mutex::default(),
            deleted: AtomicBool::new(false),
            dirty_since_ms: AtomicI64::new(CLEAN),
        });
        partition.log.set_observer(Arc::new(Observer(Arc::downgrade(&partition))));
        partition
    }

    /// The log.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// First offset that consumers may not read yet.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark.load(Ordering::Acquire)
    }

    /// Epoch of the current leadership.
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch.load(Ordering::Acquire)
    }

    /// A new leadership of this broker.
    pub fn set_leader_epoch(&self, epoch: i32) {
        self.leader_epoch.store(epoch, Ordering::Release);
    }

    /// The topic's resolved configuration.
    pub fn topic_config(&self) -> Arc<TopicConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the topic's configuration.
    pub fn set_topic_config(&self, config: Arc<TopicConfig>, producer_id_expiration_ms: i64) {
        self.log.set_config(log_config(&config, producer_id_expiration_ms));
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// First offset that readers of committed records may not see.
    pub fn last_stable_offset(&self) -> i64 {
        self.log.last_stable_offset(self.high_watermark())
    }

    /// First offset that readers with this isolation may not see.
    pub fn readable_end(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::Uncommitted => self.high_watermark(),
            Isolation::Committed => self.last_stable_offset(),
        }
    }

    /// Appends one validated batch and sees to its durability. Does not wait. The first batch of a transaction needs the guard of
    /// [`Log::transaction_state`].
    pub fn append(
        &self,
        header: &BatchHeader,
        batch: &Bytes,
        now_ms: i64,
        guard: Option<VerificationGuard>,
    ) -> Result<Appended, AppendError> {
        let appended = self.log.append(header, batch, self.leader_epoch(), now_ms, guard)?;
        let config = self.topic_config();
        match config.durability {
            Durability::Fsync => self.dir.request_sync(&self.log),
            Durability::PageCache => {
                let dirty_records = appended.log_end_offset - self.log.durable_end_offset();
                if appended.dirty_bytes >= DIRTY_BYTES_MAX || appended.rolled || dirty_records >= config.flush_messages {
                    self.dir.request_sync(&self.log);
                }
                let _ = self
                    .dirty_since_ms
                    .compare_exchange(CLEAN, now_ms, Ordering::AcqRel, Ordering::Acquire);
                self.advance(appended.log_end_offset);
            }
        }
        Ok(appended)
    }

    /// Syncs what has been in the page cache for `flush.ms`.
    pub fn flush_if_due(&self, now_ms: i64) {
        let since_ms = self.dirty_since_ms.load(Ordering::Acquire);
        if since_ms != CLEAN && now_ms.saturating_sub(since_ms) >= self.topic_config().flush_ms {
            self.dirty_since_ms.store(CLEAN, Ordering::Release);
            self.dir.request_sync(&self.log);
        }
    }

    /// Waits until everything below `offset` is safe; `false` if that can never be known, as the partition was closed.
    pub async fn wait_for(&self, offset: i64) -> bool {
        if self.high_watermark() >= offset {
            return true;
        }
        let mut progress = self.progress.subscribe();
        match progress
            .wait_for(|progress| progress.high_watermark >= offset || progress.closed)
            .await
        {
            Ok(progress) => progress.high_watermark >= offset,
            Err(_) => false,
        }
    }

    /// Waits until everything below `offset` is on disk, whatever the topic's durability says; `false` if that can never be known.
    pub async fn wait_durable(self: &Arc<Self>, offset: i64, now_ms: i64) -> bool {
        if self.topic_config().durability == Durability::Fsync {
            return self.wait_for(offset).await;
        }
        let log = Arc::clone(&self.log);
        let synced = tokio::task::spawn_blocking(move || log.durable_end_offset() >= offset || log.sync(now_ms).is_ok()).await;
        synced.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// Wakes `waiter` once at the next advance of the high watermark.
    pub fn wake_on_advance(&self, waiter: &Arc<Notify>) {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        // An idle partition is polled for ever: forget those that gave up, now and then, so that the list stays as short as its users.
        if waiters.len() >= WAITERS_KEPT && waiters.len().is_power_of_two() {
            waiters.retain(|waiter| waiter.strong_count() > 0);
        }
        waiters.push(Arc::downgrade(waiter));
    }

    fn advance(&self, offset: i64) {
        if self.high_watermark.fetch_max(offset, Ordering::AcqRel) >= offset {
            return;
        }
        self.progress.send_if_modified(|progress| {
            let advanced = progress.high_watermark < offset;
            progress.high_watermark = progress.high_watermark.max(offset);
            advanced
        });
        self.wake_all();
    }

    fn wake_all(&self) {
        let waiters = std::mem::take(&mut *self.waiters.lock().unwrap_or_else(PoisonError::into_inner));
        for waiter in waiters {
            if let Some(waiter) = waiter.upgrade() {
                waiter.notify_one();
            }
        }
    }

    /// Nothing more will come: the topic was deleted or the disk failed.
    pub fn close(&self) {
        self.deleted.store(true, Ordering::Release);
        self.progress.send_modify(|progress| progress.closed = true);
        self.wake_all();
    }

    /// Whether the partition was closed.
    pub fn is_closed(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }
}

/// The settings of a log under a topic's configuration.
pub(crate) fn log_config(config: &TopicConfig, producer_id_expiration_ms: i64) -> LogConfig {
    LogConfig {
        segment_bytes: u64::try_from(config.segment_bytes).unwrap_or(1 << 30),
        segment_ms: config.segment_ms,
        segment_jitter_ms: config.segment_jitter_ms,
        index_interval_bytes: u32::try_from(config.index_interval_bytes).unwrap_or(4096),
        retention_ms: if config.cleanup_policy.delete { config.retention_ms } else { -1 },
        retention_bytes: if config.cleanup_policy.delete { config.retention_bytes } else { -1 },
        timestamp_type: match config.message_timestamp_type {
            ConfiguredTimestampType::CreateTime => TimestampType::CreateTime,
            ConfiguredTimestampType::LogAppendTime => TimestampType::LogAppendTime,
        },
        producer_id_expiration_ms,
    }
}

struct Observer(Weak<Partition>);

impl LogObserver for Observer {
    fn durable(&self, log_end_offset: i64) {
        if let Some(partition) = self.0.upgrade() {
            partition.advance(log_end_offset);
        }
    }

    fn failed(&self) {
        if let Some(partition) = self.0.upgrade() {
            partition.close();
        }
    }
}

impl TieredSource for Partition {
    fn topic_name(&self) -> String {
        self.topic.clone()
    }

    fn leader_epoch(&self) -> i32 {
        Self::leader_epoch(self)
    }

    fn log_start_offset(&self) -> i64 {
        self.log.log_start_offset()
    }

    fn local_start_offset(&self) -> i64 {
        self.log.local_start_offset()
    }

    fn stable_offset(&self) -> i64 {
        self.last_stable_offset()
    }

    fn sealed_segments(&self) -> Vec<SealedSegment> {
        self.log.sealed_segments()
    }

    fn active_segment_bytes(&self) -> u64 {
        self.log.active_segment_bytes()
    }

    fn read_at(&self, base_offset: i64, position: u64, len: usize) -> Result<Bytes, LogError> {
        self.log.read_segment_at(base_offset, position, len)
    }

    fn epochs(&self) -> Vec<EpochEntry> {
        self.log.epochs()
    }

    fn producer_snapshot(&self, next_offset: i64) -> Result<Option<Bytes>, LogError> {
        self.log.producer_snapshot(next_offset)
    }

    fn trim_local(&self, up_to: i64) -> Result<(), LogError> {
        self.log.trim_local(up_to).map(|_| ())
    }

    fn advance_log_start(&self, offset: i64) -> Result<(), LogError> {
        self.log.advance_log_start(offset).map(|_| ())
    }

    fn config(&self) -> TierConfig {
        let config = self.topic_config();
        TierConfig {
            enabled: config.remote_storage_enable,
            copy_disabled: config.remote_log_copy_disable,
            local_retention_ms: config.local_retention_ms,
            local_retention_bytes: config.local_retention_bytes,
            retention_ms: config.retention_ms,
            retention_bytes: config.retention_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use millstream_log::disk::MemoryDisk;

    use super::*;
    use crate::handlers::fetch_tests::{batch, broker};

    const HOUR_MS: i64 = 3_600_000;

    #[tokio::test]
    async fn the_page_cache_is_flushed_after_so_many_records_or_so_long() {
        let disk = MemoryDisk::new();
        let broker = broker(&disk, 1).await;
        let topic = Arc::clone(broker.metadata.image().topic("t").unwrap());
        let partition = broker.partition(&topic, 0).unwrap();
        let config = |flush_messages, flush_ms| {
            Arc::new(TopicConfig {
                durability: Durability::PageCache,
                flush_messages,
                flush_ms,
                ..(*partition.topic_config()).clone()
            })
        };
        let now_ms = broker.clock.wall_ms();
        let append = || {
            let bytes = batch();
            partition
                .append(&BatchHeader::parse(&bytes).unwrap(), &bytes, now_ms, None)
                .unwrap();
            partition.log().log_end_offset()
        };
        let until_durable = |end| {
            let partition = &partition;
            async move {
                while partition.log().durable_end_offset() < end {
                    tokio::task::yield_now().await;
                }
            }
        };
        // Logs are synced in the order in which that is asked for: what was asked for before is done when the other one is.
        let other = broker.partition(&topic, 1).unwrap();
        let all_asked_for = || {
            let bytes = batch();
            let appended = other.append(&BatchHeader::parse(&bytes).unwrap(), &bytes, now_ms, None).unwrap();
            let other = &other;
            async move { assert!(other.wait_for(appended.log_end_offset).await) }
        };
        partition.set_topic_config(config(3, HOUR_MS), HOUR_MS);
        let before = partition.log().durable_end_offset();
        append();
        append();
        all_asked_for().await;
        assert_eq!(partition.log().durable_end_offset(), before, "two records are not enough");
        until_durable(append()).await;

        partition.set_topic_config(config(i64::MAX, HOUR_MS), HOUR_MS);
        let end = append();
        partition.flush_if_due(now_ms + HOUR_MS - 1);
        all_asked_for().await;
        assert!(partition.log().durable_end_offset() < end, "it is too early");
        partition.flush_if_due(now_ms + HOUR_MS);
        until_durable(end).await;
        broker.shutdown().await.unwrap();
    }
}
