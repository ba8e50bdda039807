//! The segment object `.mseg`: record batches as they are in the local log, followed by everything needed to read them.
//!
//! ```text
//! body      record batches, byte-identical to the local log
//! footer    six sections, each `length u32 | bytes`:
//!           index     entries { base_offset i64, position u64, max_timestamp i64 }, one per 64 KiB of body
//!           aborted   entries { producer_id i64, first_offset i64, last_offset i64 }
//!           producers the producer-state snapshot at `next_offset`, opaque
//!           epochs    entries { epoch i32, start_offset i64 }
//!           units     CRC-32C of each unit of the body, u32 each
//!           meta      JSON: who wrote it and what it holds
//! trailer   40 B: footer_pos u64, footer_len u32, footer_crc u32, body_crc u32, version u16, flags u16, reserved u64, magic
//! ```
//! Numbers are big-endian. One PUT stores data and indexes together, and a head can be rebuilt from the objects alone.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use millstream_log::remote::EpochEntry;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::envelope::{FormatError, crc32c};

/// Size of the trailer in bytes.
pub(crate) const TRAILER_BYTES: usize = 40;
/// Distance of index entries in bytes of body.
pub(crate) const INDEX_INTERVAL_BYTES: u64 = 64 << 10;
/// Smallest unit of checksum and cache in bytes.
pub(crate) const UNIT_BYTES_MIN: u32 = 4 << 10;
/// Largest unit of checksum and cache in bytes.
pub(crate) const UNIT_BYTES_MAX: u32 = 16 << 20;
/// Largest footer in bytes that is read.
pub(crate) const FOOTER_BYTES_MAX: u32 = 64 << 20;

const MAGIC: [u8; 8] = *b"MSSEG\0\0\x01";
const VERSION: u16 = 1;
const INDEX_ENTRY_BYTES: usize = 24;
const ABORTED_ENTRY_BYTES: usize = 24;
const EPOCH_ENTRY_BYTES: usize = 12;

/// A point in the body where a batch starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// First offset of the batch there.
    pub base_offset: i64,
    /// Where it starts in the body.
    pub position: u64,
    /// Largest timestamp from here to the next entry, in milliseconds.
    pub max_timestamp: i64,
}

/// A transaction that was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AbortedTransaction {
    /// Its producer.
    pub producer_id: i64,
    /// First offset of the transaction.
    pub first_offset: i64,
    /// Offset of its abort marker.
    pub last_offset: i64,
}

/// The JSON part of a footer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentMeta {
    /// Cluster of the uploader.
    pub cluster_id: String,
    /// The topic.
    pub topic_id: String,
    /// The partition's number.
    pub partition: i32,
    /// Leader epoch of the uploader.
    pub epoch: i32,
    /// First offset.
    pub base_offset: i64,
    /// First offset after the segment.
    pub next_offset: i64,
    /// Smallest first-record timestamp of a batch in milliseconds, -1 if there is none.
    pub min_timestamp: i64,
    /// Largest timestamp in milliseconds, -1 if there is none.
    pub max_timestamp: i64,
    /// Number of batches.
    pub batches: u64,
    /// Number of records.
    pub records: u64,
    /// Unit of checksum in bytes.
    pub unit_bytes: u32,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The footer of a segment object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Footer {
    /// Size of the body in bytes.
    pub body_bytes: u64,
    /// CRC-32C of the body.
    pub body_crc: u32,
    /// Offset and time index.
    pub index: Vec<IndexEntry>,
    /// Aborted transactions with records in the body.
    pub aborted: Vec<AbortedTransaction>,
    /// Producer state at `next_offset`, empty if unknown.
    pub producers: Bytes,
    /// Leader epochs below `next_offset`.
    pub epochs: Vec<EpochEntry>,
    /// CRC-32C of each unit.
    pub unit_crcs: Vec<u32>,
    /// Everything else.
    pub meta: SegmentMeta,
}

/// The end of a segment object, which says where the footer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trailer {
    /// Where the footer starts, which is the size of the body.
    pub footer_pos: u64,
    /// Size of the footer in bytes.
    pub footer_len: u32,
    /// CRC-32C of the footer.
    pub footer_crc: u32,
    /// CRC-32C of the body.
    pub body_crc: u32,
}

