//! Opening a log: finding its segments, cutting a torn tail, rebuilding what is derived.
//!
//! After a clean stop, indexes and the last producer snapshot are taken as they are. After an unclean one every segment that
//! reaches beyond the recovery point is read and its CRCs are checked: the first bad batch at or above the recovery point ends
//! the log, one below it means that durable data was damaged, and the log refuses to open.

use std::{
    cell::Cell,
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use millstream_protocol::record::{BatchHeader, Marker, verify_crc};

use crate::{
    Log, LogConfig, LogError, OpenMode,
    checkpoint::Checkpoint,
    compact::{CleanerState, finish_swaps},
    dir::Health,
    disk::{Disk, DiskFile, FileMode, read_exact_at, read_file},
    index::{self, Entries},
    log::Opened,
    producer::ProducerStates,
    segment::{Segment, empty_summary, file_name, offset_of_name},
};

/// Bytes read at a time while scanning.
const SCAN_BUFFER_BYTES: usize = 1 << 20;

impl Log {
    /// Opens or creates the log in `dir`.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        health: Arc<Health>,
        dir: PathBuf,
        config: LogConfig,
        mode: OpenMode,
        now_ms: i64,
    ) -> Result<Self, LogError> {
        health.check()?;
        disk.create_dir_all(&dir).map_err(LogError::io("create directory", &dir))?;
        let swapped = finish_swaps(&*disk, &dir)?;
        let cleaner = CleanerState::load(&*disk, &dir)?;
        let checkpoint = Checkpoint::load(&*disk, &dir)?;
        let recovery = Recovery {
            disk: &disk,
            dir: &dir,
            config: &config,
            mode,
            checkpoint: &checkpoint,
            compacted_end: cleaner.first_dirty(),
            swapped: &swapped,
            now_ms,
            is_as_closed: Cell::new(mode == OpenMode::Clean),
        };
        let segments = recovery.open_segments()?;
        let log_end = segments.last().map_or(checkpoint.log_start_offset, |segment| segment.next_offset());
        let producers = recovery.producers(&segments, log_end)?;
        let mut epochs = checkpoint.epochs.clone();
        epochs.retain(|entry| entry.start_offset <= log_end);
        recovery.add_epochs(&segments, &mut epochs)?;
        let log_start_offset = checkpoint.log_start_offset;
        let is_as_closed = recovery.is_as_closed.get();
        let log = Self::new(
            dir,
            disk,
            health,
            config,
            Opened {
                segments,
                producers,
                epochs,
                log_start_offset,
                cleaner,
                is_as_closed,
                opened_ms: now_ms,
            },
        );
        if mode == OpenMode::Unclean {
            // What survived only in the page cache, names included, must be on disk before anybody reads it.
            log.disk.sync_dir(&log.dir).map_err(LogError::io("sync directory", &log.dir))?;
            log.sync(now_ms)?;
        }
        Ok(log)
    }
}

struct Recovery<'a> {
    disk: &'a Arc<dyn Disk>,
    dir: &'a Path,
    config: &'a LogConfig,
    mode: OpenMode,
    checkpoint: &'a Checkpoint,
    /// Compaction has been through everything below.
    compacted_end: i64,
    /// First offset of segments that compaction was just putting in place, and of those after them.
    swapped: &'a BTreeMap<i64, i64>,
    now_ms: i64,
    /// All that a clean stop leaves was found.
    is_as_closed: Cell<bool>,
}

