//! Compaction: of all records with the same key, the last one stays (`cleanup.policy=compact`).
//!
//! # A pass
//! 1. The *dirty* part, sealed segments from where the last pass ended, is read for the last offset of each key, as many keys as fit into
//!    the memory given. What does not fit is left to the next pass.
//! 2. All sealed segments up to there are rewritten, small neighbours into one. A record goes if a later one has its key; if it is a
//!    tombstone that all readers had `delete.retention.ms` to see; if its transaction was aborted. Batches keep their offsets, codec and
//!    sequences; one from which nothing goes is copied as it is, one from which everything goes disappears and leaves a hole.
//! 3. A transaction's marker stays as long as records of the transaction do, and as long as a tombstone would.
//!
//! # Crashes
//! A rewritten segment is `<base>.cleaned` until it is whole and synced; then it is renamed to `<base>-<next>.swap`, which is the commit
//! point; then the old segments go, its index is written, and it takes their place. [`finish_swaps`] completes or discards what a crash left.
//!
//! Nothing at or above the last stable offset is touched, and never the active segment: a log keeps its last batch.
//!
//! File `cleaner`: `magic "MSCLN\0\0\1" | count u32 | { offset i64 | cleaned ms i64 }* | crc32c u32`, big-endian: everything below the offset
//! was compacted at that time.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, PoisonError},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use millstream_protocol::record::{BatchHeader, Marker, RecordIter, rebuild, verify_crc};
use sha2::{Digest, Sha256};

use crate::{
    Log, LogError,
    disk::{Disk, FileMode, read_file, replace_file},
    index::{Entries, Summary},
    segment::{Segment, empty_summary, file_name, offset_of_name},
    transactions::AbortedTransaction,
};

const MAGIC: [u8; 8] = *b"MSCLN\0\0\x01";
const FILE_NAME: &str = "cleaner";
/// Bytes between two entries of the index of a segment that a restart puts in place.
const INDEX_INTERVAL_BYTES: u32 = 4096;
/// Memory that one key takes, about: a hash of 16 bytes, an offset, the tree around them.
pub const KEY_BYTES: usize = 48;
/// Readers that began before a pass have ended when it is this old.
const READERS_MS: i64 = 60_000;
/// Most bytes that one batch may decompress to.
const SECTION_BYTES_MAX: usize = 256 << 20;

/// How a log is compacted.
pub struct CompactOptions<'a> {
    /// Now, in milliseconds.
    pub now_ms: i64,
    /// The last stable offset.
    pub stable_end: i64,
    /// `min.compaction.lag.ms`
    pub lag_ms_min: i64,
    /// `delete.retention.ms`
    pub delete_retention_ms: i64,
    /// Keys that fit into memory.
    pub keys_max: usize,
    /// Called after bytes were read or written, to keep to `log.cleaner.io.max.bytes.per.second`; the pass is given up where it is false.
    pub pace: &'a dyn Fn(u64) -> bool,
}

/// How much there is to compact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dirtiness {
    /// Bytes of sealed segments that no pass has seen.
    pub dirty_bytes: u64,
    /// Bytes of those that one has.
    pub clean_bytes: u64,
    /// Smallest timestamp of the first dirty segment, -1 if there is none.
    pub first_dirty_ms: i64,
}

impl Dirtiness {
    /// The dirty part of all that could be compacted, 0 to 1.
    pub fn ratio(&self) -> f64 {
        let total = self.dirty_bytes + self.clean_bytes;
        if total == 0 { 0.0 } else { self.dirty_bytes as f64 / total as f64 }
    }
}

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Everything below was looked at.
    pub end_offset: i64,
    /// Bytes of the segments before.
    pub bytes_before: u64,
    /// Bytes of the segments after.
    pub bytes_after: u64,
}

/// What passes left behind: offsets and when everything below was compacted, ascending.
#[derive(Debug, Default)]
pub(crate) struct CleanerState {
    passes: Vec<(i64, i64)>,
}

