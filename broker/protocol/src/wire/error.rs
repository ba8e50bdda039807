//! What can be wrong with bytes from the wire, or with a message that is to be written.

/// Why bytes are not the message they claim to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// A field reaches past the end of the frame.
    #[error("need {needed} bytes at byte {position}, {remaining} remain")]
    Truncated {
        /// Where the field starts.
        position: usize,
        /// Bytes the field claims.
        needed: usize,
        /// Bytes left in the frame.
        remaining: usize,
    },
    /// An array claims more elements than bytes remain.
    #[error("array of {count} elements at byte {position}, {remaining} bytes remain")]
    ArrayTooLong {
        /// Where the elements start.
        position: usize,
        /// Elements claimed.
        count: usize,
        /// Bytes left in the frame.
        remaining: usize,
    },
    /// A length below -1.
    #[error("negative length {length} at byte {position}")]
    NegativeLength {
        /// Just behind the length.
        position: usize,
        /// The length.
        length: i32,
    },
    /// A string longer than 32767 bytes.
    #[error("string of {length} bytes at byte {position}")]
    StringTooLong {
        /// Where the string starts.
        position: usize,
        /// Its length in bytes.
        length: usize,
    },
    /// Null where the version does not allow it.
    #[error("null for a required value at byte {position}")]
    UnexpectedNull {
        /// Just behind the null.
        position: usize,
    },
    /// A varint that does not end within 5 bytes, or overflows 32 bits.
    #[error("malformed varint at byte {position}")]
    Varint {
        /// Where the varint starts.
        position: usize,
    },
    /// A string that is not UTF-8.
    #[error("string at byte {position} is not utf-8")]
    Utf8 {
        /// Where the string starts.
        position: usize,
    },
    /// A tagged field whose content is shorter or longer than its size says.
    #[error("tagged field {tag} ends at byte {position}, its size says {expected}")]
    TagSize {
        /// The tag.
        tag: u32,
        /// Where its content ends.
        position: usize,
        /// Where its size says it ends.
        expected: usize,
    },
    /// The values would take more memory than the frame is worth.
    #[error("allocation budget spent at byte {position}: {needed} bytes wanted, {left} left")]
    Budget {
        /// Where decoding stopped.
        position: usize,
        /// Bytes wanted.
        needed: usize,
        /// Bytes left in the budget.
        left: usize,
    },
    /// A version the schema does not describe.
    #[error("{message} has no version {version}")]
    UnsupportedVersion {
        /// Name of the message.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
}

/// Why a message cannot be written in a version.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// A field carries something that this version cannot say.
    #[error("field {field} cannot be sent in version {version}")]
    UnsupportedField {
        /// The field.
        field: &'static str,
        /// The version.
        version: i16,
    },
    /// Null where the version does not allow it.
    #[error("field {field} cannot be null in version {version}")]
    UnexpectedNull {
        /// The field.
        field: &'static str,
        /// The version.
        version: i16,
    },
    /// A length that its length field cannot hold.
    #[error("length {length} above {max}")]
    TooLong {
        /// Bytes or elements.
        length: usize,
        /// The largest length allowed.
        max: usize,
    },
    /// Records in a file, where plain memory was asked for.
    #[error("{message} holds a file range")]
    FileRange {
        /// Name of the message.
        message: &'static str,
    },
    /// A version the schema does not describe.
    #[error("{message} has no version {version}")]
    UnsupportedVersion {
        /// Name of the message.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
}
