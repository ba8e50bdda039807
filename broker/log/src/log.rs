//! The log: appends, rolling, retention, and what it tells of itself. Opening is in `recovery`, reading in `read`, syncing in `sync`.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use millstream_protocol::record::{BatchHeader, Marker, TimestampType, assign_offsets, set_append_time};

use crate::{
    AppendError, LogConfig, LogError,
    checkpoint::Checkpoint,
    compact::CleanerState,
    dir::Health,
    disk::{Disk, read_file},
    producer::{FirstBatch, ProducerStates, Sequence, TransactionState, VerificationGuard},
    remote::{EpochEntry, SealedSegment},
    segment::{Segment, file_name},
    sync::LogObserver,
    transactions::AbortedTransaction,
};

/// How the log directory was left by its last user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Everything was synced and indexed.
    Clean,
    /// Whatever was not synced may be torn or missing.
    Unclean,
}

/// What became of an appended batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the batch's first record.
    pub base_offset: i64,
    /// End of the log after it (exclusive).
    pub log_end_offset: i64,
    /// The append time given to the records under `LogAppendTime`, else -1.
    pub log_append_time_ms: i64,
    /// The batch had been appended before, at `base_offset`; nothing was written.
    pub duplicate: bool,
    /// Bytes in the page cache that no sync has covered yet.
    pub dirty_bytes: u64,
    /// A segment was rolled and waits for a sync to seal it.
    pub rolled: bool,
}

/// One partition's log. All methods take `&self`; appends are serialised, reads are not.
pub struct Log {
    pub(crate) dir: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) health: Arc<Health>,
    pub(crate) observer: OnceLock<Arc<dyn LogObserver>>,
    pub(crate) sync_requested: AtomicBool,
    /// Held while the log is synced, so that a deletion waits for it.
    pub(crate) syncing: Mutex<()>,
    pub(crate) deleted: AtomicBool,
    /// Held while segments are taken away or replaced.
    pub(crate) trimming: Mutex<()>,
    /// Held for a pass of the cleaner.
    pub(crate) cleaner: Mutex<CleanerState>,
    pub(crate) durable_end: AtomicI64,
    pub(crate) checkpoint: Mutex<CheckpointState>,
    config: RwLock<Arc<LogConfig>>,
    segments: RwLock<Arc<Vec<Arc<Segment>>>>,
    appender: Mutex<Appender>,
    log_start: AtomicI64,
    log_end: AtomicI64,
    /// No transaction is open or could come back.
    is_stable: AtomicBool,
    pub(crate) dirty_bytes: AtomicU64,
    /// The files that a clean stop leaves are there, and the log is as it was then.
    pub(crate) is_as_closed: AtomicBool,
}

/// What the appender's lock guards.
pub(crate) struct Appender {
    pub producers: ProducerStates,
    pub epochs: Vec<EpochEntry>,
    /// Rolled segments that the next sync seals, with the producer snapshot at their end.
    pub rolled: Vec<(Arc<Segment>, Bytes)>,
    /// The epochs changed since they were checkpointed.
    pub epochs_changed: bool,
}

/// When the checkpoint file was last written, or the log opened.
#[derive(Debug)]
pub(crate) struct CheckpointState {
    pub written_ms: i64,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "log {} [{}, {})",
            self.dir.display(),
            self.log_start_offset(),
            self.log_end_offset()
        )
    }
}

/// What recovery found, to make a log of.
pub(crate) struct Opened {
    pub segments: Vec<Arc<Segment>>,
    pub producers: ProducerStates,
    pub epochs: Vec<EpochEntry>,
    pub log_start_offset: i64,
    pub cleaner: CleanerState,
    /// The last stop left all files that the next one would write.
    pub is_as_closed: bool,
    pub opened_ms: i64,
}

impl Log {
    pub(crate) fn new(dir: PathBuf, disk: Arc<dyn Disk>, health: Arc<Health>, config: LogConfig, opened: Opened) -> Self {
        let log_end = opened
            .segments
            .last()
            .map_or(opened.log_start_offset, |segment| segment.next_offset());
        let is_stable = opened.producers.is_stable();
        Self {
            dir,
            disk,
            health,
            observer: OnceLock::new(),
            sync_requested: AtomicBool::new(false),
            syncing: Mutex::default(),
            deleted: AtomicBool::new(false),
            trimming: Mutex::default(),
            cleaner: Mutex::new(opened.cleaner),
            durable_end: AtomicI64::new(log_end),
            checkpoint: Mutex::new(CheckpointState {
                written_ms: opened.opened_ms,
            }),
            config: RwLock::new(Arc::new(config)),
            segments: RwLock::new(Arc::new(opened.segments)),
            appender: Mutex::new(Appender {
                producers: opened.producers,
                epochs: opened.epochs,
                rolled: Vec::new(),
                epochs_changed: false,
            }),
            log_start: AtomicI64::new(opened.log_start_offset),
            is_stable: AtomicBool::new(is_stable),
            log_end: AtomicI64::new(log_end),
            dirty_bytes: AtomicU64::new(0),
            is_as_closed: AtomicBool::new(opened.is_as_closed),
        }
    }

