//! One segment: a file of whole batches, with its index.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use millstream_protocol::{
    chunk::{Chunk, FileRange},
    record::BatchHeader,
};

use crate::{
    LogError,
    disk::{Disk, DiskFile, FileMode, read_exact_at},
    index::{self, Entries, IndexEntry, Summary},
};

/// Name of a file that belongs to the segment or snapshot at `offset`.
pub(crate) fn file_name(offset: i64, extension: &str) -> String {
    format!("{offset:020}.{extension}")
}

/// The offset in a file name of this extension.
pub(crate) fn offset_of_name(name: &str, extension: &str) -> Option<i64> {
    let stem = name.strip_suffix(extension)?.strip_suffix('.')?;
    (stem.len() == 20).then(|| stem.parse().ok()).flatten()
}

/// A segment. Its length and offsets only ever grow, and are published after the bytes they speak of, so readers need no lock.
#[derive(Debug)]
pub(crate) struct Segment {
    pub base_offset: i64,
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
    len: AtomicU64,
    next_offset: AtomicI64,
    min_timestamp: AtomicI64,
    max_timestamp: AtomicI64,
    max_timestamp_batch: AtomicI64,
    first_append_ms: AtomicI64,
    last_indexed_position: AtomicU64,
    entries: RwLock<Entries>,
    sealed: AtomicBool,
    has_empty_batches: AtomicBool,
}

impl Segment {
    pub fn create(disk: &dyn Disk, dir: &Path, base_offset: i64) -> Result<Self, LogError> {
        let path = dir.join(file_name(base_offset, "log"));
        let file = disk.open(&path, FileMode::Create).map_err(LogError::io("create segment", &path))?;
        Ok(Self::with_summary(
            empty_summary(base_offset),
            path,
            file,
            Entries::Memory(Vec::new()),
            false,
        ))
    }

    pub fn with_summary(summary: Summary, path: PathBuf, file: Arc<dyn DiskFile>, entries: Entries, sealed: bool) -> Self {
        Self {
            base_offset: summary.base_offset,
            path,
            file,
            len: AtomicU64::new(summary.log_len),
            next_offset: AtomicI64::new(summary.next_offset),
            min_timestamp: AtomicI64::new(summary.min_timestamp),
            max_timestamp: AtomicI64::new(summary.max_timestamp),
            max_timestamp_batch: AtomicI64::new(summary.max_timestamp_batch),
            first_append_ms: AtomicI64::new(-1),
            last_indexed_position: AtomicU64::new(summary.log_len),
            entries: RwLock::new(entries),
            sealed: AtomicBool::new(sealed),
            has_empty_batches: AtomicBool::new(summary.has_empty_batches),
        }
    }

    pub fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    pub fn next_offset(&self) -> i64 {
        self.next_offset.load(Ordering::Acquire)
    }

    pub fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    /// When the first record since the segment was opened was appended, in milliseconds; -1 if none was.
    pub fn first_append_ms(&self) -> i64 {
        self.first_append_ms.load(Ordering::Acquire)
    }

    /// Counts a recovered active segment's age from its earliest record, as far as that is in the past.
    pub fn recover_age(&self, now_ms: i64) {
        if self.len() > 0 {
            let earliest_ms = self.min_timestamp.load(Ordering::Acquire);
            let first_append_ms = if earliest_ms < 0 { now_ms } else { earliest_ms.min(now_ms) };
            self.first_append_ms.store(first_append_ms, Ordering::Release);
        }
    }

    pub fn summary(&self) -> Summary {
        Summary {
            base_offset: self.base_offset,
            next_offset: self.next_offset(),
            log_len: self.len(),
            min_timestamp: self.min_timestamp.load(Ordering::Acquire),
            max_timestamp: self.max_timestamp.load(Ordering::Acquire),
            max_timestamp_batch: self.max_timestamp_batch.load(Ordering::Acquire),
            has_empty_batches: self.has_empty_batches(),
        }
    }

