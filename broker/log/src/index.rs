//! The sparse index of a segment: in memory while the segment grows, in a file once it is sealed.
//!
//! ```text
//! header 72 B: magic "MSIDX\0\0\1" | base offset i64 | next offset i64 | log length u64 | min timestamp i64 |
//!              max timestamp i64 | base offset of the batch with the max timestamp i64 | entry count u32 | flags u32 | crc u32 | 0 u32
//! entries 16 B each: relative offset u32 | position u32 | prefix max timestamp i64
//! ```
//! All numbers big-endian. Flag 1: some batch holds no records. The CRC-32C covers the header's first 64 bytes and all entries. An entry stands for the batch at
//! `position`; its prefix max timestamp is the largest timestamp of all batches *before* it, so both columns ascend and one
//! binary search serves offsets, positions and timestamps.

use std::{io, path::Path, sync::Arc};

use crate::disk::{Disk, DiskFile, FileMode, read_exact_at, replace_file_unsynced};

const MAGIC: [u8; 8] = *b"MSIDX\0\0\x01";
const HEADER_LEN: usize = 72;
const FLAG_EMPTY_BATCHES: u32 = 1;
const ENTRY_LEN: usize = 16;

/// What a segment's index says of the segment as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    pub base_offset: i64,
    pub next_offset: i64,
    pub log_len: u64,
    pub min_timestamp: i64,
    pub max_timestamp: i64,
    pub max_timestamp_batch: i64,
    pub has_empty_batches: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub relative_offset: u32,
    pub position: u32,
    pub prefix_max_timestamp: i64,
}

/// Entries of a segment, in order.
#[derive(Debug)]
pub(crate) enum Entries {
    Memory(Vec<IndexEntry>),
    File { file: Arc<dyn DiskFile>, count: usize },
}

impl Entries {
    fn count(&self) -> usize {
        match self {
            Self::Memory(entries) => entries.len(),
            Self::File { count, .. } => *count,
        }
    }

    fn get(&self, index: usize) -> io::Result<IndexEntry> {
        match self {
            Self::Memory(entries) => entries.get(index).copied().ok_or_else(|| io::ErrorKind::UnexpectedEof.into()),
            Self::File { file, .. } => {
                let mut bytes = [0; ENTRY_LEN];
                read_exact_at(&**file, &mut bytes, (HEADER_LEN + index * ENTRY_LEN) as u64)?;
                Ok(decode_entry(&bytes))
            }
        }
    }

    /// The last entry that satisfies a predicate which holds for a prefix of the entries.
    pub fn last_where(&self, holds: impl Fn(&IndexEntry) -> bool) -> io::Result<Option<IndexEntry>> {
        let (mut low, mut high) = (0, self.count());
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.get(middle)?;
            if holds(&entry) {
                found = Some(entry);
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(found)
    }

    fn all(&self) -> io::Result<Vec<IndexEntry>> {
        (0..self.count()).map(|index| self.get(index)).collect()
    }
}

fn decode_entry(bytes: &[u8; ENTRY_LEN]) -> IndexEntry {
    let [a, b, c, d, e, f, g, h, timestamp @ ..] = *bytes;
    IndexEntry {
        relative_offset: u32::from_be_bytes([a, b, c, d]),
        position: u32::from_be_bytes([e, f, g, h]),
        prefix_max_timestamp: i64::from_be_bytes(timestamp),
    }
}

/// Writes an index file; the caller syncs the directory.
pub(crate) fn write(disk: &dyn Disk, path: &Path, summary: &Summary, entries: &Entries) -> io::Result<()> {
    let entries = entries.all()?;
    let mut bytes = Vec::with_capacity(HEADER_LEN + entries.len() * ENTRY_LEN);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&summary.base_offset.to_be_bytes());
    bytes.extend_from_slice(&summary.next_offset.to_be_bytes());
    bytes.extend_from_slice(&summary.log_len.to_be_bytes());
    bytes.extend_from_slice(&summary.min_timestamp.to_be_bytes());
    bytes.extend_from_slice(&summary.max_timestamp.to_be_bytes());
    bytes.extend_from_slice(&summary.max_timestamp_batch.to_be_bytes());
    bytes.extend_from_slice(&u32::try_from(entries.len()).map_err(io::Error::other)?.to_be_bytes());
    let flags = if summary.has_empty_batches { FLAG_EMPTY_BATCHES } else { 0 };
    bytes.extend_from_slice(&flags.to_be_bytes());
    bytes.extend_from_slice(&[0; 8]);
    for entry in &entries {
        bytes.extend_from_slice(&entry.relative_offset.to_be_bytes());
        bytes.extend_from_slice(&entry.position.to_be_bytes());
        bytes.extend_from_slice(&entry.prefix_max_timestamp.to_be_bytes());
    }
    let crc = crc_of(&bytes);
    bytes[64..68].copy_from_slice(&crc.to_be_bytes());
    replace_file_unsynced(disk, path, &bytes)
}

fn crc_of(bytes: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&bytes[..64]);
    digest.update(&bytes[HEADER_LEN..]);
    // A CRC-32C fits its 32 bits; the library hands out every width as u64.
    digest.finalize() as u32
}

/// Opens an index file; `None` if it is missing or does not describe a log of `base_offset` and `log_len`: it is derived, so
/// the caller rebuilds it. With `load`, the entries are read into memory and the CRC is checked.
pub(crate) fn open(disk: &dyn Disk, path: &Path, base_offset: i64, log_len: u64, load: bool) -> io::Result<Option<(Summary, Entries)>> {
    let file = match disk.open(path, FileMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let file_len = file.len()?;
    let mut header = [0; HEADER_LEN];
    if file_len < HEADER_LEN as u64 {
        return Ok(None);
    }
    read_exact_at(&*file, &mut header, 0)?;
    let number = |start: usize| i64::from_be_bytes(std::array::from_fn(|index| header[start + index]));
    let count = u32::from_be_bytes(std::array::from_fn(|index| header[56 + index])) as usize;
    let summary = Summary {
        base_offset: number(8),
        next_offset: number(16),
        log_len: number(24).cast_unsigned(),
        min_timestamp: number(32),
        max_timestamp: number(40),
        max_timestamp_batch: number(48),
        has_empty_batches: header[63] & 1 != 0,
    };
    let whole = header[..8] == MAGIC && file_len == (HEADER_LEN + count * ENTRY_LEN) as u64;
    if !whole || summary.base_offset != base_offset || summary.log_len != log_len || summary.next_offset < base_offset {
        return Ok(None);
    }
    if !load {
        return Ok(Some((summary, Entries::File { file, count })));
    }
    let mut bytes = vec![0; HEADER_LEN + count * ENTRY_LEN];
    read_exact_at(&*file, &mut bytes, 0)?;
    if crc_of(&bytes).to_be_bytes() != bytes[64..68] {
        return Ok(None);
    }
    let (entries, _) = bytes[HEADER_LEN..].as_chunks::<ENTRY_LEN>();
    Ok(Some((summary, Entries::Memory(entries.iter().map(decode_entry).collect()))))
}
