//! The guest's side: verdicts written in record order.

use crate::verdict::{VERSION, kind, parts, tag};
use crate::{AbiError, HeaderRef};

/// Bytes before the first verdict: version, kind, count.
const HEAD_BYTES: usize = 6;

/// Builds a verdict list. Nothing is allocated as long as every record is kept.
#[derive(Debug)]
pub struct VerdictWriter {
    record_count: u32,
    written: u32,
    /// Empty until the first verdict that is not *keep*.
    out: Vec<u8>,
    /// The first thing that could not be written; [`finish`](Self::finish) reports it.
    failed: Option<AbiError>,
}

impl VerdictWriter {
    /// A list for a batch of `record_count` records.
    pub fn new(record_count: u32) -> Self {
        Self {
            record_count,
            written: 0,
            out: Vec::new(),
            failed: None,
        }
    }

    /// Verdicts written so far, which is also the index of the record that the next one is about.
    pub fn written(&self) -> u32 {
        self.written
    }

    /// Keeps the next record as it is.
    pub fn keep(&mut self) {
        if !self.out.is_empty() {
            self.out.push(tag::KEEP);
        }
        self.written = self.written.saturating_add(1);
    }

    /// Keeps all records that have no verdict yet.
    pub fn keep_rest(&mut self) {
        while self.written < self.record_count {
            self.keep();
        }
    }

    /// Drops the next record.
    pub fn drop_record(&mut self) {
        self.begin(tag::DROP);
    }

    /// Replaces parts of the next record: the outer `None` leaves a part alone, the inner one makes it null.
    pub fn replace(&mut self, key: Option<Option<&[u8]>>, value: Option<Option<&[u8]>>, headers: Option<&[HeaderRef<'_>]>) {
        let named = |part, is_named| if is_named { part } else { 0 };
        let parts = named(parts::KEY, key.is_some()) | named(parts::VALUE, value.is_some()) | named(parts::HEADERS, headers.is_some());
        if parts == 0 {
            return self.keep();
        }
        self.begin(tag::REPLACE);
        self.out.push(parts);
        if let Some(key) = key {
            self.nullable("key", key);
        }
        if let Some(value) = value {
            self.nullable("value", value);
        }
        if let Some(headers) = headers {
            self.length("headers", headers.len());
            for header in headers {
                self.text("header key", header.key);
                self.nullable("header value", header.value);
            }
        }
    }

    /// Refuses the next record. The host cuts the reason at [`REASON_BYTES_MAX`](crate::REASON_BYTES_MAX).
    pub fn reject(&mut self, reason: &str) {
        self.begin(tag::REJECT);
        self.text("reason", reason);
    }

    /// Sends the next record to the dead-letter topic.
    pub fn divert(&mut self, reason: &str) {
        self.begin(tag::DIVERT);
        self.text("reason", reason);
    }

    /// Says that the plugin failed on the next record.
    pub fn error(&mut self, message: &str) {
        self.begin(tag::ERROR);
        self.text("error message", message);
    }

    /// The finished list; an error if there is not one verdict for each record, or if one was too long to be written.
    pub fn finish(mut self) -> Result<Vec<u8>, AbiError> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        if self.written != self.record_count {
            return Err(AbiError::Count {
                expected: self.record_count,
                found: self.written,
            });
        }
        if self.out.is_empty() {
            self.out.extend_from_slice(&[VERSION, kind::KEEP_ALL]);
        }
        Ok(self.out)
    }

    /// Starts a verdict that is not *keep*, after writing out the *keep*s that stood before the first such one.
    fn begin(&mut self, tag: u8) {
        if self.out.is_empty() {
            let kept = usize::try_from(self.written).unwrap_or(usize::MAX);
            self.out.reserve(HEAD_BYTES + kept + 1);
            self.out.extend_from_slice(&[VERSION, kind::PER_RECORD]);
            self.out.extend_from_slice(&self.record_count.to_le_bytes());
            self.out.resize(HEAD_BYTES + kept, tag::KEEP);
        }
        self.out.push(tag);
        self.written = self.written.saturating_add(1);
    }

    fn text(&mut self, field: &'static str, text: &str) {
        self.length(field, text.len());
        self.out.extend_from_slice(text.as_bytes());
    }

    fn nullable(&mut self, field: &'static str, bytes: Option<&[u8]>) {
        let Some(bytes) = bytes else {
            self.out.extend_from_slice(&(-1i32).to_le_bytes());
            return;
        };
        self.length(field, bytes.len());
        self.out.extend_from_slice(bytes);
    }

    /// Lengths stay below 2^31, so that signed and unsigned length fields are written alike.
    fn length(&mut self, field: &'static str, bytes: usize) {
        let length = i32::try_from(bytes).unwrap_or_else(|_| {
            self.failed.get_or_insert(AbiError::TooLong { field, bytes });
            0
        });
        self.out.extend_from_slice(&length.to_le_bytes());
    }
}