impl CleanerState {
    /// Reads the file; a damaged one means that everything is dirty, which costs a pass and no records.
    pub fn load(disk: &dyn Disk, dir: &Path) -> Result<Self, LogError> {
        let path = dir.join(FILE_NAME);
        let bytes = read_file(disk, &path).map_err(LogError::io("read cleaner state", path))?;
        Ok(bytes.as_deref().and_then(Self::decode).unwrap_or_default())
    }

    fn store(&self, disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
        let path = dir.join(FILE_NAME);
        replace_file(disk, &path, &self.encode()).map_err(LogError::io("write cleaner state", path))
    }

    fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_slice(&MAGIC);
        bytes.put_u32(u32::try_from(self.passes.len()).unwrap_or(u32::MAX));
        for (offset, cleaned_ms) in &self.passes {
            bytes.put_i64(*offset);
            bytes.put_i64(*cleaned_ms);
        }
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes) as u32;
        bytes.put_u32(crc);
        bytes.freeze()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (rest, crc) = bytes.split_last_chunk::<4>()?;
        if crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, rest) as u32 != u32::from_be_bytes(*crc) {
            return None;
        }
        let mut rest = rest.strip_prefix(&MAGIC)?;
        let mut passes = Vec::new();
        for _ in 0..rest.try_get_u32().ok()? {
            passes.push((rest.try_get_i64().ok()?, rest.try_get_i64().ok()?));
        }
        rest.is_empty().then_some(Self { passes })
    }

    /// The last pass came to here.
    pub fn first_dirty(&self) -> i64 {
        self.passes.last().map_or(0, |(offset, _)| *offset)
    }

    /// Tombstones below were seen by a pass long enough ago.
    fn horizon(&self, now_ms: i64, delete_retention_ms: i64) -> i64 {
        let old = self
            .passes
            .iter()
            .rfind(|(_, cleaned_ms)| cleaned_ms.saturating_add(delete_retention_ms) <= now_ms);
        old.map_or(0, |(offset, _)| *offset)
    }

    fn add(&mut self, offset: i64, now_ms: i64, delete_retention_ms: i64) {
        let horizon = self.horizon(now_ms, delete_retention_ms.max(READERS_MS));
        self.passes.retain(|(known, _)| *known >= horizon && *known < offset);
        self.passes.push((offset, now_ms));
    }
}

impl Log {
    /// How much there is to compact below `stable_end` in segments older than `lag_ms_min`.
    pub fn dirtiness(&self, now_ms: i64, stable_end: i64, lag_ms_min: i64) -> Dirtiness {
        let first_dirty = self.cleaner.lock().unwrap_or_else(PoisonError::into_inner).first_dirty();
        let mut dirtiness = Dirtiness {
            first_dirty_ms: -1,
            ..Dirtiness::default()
        };
        for segment in self.compactable(now_ms, stable_end, lag_ms_min) {
            if segment.next_offset() <= first_dirty {
                dirtiness.clean_bytes += segment.len();
            } else {
                if dirtiness.dirty_bytes == 0 {
                    dirtiness.first_dirty_ms = segment.summary().min_timestamp;
                }
                dirtiness.dirty_bytes += segment.len();
            }
        }
        dirtiness
    }

    fn compactable(&self, now_ms: i64, stable_end: i64, lag_ms_min: i64) -> Vec<Arc<Segment>> {
        let is_old = |segment: &Segment| lag_ms_min <= 0 || segment.summary().max_timestamp <= now_ms.saturating_sub(lag_ms_min);
        let segments = self.segments();
        let old = segments
            .iter()
            .take_while(|segment| segment.is_sealed() && segment.next_offset() <= stable_end && is_old(segment));
        old.cloned().collect()
    }

