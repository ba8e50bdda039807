//! From an offset to record batches: head, then page if need be, footer, index, units.

use std::{ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use millstream_log::remote::{RemoteBatches, TopicIdPartition};
use object_store::{Error as StoreError, ObjectStoreExt};
use quick_cache::sync::Cache;
use ulid::Ulid;

use crate::{
    batch::{BatchHeader, HEADER_BYTES},
    envelope::FRAME_BYTES_MAX,
    fetch::{FetchError, Fetcher, Object},
    head::{Head, PageRef, SegRef, decode_page},
    layout::Layout,
    read_ahead::Ahead,
    store::SharedStore,
};

const PAGES_CACHED: usize = 64;

/// Reads partitions. Shared by all of them.
pub(crate) struct Reader {
    store: SharedStore,
    layout: Layout,
    pub(crate) fetcher: Arc<Fetcher>,
    pages: Cache<Ulid, Arc<Vec<SegRef>>>,
}

/// What a read gave.
#[derive(Debug)]
pub(crate) struct ReadOutcome {
    /// The batches.
    pub batches: RemoteBatches,
    /// Segment and position after the last batch.
    pub end: (SegRef, u64),
}

impl Reader {
    /// A reader of what is below `layout` in `store`.
    pub fn new(store: SharedStore, layout: Layout, fetcher: Arc<Fetcher>) -> Reader {
        Reader {
            store,
            layout,
            fetcher,
            pages: Cache::new(PAGES_CACHED),
        }
    }

    /// The segments of a page.
    pub async fn page(&self, partition: TopicIdPartition, page: &PageRef) -> Result<Arc<Vec<SegRef>>, FetchError> {
        if let Some(segs) = self.pages.get(&page.ulid) {
            return Ok(segs);
        }
        let key = self.layout.object(partition, &page.name());
        let failed = |error: StoreError| match error {
            StoreError::NotFound { .. } => FetchError::Missing { key: key.clone() },
            error => FetchError::Unavailable {
                key: key.clone(),
                reason: error.to_string(),
            },
        };
        let corrupt = |reason: String| FetchError::Corrupt { key: key.clone(), reason };
        let found = self.store.get(&key).await.map_err(failed)?;
        if found.meta.size > FRAME_BYTES_MAX as u64 {
            return Err(corrupt(format!("a page of {} bytes", found.meta.size)));
        }
        let bytes = found.bytes().await.map_err(failed)?;
        let segs = Arc::new(decode_page(page, &bytes).map_err(|error| corrupt(error.to_string()))?);
        self.pages.insert(page.ulid, segs.clone());
        Ok(segs)
    }

    /// The segment that holds `offset`, or the first one after it.
    pub async fn segment(&self, partition: TopicIdPartition, head: &Head, offset: i64) -> Result<Option<SegRef>, FetchError> {
        let page = head.pages.get(head.pages.partition_point(|page| page.next <= offset));
        match page {
            Some(page) => Ok(segment_in(&self.page(partition, page).await?, offset)),
            None => Ok(segment_in(&head.segs, offset)),
        }
    }

    async fn object(&self, partition: TopicIdPartition, segment: &SegRef) -> Result<Object, FetchError> {
        self.fetcher.object(self.layout.object(partition, &segment.name()), segment).await
    }

    /// Reads from the batch that holds `offset`, or the first one after it; `None` if the bucket holds nothing from there on.
    pub async fn read(
        &self,
        partition: TopicIdPartition,
        head: &Head,
        offset: i64,
        max_bytes: usize,
    ) -> Result<Option<ReadOutcome>, FetchError> {
        let mut from = offset;
        while let Some(segment) = self.segment(partition, head, from).await? {
            let object = self.object(partition, &segment).await?;
            let mut scan = Scan::new(&self.fetcher, &object, offset, max_bytes);
            scan.run().await?;
            if let Some(next_offset) = scan.next_offset {
                let batches = RemoteBatches {
                    bytes: scan.cut()?,
                    next_offset,
                };
                return Ok(Some(ReadOutcome {
                    batches,
                    end: (segment, scan.position),
                }));
            }
            // Compaction or filtering may leave a segment without a batch at or after the offset.
            from = segment.next;
        }
        Ok(None)
    }

    /// Fetches what a sequential reader will want next, also from the segments after the one it is in.
    pub async fn read_ahead(&self, partition: TopicIdPartition, head: &Head, end: (SegRef, u64), ahead: Ahead) -> Result<(), FetchError> {
        let (mut segment, mut position) = end;
        let mut passed_bytes = 0;
        loop {
            let left = ahead.until_bytes.saturating_sub(passed_bytes);
            let skip = ahead.skip_bytes.saturating_sub(passed_bytes);
            let body_left = segment.footer_pos.saturating_sub(position);
            if skip < body_left {
                let object = self.object(partition, &segment).await?;
                self.fetcher
                    .units(&object, object.units(position + skip..position.saturating_add(left)))
                    .await?;
            }
            passed_bytes = passed_bytes.saturating_add(body_left);
            if passed_bytes >= ahead.until_bytes {
                return Ok(());
            }
            match self.segment(partition, head, segment.next).await? {
                Some(next) => (segment, position) = (next, 0),
                None => return Ok(()),
            }
        }
    }

    /// The offset from which to scan for the first record at or after `timestamp`; `None` if no object reaches it.
    pub async fn seek_timestamp(&self, partition: TopicIdPartition, head: &Head, timestamp: i64) -> Result<Option<i64>, FetchError> {
        for page in head
            .pages
            .iter()
            .filter(|page| page.max_ts >= timestamp && page.next > head.log_start)
        {
            let segs = self.page(partition, page).await?;
            if let Some(offset) = self.seek_in(partition, &segs, head.log_start, timestamp).await? {
                return Ok(Some(offset));
            }
        }
        self.seek_in(partition, &head.segs, head.log_start, timestamp).await
    }

    async fn seek_in(
        &self,
        partition: TopicIdPartition,
        segs: &[SegRef],
        log_start: i64,
        timestamp: i64,
    ) -> Result<Option<i64>, FetchError> {
        let Some(segment) = segs.iter().find(|seg| seg.max_ts >= timestamp && seg.next > log_start) else {
            return Ok(None);
        };
        let object = self.object(partition, segment).await?;
        let offset = object.footer.seek_timestamp(timestamp).unwrap_or(segment.base);
        Ok(Some(offset.max(log_start)))
    }
}

fn segment_in(segs: &[SegRef], offset: i64) -> Option<SegRef> {
    segs.get(segs.partition_point(|seg| seg.next <= offset)).cloned()
}

/// A walk over the batches of one object.
struct Scan<'a> {
    fetcher: &'a Arc<Fetcher>,
    object: &'a Object,
    offset: i64,
    max_bytes: u64,
    position: u64,
    /// First unit that was fetched, and the units from there on.
    first_unit: u32,
    units: Vec<Bytes>,
    /// Ranges of the body with whole batches, each inside one unit or one batch.
    spans: Vec<Range<u64>>,
    taken_bytes: u64,
    next_offset: Option<i64>,
}

