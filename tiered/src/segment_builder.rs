//! Turns a stream of record batches into a segment object's footer, checking every batch on the way.
//!
//! What goes to the bucket is soon deleted locally, so this is the last moment to notice a damaged log: a batch with a bad CRC or
//! out of order stops the upload (I1).

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use millstream_log::remote::EpochEntry;
use thiserror::Error;

use crate::{
    batch::{BatchError, BatchHeader, CRC_START, HEADER_BYTES},
    segment::{Footer, INDEX_INTERVAL_BYTES, IndexEntry, SegmentMeta},
};

/// Why a run of bytes is not a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SegmentError {
    /// A batch header does not parse.
    #[error("batch at byte {position}: {reason}")]
    Batch {
        /// Where the batch starts.
        position: u64,
        /// What is wrong.
        reason: BatchError,
    },
    /// A batch's checksum does not match.
    #[error("batch at byte {position} has a bad crc")]
    Crc {
        /// Where the batch starts.
        position: u64,
    },
    /// A batch overlaps another one or lies outside the segment.
    #[error("batch {base_offset}..{next_offset} at byte {position} is out of order")]
    Order {
        /// Where the batch starts.
        position: u64,
        /// Its first offset.
        base_offset: i64,
        /// First offset after it.
        next_offset: i64,
    },
    /// The bytes end inside a batch.
    #[error("segment ends inside the batch at byte {position}")]
    CutOff {
        /// Where the batch starts.
        position: u64,
    },
}

/// The batch that is passing through.
struct Passing {
    header: BatchHeader,
    position: u64,
    remaining: u64,
    digest: Digest,
}

/// Collects what a footer says while the body passes through.
pub(crate) struct SegmentBuilder {
    meta: SegmentMeta,
    position: u64,
    /// First offset that the next batch may have.
    expected_offset: i64,
    header: Vec<u8>,
    passing: Option<Passing>,
    index: Vec<IndexEntry>,
    unit_crcs: Vec<u32>,
    unit_filled: usize,
    unit_digest: Digest,
    body_digest: Digest,
}

impl SegmentBuilder {
    /// A builder for the batches of `meta.base_offset..meta.next_offset`; its counts and timestamps are filled in.
    pub fn new(meta: SegmentMeta) -> SegmentBuilder {
        let expected_offset = meta.base_offset;
        SegmentBuilder {
            meta: SegmentMeta {
                batches: 0,
                records: 0,
                min_timestamp: -1,
                max_timestamp: -1,
                ..meta
            },
            position: 0,
            expected_offset,
            header: Vec::with_capacity(HEADER_BYTES),
            passing: None,
            index: Vec::new(),
            unit_crcs: Vec::new(),
            unit_filled: 0,
            unit_digest: digest(),
            body_digest: digest(),
        }
    }

    /// Takes the next bytes of the body, cut anywhere.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), SegmentError> {
        self.body_digest.update(bytes);
        self.push_units(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = match self.passing.take() {
                None => self.take_header(rest)?,
                Some(passing) => self.take_records(passing, rest)?,
            };
            self.position += taken as u64;
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    fn push_units(&mut self, mut bytes: &[u8]) {
        let unit_bytes = self.meta.unit_bytes as usize;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(unit_bytes - self.unit_filled));
            self.unit_digest.update(now);
            self.unit_filled += now.len();
            if self.unit_filled == unit_bytes {
                self.close_unit();
            }
            bytes = later;
        }
    }

    fn close_unit(&mut self) {
        self.unit_crcs.push(finish(&mut self.unit_digest));
        self.unit_filled = 0;
    }

    fn take_header(&mut self, rest: &[u8]) -> Result<usize, SegmentError> {
        let (part, _) = rest.split_at(rest.len().min(HEADER_BYTES - self.header.len()));
        let start = self.position - self.header.len() as u64;
        self.header.extend_from_slice(part);
        if self.header.len() == HEADER_BYTES {
            let header = BatchHeader::parse(&self.header).map_err(|reason| SegmentError::Batch { position: start, reason })?;
            self.begin_batch(header, start)?;
        }
        Ok(part.len())
    }

    fn begin_batch(&mut self, header: BatchHeader, position: u64) -> Result<(), SegmentError> {
        let BatchHeader {
            base_offset,
            next_offset,
            max_timestamp,
            base_timestamp,
            ..
        } = header;
        if base_offset < self.expected_offset || next_offset > self.meta.next_offset {
            return Err(SegmentError::Order {
                position,
                base_offset,
                next_offset,
            });
        }
        self.expected_offset = next_offset;
        self.meta.batches += 1;
        self.meta.records += header.records;
        self.meta.max_timestamp = self.meta.max_timestamp.max(max_timestamp);
        if base_timestamp >= 0 && (self.meta.min_timestamp < 0 || base_timestamp < self.meta.min_timestamp) {
            self.meta.min_timestamp = base_timestamp;
        }
        match self.index.last_mut() {
            Some(entry) if position - entry.position < INDEX_INTERVAL_BYTES => entry.max_timestamp = entry.max_timestamp.max(max_timestamp),
            Some(_) | None => self.index.push(IndexEntry {
                base_offset,
                position,
                max_timestamp,
            }),
        }
        let mut digest = digest();
        digest.update(self.header.get(CRC_START..).unwrap_or_default());
        self.header.clear();
        let passing = Passing {
            header,
            position,
            remaining: header.size - HEADER_BYTES as u64,
            digest,
        };
        self.settle(passing)
    }

    fn take_records(&mut self, mut passing: Passing, rest: &[u8]) -> Result<usize, SegmentError> {
        let wanted = usize::try_from(passing.remaining).unwrap_or(usize::MAX);
        let (part, _) = rest.split_at(rest.len().min(wanted));
        passing.digest.update(part);
        passing.remaining -= part.len() as u64;
        self.settle(passing)?;
        Ok(part.len())
    }

    /// Keeps an unfinished batch, checks a finished one.
    fn settle(&mut self, mut passing: Passing) -> Result<(), SegmentError> {
        if passing.remaining > 0 {
            self.passing = Some(passing);
        } else if finish(&mut passing.digest) != passing.header.crc {
            return Err(SegmentError::Crc {
                position: passing.position,
            });
        }
        Ok(())
    }

    /// Ends the body and returns the footer.
    pub fn finish(mut self, epochs: Vec<EpochEntry>, producers: Bytes) -> Result<Footer, SegmentError> {
        if let Some(passing) = &self.passing {
            return Err(SegmentError::CutOff {
                position: passing.position,
            });
        }
        if !self.header.is_empty() {
            return Err(SegmentError::CutOff {
                position: self.position - self.header.len() as u64,
            });
        }
        if self.unit_filled > 0 {
            self.close_unit();
        }
        Ok(Footer {
            body_bytes: self.position,
            body_crc: finish(&mut self.body_digest),
            index: self.index,
            aborted: Vec::new(),
            producers,
            epochs,
            unit_crcs: self.unit_crcs,
            meta: self.meta,
        })
    }
}

fn digest() -> Digest {
    Digest::new(CrcAlgorithm::Crc32Iscsi)
}

fn finish(digest: &mut Digest) -> u32 {
    // A CRC-32C has 32 bits; the library returns every width as u64.
    u32::try_from(digest.finalize_reset()).unwrap_or_default()
}