    /// Sets who is told about durable offsets. Only the first call counts.
    pub fn set_observer(&self, observer: Arc<dyn LogObserver>) {
        // A second observer would be a second owner of the log, which the caller's partition map rules out.
        let _ = self.observer.set(observer);
    }

    /// The log's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Current settings.
    pub fn config(&self) -> Arc<LogConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the settings; they hold from the next append on.
    pub fn set_config(&self, config: LogConfig) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    /// First offset of the log over all tiers.
    pub fn log_start_offset(&self) -> i64 {
        self.log_start.load(Ordering::Acquire)
    }

    /// The next offset to be written.
    pub fn log_end_offset(&self) -> i64 {
        self.log_end.load(Ordering::Acquire)
    }

    /// Everything below is on disk.
    pub fn durable_end_offset(&self) -> i64 {
        self.durable_end.load(Ordering::Acquire)
    }

    /// First offset stored in this directory.
    pub fn local_start_offset(&self) -> i64 {
        self.segments()
            .first()
            .map_or_else(|| self.log_end_offset(), |segment| segment.base_offset)
    }

    /// Bytes of all segments in this directory.
    pub fn local_bytes(&self) -> u64 {
        self.segments().iter().map(|segment| segment.len()).sum()
    }

    /// Bytes of the segment that takes the appends.
    pub fn active_segment_bytes(&self) -> u64 {
        self.segments().last().map_or(0, |segment| segment.len())
    }