fn inconsistent(reason: &'static str) -> FormatError {
    FormatError::Inconsistent {
        what: "segment footer",
        reason,
    }
}

impl Trailer {
    fn encode(self, out: &mut BytesMut) {
        out.put_u64(self.footer_pos);
        out.put_u32(self.footer_len);
        out.put_u32(self.footer_crc);
        out.put_u32(self.body_crc);
        out.put_u16(VERSION);
        out.put_u16(0);
        out.put_u64(0);
        out.put_slice(&MAGIC);
    }

    /// Reads the trailer at the end of `tail`, the last bytes of an object of `object_bytes`.
    pub fn decode(tail: &[u8], object_bytes: u64) -> Result<Trailer, FormatError> {
        let what = "segment trailer";
        let mut bytes = tail
            .last_chunk::<TRAILER_BYTES>()
            .ok_or(FormatError::Size {
                what,
                bytes: tail.len() as u64,
            })?
            .as_slice();
        let footer_pos = bytes.get_u64();
        let footer_len = bytes.get_u32();
        let footer_crc = bytes.get_u32();
        let body_crc = bytes.get_u32();
        let version = bytes.get_u16();
        let _flags = bytes.get_u16();
        let _reserved = bytes.get_u64();
        if bytes != MAGIC {
            return Err(FormatError::Magic { what });
        }
        if version > VERSION {
            return Err(FormatError::TooNew { what, needed: version });
        }
        let end = footer_pos
            .checked_add(u64::from(footer_len))
            .and_then(|end| end.checked_add(TRAILER_BYTES as u64));
        if end != Some(object_bytes) || footer_len > FOOTER_BYTES_MAX {
            return Err(FormatError::Inconsistent {
                what,
                reason: "footer does not end at the trailer",
            });
        }
        Ok(Trailer {
            footer_pos,
            footer_len,
            footer_crc,
            body_crc,
        })
    }
}