    /// Runs one pass, if anything is dirty. Blocks; one at a time for each log.
    pub fn compact(&self, options: &CompactOptions<'_>) -> Result<Option<Compacted>, LogError> {
        self.check()?;
        let mut state = self.cleaner.lock().unwrap_or_else(PoisonError::into_inner);
        // A pass took the records of aborted transactions, so nobody will ask for their outcomes.
        let without_aborted = state.horizon(options.now_ms, READERS_MS);
        self.appender().producers.forget_below(without_aborted);
        let segments = self.compactable(options.now_ms, options.stable_end, options.lag_ms_min);
        let first_dirty = state.first_dirty().max(self.log_start_offset());
        let Some(end_offset) = segments
            .last()
            .map(|segment| segment.next_offset())
            .filter(|end| *end > first_dirty)
        else {
            return Ok(None);
        };
        let mut pass = Pass {
            log: self,
            options,
            aborted: by_producer(self.aborted_between(0, end_offset)),
            horizon: state.horizon(options.now_ms, options.delete_retention_ms),
            last_offsets: BTreeMap::new(),
            end_offset,
            with_records: BTreeSet::new(),
        };
        if !pass.read_keys(&segments, first_dirty)? {
            return Ok(None);
        }
        let end_offset = pass.end_offset;
        let mut compacted = Compacted {
            end_offset,
            bytes_before: 0,
            bytes_after: 0,
        };
        let rewritten: Vec<_> = segments.into_iter().filter(|segment| segment.base_offset < end_offset).collect();
        // Sealed segments are on disk. Recovery must know it before it meets holes in them.
        self.store_checkpoint(self.durable_end_offset())?;
        for group in groups(&rewritten, self.config().segment_bytes) {
            compacted.bytes_before += group.iter().map(|segment| segment.len()).sum::<u64>();
            match pass.rewrite(group) {
                Ok(Some(bytes)) => compacted.bytes_after += bytes,
                // What was not looked at must not count as compacted.
                Ok(None) => return Ok(None),
                Err(error) => {
                    let path = self.dir.join(file_name(group[0].base_offset, "cleaned"));
                    return match self.disk.remove_file(&path) {
                        Err(second) if second.kind() != std::io::ErrorKind::NotFound => Err(LogError::io("delete", path)(second)),
                        _ => Err(error),
                    };
                }
            }
        }
        state.add(end_offset, options.now_ms, options.delete_retention_ms);
        state.store(&*self.disk, &self.dir)?;
        Ok(Some(compacted))
    }
}

/// Neighbours that fit into one segment together.
fn groups(segments: &[Arc<Segment>], segment_bytes: u64) -> Vec<&[Arc<Segment>]> {
    let mut groups = Vec::new();
    let mut rest = segments;
    while let Some(first) = rest.first() {
        let mut bytes = 0;
        let fits = |segment: &&Arc<Segment>| {
            bytes += segment.len();
            bytes <= segment_bytes && segment.next_offset() - first.base_offset <= i64::from(i32::MAX)
        };
        let count = rest.iter().take_while(fits).count();
        let (group, after) = rest.split_at(count.max(1));
        groups.push(group);
        rest = after;
    }
    groups
}

fn hash(key: &[u8]) -> u128 {
    // Keys come from clients: a hash that they could make collide would let them delete each other's records.
    let digest = Sha256::digest(key);
    digest.first_chunk::<16>().map_or(0, |half| u128::from_be_bytes(*half))
}

/// A producer's transactions follow each other: they are in the order of their markers too.
fn by_producer(aborted: Vec<AbortedTransaction>) -> BTreeMap<i64, Vec<AbortedTransaction>> {
    let mut producers: BTreeMap<i64, Vec<AbortedTransaction>> = BTreeMap::new();
    for transaction in aborted {
        producers.entry(transaction.producer_id).or_default().push(transaction);
    }
    producers
}

struct Pass<'a> {
    log: &'a Log,
    options: &'a CompactOptions<'a>,
    aborted: BTreeMap<i64, Vec<AbortedTransaction>>,
    /// Tombstones and markers below may go.
    horizon: i64,
    /// Of the dirty part's keys.
    last_offsets: BTreeMap<u128, i64>,
    /// The keys are those below.
    end_offset: i64,
    /// Producers with records since their last marker.
    with_records: BTreeSet<i64>,
}

/// What is left of a batch.
enum Left {
    All,
    Some(Bytes),
    Nothing,
}

