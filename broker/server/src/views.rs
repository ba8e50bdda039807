//! Serving views: batches of the source run through the view's chain on their way to the consumer.
//!
//! - A batch without survivors is never sent, and control batches pass untouched: kafkajs stalls on the first, kafka-go shows the
//!   second to users, so neither is ever invented here.
//! - Offsets are the source's. A batch keeps its base offset and ends at its last survivor; the hole after it is as after compaction.
//! - A fetch scans until something survives or its budget ends. If nothing did, the place it came to is remembered, so that the
//!   next poll at the same offset goes on from there.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use millstream_core::{
    metadata::{ClusterImage, configs::Scope, configs::effective_value},
    transform::{BatchContext, Chain, ChainOutcome},
};
use millstream_log::remote::TopicIdPartition;
use millstream_protocol::{
    ErrorCode,
    chunk::{Chunk, Records},
    record::{BatchHeader, RecordIter, rebuild, split_batches},
};
use quick_cache::{Weighter, sync::Cache};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    broker::{Broker, Named},
    errors::{log_error_code, remote_error_code},
    partition::{Isolation, Partition},
    validation::{SECTION_BYTES_MAX, off_turn},
};

/// Places that are remembered.
const CURSORS_MAX: usize = 100_000;
/// Bytes of filtered batches that are kept.
const CACHE_BYTES: u64 = 64 << 20;
/// Bytes of a topic that one fetch scans for a batch with records.
const SCAN_BYTES_MAX: usize = 64 << 20;
/// Bytes of the source read at a time.
const READ_BYTES: usize = 1 << 20;

/// A place in a view: the view's id (versions are unique within a view only), the version of its chain, the partition, an offset.
type BatchKey = (Uuid, u64, TopicIdPartition, i64);

/// What a chain made of a batch.
#[derive(Clone)]
struct Filtered {
    /// The batch to send, empty if no record survived.
    batch: Bytes,
    /// Offset of the last survivor, -1 if there is none.
    last_offset: i64,
}

#[derive(Clone)]
struct FilteredBytes;

impl Weighter<BatchKey, Filtered> for FilteredBytes {
    fn weight(&self, _key: &BatchKey, filtered: &Filtered) -> u64 {
        filtered.batch.len() as u64 + 128
    }
}

/// What views remember between fetches. All of it can be lost without harm.
pub(crate) struct ViewCursors {
    scanned: Cache<BatchKey, i64>,
    filtered: Cache<BatchKey, Filtered, FilteredBytes>,
}

impl Default for ViewCursors {
    fn default() -> Self {
        Self {
            scanned: Cache::new(CURSORS_MAX),
            filtered: Cache::with_weighter(10_000, CACHE_BYTES, FilteredBytes),
        }
    }
}

/// From where, how much and how long to read.
pub(crate) struct ReadWish {
    pub offset: i64,
    pub isolation: Isolation,
    pub max_bytes: usize,
    pub deadline: Instant,
}

/// Batches, and the offset up to which was read.
pub(crate) struct ScannedRecords {
    pub records: Records,
    pub next_offset: i64,
}

