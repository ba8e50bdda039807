//! Uploads one sealed segment as one object, with bounded memory and a deadline.
//!
//! The bytes are read piece by piece from the log, checked by the `SegmentBuilder` and sent on. Objects up to
//! `single_put_bytes_max` go in one PUT; larger ones in parts, of which four are in flight. An upload that misses its deadline is
//! abandoned, and the next try has a new name: a late PUT of the old one can then only leave an orphan (I2, failure row 2).

use std::sync::Arc;

use bytes::Bytes;
use millstream_log::{
    LogError,
    remote::{SealedSegment, TieredSource, TopicIdPartition},
};
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart, path::Path};
use serde_json::Map;
use thiserror::Error;
use tokio::sync::Semaphore;
use ulid::Ulid;

use crate::{
    batch::{BatchHeader, HEADER_BYTES},
    clock::Clock,
    head::SegRef,
    layout::Layout,
    options::TierOptions,
    segment::{Footer, SegmentMeta, TRAILER_BYTES},
    segment_builder::{SegmentBuilder, SegmentError},
    store::SharedStore,
};

const READ_BYTES: usize = 1 << 20;
const PARTS_IN_FLIGHT_MAX: usize = 4;

/// Why a segment was not uploaded.
#[derive(Debug, Error)]
pub enum UploadError {
    /// The local log failed.
    #[error("read segment {base_offset} from the log")]
    Source {
        /// The segment.
        base_offset: i64,
        /// What the log said.
        source: LogError,
    },
    /// The local log holds something that is not a segment.
    #[error("segment {base_offset} is damaged")]
    Damaged {
        /// The segment.
        base_offset: i64,
        /// What is wrong.
        source: SegmentError,
    },
    /// The segment is shorter than the log says.
    #[error("segment {base_offset} ends at byte {position} of {size}")]
    Short {
        /// The segment.
        base_offset: i64,
        /// Where it ends.
        position: u64,
        /// What the log says.
        size: u64,
    },
    /// The wanted start lies inside a batch of the segment.
    #[error("segment {base_offset} has no batch that starts at {offset}")]
    NoBatchAt {
        /// The segment.
        base_offset: i64,
        /// The wanted first offset.
        offset: i64,
    },
    /// The store failed.
    #[error("put {key}")]
    Store {
        /// The object.
        key: Path,
        /// What the store said.
        source: StoreError,
    },
    /// The object in the store is not as long as what was sent.
    #[error("{key} has {found} bytes, {sent} were sent")]
    Size {
        /// The object.
        key: Path,
        /// Its size in the store.
        found: u64,
        /// Its right size.
        sent: u64,
    },
    /// The upload took too long.
    #[error("put {key} missed its deadline of {seconds}s")]
    Deadline {
        /// The object.
        key: Path,
        /// The deadline.
        seconds: u64,
    },
    /// The tier is shutting down.
    #[error("the tier is shutting down")]
    Stopped,
}

/// Sends segments to the bucket.
pub(crate) struct Uploader {
    store: SharedStore,
    layout: Layout,
    options: Arc<TierOptions>,
    clock: Arc<dyn Clock>,
    permits: Semaphore,
}

/// One segment to be sent.
#[derive(Clone)]
pub(crate) struct Upload {
    /// The partition.
    pub partition: TopicIdPartition,
    /// The partition's log.
    pub source: Arc<dyn TieredSource>,
    /// The segment in it.
    pub segment: SealedSegment,
    /// First offset to send: the segment's first, or where the bucket ends inside it.
    pub from_offset: i64,
    /// This broker's leader epoch.
    pub epoch: i32,
}

impl Uploader {
    /// An uploader to `store`.
    pub fn new(store: SharedStore, layout: Layout, options: Arc<TierOptions>, clock: Arc<dyn Clock>) -> Uploader {
        let permits = Semaphore::new(options.upload_concurrency);
        Uploader {
            store,
            layout,
            options,
            clock,
            permits,
        }
    }