impl Pass<'_> {
    fn corrupt(segment: &Segment, position: u64, reason: impl ToString) -> LogError {
        LogError::Corrupt {
            path: segment.path.clone(),
            position,
            reason: reason.to_string(),
        }
    }

    fn is_aborted(&self, header: &BatchHeader) -> bool {
        let Some(aborted) = self.aborted.get(&header.producer_id).filter(|_| header.is_transactional()) else {
            return false;
        };
        let next = aborted.partition_point(|transaction| transaction.last_offset < header.base_offset);
        aborted
            .get(next)
            .is_some_and(|transaction| transaction.first_offset <= header.base_offset)
    }

    /// Whether it was not told to stop.
    fn read_keys(&mut self, segments: &[Arc<Segment>], first_dirty: i64) -> Result<bool, LogError> {
        for segment in segments.iter().filter(|segment| segment.next_offset() > first_dirty) {
            for item in segment.headers_from(segment.position_before_offset(first_dirty)?) {
                let (position, header) = item?;
                if header.last_offset() < first_dirty || header.is_control() || self.is_aborted(&header) {
                    continue;
                }
                let batch = segment.bytes(position, header.size())?;
                if !(self.options.pace)(batch.len() as u64) {
                    return Ok(false);
                }
                let section = section(&header, &batch).map_err(|reason| Self::corrupt(segment, position, reason))?;
                for record in RecordIter::new(&section, header.record_count) {
                    let record = record.map_err(|error| Self::corrupt(segment, position, error))?;
                    if let Some(key) = record.key {
                        let offset = header.base_offset + i64::from(record.offset_delta);
                        self.last_offsets.insert(hash(key), offset);
                    }
                }
                if self.last_offsets.len() >= self.options.keys_max {
                    self.end_offset = header.next_offset();
                    return Ok(true);
                }
            }
        }
        Ok(true)
    }

    fn is_kept(&self, offset: i64, key: Option<&[u8]>, is_tombstone: bool) -> bool {
        if offset >= self.end_offset {
            return true;
        }
        // A topic that was not always compacted may hold records without a key; nothing can ever replace them.
        let Some(key) = key else { return true };
        let is_last = self.last_offsets.get(&hash(key)).is_none_or(|last| offset >= *last);
        is_last && !(is_tombstone && offset < self.horizon)
    }

    fn left_of(&mut self, segment: &Segment, position: u64, header: &BatchHeader, batch: &Bytes) -> Result<Left, LogError> {
        if header.is_control() {
            let is_marker = Marker::parse(header, batch)
                .map_err(|error| Self::corrupt(segment, position, error))?
                .is_some();
            let has_records = self.with_records.remove(&header.producer_id);
            let goes = is_marker && !has_records && header.base_offset < self.horizon;
            return Ok(if goes { Left::Nothing } else { Left::All });
        }
        if self.is_aborted(header) && header.base_offset < self.end_offset {
            return Ok(Left::Nothing);
        }
        if header.record_count == 0 && header.base_offset < self.horizon {
            return Ok(Left::Nothing);
        }
        let section = section(header, batch).map_err(|reason| Self::corrupt(segment, position, reason))?;
        let mut kept = BytesMut::new();
        let mut count = 0;
        for record in RecordIter::new(&section, header.record_count) {
            let record = record.map_err(|error| Self::corrupt(segment, position, error))?;
            let offset = header.base_offset + i64::from(record.offset_delta);
            if self.is_kept(offset, record.key, record.value.is_none()) {
                kept.put_slice(record.encoded);
                count += 1;
            }
        }
        if (count > 0 || header.record_count == 0) && header.is_transactional() {
            self.with_records.insert(header.producer_id);
        }
        if count == header.record_count {
            return Ok(Left::All);
        }
        if count == 0 {
            return Ok(Left::Nothing);
        }
        let codec = header.compression().map_err(|error| Self::corrupt(segment, position, error))?;
        let batch = rebuild(header, codec, &kept, count).map_err(|error| Self::corrupt(segment, position, error))?;
        Ok(Left::Some(batch))
    }

    /// Rewrites neighbours into one segment and puts it in their place; its size, or `None` if retention or a stop came first.
    fn rewrite(&mut self, group: &[Arc<Segment>]) -> Result<Option<u64>, LogError> {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            return Ok(Some(0));
        };
        let disk = &*self.log.disk;
        let path = self.log.dir.join(file_name(first.base_offset, "cleaned"));
        let file = disk.open(&path, FileMode::Create).map_err(LogError::io("create segment", &path))?;
        let cleaned = Segment::with_summary(empty_summary(first.base_offset), path, file, Entries::Memory(Vec::new()), false);
        let index_interval_bytes = self.log.config().index_interval_bytes;
        let mut changed = group.len() > 1;
        for segment in group {
            for item in segment.headers_from(0) {
                let (position, header) = item?;
                let batch = segment.bytes(position, header.size())?;
                let (header, batch) = match self.left_of(segment, position, &header, &batch)? {
                    Left::All => (header, batch),
                    Left::Nothing => {
                        changed = true;
                        continue;
                    }
                    Left::Some(batch) => {
                        changed = true;
                        let header = BatchHeader::parse(&batch).map_err(|error| Self::corrupt(segment, position, error))?;
                        (header, batch)
                    }
                };
                if !(self.options.pace)(2 * batch.len() as u64) {
                    disk.remove_file(&cleaned.path).map_err(LogError::io("delete", &cleaned.path))?;
                    return Ok(None);
                }
                let (head, body) = batch.split_at(BatchHeader::SIZE);
                cleaned
                    .append(&header, head, body, self.options.now_ms, index_interval_bytes)
                    .map_err(LogError::io("append to segment", &cleaned.path))?;
            }
        }
        if !changed {
            disk.remove_file(&cleaned.path).map_err(LogError::io("delete", &cleaned.path))?;
            return Ok(Some(first.len()));
        }
        cleaned.extend_to(last.next_offset());
        cleaned.file.sync_data().map_err(LogError::io("sync segment", &cleaned.path))?;
        self.swap(group, cleaned)
    }

    fn swap(&self, group: &[Arc<Segment>], cleaned: Segment) -> Result<Option<u64>, LogError> {
        let (log, disk) = (self.log, &*self.log.disk);
        // A deletion of the log waits, and so does retention.
        let _trimming = log.trimming.lock().unwrap_or_else(PoisonError::into_inner);
        log.check()?;
        let current = log.segments();
        let is_there = |segment: &Arc<Segment>| current.iter().any(|other| Arc::ptr_eq(segment, other));
        if !group.iter().all(is_there) {
            // Retention was faster.
            disk.remove_file(&cleaned.path).map_err(LogError::io("delete", &cleaned.path))?;
            return Ok(None);
        }
        let len = cleaned.len();
        let swap = log
            .dir
            .join(format!("{:020}-{:020}.swap", cleaned.base_offset, cleaned.next_offset()));
        disk.rename(&cleaned.path, &swap).map_err(LogError::io("rename segment", &swap))?;
        // From here on a restart would complete the swap, so nothing else may happen to these segments before it is complete.
        self.complete(group, &swap, cleaned).inspect_err(|error| log.health.fail(error))?;
        Ok(Some(len))
    }

    fn complete(&self, group: &[Arc<Segment>], swap: &Path, cleaned: Segment) -> Result<(), LogError> {
        let (log, disk) = (self.log, &*self.log.disk);
        disk.sync_dir(&log.dir).map_err(LogError::io("sync directory", &log.dir))?;
        for segment in group {
            remove_segment_files(disk, &log.dir, segment.base_offset)?;
        }
        for inner in group.iter().skip(1) {
            // The states of producers are kept where segments begin and end.
            remove_file(disk, &log.dir, inner.base_offset, "snapshot")?;
        }
        let path = log.dir.join(file_name(cleaned.base_offset, "log"));
        let cleaned = Arc::new(cleaned.renamed(path));
        // Before the segment has its name: without the index nobody would know where it ends, if its last batches are gone.
        cleaned.seal(disk)?;
        disk.sync_dir(&log.dir).map_err(LogError::io("sync directory", &log.dir))?;
        disk.rename(swap, &cleaned.path)
            .map_err(LogError::io("rename segment", &cleaned.path))?;
        disk.sync_dir(&log.dir).map_err(LogError::io("sync directory", &log.dir))?;
        log.replace_segments(group, &cleaned);
        Ok(())
    }
}