impl Recovery<'_> {
    fn open_segments(&self) -> Result<Vec<Arc<Segment>>, LogError> {
        let names = self.disk.list(self.dir).map_err(LogError::io("list directory", self.dir))?;
        let bases: Vec<i64> = names.iter().filter_map(|name| offset_of_name(name, "log")).collect();
        let mut segments: Vec<Arc<Segment>> = Vec::new();
        for (index, &base) in bases.iter().enumerate() {
            let next_base = bases.get(index + 1).copied();
            if segments.last().is_some_and(|last| last.next_offset() > base) {
                let path = self.dir.join(file_name(base, "log"));
                return Err(LogError::CorruptFile {
                    path,
                    reason: "overlaps the segment before it",
                });
            }
            let (segment, whole) = self.open_segment(base, next_base)?;
            if next_base.is_none() {
                segment.recover_age(self.now_ms);
            }
            let end = segment.next_offset();
            segments.push(Arc::new(segment));
            if !whole || next_base.is_some_and(|next| next > end) {
                self.check_end(end)?;
                // The log ends in a torn tail or before a hole; what lies beyond was never durable.
                for &beyond in &bases[index + 1..] {
                    self.remove_segment(beyond)?;
                }
                break;
            }
        }
        let start = self.checkpoint.log_start_offset;
        let mut end = segments.last().map_or(start, |segment| segment.next_offset());
        self.check_end(end)?;
        if end < start {
            // Only bytes below the log start were left: begin anew there, so that no offset below it is given out.
            for segment in segments.drain(..) {
                self.remove_segment(segment.base_offset)?;
            }
            end = start;
        }
        // The last segment takes appends, so it must not be sealed.
        if segments.last().is_none_or(|last| last.is_sealed()) {
            self.is_as_closed.set(false);
            segments.push(Arc::new(Segment::create(&**self.disk, self.dir, end)?));
            self.disk.sync_dir(self.dir).map_err(LogError::io("sync directory", self.dir))?;
        }
        Ok(segments)
    }

    /// A log that ends below its recovery point lost what had been durable.
    fn check_end(&self, end: i64) -> Result<(), LogError> {
        if end >= self.checkpoint.recovery_point {
            return Ok(());
        }
        let reason = format!(
            "the log ends at offset {end}, but everything below {} was on disk",
            self.checkpoint.recovery_point
        );
        Err(LogError::Corrupt {
            path: self.dir.to_path_buf(),
            position: 0,
            reason,
        })
    }

    fn remove_segment(&self, base: i64) -> Result<(), LogError> {
        self.is_as_closed.set(false);
        let path = self.dir.join(file_name(base, "log"));
        tracing::warn!(segment = %path.display(), "deleted a segment beyond the torn tail");
        self.disk.remove_file(&path).map_err(LogError::io("delete segment", path))
    }

    /// Opens a segment and says whether it is whole. All but the last are sealed.
    fn open_segment(&self, base: i64, next_base: Option<i64>) -> Result<(Segment, bool), LogError> {
        let path = self.dir.join(file_name(base, "log"));
        let file = self
            .disk
            .open(&path, FileMode::Write)
            .map_err(LogError::io("open segment", &path))?;
        let len = file.len().map_err(LogError::io("open segment", &path))?;
        let durable = self.mode == OpenMode::Clean || next_base.is_some_and(|next| next <= self.checkpoint.recovery_point);
        if durable {
            let index_path = path.with_extension("idx");
            let indexed =
                index::open(&**self.disk, &index_path, base, len, next_base.is_none()).map_err(LogError::io("open index", index_path))?;
            if let Some((summary, entries)) = indexed {
                return Ok((Segment::with_summary(summary, path, file, entries, next_base.is_some()), true));
            }
        }
        // Compaction leaves holes, also at a segment's end; nothing else does.
        let may_end_in_hole = next_base.filter(|next| *next <= self.compacted_end || self.swapped.get(&base) == Some(next));
        self.scan_segment(base, path, file, len, next_base.is_some(), may_end_in_hole)
    }

    /// Reads a whole segment, checks every batch and rebuilds the index.
    fn scan_segment(
        &self,
        base: i64,
        path: PathBuf,
        file: Arc<dyn DiskFile>,
        len: u64,
        seal: bool,
        may_end_in_hole: Option<i64>,
    ) -> Result<(Segment, bool), LogError> {
        self.is_as_closed.set(false);
        let segment = Segment::with_summary(empty_summary(base), path, file, Entries::Memory(Vec::new()), false);
        let mut buffer = Vec::new();
        let mut buffer_start = 0u64;
        let mut position = 0u64;
        let mut bad = None;
        while position < len {
            let result = read_batch(&*segment.file, &mut buffer, &mut buffer_start, position, len)
                .map_err(LogError::io("read segment", &segment.path))?;
            match result.and_then(|header| {
                if header.base_offset < segment.next_offset() {
                    Err("offset goes back".into())
                } else {
                    Ok(header)
                }
            }) {
                Ok(header) => {
                    segment.observe(&header, position, self.config.index_interval_bytes, self.now_ms);
                    position += header.size() as u64;
                }
                Err(reason) => {
                    bad = Some(reason);
                    break;
                }
            }
        }
        let durable_end = if self.mode == OpenMode::Clean {
            i64::MAX
        } else {
            self.checkpoint.recovery_point
        };
        if let Some(reason) = bad {
            if segment.next_offset() < durable_end {
                return Err(LogError::Corrupt {
                    path: segment.path,
                    position,
                    reason,
                });
            }
            tracing::warn!(segment = %segment.path.display(), position, bytes = len - position, %reason, "cut a torn tail");
            segment
                .file
                .set_len(position)
                .map_err(LogError::io("truncate segment", &segment.path))?;
            return Ok((segment, false));
        }
        if let Some(next_offset) = may_end_in_hole {
            segment.extend_to(next_offset);
        }
        if seal {
            segment.file.sync_data().map_err(LogError::io("sync segment", &segment.path))?;
            segment.seal(&**self.disk)?;
        }
        Ok((segment, true))
    }

    /// The latest usable snapshot, and the batches after it.
    fn producers(&self, segments: &[Arc<Segment>], log_end: i64) -> Result<ProducerStates, LogError> {
        let names = self.disk.list(self.dir).map_err(LogError::io("list directory", self.dir))?;
        let mut from = self.checkpoint.log_start_offset;
        let mut producers = ProducerStates::default();
        let mut found = false;
        for offset in names.iter().filter_map(|name| offset_of_name(name, "snapshot")).rev() {
            let path = self.dir.join(file_name(offset, "snapshot"));
            // A stop leaves one where the log ended; only those where segments begin stay as long as these.
            let is_needed = !found || segments.iter().any(|segment| segment.base_offset == offset);
            if offset > log_end || !is_needed {
                self.disk.remove_file(&path).map_err(LogError::io("delete snapshot", path))?;
                continue;
            }
            if found {
                continue;
            }
            let bytes = read_file(&**self.disk, &path).map_err(LogError::io("read snapshot", path))?;
            if let Some(states) = bytes.and_then(|bytes| ProducerStates::decode(&bytes, offset)) {
                (producers, from) = (states, offset);
                found = true;
            }
        }
        if !found || from != log_end {
            self.is_as_closed.set(false);
        }
        for segment in segments.iter().filter(|segment| segment.next_offset() > from) {
            for item in segment.headers_from(segment.position_before_offset(from)?) {
                let (position, header) = item?;
                // A batch that holds the log's start counts: its transaction may be open.
                if header.last_offset() < from {
                    continue;
                }
                let marker = if header.is_control() {
                    read_marker(segment, position, &header)?
                } else {
                    None
                };
                producers.apply(&header, marker);
            }
        }
        producers.forget_below(self.checkpoint.log_start_offset);
        Ok(producers)
    }

    /// Epochs that were written after the last checkpoint.
    fn add_epochs(&self, segments: &[Arc<Segment>], epochs: &mut Vec<crate::remote::EpochEntry>) -> Result<(), LogError> {
        if self.mode == OpenMode::Clean {
            return Ok(());
        }
        let from = self.checkpoint.recovery_point;
        for segment in segments.iter().filter(|segment| segment.next_offset() > from) {
            for item in segment.headers_from(segment.position_before_offset(from)?) {
                let (_, header) = item?;
                if epochs.last().is_none_or(|last| header.partition_leader_epoch > last.epoch) {
                    epochs.push(crate::remote::EpochEntry {
                        epoch: header.partition_leader_epoch,
                        start_offset: header.base_offset,
                    });
                }
            }
        }
        Ok(())
    }
}