    /// Uploads a segment and returns the reference to it, which is not committed yet.
    pub async fn upload(&self, upload: &Upload) -> Result<SegRef, UploadError> {
        let _permit = self.permits.acquire().await.map_err(|_| UploadError::Stopped)?;
        let start = if upload.from_offset == upload.segment.base_offset {
            0
        } else {
            upload.position_of_start().await?
        };
        let mut reference = SegRef {
            ulid: Ulid::generate(),
            epoch: upload.epoch,
            base: upload.from_offset,
            next: upload.segment.next_offset,
            size: 0,
            footer_pos: 0,
            footer_len: 0,
            crc: 0,
            min_ts: -1,
            max_ts: -1,
            records: 0,
            uploaded_ms: 0,
            extra: Map::new(),
        };
        let key = self.layout.object(upload.partition, &reference.name());
        let seconds = upload.segment.size.div_ceil(self.options.upload_bytes_per_second_min);
        let deadline = self
            .options
            .upload_timeout_base
            .saturating_add(std::time::Duration::from_secs(seconds));
        let missed = |_| UploadError::Deadline {
            key: key.clone(),
            seconds: deadline.as_secs(),
        };
        let (footer, size) = tokio::time::timeout(deadline, self.send(upload, start, &key))
            .await
            .map_err(missed)??;
        let store_failed = |source| UploadError::Store { key: key.clone(), source };
        let found = self.store.head(&key).await.map_err(store_failed)?.size;
        if found != size {
            return Err(UploadError::Size { key, found, sent: size });
        }
        reference.size = size;
        reference.footer_pos = footer.body_bytes;
        // The object ends with footer and trailer, and a footer is bounded when it is encoded.
        reference.footer_len = u32::try_from(size - footer.body_bytes - TRAILER_BYTES as u64).unwrap_or(u32::MAX);
        reference.crc = footer.body_crc;
        reference.min_ts = footer.meta.min_timestamp;
        reference.max_ts = footer.meta.max_timestamp;
        reference.records = footer.meta.records;
        reference.uploaded_ms = self.clock.now_ms();
        Ok(reference)
    }

    async fn send(&self, upload: &Upload, start: u64, key: &Path) -> Result<(Footer, u64), UploadError> {
        let failed = |source| UploadError::Store { key: key.clone(), source };
        let body_bytes = upload.segment.size - start;
        let mut target = if body_bytes <= self.options.single_put_bytes_max {
            Target::Whole(Vec::new())
        } else {
            let parts = self.store.put_multipart(key).await.map_err(failed)?;
            Target::Parts(WriteMultipart::new_with_chunk_size(parts, self.options.part_bytes))
        };
        match self.fill(upload, start, key, &mut target).await {
            Ok(footer) => {
                let end = footer.encode();
                let size = footer.body_bytes + end.len() as u64;
                target.finish(self.store.as_ref(), key, end).await.map_err(failed)?;
                Ok((footer, size))
            }
            Err(error) => {
                target.abandon(key).await;
                Err(error)
            }
        }
    }

    /// Moves the body from the log to `target`, checking it on the way.
    async fn fill(&self, upload: &Upload, start: u64, key: &Path, target: &mut Target) -> Result<Footer, UploadError> {
        let base_offset = upload.segment.base_offset;
        let damaged = |source| UploadError::Damaged { base_offset, source };
        let mut builder = SegmentBuilder::new(SegmentMeta {
            cluster_id: self.options.cluster_id.to_string(),
            topic_id: upload.partition.topic_id.to_string(),
            partition: upload.partition.partition,
            epoch: upload.epoch,
            base_offset: upload.from_offset,
            next_offset: upload.segment.next_offset,
            min_timestamp: -1,
            max_timestamp: -1,
            batches: 0,
            records: 0,
            unit_bytes: self.options.read_unit_bytes,
            extra: Map::new(),
        });
        let mut position = start;
        while position < upload.segment.size {
            let piece = upload.read(position).await?;
            position += piece.len() as u64;
            builder.push(&piece).map_err(damaged)?;
            target
                .push(piece)
                .await
                .map_err(|source| UploadError::Store { key: key.clone(), source })?;
        }
        let end = upload.segment.next_offset;
        let epochs = upload
            .source
            .epochs()
            .into_iter()
            .filter(|entry| entry.start_offset < end)
            .collect();
        let producers = upload.producers().await?.unwrap_or_default();
        builder.finish(epochs, producers).map_err(damaged)
    }
}