    pub(crate) fn segments(&self) -> Arc<Vec<Arc<Segment>>> {
        Arc::clone(&self.segments.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn appender(&self) -> MutexGuard<'_, Appender> {
        self.appender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether some batch lost all its records to a plugin, and so must not be shown to every client.
    pub fn has_empty_batches(&self) -> bool {
        self.segments().iter().any(|segment| segment.has_empty_batches())
    }

    /// Whether a rolled segment waits for a sync to seal it.
    pub fn has_rolled_segments(&self) -> bool {
        !self.appender().rolled.is_empty()
    }

    /// Refuses all further work and waits for a sync under way. The directory may be removed afterwards.
    pub(crate) fn mark_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
        drop(self.syncing.lock().unwrap_or_else(PoisonError::into_inner));
        drop(self.trimming.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether the log may be used.
    pub(crate) fn check(&self) -> Result<(), LogError> {
        if self.deleted.load(Ordering::Acquire) {
            return Err(LogError::Deleted { path: self.dir.clone() });
        }
        self.health.check()
    }

    /// Forgets idempotent producers that wrote nothing for `producer.id.expiration.ms`.
    pub fn expire_producers(&self, now_ms: i64) {
        let before_ms = now_ms.saturating_sub(self.config().producer_id_expiration_ms);
        self.appender().producers.expire(before_ms);
    }

    /// Appends one batch, which the caller has validated (whole, CRC, codec). Assigns base offset and leader epoch. The first batch of a
    /// transaction needs the guard that [`Log::transaction_state`] gave before the coordinator was asked.
    pub fn append(
        &self,
        header: &BatchHeader,
        batch: &Bytes,
        leader_epoch: i32,
        now_ms: i64,
        guard: Option<VerificationGuard>,
    ) -> Result<Appended, AppendError> {
        self.check()?;
        let config = self.config();
        let marker = Marker::parse(header, batch)?;
        let mut appender = self.appender();
        if let Some(marker) = marker {
            appender.producers.check_marker(header, marker)?;
        } else if let Some(duplicate) = self.check_sequence(&appender, header)? {
            return Ok(duplicate);
        }
        appender.producers.check_transaction(header, guard)?;
        let segment = self.segment_for(&mut appender, header, &config, now_ms)?;
        let mut header = *header;
        header.base_offset = self.log_end_offset();
        header.partition_leader_epoch = leader_epoch;
        let stamped = (config.timestamp_type == TimestampType::LogAppendTime).then(|| stamp(&mut header, batch, now_ms));
        let batch = stamped.as_deref().unwrap_or(batch);
        self.is_as_closed.store(false, Ordering::Release);
        let (fixed, body) = batch.split_at(BatchHeader::SIZE);
        let mut head: [u8; BatchHeader::SIZE] = std::array::from_fn(|index| fixed[index]);
        assign_offsets(&mut head, header.base_offset, leader_epoch);
        segment
            .append(&header, &head, body, now_ms, config.index_interval_bytes)
            .map_err(LogError::io("append to segment", &segment.path))?;
        appender.producers.apply(&header, marker);
        if header.is_transactional() {
            self.is_stable.store(appender.producers.is_stable(), Ordering::Release);
        }
        appender.note_epoch(leader_epoch, header.base_offset);
        self.log_end.store(header.next_offset(), Ordering::Release);
        let dirty_bytes = self.dirty_bytes.fetch_add(batch.len() as u64, Ordering::AcqRel) + batch.len() as u64;
        Ok(Appended {
            base_offset: header.base_offset,
            log_end_offset: header.next_offset(),
            log_append_time_ms: if stamped.is_some() { now_ms } else { -1 },
            duplicate: false,
            dirty_bytes,
            rolled: !appender.rolled.is_empty(),
        })
    }

    /// Whether a batch of an idempotent producer was appended before, without appending it; an error if it may not be appended at all.
    pub fn find_duplicate(&self, header: &BatchHeader) -> Result<Option<Appended>, AppendError> {
        self.check_sequence(&self.appender(), header)
    }

    /// Whether a producer's transaction is open on this log under its epoch, before a batch of it is appended.
    pub fn transaction_state(&self, first: FirstBatch) -> TransactionState {
        self.appender().producers.transaction_state(first)
    }

    /// The coordinator refused for good what the guard was for.
    pub fn forget_verification(&self, producer_id: i64, epoch: i16, guard: VerificationGuard) {
        self.appender().producers.forget_verification(producer_id, epoch, guard);
    }

    /// First offset that readers of committed records may not see while the log is safe up to `high_watermark`.
    pub fn last_stable_offset(&self, high_watermark: i64) -> i64 {
        // Logs without transactions, and that is most, must not make readers wait for writers.
        if self.is_stable.load(Ordering::Acquire) {
            return high_watermark;
        }
        let stable = {
            let mut appender = self.appender();
            let stable = appender.producers.last_stable_offset(high_watermark);
            self.is_stable.store(appender.producers.is_stable(), Ordering::Release);
            stable
        };
        stable.max(self.log_start_offset())
    }

    /// Aborted transactions with records in `[from, to)`, by first offset.
    pub fn aborted_between(&self, from: i64, to: i64) -> Vec<AbortedTransaction> {
        self.appender().producers.aborted_between(from, to)
    }

    fn check_sequence(&self, appender: &Appender, header: &BatchHeader) -> Result<Option<Appended>, AppendError> {
        if !header.has_producer_id() || header.is_control() {
            return Ok(None);
        }
        let Sequence::Duplicate { base_offset, timestamp } = appender.producers.check(header)? else {
            return Ok(None);
        };
        let log_append_time_ms = if self.config().timestamp_type == TimestampType::LogAppendTime {
            timestamp
        } else {
            -1
        };
        let dirty_bytes = self.dirty_bytes.load(Ordering::Acquire);
        Ok(Some(Appended {
            base_offset,
            log_end_offset: self.log_end_offset(),
            log_append_time_ms,
            duplicate: true,
            dirty_bytes,
            rolled: false,
        }))
    }

    /// The segment that takes a batch, rolling first if it must.
    fn segment_for(
        &self,
        appender: &mut Appender,
        header: &BatchHeader,
        config: &LogConfig,
        now_ms: i64,
    ) -> Result<Arc<Segment>, AppendError> {
        let size = header.size();
        // A batch larger than a segment gets one of its own, as in Kafka, up to what index positions can say.
        if size as u64 > u64::from(u32::MAX / 2) {
            return Err(AppendError::TooLarge {
                size,
                segment_bytes: config.segment_bytes,
            });
        }
        let active = self.active();
        let full = active.len() + size as u64 > config.segment_bytes;
        let far = self.log_end_offset() + i64::from(header.last_offset_delta) - active.base_offset > i64::from(i32::MAX);
        if active.len() > 0 && (full || far || is_older(&active, now_ms, self.age_max_ms(&active, config))) {
            return Ok(self.roll(appender)?);
        }
        Ok(active)
    }

    fn active(&self) -> Arc<Segment> {
        let segments = self.segments();
        match segments.last() {
            Some(segment) => Arc::clone(segment),
            None => unreachable!("a log always has an active segment"),
        }
    }

    /// The age at which the active segment is rolled: `segment.ms` less a part of `segment.jitter.ms`, which differs from segment to segment.
    pub fn segment_age_max_ms(&self) -> i64 {
        self.age_max_ms(&self.active(), &self.config())
    }

    fn age_max_ms(&self, segment: &Segment, config: &LogConfig) -> i64 {
        let jitter_max = config.segment_jitter_ms.clamp(0, config.segment_ms);
        if jitter_max == 0 {
            return config.segment_ms;
        }
        let mut hasher = DefaultHasher::new();
        (&self.dir, segment.base_offset).hash(&mut hasher);
        let jitter = hasher.finish() % u64::try_from(jitter_max).unwrap_or(1);
        config.segment_ms - i64::try_from(jitter).unwrap_or(0)
    }

    /// Rolls the active segment if it holds records and its first one was appended at least `age_ms` ago. It is sealed by the next sync.
    pub fn roll_if_older(&self, now_ms: i64, age_ms: i64) -> Result<bool, LogError> {
        self.check()?;
        let mut appender = self.appender();
        let active = self.active();
        if active.len() == 0 || !is_older(&active, now_ms, age_ms) {
            return Ok(false);
        }
        self.roll(&mut appender)?;
        Ok(true)
    }

    fn roll(&self, appender: &mut Appender) -> Result<Arc<Segment>, LogError> {
        let rolled = self.active();
        let base_offset = self.log_end_offset();
        let next = Arc::new(Segment::create(&*self.disk, &self.dir, base_offset)?);
        appender.rolled.push((rolled, appender.producers.encode(base_offset)));
        self.update_segments(|segments| segments.push(Arc::clone(&next)));
        Ok(next)
    }

    /// Replaces the segment list. The appender's lock is held.
    fn update_segments(&self, update: impl FnOnce(&mut Vec<Arc<Segment>>)) {
        let mut guard = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let mut segments = (**guard).clone();
        update(&mut segments);
        *guard = Arc::new(segments);
    }

    /// Puts a rewritten segment in the place of its originals.
    pub(crate) fn replace_segments(&self, originals: &[Arc<Segment>], rewritten: &Arc<Segment>) {
        let _appender = self.appender();
        self.update_segments(|segments| {
            let Some(at) = originals
                .first()
                .and_then(|first| segments.iter().position(|segment| Arc::ptr_eq(segment, first)))
            else {
                return;
            };
            segments.splice(at..at + originals.len(), [Arc::clone(rewritten)]);
        });
    }

    /// Deletes sealed segments that `retention.ms` or `retention.bytes` no longer wants; returns how many. Not for tiered logs.
    pub fn enforce_retention(&self, now_ms: i64) -> Result<usize, LogError> {
        let config = self.config();
        let segments = self.segments();
        let mut total: u64 = segments.iter().map(|segment| segment.len()).sum();
        let mut keep_from = self.log_start_offset();
        for segment in segments.iter() {
            let max_timestamp = segment.summary().max_timestamp;
            let expired = config.retention_ms >= 0 && max_timestamp >= 0 && max_timestamp < now_ms - config.retention_ms;
            let after = total.saturating_sub(segment.len());
            let surplus = u64::try_from(config.retention_bytes).is_ok_and(|limit| after >= limit && total > limit);
            // Compaction can take all records of a segment; what follows it may still be too old.
            let is_empty = segment.is_sealed() && segment.len() == 0;
            if !is_empty && (!expired && !surplus || segment.len() == 0) {
                break;
            }
            if !segment.is_sealed() {
                // The active segment goes once it is rolled and sealed.
                self.roll_if_older(now_ms, if expired { 0 } else { i64::MAX })?;
                break;
            }
            total = after;
            keep_from = segment.next_offset();
        }
        if keep_from > self.log_start_offset() {
            self.advance_log_start(keep_from)
        } else {
            Ok(0)
        }
    }

    /// Raises the log start offset, durably, and deletes sealed segments that lie wholly below it; returns how many.
    pub fn advance_log_start(&self, offset: i64) -> Result<usize, LogError> {
        self.check()?;
        if offset > self.log_end_offset() {
            return Err(self.out_of_range(offset));
        }
        if offset > self.durable_end_offset() {
            // A start above what is on disk would, after a crash, lie above the log's end.
            let now_ms = self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner).written_ms;
            self.sync(now_ms)?;
        }
        if self.log_start.fetch_max(offset, Ordering::AcqRel) < offset {
            self.is_as_closed.store(false, Ordering::Release);
            self.appender().producers.forget_below(offset);
            self.store_checkpoint(self.durable_end_offset())?;
        }
        self.trim_local(offset)
    }

    /// Deletes sealed segments that end at or below `up_to`, leaving the log start offset; returns how many.
    pub fn trim_local(&self, up_to: i64) -> Result<usize, LogError> {
        let _trimming = self.trimming.lock().unwrap_or_else(PoisonError::into_inner);
        let deleted = {
            let _appender = self.appender();
            let segments = self.segments();
            let count = segments
                .iter()
                .take_while(|segment| segment.is_sealed() && segment.next_offset() <= up_to)
                .count();
            if count == 0 {
                return Ok(0);
            }
            self.update_segments(|segments| {
                segments.drain(..count);
            });
            segments[..count].to_vec()
        };
        for segment in &deleted {
            let snapshot = self.dir.join(file_name(segment.base_offset, "snapshot"));
            for path in [segment.path.with_extension("idx"), snapshot, segment.path.clone()] {
                match self.disk.remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(LogError::io("delete", path)(error)),
                    _ => {}
                }
            }
        }
        self.disk.sync_dir(&self.dir).map_err(LogError::io("sync directory", &self.dir))?;
        Ok(deleted.len())
    }

    /// Sealed segments in offset order.
    pub fn sealed_segments(&self) -> Vec<SealedSegment> {
        let segments = self.segments();
        let sealed = segments.iter().filter(|segment| segment.is_sealed());
        sealed
            .map(|segment| {
                let summary = segment.summary();
                SealedSegment {
                    base_offset: summary.base_offset,
                    next_offset: summary.next_offset,
                    size: summary.log_len,
                    min_timestamp: summary.min_timestamp,
                    max_timestamp: summary.max_timestamp,
                }
            })
            .collect()
    }

    /// The producer snapshot taken when the segment ending at `next_offset` was sealed.
    pub fn producer_snapshot(&self, next_offset: i64) -> Result<Option<Bytes>, LogError> {
        let path = self.dir.join(file_name(next_offset, "snapshot"));
        Ok(read_file(&*self.disk, &path)
            .map_err(LogError::io("read snapshot", path))?
            .map(Bytes::from))
    }

    /// A look at what is known of producers. Appends wait meanwhile.
    pub fn with_producers<R>(&self, look: impl FnOnce(&ProducerStates) -> R) -> R {
        look(&self.appender().producers)
    }

    /// The leader-epoch history, in order.
    pub fn epochs(&self) -> Vec<EpochEntry> {
        self.appender().epochs.clone()
    }

    /// The epoch that wrote the record at `offset`; at the log's end, the last one. `None` for an empty history.
    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        self.appender()
            .epochs
            .iter()
            .rfind(|entry| entry.start_offset <= offset)
            .map(|entry| entry.epoch)
    }