impl<'a> Scan<'a> {
    fn new(fetcher: &'a Arc<Fetcher>, object: &'a Object, offset: i64, max_bytes: usize) -> Scan<'a> {
        let position = object.footer.position_of(offset);
        Scan {
            fetcher,
            object,
            offset,
            max_bytes: max_bytes as u64,
            position,
            first_unit: object.units(position..position + 1).start,
            units: Vec::new(),
            spans: Vec::new(),
            taken_bytes: 0,
            next_offset: None,
        }
    }

    fn corrupt(&self, reason: String) -> FetchError {
        FetchError::Corrupt {
            key: self.object.key.clone(),
            reason,
        }
    }

    /// Collects batches until `max_bytes` or the end of the object; at least one if there is one.
    async fn run(&mut self) -> Result<(), FetchError> {
        let body_bytes = self.object.footer.body_bytes;
        self.fetch_until(self.position.saturating_add(self.max_bytes.max(1))).await?;
        while self.position < body_bytes {
            let header_end = self.position + HEADER_BYTES as u64;
            if header_end > self.fetched_until() {
                if self.next_offset.is_some() {
                    break;
                }
                self.fetch_until(header_end).await?;
            }
            let header_bytes = self.gather(&(self.position..header_end.min(body_bytes)))?;
            let position = self.position;
            let header = BatchHeader::parse(&header_bytes).map_err(|error| self.corrupt(format!("at byte {position}: {error}")))?;
            let end = position.saturating_add(header.size);
            if end > body_bytes {
                return Err(self.corrupt(format!("the batch at byte {position} is cut off")));
            }
            if header.next_offset > self.offset && !self.take(position..end, &header).await? {
                break;
            }
            self.position = end;
        }
        Ok(())
    }

    /// Takes a batch if it fits; the first one always does.
    async fn take(&mut self, range: Range<u64>, header: &BatchHeader) -> Result<bool, FetchError> {
        if self.next_offset.is_some() && (self.taken_bytes.saturating_add(header.size) > self.max_bytes || range.end > self.fetched_until())
        {
            return Ok(false);
        }
        self.fetch_until(range.end).await?;
        self.taken_bytes += header.size;
        self.next_offset = Some(header.next_offset);
        let unit_bytes = self.object.unit_bytes();
        match self.spans.last_mut() {
            Some(span) if span.end == range.start && span.start / unit_bytes == (range.end - 1) / unit_bytes => span.end = range.end,
            Some(_) | None => self.spans.push(range),
        }
        Ok(true)
    }

    fn fetched_until(&self) -> u64 {
        let units = u64::from(self.first_unit) + self.units.len() as u64;
        (units * self.object.unit_bytes()).min(self.object.footer.body_bytes)
    }

    async fn fetch_until(&mut self, end: u64) -> Result<(), FetchError> {
        let start = self.fetched_until();
        if end > start {
            let units = self.object.units(start..end);
            self.units.extend(self.fetcher.units(self.object, units).await?);
        }
        Ok(())
    }

    /// The bytes of a range: a slice of a unit, or a copy if the range spans several.
    fn gather(&self, range: &Range<u64>) -> Result<Bytes, FetchError> {
        let unit_bytes = self.object.unit_bytes();
        let mut copied = BytesMut::new();
        let mut at = range.start;
        while at < range.end {
            let unit_start = at - at % unit_bytes;
            let end = range.end.min(unit_start + unit_bytes);
            let index = usize::try_from(at / unit_bytes - u64::from(self.first_unit)).ok();
            let unit = index.and_then(|index| self.units.get(index));
            // Both are below the size of a unit, which fits 32 bits.
            let (from, to) = ((at - unit_start) as usize, (end - unit_start) as usize);
            let Some(unit) = unit.filter(|unit| to <= unit.len()) else {
                return Err(self.corrupt(format!("no unit holds byte {at}")));
            };
            if at == range.start && end == range.end {
                return Ok(unit.slice(from..to));
            }
            copied.extend_from_slice(unit.get(from..to).unwrap_or_default());
            at = end;
        }
        Ok(copied.freeze())
    }

    fn cut(&self) -> Result<Vec<Bytes>, FetchError> {
        self.spans.iter().map(|span| self.gather(span)).collect()
    }
}
