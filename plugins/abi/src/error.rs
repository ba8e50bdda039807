//! What can be wrong with bytes that cross the sandbox border.

/// A layout that does not hold. Positions count bytes from the start of the record section or of the verdict list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AbiError {
    /// A field reaches past the end of its input.
    #[error("{field} at byte {position} needs {needed} bytes, {left} are left")]
    Short {
        /// The field that was being read.
        field: &'static str,
        /// Where the field starts.
        position: usize,
        /// Bytes the field claims to have.
        needed: usize,
        /// Bytes that are there.
        left: usize,
    },
    /// A varint has more bits than its type.
    #[error("{field} at byte {position} is a varint that overflows its type")]
    Varint {
        /// The field that was being read.
        field: &'static str,
        /// Where the offending byte is.
        position: usize,
    },
    /// A length or count is negative where only -1 (null), or nothing below zero, is allowed.
    #[error("{field} at byte {position} has length {length}")]
    Length {
        /// The field that was being read.
        field: &'static str,
        /// Where the bytes after the length would start.
        position: usize,
        /// The length that was read.
        length: i64,
    },
    /// Text is not UTF-8.
    #[error("{field} at byte {position} is not utf-8")]
    NotUtf8 {
        /// The field that was being read.
        field: &'static str,
        /// Where the text starts.
        position: usize,
    },
    /// Bytes follow where the layout ends: after the last record, the last verdict, or the last header of a record.
    #[error("{left} bytes follow the last {field} at byte {position}")]
    Trailing {
        /// What should have been the last thing.
        field: &'static str,
        /// Where the surplus starts.
        position: usize,
        /// How many bytes there are too many.
        left: usize,
    },
    /// The number of verdicts is not the number of records.
    #[error("{found} verdicts for {expected} records")]
    Count {
        /// Records in the batch.
        expected: u32,
        /// Verdicts in the reply.
        found: u32,
    },
    /// The verdict list has a version that this crate does not know.
    #[error("verdict list version {version} is unknown")]
    Version {
        /// The version byte.
        version: u8,
    },
    /// The verdict list is neither `keep all` nor `per record`.
    #[error("verdict list kind {kind} is unknown")]
    Kind {
        /// The kind byte.
        kind: u8,
    },
    /// A verdict's tag is unknown, or reserved for another hook.
    #[error("verdict {index} has unknown tag {tag}")]
    Tag {
        /// Which verdict, counted from zero.
        index: u32,
        /// The tag byte.
        tag: u8,
    },
    /// A replacement names parts that records do not have.
    #[error("verdict {index} replaces unknown parts {parts:#010b}")]
    Parts {
        /// Which verdict, counted from zero.
        index: u32,
        /// The bit mask of parts.
        parts: u8,
    },
    /// A writer was given more bytes than a 32-bit length can say.
    #[error("{field} of {bytes} bytes is too long for its length field")]
    TooLong {
        /// The field that was to be written.
        field: &'static str,
        /// Its size.
        bytes: usize,
    },
}
