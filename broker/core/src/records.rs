//! The binary form that all of Kafka's internal topics share: big-endian integers, lengths before strings, bytes and arrays; from a version on
//! compact lengths (unsigned varint of length + 1) and tagged fields.

use std::ops::RangeInclusive;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

/// The longest string that Kafka's record formats can hold, in bytes.
pub(crate) const RECORD_STRING_BYTES_MAX: usize = i16::MAX as usize;

/// A record that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordDecodeError {
    /// The bytes end inside a field.
    #[error("record ends inside a field")]
    Truncated,
    /// A length is negative where that means nothing, or longer than what follows.
    #[error("length {0} does not fit the record")]
    BadLength(i64),
    /// A varint has more than 5 bytes.
    #[error("varint is too long")]
    BadVarint,
    /// A string is not UTF-8.
    #[error("string is not valid UTF-8")]
    BadUtf8,
    /// The value's version is unknown.
    #[error("unknown value version {0}")]
    UnknownVersion(i16),
    /// A field has a value that means nothing.
    #[error("unknown value {0} in a record")]
    UnknownValue(i64),
}

/// A length as records have it. Requests bound every length far below `i32::MAX`.
pub(crate) fn length_i32(length: usize) -> i32 {
    i32::try_from(length).unwrap_or_else(|_| panic!("length {length} does not fit a record"))
}

/// Writes a value with its fixed-size length before it.
pub(crate) fn put_string(out: &mut BytesMut, text: &str) {
    assert!(
        text.len() <= RECORD_STRING_BYTES_MAX,
        "string of {} bytes reached the record encoder",
        text.len()
    );
    out.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
    out.put_slice(text.as_bytes());
}

/// Writes a value with its fixed-size length before it.
pub(crate) fn put_nullable_string(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put_string(out, text),
        None => out.put_i16(-1),
    }
}

/// Writes a value with its fixed-size length before it.
pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_i32(length_i32(bytes.len()));
    out.put_slice(bytes);
}

/// Writes an unsigned varint.
pub(crate) fn put_unsigned_varint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Writes an array's length in compact form.
pub(crate) fn put_compact_array_length(out: &mut BytesMut, length: usize) {
    put_unsigned_varint(out, u32::try_from(length).unwrap_or(u32::MAX - 1) + 1);
}

/// Writes a string in compact form.
pub(crate) fn put_compact_string(out: &mut BytesMut, text: &str) {
    put_compact_array_length(out, text.len());
    out.put_slice(text.as_bytes());
}

/// Writes a string or null in compact form.
pub(crate) fn put_compact_nullable_string(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put_compact_string(out, text),
        None => put_unsigned_varint(out, 0),
    }
}

/// Takes fields from the front of a byte slice; every length is checked against what is left.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    flexible: bool,
}

impl<'a> Reader<'a> {
    /// A reader of fixed-length fields.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            flexible: false,
        }
    }

    /// A reader of a value that begins with its version, which must be one of `known`; lengths are compact from `flexible` on.
    pub fn of_value(value: &'a [u8], known: RangeInclusive<i16>, flexible: i16) -> Result<(i16, Self), RecordDecodeError> {
        let mut reader = Self::new(value);
        let version = reader.i16()?;
        if !known.contains(&version) {
            return Err(RecordDecodeError::UnknownVersion(version));
        }
        reader.flexible = version >= flexible;
        Ok((version, reader))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], RecordDecodeError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(RecordDecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordDecodeError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(RecordDecodeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Bytes of a fixed number.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], RecordDecodeError> {
        self.array()
    }

    /// An `i16`.
    pub fn i16(&mut self) -> Result<i16, RecordDecodeError> {
        self.array().map(i16::from_be_bytes)
    }

    /// An `i32`.
    pub fn i32(&mut self) -> Result<i32, RecordDecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    /// An `i8`.
    pub fn i8(&mut self) -> Result<i8, RecordDecodeError> {
        self.array().map(i8::from_be_bytes)
    }

    /// An `i64`.
    pub fn i64(&mut self) -> Result<i64, RecordDecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    fn unsigned_varint(&mut self) -> Result<u32, RecordDecodeError> {
        let mut value = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RecordDecodeError::BadVarint)
    }

    /// A length in the form of the version: `None` is null.
    fn length(&mut self, fixed: impl FnOnce(&mut Self) -> Result<i32, RecordDecodeError>) -> Result<Option<usize>, RecordDecodeError> {
        if self.flexible {
            return Ok(self.unsigned_varint()?.checked_sub(1).map(|length| length as usize));
        }
        match fixed(self)? {
            -1 => Ok(None),
            length => Ok(Some(
                usize::try_from(length).map_err(|_| RecordDecodeError::BadLength(length.into()))?,
            )),
        }
    }

    /// A string that may be null.
    pub fn nullable_string(&mut self) -> Result<Option<String>, RecordDecodeError> {
        let Some(length) = self.length(|reader| reader.i16().map(i32::from))? else {
            return Ok(None);
        };
        let text = str::from_utf8(self.take(length)?).map_err(|_| RecordDecodeError::BadUtf8)?;
        // Nothing longer could be written again.
        if length > RECORD_STRING_BYTES_MAX {
            return Err(RecordDecodeError::BadLength(i64::try_from(length).unwrap_or(i64::MAX)));
        }
        Ok(Some(text.to_owned()))
    }

    /// A string that is not null.
    pub fn string(&mut self) -> Result<String, RecordDecodeError> {
        self.nullable_string()?.ok_or(RecordDecodeError::BadLength(-1))
    }

    /// Bytes that are not null.
    pub fn bytes(&mut self) -> Result<Bytes, RecordDecodeError> {
        let length = self.length(Self::i32)?.ok_or(RecordDecodeError::BadLength(-1))?;
        self.take(length).map(Bytes::copy_from_slice)
    }

    /// The number of elements that follow.
    pub fn array_length(&mut self) -> Result<usize, RecordDecodeError> {
        self.length(Self::i32)?.ok_or(RecordDecodeError::BadLength(-1))
    }

    /// The number of elements that follow, `None` for null.
    pub fn nullable_array_length(&mut self) -> Result<Option<usize>, RecordDecodeError> {
        self.length(Self::i32)
    }

    /// Leaves out tagged fields, if the version has any.
    pub fn skip_tagged_fields(&mut self) -> Result<(), RecordDecodeError> {
        self.tagged_fields(|_, _| Ok(()))
    }

    /// Hands each tagged field to `each`, if the version has any.
    pub fn tagged_fields(
        &mut self,
        mut each: impl FnMut(u32, &mut Self) -> Result<(), RecordDecodeError>,
    ) -> Result<(), RecordDecodeError> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.unsigned_varint()? {
            let tag = self.unsigned_varint()?;
            let length = self.unsigned_varint()?;
            let mut field = Reader {
                rest: self.take(length as usize)?,
                flexible: true,
            };
            each(tag, &mut field)?;
        }
        Ok(())
    }
}