fn read_marker(segment: &Segment, position: u64, header: &BatchHeader) -> Result<Option<Marker>, LogError> {
    let batch = segment.bytes(position, header.size())?;
    Marker::parse(header, &batch).map_err(|error| LogError::Corrupt {
        path: segment.path.clone(),
        position,
        reason: error.to_string(),
    })
}

/// Reads and checks the batch at `position` through a large buffer. The inner error says what is wrong with the batch.
fn read_batch(
    file: &dyn DiskFile,
    buffer: &mut Vec<u8>,
    buffer_start: &mut u64,
    position: u64,
    len: u64,
) -> std::io::Result<Result<BatchHeader, String>> {
    let left = usize::try_from(len - position).unwrap_or(usize::MAX);
    let mut wanted = BatchHeader::SIZE;
    loop {
        if left < wanted {
            return Ok(Err(format!("{left} bytes are left of a batch that needs {wanted}")));
        }
        let start = usize::try_from(position - *buffer_start).unwrap_or(usize::MAX);
        let buffered = start.checked_add(wanted).is_some_and(|end| end <= buffer.len());
        if !buffered {
            buffer.resize(wanted.max(SCAN_BUFFER_BYTES).min(left), 0);
            *buffer_start = position;
            read_exact_at(file, buffer, position)?;
            continue;
        }
        let bytes = &buffer[start..start + wanted];
        let header = match BatchHeader::parse(bytes) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if wanted < header.size() {
            wanted = header.size();
            continue;
        }
        return Ok(verify_crc(bytes).map(|()| header).map_err(|error| error.to_string()));
    }
}

impl Log {
    /// Every batch from `offset` to the end, in order, handed to `each`. For small internal logs that are replayed at start.
    pub fn replay<E: From<LogError>>(&self, offset: i64, mut each: impl FnMut(BatchHeader, Bytes) -> Result<(), E>) -> Result<(), E> {
        let mut next = offset.max(self.local_start_offset());
        let end = self.log_end_offset();
        while next < end {
            let Some(read) = self.read(next, end, SCAN_BUFFER_BYTES, true)? else {
                break;
            };
            for item in millstream_protocol::record::split_batches(read.bytes()?) {
                let (header, batch) = item.map_err(|error| LogError::Corrupt {
                    path: self.dir().to_path_buf(),
                    position: 0,
                    reason: error.to_string(),
                })?;
                next = header.next_offset();
                each(header, batch)?;
            }
        }
        Ok(())
    }
}
