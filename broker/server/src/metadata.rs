//! The metadata service: the controller core over the metadata log.
//!
//! One node is the whole quorum for now: a decision's records are appended to the log `metadata` of the data directory, synced,
//! applied to a copy of the image, and the copy is swapped in. Decisions are made one at a time, each on the image that all
//! the ones before it made.

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use millstream_core::metadata::{
    ClusterImage, MetadataRecord,
    configs::Overrides,
    controller::{self, Context, Decision},
};
use millstream_log::{AppendError, Log, LogConfig, LogDir, LogError};
use millstream_protocol::{
    compression::{Compression, CompressionError},
    record::{BatchBuilder, BatchError, BatchHeader, NewRecord, RecordIter},
};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::clock::Clock;

/// Name of the log; no topic's directory can have it, as those are named by ids.
const LOG_NAME: &str = "metadata";
/// Most bytes that one batch of the metadata log may decompress to.
const BATCH_BUDGET_BYTES: usize = 64 << 20;

/// Why metadata could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// The log.
    #[error("metadata log: {0}")]
    Log(#[from] LogError),
    /// An append to it.
    #[error("append to the metadata log: {0}")]
    Append(#[from] AppendError),
    /// A batch of it.
    #[error("metadata log: {0}")]
    Batch(#[from] BatchError),
    /// A batch of it.
    #[error("metadata log: {0}")]
    Compression(#[from] CompressionError),
    /// A record of it.
    #[error("metadata record at offset {offset}: {reason}")]
    Record {
        /// Where it lies.
        offset: i64,
        /// What is wrong.
        reason: String,
    },
    /// Something that follows from a change failed.
    #[error("apply metadata: {0}")]
    Follow(LogError),
}

/// Called with every new image before the request that made it is answered. Blocks on the disk.
pub type Follower = Box<dyn Fn(&ClusterImage) -> Result<(), LogError> + Send + Sync>;

/// The metadata of the cluster, and the only way to change it.
pub struct MetadataService {
    log: Arc<Log>,
    clock: Arc<dyn Clock>,
    brokers: Vec<i32>,
    fixed_configs: Overrides,
    image: RwLock<Arc<ClusterImage>>,
    deciding: Mutex<()>,
    follower: std::sync::OnceLock<Follower>,
}

impl MetadataService {
    /// Replays the metadata log.
    pub fn open(
        dir: &LogDir,
        cluster_id: Uuid,
        node_id: i32,
        fixed_configs: Overrides,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, MetadataError> {
        let config = LogConfig {
            retention_ms: -1,
            retention_bytes: -1,
            ..LogConfig::default()
        };
        let log = dir.open_log(LOG_NAME, config)?;
        dir.sync_names()?;
        let mut image = ClusterImage::empty(cluster_id);
        log.replay(0, |header, batch| replay_batch(&mut image, &header, &batch))?;
        Ok(Self {
            log,
            clock,
            brokers: vec![node_id],
            fixed_configs,
            image: RwLock::new(Arc::new(image)),
            deciding: Mutex::default(),
            follower: std::sync::OnceLock::new(),
        })
    }

    /// Sets who is told of every new image. Only the first call counts.
    pub fn set_follower(&self, follower: Follower) {
        // There is one broker per service, and it sets this before it serves.
        let _ = self.follower.set(follower);
    }

    /// The current image.
    pub fn image(&self) -> Arc<ClusterImage> {
        Arc::clone(&self.image.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Values of the start configuration.
    pub fn fixed_configs(&self) -> &Overrides {
        &self.fixed_configs
    }

    /// The metadata log, to be closed last.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Decides on the current image, commits and applies the records, and returns the reply.
    pub async fn decide<R: Send + 'static>(
        self: &Arc<Self>,
        cluster_admin: bool,
        decide: impl FnOnce(&Context<'_>) -> Decision<R> + Send + 'static,
    ) -> Result<R, MetadataError> {
        let service = Arc::clone(self);
        // The whole step runs off the runtime: it syncs, and followers create directories.
        let task = tokio::spawn(async move {
            let _one_at_a_time = service.deciding.lock().await;
            let worker = Arc::clone(&service);
            tokio::task::spawn_blocking(move || worker.decide_blocking(cluster_admin, decide)).await
        });
        match task.await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) | Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn decide_blocking<R>(&self, cluster_admin: bool, decide: impl FnOnce(&Context<'_>) -> Decision<R>) -> Result<R, MetadataError> {
        let image = self.image();
        let now_ms = self.clock.wall_ms();
        let context = Context {
            image: &image,
            brokers: &self.brokers,
            fixed_configs: &self.fixed_configs,
            now_ms,
            cluster_admin,
        };
        let Decision { records, reply } = decide(&context);
        if records.is_empty() {
            return Ok(reply);
        }
        let batch = encode_batch(&records, now_ms, self.log.log_end_offset())?;
        self.log.append(&BatchHeader::parse(&batch)?, &batch, 0, now_ms, None)?;
        self.log.sync(now_ms)?;
        let mut next = (*image).clone();
        for record in &records {
            // The decision was made on a draft of this very image, so the log's future readers can apply it too.
            next.apply(record).map_err(|error| MetadataError::Record {
                offset: self.log.log_end_offset(),
                reason: error.to_string(),
            })?;
        }
        let next = Arc::new(next);
        *self.image.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&next);
        if let Some(follow) = self.follower.get() {
            follow(&next).map_err(MetadataError::Follow)?;
        }
        Ok(reply)
    }

    /// A new leader epoch for everything that this broker leads: whatever it did before the restart is fenced.
    pub async fn restart_broker(self: &Arc<Self>, node_id: i32) -> Result<(), MetadataError> {
        self.decide(true, move |context| controller::restart_broker(context, node_id)).await
    }
}

fn encode_batch(records: &[MetadataRecord], now_ms: i64, offset: i64) -> Result<Bytes, MetadataError> {
    let mut builder = BatchBuilder::new(Compression::None);
    for record in records {
        let value = record.encode().map_err(|error| MetadataError::Record {
            offset,
            reason: error.to_string(),
        })?;
        builder.push(&NewRecord {
            timestamp: now_ms,
            value: Some(&value),
            ..NewRecord::default()
        });
    }
    Ok(builder.build()?)
}

fn replay_batch(image: &mut ClusterImage, header: &BatchHeader, batch: &Bytes) -> Result<(), MetadataError> {
    let body = batch.slice(BatchHeader::SIZE..);
    // What lies there as it is was accepted at its size; only what expands needs a bound.
    let section = header.compression()?.decompress(&body, BATCH_BUDGET_BYTES.max(body.len()))?;
    for record in RecordIter::new(&section, header.record_count) {
        let record = record?;
        let offset = header.base_offset + i64::from(record.offset_delta);
        let failed = |reason: String| MetadataError::Record { offset, reason };
        let decoded = MetadataRecord::decode(record.value.unwrap_or_default()).map_err(|error| failed(error.to_string()))?;
        image.apply(&decoded).map_err(|error| failed(error.to_string()))?;
    }
    Ok(())
}
