//! Reading a log: by offset, by time.

use std::{cell::Cell, sync::Arc};

use bytes::Bytes;
use millstream_protocol::{
    chunk::Chunk,
    record::{BatchHeader, RecordIter, TimestampType},
};

use crate::{Log, LogError, segment::Segment};

/// Most bytes that one batch may decompress to when its records are searched for a timestamp: what a broker accepts at most.
const SEARCH_BUDGET_BYTES: usize = 256 << 20;

/// A record's timestamp and offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampAndOffset {
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// The record's offset.
    pub offset: i64,
}

/// Whole batches of one segment. Keeps the segment's file open, so retention cannot pull it away.
#[derive(Debug, Clone)]
pub struct LogRead {
    segment: Arc<Segment>,
    position: u64,
    len: usize,
    next_offset: i64,
}

impl LogRead {
    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// An offset at or above the end of the batches, and at or below what follows them.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The batches as a piece of a message, in their file where the disk has one.
    pub fn chunk(&self) -> Result<Chunk, LogError> {
        self.segment.chunk(self.position, self.len)
    }

    /// The batches read into memory.
    pub fn bytes(&self) -> Result<Bytes, LogError> {
        self.segment.bytes(self.position, self.len)
    }
}

impl Log {
    /// Batches from the one that holds `offset` (or the first after it) that lie below `up_to`: about `max_bytes`, but at least
    /// one batch if `min_one`. Empty at `up_to`; an error outside the local segments.
    pub fn read(&self, offset: i64, up_to: i64, max_bytes: usize, min_one: bool) -> Result<Option<LogRead>, LogError> {
        self.health.check()?;
        let segments = self.segments();
        let first = segments.partition_point(|segment| segment.base_offset <= offset).checked_sub(1);
        let Some(first) = first else {
            return Err(self.out_of_range(offset));
        };
        if offset > self.log_end_offset() {
            return Err(self.out_of_range(offset));
        }
        for segment in &segments[first..] {
            if segment.base_offset >= up_to {
                break;
            }
            // A segment can end in a hole, after batches that were removed; then the next one's first batch is meant.
            if let Some((position, header)) = first_batch_reaching(segment, offset)? {
                if header.base_offset >= up_to {
                    break;
                }
                let (len, next_offset) = bounded_len(segment, position, &header, up_to, max_bytes, min_one)?;
                return Ok((len > 0).then(|| LogRead {
                    segment: Arc::clone(segment),
                    position,
                    len,
                    next_offset,
                }));
            }
        }
        Ok(None)
    }

    /// Reads a sealed or active segment's raw bytes.
    pub fn read_segment_at(&self, base_offset: i64, position: u64, len: usize) -> Result<Bytes, LogError> {
        let segments = self.segments();
        let Ok(index) = segments.binary_search_by_key(&base_offset, |segment| segment.base_offset) else {
            return Err(self.out_of_range(base_offset));
        };
        let segment = &segments[index];
        let left = usize::try_from(segment.len().saturating_sub(position)).unwrap_or(usize::MAX);
        segment.bytes(position, len.min(left))
    }

