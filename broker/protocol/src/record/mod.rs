//! Kafka's record batch v2, the one format of wire, disk, tier and plugin input.
//!
//! ```text
//! offset  size  field                   covered by the CRC
//!      0     8  base offset             no: the leader assigns it
//!      8     4  batch length            no: bytes after this field
//!     12     4  partition leader epoch  no: the leader assigns it
//!     16     1  magic = 2               no
//!     17     4  CRC-32C of all that follows
//!     21     2  attributes              codec 0-2, timestamp type 3, transactional 4, control 5, delete horizon 6
//!     23     4  last offset delta
//!     27     8  base timestamp          milliseconds
//!     35     8  max timestamp           milliseconds
//!     43     8  producer id
//!     51     2  producer epoch
//!     53     4  base sequence
//!     57     4  record count
//!     61     -  record section, compressed as a whole
//! ```
//! A record is `length, attributes i8, timestamp delta, offset delta, key length, key, value length, value, header count,
//! headers`, where lengths, deltas and counts are zigzag varints and a length of -1 is null.
//! Source: Kafka documentation, "Record Batch" and "Record".

mod builder;
mod header;
mod marker;
mod reader;
mod varint;

pub use builder::{BatchBuilder, NewRecord, rebuild, rebuild_at};
pub use header::{
    BATCH_LENGTH_OVERHEAD, BatchHeader, NO_PRODUCER_ID, NO_SEQUENCE, TimestampType, assign_offsets, batch_len, set_append_time,
    split_batches, verify_crc,
};
pub use marker::Marker;
pub use reader::{Header, HeaderIter, Record, RecordIter};
pub use varint::{read_varint, read_varlong, write_varint, write_varlong};

/// Why bytes are not a valid batch or record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the batch says it has, or than a header needs.
    #[error("batch needs {needed} bytes, {available} are there")]
    Truncated {
        /// Bytes the batch claims.
        needed: usize,
        /// Bytes at hand.
        available: usize,
    },
    /// Another magic byte than 2.
    #[error("record format v{magic} is not supported, only v2 is")]
    Magic {
        /// The magic byte.
        magic: i8,
    },
    /// The checksum does not match.
    #[error("batch has crc {found:#010x}, its bytes have {computed:#010x}")]
    Crc {
        /// What the header says.
        found: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// A header field that cannot be.
    #[error("batch field {field} cannot be {value}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// Its value.
        value: i64,
    },
    /// A record that cannot be.
    #[error("record {index} of the batch is malformed at its {field}")]
    Record {
        /// Index of the record in the batch.
        index: i32,
        /// The part that is wrong.
        field: &'static str,
    },
}
