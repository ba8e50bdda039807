//! Records of a decompressed record section, borrowed from it.

use super::{BatchError, read_varint, read_varlong};

/// A record that borrows from its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Unused by Kafka, kept as it is.
    pub attributes: i8,
    /// Milliseconds after the batch's base timestamp.
    pub timestamp_delta: i64,
    /// Offsets after the batch's base offset.
    pub offset_delta: i32,
    /// The key, `None` for null.
    pub key: Option<&'a [u8]>,
    /// The value, `None` for null.
    pub value: Option<&'a [u8]>,
    /// Number of headers.
    pub header_count: i32,
    /// The headers as encoded (without their count).
    pub header_bytes: &'a [u8],
    /// The whole record as encoded, its length prefix included.
    pub encoded: &'a [u8],
}

impl<'a> Record<'a> {
    /// The headers in order; duplicate keys are legal.
    pub fn headers(&self) -> HeaderIter<'a> {
        HeaderIter {
            rest: self.header_bytes,
            left: self.header_count,
        }
    }
}

/// A record header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The key; UTF-8 by Kafka's rules, unchecked here.
    pub key: &'a [u8],
    /// The value, `None` for null.
    pub value: Option<&'a [u8]>,
}

/// Iterates over the headers of a record, which were checked when the record was read.
#[derive(Debug, Clone)]
pub struct HeaderIter<'a> {
    rest: &'a [u8],
    left: i32,
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        if self.left <= 0 {
            return None;
        }
        let (header, rest) = read_header(self.rest)?;
        self.rest = rest;
        self.left -= 1;
        Some(header)
    }
}

/// Iterates over the records of a record section; ends after the first malformed one.
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    rest: &'a [u8],
    index: i32,
    count: i32,
}

impl<'a> RecordIter<'a> {
    /// The `count` records that `section` must hold, and nothing after them.
    pub fn new(section: &'a [u8], count: i32) -> Self {
        Self {
            rest: section,
            index: 0,
            count,
        }
    }

    fn read(&mut self) -> Result<Record<'a>, &'static str> {
        let start = self.rest;
        let (length, after) = read_varint(start).ok_or("length")?;
        let length = usize::try_from(length).map_err(|_| "length")?;
        let body = after.get(..length).ok_or("length")?;
        let encoded = &start[..start.len() - after.len() + length];
        let record = parse_body(body, encoded)?;
        self.rest = &after[length..];
        Ok(record)
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.count {
            if self.rest.is_empty() {
                return None;
            }
            self.rest = &[];
            return Some(Err(BatchError::Record {
                index: self.index,
                field: "trailing bytes",
            }));
        }
        let index = self.index;
        self.index += 1;
        let result = self.read().map_err(|field| BatchError::Record { index, field });
        if result.is_err() {
            self.rest = &[];
            self.index = self.count;
        }
        Some(result)
    }
}

fn parse_body<'a>(body: &'a [u8], encoded: &'a [u8]) -> Result<Record<'a>, &'static str> {
    let (attributes, rest) = body.split_first().ok_or("attributes")?;
    let (timestamp_delta, rest) = read_varlong(rest).ok_or("timestamp delta")?;
    let (offset_delta, rest) = read_varint(rest).ok_or("offset delta")?;
    let (key, rest) = read_nullable(rest).ok_or("key")?;
    let (value, rest) = read_nullable(rest).ok_or("value")?;
    let (header_count, header_bytes) = read_varint(rest).ok_or("header count")?;
    if header_count < 0 {
        return Err("header count");
    }
    let mut rest = header_bytes;
    for _ in 0..header_count {
        rest = read_header(rest).ok_or("header")?.1;
    }
    if !rest.is_empty() {
        return Err("length");
    }
    let attributes = attributes.cast_signed();
    Ok(Record {
        attributes,
        timestamp_delta,
        offset_delta,
        key,
        value,
        header_count,
        header_bytes,
        encoded,
    })
}

fn read_header(input: &[u8]) -> Option<(Header<'_>, &[u8])> {
    let (key, rest) = read_nullable(input)?;
    let (value, rest) = read_nullable(rest)?;
    Some((Header { key: key?, value }, rest))
}

fn read_nullable(input: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (length, rest) = read_varint(input)?;
    if length == -1 {
        return Some((None, rest));
    }
    let length = usize::try_from(length).ok()?;
    Some((Some(rest.get(..length)?), &rest[length..]))
}