impl Footer {
    /// Encodes footer and trailer.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        section(&mut out, |out| {
            for entry in &self.index {
                out.put_i64(entry.base_offset);
                out.put_u64(entry.position);
                out.put_i64(entry.max_timestamp);
            }
        });
        section(&mut out, |out| {
            for entry in &self.aborted {
                out.put_i64(entry.producer_id);
                out.put_i64(entry.first_offset);
                out.put_i64(entry.last_offset);
            }
        });
        section(&mut out, |out| out.put_slice(&self.producers));
        section(&mut out, |out| {
            for entry in &self.epochs {
                out.put_i32(entry.epoch);
                out.put_i64(entry.start_offset);
            }
        });
        section(&mut out, |out| self.unit_crcs.iter().for_each(|crc| out.put_u32(*crc)));
        // A plain struct with string keys: JSON can hold it.
        let meta = serde_json::to_vec(&self.meta).unwrap_or_else(|error| panic!("segment meta does not serialize: {error}"));
        section(&mut out, |out| out.put_slice(&meta));
        let footer_len = u32::try_from(out.len()).ok().filter(|len| *len <= FOOTER_BYTES_MAX);
        let footer_len = footer_len.unwrap_or_else(|| panic!("segment footer of {} bytes is above its limit", out.len()));
        let trailer = Trailer {
            footer_pos: self.body_bytes,
            footer_len,
            footer_crc: crc32c(&out),
            body_crc: self.body_crc,
        };
        trailer.encode(&mut out);
        out.freeze()
    }

    /// Decodes and checks the footer that `trailer` points to.
    pub fn decode(trailer: Trailer, bytes: &Bytes) -> Result<Footer, FormatError> {
        if u32::try_from(bytes.len()) != Ok(trailer.footer_len) {
            return Err(FormatError::Size {
                what: "segment footer",
                bytes: bytes.len() as u64,
            });
        }
        if crc32c(bytes) != trailer.footer_crc {
            return Err(FormatError::Crc { what: "segment footer" });
        }
        let mut rest = bytes.clone();
        let index = entries(next_section(&mut rest)?, INDEX_ENTRY_BYTES, |bytes| IndexEntry {
            base_offset: bytes.get_i64(),
            position: bytes.get_u64(),
            max_timestamp: bytes.get_i64(),
        })?;
        let aborted = entries(next_section(&mut rest)?, ABORTED_ENTRY_BYTES, |bytes| AbortedTransaction {
            producer_id: bytes.get_i64(),
            first_offset: bytes.get_i64(),
            last_offset: bytes.get_i64(),
        })?;
        let producers = next_section(&mut rest)?;
        let epochs = entries(next_section(&mut rest)?, EPOCH_ENTRY_BYTES, |bytes| EpochEntry {
            epoch: bytes.get_i32(),
            start_offset: bytes.get_i64(),
        })?;
        let unit_crcs = entries(next_section(&mut rest)?, 4, Buf::get_u32)?;
        let meta: SegmentMeta = serde_json::from_slice(&next_section(&mut rest)?).map_err(|error| FormatError::Document {
            what: "segment meta",
            reason: error.to_string(),
        })?;
        let footer = Footer {
            body_bytes: trailer.footer_pos,
            body_crc: trailer.body_crc,
            index,
            aborted,
            producers,
            epochs,
            unit_crcs,
            meta,
        };
        footer.check()?;
        Ok(footer)
    }

    fn check(&self) -> Result<(), FormatError> {
        let meta = &self.meta;
        if meta.base_offset < 0 || meta.base_offset >= meta.next_offset {
            return Err(inconsistent("empty or negative offset range"));
        }
        if !(UNIT_BYTES_MIN..=UNIT_BYTES_MAX).contains(&meta.unit_bytes) {
            return Err(inconsistent("unit size out of range"));
        }
        if self.body_bytes.div_ceil(u64::from(meta.unit_bytes)) != self.unit_crcs.len() as u64 {
            return Err(inconsistent("number of unit checksums"));
        }
        let inside =
            |entry: &IndexEntry| entry.position < self.body_bytes && (meta.base_offset..meta.next_offset).contains(&entry.base_offset);
        let rising = |pair: &[IndexEntry]| matches!(pair, [a, b] if a.base_offset < b.base_offset && a.position < b.position);
        if !self.index.iter().all(inside) || !self.index.windows(2).all(rising) {
            return Err(inconsistent("index out of order"));
        }
        if self.index.first().map_or(self.body_bytes != 0, |first| first.position != 0) {
            return Err(inconsistent("index does not start with the body"));
        }
        Ok(())
    }

    /// Where to start reading to find the batch that holds `offset`.
    pub fn position_of(&self, offset: i64) -> u64 {
        let after = self.index.partition_point(|entry| entry.base_offset <= offset);
        after
            .checked_sub(1)
            .and_then(|at| self.index.get(at))
            .map_or(0, |entry| entry.position)
    }

    /// The first batch offset from which on a record at or after `timestamp` can be found.
    pub fn seek_timestamp(&self, timestamp: i64) -> Option<i64> {
        self.index
            .iter()
            .find(|entry| entry.max_timestamp >= timestamp)
            .map(|entry| entry.base_offset)
    }

    /// Memory that the footer takes, about.
    pub fn memory_bytes(&self) -> u64 {
        let entries = self.index.len() * INDEX_ENTRY_BYTES + self.unit_crcs.len() * 4 + self.epochs.len() * 16;
        (entries + self.producers.len() + 512) as u64
    }
}

fn section(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let at = out.len();
    out.put_u32(0);
    write(out);
    // The whole footer is below FOOTER_BYTES_MAX, or `encode` panics before anybody sees this length.
    let length = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
    if let Some(prefix) = out.get_mut(at..at + 4) {
        prefix.copy_from_slice(&length.to_be_bytes());
    }
}

fn next_section(rest: &mut Bytes) -> Result<Bytes, FormatError> {
    let cut_off = || inconsistent("section is cut off");
    let length = rest.try_get_u32().map_err(|_| cut_off())? as usize;
    if length > rest.len() {
        Err(cut_off())
    } else {
        Ok(rest.split_to(length))
    }
}

fn entries<T>(mut section: Bytes, entry_bytes: usize, read: impl Fn(&mut Bytes) -> T) -> Result<Vec<T>, FormatError> {
    if !section.len().is_multiple_of(entry_bytes) {
        return Err(inconsistent("section holds a fraction of an entry"));
    }
    Ok((0..section.len() / entry_bytes).map(|_| read(&mut section)).collect())
}

#[cfg(test)]
#[path = "segment_tests.rs"]
mod tests;