    /// The first record at or after `timestamp` among the local segments below `up_to`; it is the exact record, not its batch.
    pub fn offset_for_timestamp(&self, timestamp: i64, up_to: i64) -> Result<Option<TimestampAndOffset>, LogError> {
        for segment in self.segments().iter() {
            if segment.base_offset >= up_to {
                break;
            }
            if segment.summary().max_timestamp < timestamp {
                continue;
            }
            for item in segment.headers_from(segment.position_before_timestamp(timestamp)?) {
                let (position, header) = item?;
                if header.base_offset >= up_to {
                    return Ok(None);
                }
                if header.max_timestamp < timestamp || header.last_offset() < self.log_start_offset() {
                    continue;
                }
                let start = self.log_start_offset();
                let wanted = |record: &TimestampAndOffset| record.timestamp >= timestamp && record.offset >= start && record.offset < up_to;
                if let Some(found) = find_record(segment, position, &header, wanted)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// The record with the largest timestamp among the local segments; the first of equals.
    pub fn max_timestamp(&self) -> Result<Option<TimestampAndOffset>, LogError> {
        let start = self.log_start_offset();
        let mut best: Option<(i64, i64, Arc<Segment>)> = None;
        for segment in self
            .segments()
            .iter()
            .filter(|segment| segment.len() > 0 && segment.next_offset() > start)
        {
            let (timestamp, batch) = max_timestamp_from(segment, start)?;
            if timestamp >= 0 && best.as_ref().is_none_or(|(largest, ..)| timestamp > *largest) {
                best = Some((timestamp, batch, Arc::clone(segment)));
            }
        }
        let Some((_, batch, segment)) = best else { return Ok(None) };
        for item in segment.headers_from(segment.position_before_offset(batch)?) {
            let (position, header) = item?;
            if header.base_offset >= batch {
                let largest: Cell<Option<TimestampAndOffset>> = Cell::new(None);
                find_record(&segment, position, &header, |record| {
                    if record.offset >= start && largest.get().is_none_or(|known| record.timestamp > known.timestamp) {
                        largest.set(Some(*record));
                    }
                    false
                })?;
                return Ok(largest.get());
            }
        }
        Ok(None)
    }
}

/// The largest timestamp of a segment's batches at or above `start`, and the base offset of the first batch that has it.
fn max_timestamp_from(segment: &Segment, start: i64) -> Result<(i64, i64), LogError> {
    let summary = segment.summary();
    let known = summary.max_timestamp_batch;
    if known >= start {
        for item in segment.headers_from(segment.position_before_offset(known)?) {
            let (_, header) = item?;
            if header.base_offset >= known {
                // Retention gives one to a batch without timestamps, which is not the largest then.
                if header.max_timestamp == summary.max_timestamp {
                    return Ok((summary.max_timestamp, known));
                }
                break;
            }
        }
    }
    let mut largest = (-1, segment.base_offset);
    for item in segment.headers_from(segment.position_before_offset(start)?) {
        let (_, header) = item?;
        if header.last_offset() >= start && header.max_timestamp > largest.0 {
            largest = (header.max_timestamp, header.base_offset);
        }
    }
    Ok(largest)
}

fn first_batch_reaching(segment: &Segment, offset: i64) -> Result<Option<(u64, BatchHeader)>, LogError> {
    for item in segment.headers_from(segment.position_before_offset(offset)?) {
        let (position, header) = item?;
        if header.last_offset() >= offset {
            return Ok(Some((position, header)));
        }
    }
    Ok(None)
}

/// Bytes from `position` to the last batch end within both limits, and the offset after them.
fn bounded_len(
    segment: &Segment,
    position: u64,
    first: &BatchHeader,
    up_to: i64,
    max_bytes: usize,
    min_one: bool,
) -> Result<(usize, i64), LogError> {
    let first_len = first.size();
    if first_len >= max_bytes {
        let len = if min_one || first_len == max_bytes { first_len } else { 0 };
        return Ok((len, first.next_offset()));
    }
    let limit = position.saturating_add(max_bytes as u64);
    // The length first: the offset was published before it, so bytes of this length lie below an offset that is read now.
    let end = segment.len();
    let all_below = segment.next_offset() <= up_to;
    if all_below && end <= limit {
        return Ok((usize::try_from(end - position).unwrap_or(max_bytes), segment.next_offset()));
    }
    // Start scanning at an indexed batch near the limit, if offsets don't end the range before it.
    let mut from = segment.batch_position_at_most(limit)?;
    if !all_below {
        from = from.min(segment.position_before_offset(up_to - 1)?);
    }
    let mut end = position + first_len as u64;
    let mut next_offset = first.next_offset();
    for item in segment.headers_from(from.max(position)) {
        let (batch_position, header) = item?;
        let batch_end = batch_position + header.size() as u64;
        if header.base_offset >= up_to || batch_end > limit {
            end = end.max(batch_position);
            next_offset = next_offset.max(header.base_offset);
            break;
        }
        end = end.max(batch_end);
        next_offset = next_offset.max(header.next_offset());
    }
    Ok((usize::try_from(end - position).unwrap_or(max_bytes), next_offset))
}

fn find_record(
    segment: &Segment,
    position: u64,
    header: &BatchHeader,
    wanted: impl Fn(&TimestampAndOffset) -> bool,
) -> Result<Option<TimestampAndOffset>, LogError> {
    let corrupt = |reason: String| LogError::Corrupt {
        path: segment.path.clone(),
        position,
        reason,
    };
    if header.timestamp_type() == TimestampType::LogAppendTime {
        let found = TimestampAndOffset {
            timestamp: header.max_timestamp,
            offset: header.base_offset,
        };
        return Ok(wanted(&found).then_some(found));
    }
    let batch = segment.bytes(position, header.size())?;
    let codec = header.compression().map_err(|error| corrupt(error.to_string()))?;
    let section = codec
        .decompress(&batch.slice(BatchHeader::SIZE..), SEARCH_BUDGET_BYTES)
        .map_err(|error| corrupt(error.to_string()))?;
    for record in RecordIter::new(&section, header.record_count) {
        let record = record.map_err(|error| corrupt(error.to_string()))?;
        let found = TimestampAndOffset {
            timestamp: header.base_timestamp.saturating_add(record.timestamp_delta),
            offset: header.base_offset.saturating_add(i64::from(record.offset_delta)),
        };
        if wanted(&found) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