/// The records of a batch. Damaged ones must neither replace good ones nor get a new checksum.
fn section(header: &BatchHeader, batch: &Bytes) -> Result<Bytes, String> {
    verify_crc(batch).map_err(|error| error.to_string())?;
    let codec = header.compression().map_err(|error| error.to_string())?;
    codec
        .decompress(&batch.slice(BatchHeader::SIZE..), SECTION_BYTES_MAX)
        .map_err(|error| error.to_string())
}

fn remove_segment_files(disk: &dyn Disk, dir: &Path, base_offset: i64) -> Result<(), LogError> {
    // The index first: one that belongs to other bytes must not be found.
    remove_file(disk, dir, base_offset, "idx")?;
    remove_file(disk, dir, base_offset, "log")
}

/// Removes a file of the log, if it is there.
fn remove_file(disk: &dyn Disk, dir: &Path, offset: i64, extension: &str) -> Result<(), LogError> {
    let path = dir.join(file_name(offset, extension));
    match disk.remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(LogError::io("delete", path)(error)),
        _ => Ok(()),
    }
}

/// Completes swaps that were committed and discards what was not, before a log is opened; first offset of each completed one and of what
/// follows it.
pub(crate) fn finish_swaps(disk: &dyn Disk, dir: &Path) -> Result<BTreeMap<i64, i64>, LogError> {
    let names = disk.list(dir).map_err(LogError::io("list directory", dir))?;
    let mut swapped = BTreeMap::new();
    for name in &names {
        if name.ends_with(".cleaned") {
            let path = dir.join(name);
            disk.remove_file(&path).map_err(LogError::io("delete", path))?;
        } else if let Some((base, next)) = swap_range(name) {
            let offsets = |extension| names.iter().filter_map(move |name| offset_of_name(name, extension));
            for base_offset in offsets("log").filter(|offset| (base..next).contains(offset)) {
                remove_segment_files(disk, dir, base_offset)?;
            }
            for inner in offsets("snapshot").filter(|offset| (base + 1..next).contains(offset)) {
                remove_file(disk, dir, inner, "snapshot")?;
            }
            let path = dir.join(file_name(base, "log"));
            // As in a pass: a segment has an index that knows where it ends before it has its name.
            index_swapped(disk, &dir.join(name), &path, base, next)?;
            disk.sync_dir(dir).map_err(LogError::io("sync directory", dir))?;
            disk.rename(&dir.join(name), &path).map_err(LogError::io("rename segment", &path))?;
            swapped.insert(base, next);
        }
    }
    if !swapped.is_empty() {
        disk.sync_dir(dir).map_err(LogError::io("sync directory", dir))?;
    }
    Ok(swapped)
}

fn index_swapped(disk: &dyn Disk, swap: &Path, path: &Path, base: i64, next: i64) -> Result<(), LogError> {
    let file = disk.open(swap, FileMode::Write).map_err(LogError::io("open segment", swap))?;
    let log_len = file.len().map_err(LogError::io("open segment", swap))?;
    let summary = Summary {
        log_len,
        ..empty_summary(base)
    };
    let written = Segment::with_summary(summary, swap.to_path_buf(), Arc::clone(&file), Entries::Memory(Vec::new()), false);
    let segment = Segment::with_summary(empty_summary(base), path.to_path_buf(), file, Entries::Memory(Vec::new()), false);
    for item in written.headers_from(0) {
        let (position, header) = item?;
        segment.observe(&header, position, INDEX_INTERVAL_BYTES, -1);
    }
    segment.extend_to(next);
    segment.write_index(disk)
}

fn swap_range(name: &str) -> Option<(i64, i64)> {
    let (base, next) = name.strip_suffix(".swap")?.split_once('-')?;
    Some((base.parse().ok()?, next.parse().ok()?))
}
