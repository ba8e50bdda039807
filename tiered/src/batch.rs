//! The header of a Kafka record batch, format v2: as much of it as a tier needs to cut a run of batches apart.
//!
//! ```text
//! 0 base_offset i64 | 8 batch_length i32 | 12 leader_epoch i32 | 16 magic i8 | 17 crc u32 | 21 attributes i16
//! 23 last_offset_delta i32 | 27 base_timestamp i64 | 35 max_timestamp i64 | 43 producer … | 57 record_count i32 | 61 records
//! ```
//! `batch_length` counts from byte 12; the CRC-32C covers everything from byte 21. All numbers are big-endian.

use thiserror::Error;

/// Size of the header in bytes.
pub(crate) const HEADER_BYTES: usize = 61;
/// The first byte that the batch's CRC covers.
pub(crate) const CRC_START: usize = 21;
const LENGTH_PREFIX_BYTES: i64 = 12;

/// Why bytes are not a batch header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BatchError {
    /// Fewer bytes than a header has.
    #[error("batch header is cut off")]
    Truncated,
    /// Not a v2 batch.
    #[error("batch has magic {0}")]
    Magic(i8),
    /// The length cannot hold a header.
    #[error("batch has length {0}")]
    Length(i32),
    /// Offsets are negative or overflow.
    #[error("batch at offset {base_offset} has last offset delta {last_offset_delta}")]
    Offsets {
        /// First offset.
        base_offset: i64,
        /// Last offset relative to it.
        last_offset_delta: i32,
    },
}

/// The parts of a batch header that a tier looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    /// First offset.
    pub base_offset: i64,
    /// First offset after the batch (exclusive end).
    pub next_offset: i64,
    /// Size of the whole batch in bytes, header included.
    pub size: u64,
    /// CRC-32C of everything from `CRC_START`.
    pub crc: u32,
    /// Timestamp of the first record in milliseconds.
    pub base_timestamp: i64,
    /// Largest timestamp in milliseconds.
    pub max_timestamp: i64,
    /// Number of records.
    pub records: u64,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let base_offset = i64::from_be_bytes(field(bytes, 0)?);
        let length = i32::from_be_bytes(field(bytes, 8)?);
        let magic = i8::from_be_bytes(field(bytes, 16)?);
        let last_offset_delta = i32::from_be_bytes(field(bytes, 23)?);
        let records = i32::from_be_bytes(field(bytes, 57)?);
        if magic != 2 {
            return Err(BatchError::Magic(magic));
        }
        let size = u64::try_from(i64::from(length) + LENGTH_PREFIX_BYTES).map_err(|_| BatchError::Length(length))?;
        if size < HEADER_BYTES as u64 {
            return Err(BatchError::Length(length));
        }
        let offsets = BatchError::Offsets {
            base_offset,
            last_offset_delta,
        };
        if base_offset < 0 || last_offset_delta < 0 {
            return Err(offsets);
        }
        let next_offset = base_offset.checked_add(i64::from(last_offset_delta) + 1).ok_or(offsets)?;
        Ok(BatchHeader {
            base_offset,
            next_offset,
            size,
            crc: u32::from_be_bytes(field(bytes, 17)?),
            base_timestamp: i64::from_be_bytes(field(bytes, 27)?),
            max_timestamp: i64::from_be_bytes(field(bytes, 35)?),
            records: u64::try_from(records).unwrap_or(0),
        })
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], BatchError> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .ok_or(BatchError::Truncated)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testkit::batch;

    #[test]
    fn header_of_a_batch_says_its_range_and_size() {
        let bytes = batch(40, 3, 1_000, 100);
        let header = BatchHeader::parse(&bytes).unwrap();
        assert_eq!((header.base_offset, header.next_offset, header.records), (40, 43, 3));
        assert_eq!(header.size, bytes.len() as u64);
        assert_eq!(
            u64::from(header.crc),
            crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[CRC_START..])
        );
    }

    #[test]
    fn negative_offsets_and_short_lengths_are_refused() {
        let mut bytes = batch(0, 1, 0, 10).to_vec();
        bytes[8..12].copy_from_slice(&48_i32.to_be_bytes());
        assert_eq!(BatchHeader::parse(&bytes), Err(BatchError::Length(48)));
        bytes[8..12].copy_from_slice(&49_i32.to_be_bytes());
        assert!(BatchHeader::parse(&bytes).is_ok());
        bytes[0..8].copy_from_slice(&i64::MAX.to_be_bytes());
        assert!(matches!(BatchHeader::parse(&bytes), Err(BatchError::Offsets { .. })));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = BatchHeader::parse(&bytes);
        }
    }
}
