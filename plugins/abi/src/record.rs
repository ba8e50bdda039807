//! The record section of a Kafka v2 batch, read in place.
//!
//! ```text
//! section = record*                              as many as the batch header counts, nothing behind
//! record  = length: varint                       bytes that follow
//!           attributes: i8
//!           timestamp delta: varlong             milliseconds from the batch's base timestamp
//!           offset delta: varint                 from the batch's base offset
//!           key: nullable  value: nullable
//!           header count: varint  header*
//! header  = key: varint length, bytes   value: nullable
//! nullable = length: varint (-1 is null), bytes
//! ```
//! A record is checked whole, headers included, before it is handed out.

use std::fmt;

use crate::cursor::Cursor;
use crate::{AbiError, HeaderRef};

/// One record as it stands in its batch.
#[derive(Debug, Clone, Copy)]
pub struct RawRecord<'a> {
    /// Attribute bits; Kafka has defined none.
    pub attributes: i8,
    /// Milliseconds from the batch's base timestamp.
    pub timestamp_delta: i64,
    /// Distance from the batch's base offset.
    pub offset_delta: i32,
    /// The key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is null, a tombstone on compacted topics.
    pub value: Option<&'a [u8]>,
    /// The headers, in order.
    pub headers: RawHeaders<'a>,
    /// The whole record with its length prefix, to be copied as it is.
    pub raw: &'a [u8],
}

/// One header. Kafka means keys to be UTF-8, but no broker insists.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RawHeader<'a> {
    /// The key's bytes.
    pub key: &'a [u8],
    /// The value; `None` is null.
    pub value: Option<&'a [u8]>,
}

impl<'a> RawHeader<'a> {
    /// The key as text, if it is UTF-8.
    pub fn key_str(&self) -> Option<&'a str> {
        std::str::from_utf8(self.key).ok()
    }
}

impl fmt::Debug for RawHeader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}={:?}",
            String::from_utf8_lossy(self.key),
            self.value.map(String::from_utf8_lossy)
        )
    }
}

/// The headers of one record: an iterator that is cheap to copy. They were checked when the record was read.
#[derive(Debug, Clone, Copy)]
pub struct RawHeaders<'a> {
    cursor: Cursor<'a>,
    left: usize,
}

impl RawHeaders<'_> {
    /// No headers.
    pub const fn empty() -> Self {
        Self {
            cursor: Cursor::empty(),
            left: 0,
        }
    }
}

impl<'a> Iterator for RawHeaders<'a> {
    type Item = RawHeader<'a>;

    fn next(&mut self) -> Option<RawHeader<'a>> {
        self.left = self.left.checked_sub(1)?;
        read_header(&mut self.cursor).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for RawHeaders<'_> {}

/// Iterates over the records of a section. Ends after the first error.
#[derive(Debug, Clone)]
pub struct RecordReader<'a> {
    cursor: Cursor<'a>,
    /// Records still to come; negative only if the caller's count was.
    left: i32,
    done: bool,
}

impl<'a> RecordReader<'a> {
    /// Reads `count` records (the batch header's number) from `section`. Neither is trusted.
    pub fn new(section: &'a [u8], count: i32) -> Self {
        Self {
            cursor: Cursor::new(section),
            left: count,
            done: false,
        }
    }

    fn read(&mut self) -> Result<Option<RawRecord<'a>>, AbiError> {
        if self.left < 0 {
            let length = i64::from(self.left);
            return Err(AbiError::Length {
                field: "record count",
                position: self.cursor.position(),
                length,
            });
        }
        if self.left == 0 {
            return self.cursor.finish("record").map(|()| None);
        }
        self.left -= 1;
        read_record(&mut self.cursor).map(Some)
    }
}

impl<'a> Iterator for RecordReader<'a> {
    type Item = Result<RawRecord<'a>, AbiError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.read().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}

#[inline]
fn read_record<'a>(cursor: &mut Cursor<'a>) -> Result<RawRecord<'a>, AbiError> {
    let before = cursor.rest();
    let length = cursor.varint_count("record length")?;
    let mut body = cursor.sub("record", length)?;
    let raw = before.get(..before.len() - cursor.rest().len()).unwrap_or_default();
    let attributes = body.i8("attributes")?;
    let timestamp_delta = body.varlong("timestamp delta")?;
    let offset_delta = body.varint("offset delta")?;
    let key = body.varint_nullable("key")?;
    let value = body.varint_nullable("value")?;
    let left = body.varint_count("header count")?;
    let headers = RawHeaders { cursor: body, left };
    // A header takes two bytes at least, so a false count runs out of bytes soon.
    for _ in 0..left {
        read_header(&mut body)?;
    }
    body.finish("header")?;
    Ok(RawRecord {
        attributes,
        timestamp_delta,
        offset_delta,
        key,
        value,
        headers,
        raw,
    })
}

fn read_header<'a>(cursor: &mut Cursor<'a>) -> Result<RawHeader<'a>, AbiError> {
    let length = cursor.varint_count("header key")?;
    let key = cursor.take("header key", length)?;
    let value = cursor.varint_nullable("header value")?;
    Ok(RawHeader { key, value })
}

/// Appends one record to a section: how test harnesses and golden vectors make their input.
pub fn append_record(
    section: &mut Vec<u8>,
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[HeaderRef<'_>],
) -> Result<(), AbiError> {
    let mut body = vec![0];
    put_varlong(&mut body, timestamp_delta);
    put_varlong(&mut body, i64::from(offset_delta));
    put_nullable(&mut body, "key", key)?;
    put_nullable(&mut body, "value", value)?;
    put_length(&mut body, "headers", headers.len())?;
    for header in headers {
        put_nullable(&mut body, "header key", Some(header.key.as_bytes()))?;
        put_nullable(&mut body, "header value", header.value)?;
    }
    put_nullable(section, "record", Some(&body))
}

fn put_nullable(out: &mut Vec<u8>, field: &'static str, bytes: Option<&[u8]>) -> Result<(), AbiError> {
    let Some(bytes) = bytes else {
        put_varlong(out, -1);
        return Ok(());
    };
    put_length(out, field, bytes.len())?;
    out.extend_from_slice(bytes);
    Ok(())
}

fn put_length(out: &mut Vec<u8>, field: &'static str, length: usize) -> Result<(), AbiError> {
    let length = i32::try_from(length).map_err(|_| AbiError::TooLong { field, bytes: length })?;
    put_varlong(out, i64::from(length));
    Ok(())
}

fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    loop {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests;