    /// Writes the checkpoint file with this recovery point.
    pub(crate) fn store_checkpoint(&self, recovery_point: i64) -> Result<(), LogError> {
        let _writing = self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner);
        let epochs = {
            let mut appender = self.appender();
            appender.epochs_changed = false;
            appender.epochs.clone()
        };
        Checkpoint {
            log_start_offset: self.log_start_offset(),
            recovery_point,
            epochs,
        }
        .store(&*self.disk, &self.dir)
    }

    pub(crate) fn out_of_range(&self, offset: i64) -> LogError {
        LogError::OutOfRange {
            path: self.dir.clone(),
            offset,
            start: self.log_start_offset(),
            end: self.log_end_offset(),
        }
    }
}

impl Appender {
    fn note_epoch(&mut self, epoch: i32, start_offset: i64) {
        if self.epochs.last().is_none_or(|last| epoch > last.epoch) {
            self.epochs.push(EpochEntry { epoch, start_offset });
            self.epochs_changed = true;
        }
    }
}

fn is_older(segment: &Segment, now_ms: i64, age_ms: i64) -> bool {
    let first = segment.first_append_ms();
    first >= 0 && now_ms.saturating_sub(first) >= age_ms
}

/// A copy of the batch with the append time as its timestamp.
fn stamp(header: &mut BatchHeader, batch: &Bytes, now_ms: i64) -> BytesMut {
    let mut stamped = BytesMut::from(&batch[..]);
    set_append_time(&mut stamped, now_ms);
    header.set_timestamp_type(TimestampType::LogAppendTime);
    header.max_timestamp = now_ms;
    stamped
}
