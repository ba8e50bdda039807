//! The fixed 61 bytes of a batch, read without touching its records.

use bytes::Bytes;

use super::BatchError;
use crate::compression::Compression;

/// Bytes before the part that the batch length counts.
pub const BATCH_LENGTH_OVERHEAD: usize = 12;
/// The producer id of batches from producers that are not idempotent.
pub const NO_PRODUCER_ID: i64 = -1;
/// The sequence of batches from producers that are not idempotent.
pub const NO_SEQUENCE: i32 = -1;

const CRC_START: usize = 21;
const TIMESTAMP_TYPE: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;
const DELETE_HORIZON: i16 = 1 << 6;

/// What a batch's timestamps mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// Set by the producer.
    CreateTime,
    /// Set by the broker when it appended the batch; every record has the batch's max timestamp.
    LogAppendTime,
}

/// The header of a record batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record (as first written: compaction may have removed it).
    pub base_offset: i64,
    /// Bytes after this field.
    pub batch_length: i32,
    /// Epoch of the leader that appended the batch, -1 from producers.
    pub partition_leader_epoch: i32,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Codec and flags.
    pub attributes: i16,
    /// Offset of the last record relative to the first.
    pub last_offset_delta: i32,
    /// Timestamp that record deltas count from, in milliseconds.
    pub base_timestamp: i64,
    /// Largest timestamp of the batch in milliseconds.
    pub max_timestamp: i64,
    /// Producer id, or -1.
    pub producer_id: i64,
    /// Producer epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence number of the first record, or -1.
    pub base_sequence: i32,
    /// Number of records in the record section.
    pub record_count: i32,
}

impl BatchHeader {
    /// Size of a batch's fixed part in bytes.
    pub const SIZE: usize = 61;

