//! The two ports between a partition's log and its tier.
//!
//! The broker holds `Arc<dyn RemoteLog>` and never learns which object store is behind it; the tier holds
//! `Arc<dyn TieredSource>` and never learns what a partition is made of. Neither names a runtime: futures are boxed.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use uuid::Uuid;

use crate::LogError;

/// A future that a port returns.
pub type PortFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A partition by its topic's id, which survives a rename and is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicIdPartition {
    /// The topic's id.
    pub topic_id: Uuid,
    /// The partition's number.
    pub partition: i32,
}

impl fmt::Display for TopicIdPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic_id, self.partition)
    }
}

/// What a topic's configuration says about its tier. Kafka's names; sizes in bytes, times in milliseconds, -1 is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierConfig {
    /// `remote.storage.enable`
    pub enabled: bool,
    /// `remote.log.copy.disable`: keep reading the tier, upload nothing more.
    pub copy_disabled: bool,
    /// `local.retention.ms` (already resolved: -2 was replaced by `retention.ms`).
    pub local_retention_ms: i64,
    /// `local.retention.bytes` (already resolved: -2 was replaced by `retention.bytes`).
    pub local_retention_bytes: i64,
    /// `retention.ms`, of the whole log.
    pub retention_ms: i64,
    /// `retention.bytes`, of the whole log.
    pub retention_bytes: i64,
}

/// A segment that will not grow any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSegment {
    /// First offset of the segment.
    pub base_offset: i64,
    /// First offset of the segment after it (exclusive end).
    pub next_offset: i64,
    /// Size of its record batches in bytes.
    pub size: u64,
    /// Smallest record timestamp in milliseconds, -1 if unknown.
    pub min_timestamp: i64,
    /// Largest record timestamp in milliseconds, -1 if the segment holds none.
    pub max_timestamp: i64,
}

/// A leader epoch and the first offset written in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEntry {
    /// The leader epoch.
    pub epoch: i32,
    /// First offset of that epoch.
    pub start_offset: i64,
}

/// What the tier needs of a partition. Every method is quick except `read_at`, which reads from disk: call it off the runtime.
pub trait TieredSource: Send + Sync {
    /// The topic's name, for `topic.json` and messages; never part of a path or object key.
    fn topic_name(&self) -> String;
    /// Current leader epoch of this broker's leadership.
    fn leader_epoch(&self) -> i32;
    /// First offset that a consumer may read, over all tiers.
    fn log_start_offset(&self) -> i64;
    /// First offset that is still stored locally.
    fn local_start_offset(&self) -> i64;
    /// min(high watermark, last stable offset): nothing at or above it may be uploaded.
    fn stable_offset(&self) -> i64;
    /// Sealed local segments in offset order.
    fn sealed_segments(&self) -> Vec<SealedSegment>;
    /// Bytes in the active segment and the time of its first record, for local retention and reports.
    fn active_segment_bytes(&self) -> u64;
    /// Reads up to `len` bytes of a sealed segment's batches at `position`; fewer only at the segment's end.
    fn read_at(&self, base_offset: i64, position: u64, len: usize) -> Result<Bytes, LogError>;
    /// The leader-epoch history, in order.
    fn epochs(&self) -> Vec<EpochEntry>;
    /// The producer-state snapshot taken when the segment ending at `next_offset` was rolled, if there is one.
    fn producer_snapshot(&self, next_offset: i64) -> Result<Option<Bytes>, LogError>;
    /// Deletes local sealed segments that end at or below `up_to`. The caller has committed them to the bucket (I4, I6).
    fn trim_local(&self, up_to: i64) -> Result<(), LogError>;
    /// Raises the log start offset after retention was committed to the bucket.
    fn advance_log_start(&self, offset: i64) -> Result<(), LogError>;
    /// The topic's current tier configuration.
    fn config(&self) -> TierConfig;
}

/// The part of a partition that is in the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteBounds {
    /// First offset in the bucket.
    pub start_offset: i64,
    /// End of the part in the bucket (exclusive).
    pub end_offset: i64,
}

/// Record batches read from the bucket.
#[derive(Debug, Clone, Default)]
pub struct RemoteBatches {
    /// Whole batches in offset order; the first one holds the wanted offset or is the first after it.
    pub bytes: Vec<Bytes>,
    /// First offset after those batches.
    pub next_offset: i64,
}

/// Why a read of the tier gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The offset lies outside what the bucket holds.
    #[error("offset {offset} of {partition} is not in the bucket")]
    OutOfRange {
        /// The partition.
        partition: TopicIdPartition,
        /// The wanted offset.
        offset: i64,
    },
    /// The store failed or timed out; the same read may work later.
    #[error("read {partition} at {offset} from the bucket: {reason}")]
    Unavailable {
        /// The partition.
        partition: TopicIdPartition,
        /// The wanted offset.
        offset: i64,
        /// What the store said, without secrets.
        reason: String,
    },
    /// The object does not hold what its head says.
    #[error("object {key} of {partition} is damaged: {reason}")]
    Corrupt {
        /// The partition.
        partition: TopicIdPartition,
        /// The object's key.
        key: String,
        /// What was wrong.
        reason: String,
    },
}

/// Where one partition stands, for `tier status` and metrics.
#[derive(Debug, Clone)]
pub struct TierStatus {
    /// The partition.
    pub partition: TopicIdPartition,
    /// The topic's name.
    pub topic: String,
    /// Offsets in the bucket, if any.
    pub bounds: Option<RemoteBounds>,
    /// First offset stored locally.
    pub local_start_offset: i64,
    /// Objects the head refers to.
    pub remote_segments: usize,
    /// Bytes the head refers to.
    pub remote_bytes: u64,
    /// Sealed local bytes that are not in the bucket yet.
    pub pending_bytes: u64,
    /// The last failure of this partition's tier tasks, if it still stands.
    pub last_error: Option<String>,
}

/// The tier as the broker sees it.
pub trait RemoteLog: Send + Sync {
    /// Starts tier work for a partition that this broker leads. Idempotent.
    fn attach(&self, partition: TopicIdPartition, source: Arc<dyn TieredSource>);
    /// Stops tier work; with `delete`, the topic is gone and its objects are purged in the background.
    fn detach(&self, partition: TopicIdPartition, delete: bool);
    /// Resolves once the head of an attached partition has been read, so that `bounds` tells the truth; at once if the
    /// partition is not attached.
    fn ready(&self, partition: TopicIdPartition) -> PortFuture<'_, ()>;
    /// What the bucket holds of a partition, as last committed or read; `None` before anything was.
    fn bounds(&self, partition: TopicIdPartition) -> Option<RemoteBounds>;
    /// Reads batches from the one that holds `offset`, about `max_bytes` of them, at least one. Dropping the future does not
    /// stop the fill of the cache, so the next call finds the bytes there.
    fn read(&self, partition: TopicIdPartition, offset: i64, max_bytes: usize) -> PortFuture<'_, Result<RemoteBatches, RemoteError>>;
    /// Offset from which to scan for the first record at or after `timestamp`: a batch before it, close by. `None` if no object
    /// reaches that time.
    fn seek_timestamp(&self, partition: TopicIdPartition, timestamp: i64) -> PortFuture<'_, Result<Option<i64>, RemoteError>>;
    /// Where every attached partition stands.
    fn status(&self) -> Vec<TierStatus>;
}