    /// Appends one batch whose offsets are assigned. Only the log's appender calls this, under its lock.
    pub fn append(&self, header: &BatchHeader, head: &[u8], body: &[u8], now_ms: i64, index_interval_bytes: u32) -> io::Result<()> {
        let position = self.len();
        if let Err(error) = self.file.write_at(&[head, body], position) {
            // Leave no partial batch behind; the next append would write over it, a crash before that would find a torn tail.
            self.file.set_len(position)?;
            return Err(error);
        }
        if self.first_append_ms() < 0 {
            self.first_append_ms.store(now_ms, Ordering::Release);
        }
        self.observe(header, position, index_interval_bytes, now_ms);
        Ok(())
    }

    /// Takes note of the batch at `position`, which is the current end. A batch without timestamps counts as of `now_ms`, so that
    /// retention by time ends for it too.
    pub fn observe(&self, header: &BatchHeader, position: u64, index_interval_bytes: u32, now_ms: i64) {
        let max_timestamp = self.max_timestamp.load(Ordering::Acquire);
        if position == 0 || position >= self.last_indexed_position.load(Ordering::Acquire) + u64::from(index_interval_bytes) {
            self.push_entry(header.base_offset, position, max_timestamp);
        }
        let batch_timestamp = if header.max_timestamp < 0 { now_ms } else { header.max_timestamp };
        if batch_timestamp > max_timestamp {
            self.max_timestamp.store(batch_timestamp, Ordering::Release);
            self.max_timestamp_batch.store(header.base_offset, Ordering::Release);
        }
        let min_timestamp = self.min_timestamp.load(Ordering::Acquire);
        if header.base_timestamp >= 0 && (min_timestamp < 0 || header.base_timestamp < min_timestamp) {
            self.min_timestamp.store(header.base_timestamp, Ordering::Release);
        }
        if header.record_count == 0 {
            self.has_empty_batches.store(true, Ordering::Release);
        }
        // In this order: whoever sees the bytes of a batch also sees that offsets reach beyond it, and so never takes bytes for
        // readable that lie above a limit in offsets.
        self.next_offset.store(header.next_offset(), Ordering::Release);
        self.len.store(position + header.size() as u64, Ordering::Release);
    }

    /// The segment is told of up to here, though its last batches are gone.
    pub fn extend_to(&self, next_offset: i64) {
        self.next_offset.fetch_max(next_offset, Ordering::AcqRel);
    }

    /// The same segment under another name.
    pub fn renamed(self, path: PathBuf) -> Self {
        Self { path, ..self }
    }

    /// Whether a batch lost all its records to a plugin.
    pub fn has_empty_batches(&self) -> bool {
        self.has_empty_batches.load(Ordering::Acquire)
    }

    fn push_entry(&self, base_offset: i64, position: u64, prefix_max_timestamp: i64) {
        let (Ok(relative_offset), Ok(small_position)) = (u32::try_from(base_offset - self.base_offset), u32::try_from(position)) else {
            // Beyond 32 bits lookups go on from the last entry; rolling keeps segments far below.
            return;
        };
        if let Entries::Memory(entries) = &mut *self.entries.write().unwrap_or_else(PoisonError::into_inner) {
            entries.push(IndexEntry {
                relative_offset,
                position: small_position,
                prefix_max_timestamp,
            });
            self.last_indexed_position.store(position, Ordering::Release);
        }
    }

    /// Writes the index file beside the segment.
    pub fn write_index(&self, disk: &dyn Disk) -> Result<(), LogError> {
        let path = self.path.with_extension("idx");
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        index::write(disk, &path, &self.summary(), &entries).map_err(LogError::io("write index", &path))
    }

    /// Writes the index and drops its entries from memory. The segment's bytes are durable and final.
    pub fn seal(&self, disk: &dyn Disk) -> Result<(), LogError> {
        self.write_index(disk)?;
        let path = self.path.with_extension("idx");
        if let Some((_, entries)) =
            index::open(disk, &path, self.base_offset, self.len(), false).map_err(LogError::io("open index", &path))?
        {
            *self.entries.write().unwrap_or_else(PoisonError::into_inner) = entries;
        }
        self.sealed.store(true, Ordering::Release);
        Ok(())
    }