/// An object that is being written.
enum Target {
    /// Collected in memory for one PUT.
    Whole(Vec<Bytes>),
    /// Sent part by part.
    Parts(WriteMultipart),
}

impl Target {
    async fn push(&mut self, piece: Bytes) -> Result<(), StoreError> {
        match self {
            Target::Whole(pieces) => pieces.push(piece),
            Target::Parts(writer) => {
                writer.wait_for_capacity(PARTS_IN_FLIGHT_MAX).await?;
                writer.put(piece);
            }
        }
        Ok(())
    }

    async fn finish(self, store: &dyn ObjectStore, key: &Path, end: Bytes) -> Result<(), StoreError> {
        match self {
            // Overwriting is harmless under a name that nobody else has, and may be retried by the client.
            Target::Whole(mut pieces) => {
                pieces.push(end);
                store.put(key, PutPayload::from_iter(pieces)).await.map(|_| ())
            }
            Target::Parts(mut writer) => {
                writer.put(end);
                writer.finish().await.map(|_| ())
            }
        }
    }

    async fn abandon(self, key: &Path) {
        if let Target::Parts(writer) = self
            && let Err(error) = writer.abort().await
        {
            tracing::debug!(%key, %error, "multipart upload not aborted; a bucket lifecycle rule removes it");
        }
    }
}

impl Upload {
    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn TieredSource) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, UploadError> {
        let source = self.source.clone();
        let base_offset = self.segment.base_offset;
        match tokio::task::spawn_blocking(move || read(source.as_ref())).await {
            Ok(result) => result.map_err(|source| UploadError::Source { base_offset, source }),
            Err(_) => Err(UploadError::Stopped),
        }
    }

    async fn read(&self, position: u64) -> Result<Bytes, UploadError> {
        let SealedSegment { base_offset, size, .. } = self.segment;
        let wanted = usize::try_from(size - position).unwrap_or(READ_BYTES).min(READ_BYTES);
        let piece = self.blocking(move |source| source.read_at(base_offset, position, wanted)).await?;
        if piece.is_empty() || piece.len() > wanted {
            return Err(UploadError::Short {
                base_offset,
                position,
                size,
            });
        }
        Ok(piece)
    }

    async fn producers(&self) -> Result<Option<Bytes>, UploadError> {
        let end = self.segment.next_offset;
        self.blocking(move |source| source.producer_snapshot(end)).await
    }

    /// Where the first batch at or after `from_offset` starts. Only after a change of leader do segments begin elsewhere than
    /// where the bucket ends, so reading header by header is fast enough.
    async fn position_of_start(&self) -> Result<u64, UploadError> {
        let SealedSegment { base_offset, size, .. } = self.segment;
        let mut position = 0;
        while position < size {
            let header = self
                .blocking(move |source| source.read_at(base_offset, position, HEADER_BYTES))
                .await?;
            let header = BatchHeader::parse(&header).map_err(|reason| UploadError::Damaged {
                base_offset,
                source: SegmentError::Batch { position, reason },
            })?;
            if header.base_offset >= self.from_offset {
                return Ok(position);
            }
            if header.next_offset > self.from_offset {
                break;
            }
            position = position.saturating_add(header.size);
        }
        Err(UploadError::NoBatchAt {
            base_offset,
            offset: self.from_offset,
        })
    }
}