/// Reads a view from an offset. Empty when nothing survived within the budget.
pub(crate) async fn read(
    broker: &Arc<Broker>,
    image: &ClusterImage,
    named: &Named,
    partition: &Arc<Partition>,
    wish: &ReadWish,
) -> Result<ScannedRecords, ErrorCode> {
    let chain = broker.plugins.view_chain(image, named.name()).map_err(|missing| {
        tracing::error!(view = named.name(), %missing, "the view cannot be served");
        ErrorCode::KafkaStorageError
    })?;
    let log = partition.log();
    // A consumer's committed offset may lie below a log start that moved on; for a view it means the start.
    let offset = wish.offset.max(log.log_start_offset());
    if offset > log.log_end_offset() {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    let (scan_bytes, scan_time) = budgets(image, named.name());
    let scan = Scan {
        broker,
        view_id: named.id(),
        chain: Some(chain),
        partition,
        end: partition.readable_end(wish.isolation),
        offset,
        max_bytes: wish.max_bytes,
        scan_bytes,
        deadline: wish.deadline.min(Instant::now() + scan_time),
    };
    scan.run().await
}

/// Reads a topic past batches that lost all their records to a plugin, which not every client can be shown, and past cold offsets.
pub(crate) async fn read_topic(broker: &Arc<Broker>, partition: &Arc<Partition>, wish: &ReadWish) -> Result<ScannedRecords, ErrorCode> {
    let scan = Scan {
        broker,
        view_id: Uuid::nil(),
        chain: None,
        partition,
        end: partition.readable_end(wish.isolation),
        offset: wish.offset,
        max_bytes: wish.max_bytes,
        scan_bytes: SCAN_BYTES_MAX.max(wish.max_bytes),
        deadline: wish.deadline,
    };
    scan.run().await
}

fn budgets(image: &ClusterImage, view: &str) -> (usize, Duration) {
    use millstream_core::metadata::configs::view::{SCAN_MAX_BYTES, SCAN_MAX_MS};
    let layers = millstream_core::metadata::configs::BrokerLayers::none();
    let number = |name: &str| -> u64 {
        let value = image
            .view(view)
            .and_then(|view| effective_value(Scope::View, name, &view.configs, &layers));
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    (
        usize::try_from(number(SCAN_MAX_BYTES)).unwrap_or(usize::MAX),
        Duration::from_millis(number(SCAN_MAX_MS)),
    )
}

struct Scan<'a> {
    broker: &'a Arc<Broker>,
    /// The view, or nil for a topic.
    view_id: Uuid,
    /// `None` for a topic whose batches without records are left out.
    chain: Option<Arc<Chain>>,
    partition: &'a Arc<Partition>,
    /// First offset that may not be read.
    end: i64,
    offset: i64,
    max_bytes: usize,
    scan_bytes: usize,
    deadline: Instant,
}

impl Scan<'_> {
    async fn run(self) -> Result<ScannedRecords, ErrorCode> {
        let cursors = &self.broker.view_cursors;
        let cursor_key = self.key(self.offset);
        let mut next = cursors.scanned.get(&cursor_key).unwrap_or(self.offset);
        let mut records = Records::empty();
        let mut scanned_bytes = 0;
        while records.len() < self.max_bytes && scanned_bytes < self.scan_bytes && next < self.end {
            let Some(bytes) = self.read_source(next).await? else { break };
            for item in bytes.into_iter().flat_map(split_batches) {
                let (header, batch) = item.map_err(|_| ErrorCode::CorruptMessage)?;
                if header.last_offset() < next {
                    continue;
                }
                if header.base_offset >= self.end {
                    break;
                }
                scanned_bytes += batch.len();
                let filtered = match self.filter(&header, batch).await {
                    Ok(filtered) => filtered,
                    // What was found so far is good; the error comes with the next fetch.
                    Err(_) if !records.is_empty() => return Ok(self.finish(records, next, scanned_bytes)),
                    Err(error) => return Err(error),
                };
                next = header.next_offset();
                if filtered.last_offset >= self.offset {
                    records.push(Chunk::Bytes(filtered.batch));
                }
                let spent = records.len() >= self.max_bytes || scanned_bytes >= self.scan_bytes;
                if spent || Instant::now() >= self.deadline && (scanned_bytes > 0) {
                    break;
                }
            }
            if Instant::now() >= self.deadline {
                break;
            }
        }
        if records.is_empty() && next > self.offset {
            cursors.scanned.insert(cursor_key, next);
        }
        Ok(self.finish(records, next, scanned_bytes))
    }

    fn finish(&self, records: Records, next_offset: i64, scanned_bytes: usize) -> ScannedRecords {
        if let Some(view) = self.chain.as_ref().and_then(|chain| chain.view.as_ref()) {
            self.broker.metrics.view_scanned(view, scanned_bytes as u64, records.len() as u64);
        }
        ScannedRecords { records, next_offset }
    }

    /// Batches of the source from `offset`; `None` at its end or when the tier is not quick enough.
    async fn read_source(&self, offset: i64) -> Result<Option<Vec<Bytes>>, ErrorCode> {
        let log = self.partition.log();
        if offset >= log.local_start_offset() {
            let read = log
                .read(offset, self.end, READ_BYTES, true)
                .and_then(|read| read.map(|read| read.bytes()).transpose());
            match read {
                Ok(bytes) => return Ok(bytes.map(|bytes| vec![bytes])),
                // Trimmed since the check above; the tier has it then.
                Err(_) if offset < log.local_start_offset() && offset >= log.log_start_offset() => {}
                Err(error) => return Err(log_error_code(&error)),
            }
        }
        let Some(remote) = &self.broker.remote else {
            return Err(ErrorCode::KafkaStorageError);
        };
        match tokio::time::timeout_at(self.deadline, remote.read(self.partition.id, offset, READ_BYTES)).await {
            Err(_) => Ok(None),
            Ok(Ok(batches)) => Ok(Some(batches.bytes)),
            Ok(Err(error)) => {
                tracing::warn!(topic = %self.partition.topic, offset, %error, "read from the tier failed");
                Err(remote_error_code(&error))
            }
        }
    }

    fn key(&self, offset: i64) -> BatchKey {
        (
            self.view_id,
            self.chain.as_ref().map_or(0, |chain| chain.version),
            self.partition.id,
            offset,
        )
    }

    /// One batch through the chain, or from the cache.
    async fn filter(&self, header: &BatchHeader, batch: Bytes) -> Result<Filtered, ErrorCode> {
        if header.record_count == 0 {
            return Ok(Filtered {
                batch: Bytes::new(),
                last_offset: -1,
            });
        }
        let Some(chain) = self.chain.as_ref().filter(|_| !header.is_control()) else {
            return Ok(Filtered {
                batch,
                last_offset: header.last_offset(),
            });
        };
        let key = self.key(header.base_offset);
        let cache = &self.broker.view_cursors.filtered;
        if let Some(filtered) = cache.get(&key) {
            return Ok(filtered);
        }
        let filtered = self.run_chain(chain, header, batch).await?;
        // A copy, as a batch that passed unchanged would keep all that was read with it.
        let kept = Filtered {
            batch: Bytes::copy_from_slice(&filtered.batch),
            last_offset: filtered.last_offset,
        };
        cache.insert(key, kept);
        Ok(filtered)
    }

    async fn run_chain(&self, chain: &Arc<Chain>, header: &BatchHeader, batch: Bytes) -> Result<Filtered, ErrorCode> {
        let codec = header.compression().map_err(|_| ErrorCode::CorruptMessage)?;
        let body = batch.slice(BatchHeader::SIZE..);
        let section = off_turn(batch.len(), || codec.decompress(&body, SECTION_BYTES_MAX)).map_err(|_| ErrorCode::CorruptMessage)?;
        let context = BatchContext {
            partition: self.partition.id.partition,
            base_offset: header.base_offset,
            base_timestamp: header.base_timestamp,
            leader_epoch: header.partition_leader_epoch,
            record_count: header.record_count,
            principal: None,
            client_id: None,
        };
        match self.broker.plugins.run(Arc::clone(chain), context, section).await {
            ChainOutcome::Unchanged => Ok(Filtered {
                batch,
                last_offset: header.last_offset(),
            }),
            ChainOutcome::Stalled { reason } => {
                tracing::warn!(view = chain.view.as_deref(), %reason, "view stalled");
                Err(ErrorCode::KafkaStorageError)
            }
            ChainOutcome::Changed { record_count: 0, .. } => Ok(Filtered {
                batch: Bytes::new(),
                last_offset: -1,
            }),
            ChainOutcome::Changed { records, record_count, .. } => {
                let last_delta = last_offset_delta(&records, record_count).ok_or(ErrorCode::CorruptMessage)?;
                let header = BatchHeader {
                    last_offset_delta: last_delta,
                    ..*header
                };
                let batch =
                    off_turn(records.len(), || rebuild(&header, codec, &records, record_count)).map_err(|_| ErrorCode::CorruptMessage)?;
                Ok(Filtered {
                    batch,
                    last_offset: header.last_offset(),
                })
            }
        }
    }
}

fn last_offset_delta(section: &[u8], record_count: i32) -> Option<i32> {
    let mut last = None;
    for record in RecordIter::new(section, record_count) {
        last = Some(record.ok()?.offset_delta);
    }
    last
}