    /// Position of a batch at or before the one that holds `offset`.
    pub fn position_before_offset(&self, offset: i64) -> Result<u64, LogError> {
        self.lookup(|entry| self.base_offset + i64::from(entry.relative_offset) <= offset)
    }

    /// The last indexed batch position at or before `position`.
    pub fn batch_position_at_most(&self, position: u64) -> Result<u64, LogError> {
        self.lookup(|entry| u64::from(entry.position) <= position)
    }

    /// Position from which the first batch with a timestamp of at least `timestamp` is found by scanning on.
    pub fn position_before_timestamp(&self, timestamp: i64) -> Result<u64, LogError> {
        self.lookup(|entry| entry.position == 0 || entry.prefix_max_timestamp < timestamp)
    }

    fn lookup(&self, holds: impl Fn(&IndexEntry) -> bool) -> Result<u64, LogError> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let found = entries
            .last_where(holds)
            .map_err(LogError::io("read index", self.path.with_extension("idx")))?;
        Ok(found.map_or(0, |entry| u64::from(entry.position)))
    }

    /// Batch headers from `position`, which must be a batch's start, up to the end at the time of the call.
    pub fn headers_from(&self, position: u64) -> HeaderScan<'_> {
        HeaderScan {
            segment: self,
            position,
            end: self.len(),
            buffer: Vec::new(),
            buffer_start: 0,
        }
    }

    /// A range of the segment as a piece of a message.
    pub fn chunk(&self, position: u64, len: usize) -> Result<Chunk, LogError> {
        match self.file.native() {
            Some(file) => Ok(Chunk::File(FileRange {
                file: Arc::clone(file),
                position,
                len,
            })),
            None => self.bytes(position, len).map(Chunk::Bytes),
        }
    }

    /// A range of the segment read into memory.
    pub fn bytes(&self, position: u64, len: usize) -> Result<Bytes, LogError> {
        let mut bytes = vec![0; len];
        read_exact_at(&*self.file, &mut bytes, position).map_err(LogError::io("read segment", &self.path))?;
        Ok(Bytes::from(bytes))
    }
}

pub(crate) fn empty_summary(base_offset: i64) -> Summary {
    Summary {
        base_offset,
        next_offset: base_offset,
        log_len: 0,
        min_timestamp: -1,
        max_timestamp: -1,
        max_timestamp_batch: base_offset,
        has_empty_batches: false,
    }
}

/// Reads batch headers one after the other through a small buffer.
pub(crate) struct HeaderScan<'a> {
    segment: &'a Segment,
    position: u64,
    end: u64,
    buffer: Vec<u8>,
    buffer_start: u64,
}

impl HeaderScan<'_> {
    const BUFFER_LEN: usize = 4096;

    fn header(&mut self) -> Result<BatchHeader, LogError> {
        let path = &self.segment.path;
        let offset_in_buffer = self
            .position
            .checked_sub(self.buffer_start)
            .and_then(|start| usize::try_from(start).ok());
        let buffered = offset_in_buffer
            .and_then(|start| self.buffer.get(start..))
            .filter(|rest| rest.len() >= BatchHeader::SIZE);
        let header = if let Some(rest) = buffered {
            BatchHeader::parse(rest)
        } else {
            let available = usize::try_from(self.end - self.position).unwrap_or(Self::BUFFER_LEN);
            self.buffer.resize(available.min(Self::BUFFER_LEN), 0);
            self.buffer_start = self.position;
            read_exact_at(&*self.segment.file, &mut self.buffer, self.position).map_err(LogError::io("read segment", path))?;
            BatchHeader::parse(&self.buffer)
        };
        header.map_err(|error| LogError::Corrupt {
            path: path.clone(),
            position: self.position,
            reason: error.to_string(),
        })
    }
}

impl Iterator for HeaderScan<'_> {
    type Item = Result<(u64, BatchHeader), LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position >= self.end {
            return None;
        }
        let position = self.position;
        match self.header() {
            Ok(header) => {
                self.position += header.size() as u64;
                Some(Ok((position, header)))
            }
            Err(error) => {
                self.position = self.end;
                Some(Err(error))
            }
        }
    }
}