    /// Reads the header at the start of `bytes` and checks the fields on which reading on depends: magic and lengths.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(fixed) = bytes.first_chunk::<{ Self::SIZE }>() else {
            return Err(BatchError::Truncated {
                needed: Self::SIZE,
                available: bytes.len(),
            });
        };
        let magic = fixed[16].cast_signed();
        if magic != 2 {
            return Err(BatchError::Magic { magic });
        }
        let header = Self {
            base_offset: i64::from_be_bytes(field(fixed, 0)),
            batch_length: i32::from_be_bytes(field(fixed, 8)),
            partition_leader_epoch: i32::from_be_bytes(field(fixed, 12)),
            crc: u32::from_be_bytes(field(fixed, 17)),
            attributes: i16::from_be_bytes(field(fixed, 21)),
            last_offset_delta: i32::from_be_bytes(field(fixed, 23)),
            base_timestamp: i64::from_be_bytes(field(fixed, 27)),
            max_timestamp: i64::from_be_bytes(field(fixed, 35)),
            producer_id: i64::from_be_bytes(field(fixed, 43)),
            producer_epoch: i16::from_be_bytes(field(fixed, 51)),
            base_sequence: i32::from_be_bytes(field(fixed, 53)),
            record_count: i32::from_be_bytes(field(fixed, 57)),
        };
        if header.batch_length < (Self::SIZE - BATCH_LENGTH_OVERHEAD) as i32 {
            return Err(BatchError::Field {
                field: "length",
                value: i64::from(header.batch_length),
            });
        }
        if header.last_offset_delta < 0 {
            return Err(BatchError::Field {
                field: "last offset delta",
                value: i64::from(header.last_offset_delta),
            });
        }
        if header.record_count < 0 {
            return Err(BatchError::Field {
                field: "record count",
                value: i64::from(header.record_count),
            });
        }
        Ok(header)
    }

    /// Writes the header (magic 2) over the first 61 bytes of `output`.
    pub fn write(&self, output: &mut [u8; Self::SIZE]) {
        output[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        output[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        output[12..16].copy_from_slice(&self.partition_leader_epoch.to_be_bytes());
        output[16] = 2;
        output[17..21].copy_from_slice(&self.crc.to_be_bytes());
        output[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        output[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        output[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        output[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        output[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        output[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        output[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        output[57..61].copy_from_slice(&self.record_count.to_be_bytes());
    }

    /// Size of the whole batch in bytes.
    pub fn size(&self) -> usize {
        BATCH_LENGTH_OVERHEAD + usize::try_from(self.batch_length).unwrap_or(0)
    }

    /// Offset of the last record (inclusive).
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// First offset after the batch.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// Sequence number of the last record; wraps from 2^31-1 to 0 (KIP-98).
    pub fn last_sequence(&self) -> i32 {
        self.base_sequence.wrapping_add(self.last_offset_delta) & i32::MAX
    }

    /// The codec of the record section.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        Compression::from_attributes(self.attributes).ok_or(BatchError::Field {
            field: "codec",
            value: i64::from(self.attributes & 7),
        })
    }

    /// What the timestamps mean.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & TIMESTAMP_TYPE == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Sets what the timestamps mean. The CRC must be computed anew.
    pub fn set_timestamp_type(&mut self, timestamp_type: TimestampType) {
        match timestamp_type {
            TimestampType::CreateTime => self.attributes &= !TIMESTAMP_TYPE,
            TimestampType::LogAppendTime => self.attributes |= TIMESTAMP_TYPE,
        }
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether the batch holds a control record (a transaction marker).
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whether the base timestamp is a delete horizon (set by compaction only, KIP-534).
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON != 0
    }

    /// Whether the batch comes from an idempotent or transactional producer.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id != NO_PRODUCER_ID
    }
}

fn field<const N: usize>(fixed: &[u8; BatchHeader::SIZE], start: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&fixed[start..start + N]);
    bytes
}

/// Size of the batch whose first 12 bytes (at least) are given; an error if the length cannot be.
pub fn batch_len(bytes: &[u8]) -> Result<usize, BatchError> {
    let Some(length) = bytes.get(8..12).and_then(|bytes| bytes.first_chunk::<4>()) else {
        return Err(BatchError::Truncated {
            needed: BATCH_LENGTH_OVERHEAD,
            available: bytes.len(),
        });
    };
    let length = i32::from_be_bytes(*length);
    match usize::try_from(length) {
        Ok(length) if length >= BatchHeader::SIZE - BATCH_LENGTH_OVERHEAD => Ok(BATCH_LENGTH_OVERHEAD + length),
        _ => Err(BatchError::Field {
            field: "length",
            value: i64::from(length),
        }),
    }
}

/// CRC-32C over the covered part of a whole batch.
pub(super) fn compute_crc(batch: &[u8]) -> u32 {
    let covered = batch.get(CRC_START..).unwrap_or_default();
    // The CRC-32C value fits its 32 bits; the library hands out every width as u64.
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, covered) as u32
}

/// Checks a whole batch's CRC.
pub fn verify_crc(batch: &[u8]) -> Result<(), BatchError> {
    let found = BatchHeader::parse(batch)?.crc;
    let computed = compute_crc(batch);
    if found == computed {
        Ok(())
    } else {
        Err(BatchError::Crc { found, computed })
    }
}

/// Writes what the leader assigns into a whole batch: base offset and leader epoch. Neither is covered by the CRC.
pub fn assign_offsets(batch: &mut [u8], base_offset: i64, leader_epoch: i32) {
    batch[0..8].copy_from_slice(&base_offset.to_be_bytes());
    batch[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
}

/// Gives a whole batch the broker's append time (`LogAppendTime`): timestamp type, max timestamp and CRC.
pub fn set_append_time(batch: &mut [u8], timestamp_ms: i64) {
    let attributes = i16::from_be_bytes([batch[21], batch[22]]) | TIMESTAMP_TYPE;
    batch[21..23].copy_from_slice(&attributes.to_be_bytes());
    batch[35..43].copy_from_slice(&timestamp_ms.to_be_bytes());
    let crc = compute_crc(batch);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// Splits concatenated whole batches; ends after the first error.
pub fn split_batches(records: Bytes) -> impl Iterator<Item = Result<(BatchHeader, Bytes), BatchError>> {
    let mut rest = Some(records);
    std::iter::from_fn(move || {
        let mut bytes = rest.take()?;
        if bytes.is_empty() {
            return None;
        }
        let header = match BatchHeader::parse(&bytes) {
            Ok(header) => header,
            Err(error) => return Some(Err(error)),
        };
        if header.size() > bytes.len() {
            return Some(Err(BatchError::Truncated {
                needed: header.size(),
                available: bytes.len(),
            }));
        }
        let batch = bytes.split_to(header.size());
        rest = Some(bytes);
        Some(Ok((header, batch)))
    })
}
