//! What a handler is given: records that borrow from the batch's bytes.

use millstream_abi::{RawHeaders, RawRecord, RecordReader};
use serde::Deserialize;

use crate::{Error, Result};

/// Where a plugin runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before the append, on the partition's leader.
    Produce,
    /// Where a fetch is served.
    View,
    /// Between topics.
    Transform,
}

/// What a plugin may know of the batch it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Where the plugin runs.
    pub hook: Hook,
    /// The topic in which the records are stored.
    pub topic: String,
    /// The partition of the topic.
    pub partition: i32,
    /// First offset of the batch; `None` on produce, where none is assigned yet.
    pub base_offset: Option<i64>,
    /// Milliseconds since the epoch; record timestamps count from it.
    pub base_timestamp_ms: i64,
    /// The leader's epoch; `None` on produce.
    pub leader_epoch: Option<i32>,
    /// Records in the batch.
    pub record_count: i32,
    /// Who produced the batch (produce hook).
    pub principal: Option<String>,
    /// The producing client's id (produce hook).
    pub client_id: Option<String>,
    /// The view's name (view hook).
    pub view: Option<String>,
}

/// One record. Everything borrows from the batch.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is null, which deletes the key on compacted topics.
    pub value: Option<&'a [u8]>,
    /// The headers, in order.
    pub headers: RawHeaders<'a>,
    /// Milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// The record's offset; `None` on produce.
    pub offset: Option<i64>,
    /// What is known of the whole batch.
    pub context: &'a Context,
}

impl<'a> Record<'a> {
    fn new(raw: RawRecord<'a>, context: &'a Context) -> Self {
        Self {
            key: raw.key,
            value: raw.value,
            headers: raw.headers,
            timestamp_ms: context.base_timestamp_ms.saturating_add(raw.timestamp_delta),
            offset: context.base_offset.map(|base| base.saturating_add(i64::from(raw.offset_delta))),
            context,
        }
    }

    /// The value as text; an error if it is not UTF-8.
    pub fn value_str(&self) -> Result<Option<&'a str>> {
        self.value
            .map(std::str::from_utf8)
            .transpose()
            .map_err(|error| Error::new(format_args!("value: {error}")))
    }

    /// The key as text; an error if it is not UTF-8.
    pub fn key_str(&self) -> Result<Option<&'a str>> {
        self.key
            .map(std::str::from_utf8)
            .transpose()
            .map_err(|error| Error::new(format_args!("key: {error}")))
    }

    /// The value as JSON; an error if it is something else, or null.
    pub fn value_json<T: Deserialize<'a>>(&self) -> Result<T> {
        let value = self.value.ok_or_else(|| Error::new("value: null"))?;
        serde_json::from_slice(value).map_err(|error| Error::new(format_args!("value: {error}")))
    }

    /// The value of the last header with this key; `None` if there is no such header, or it has no value.
    pub fn header(&self, key: &str) -> Option<&'a [u8]> {
        self.headers.filter(|header| header.key == key.as_bytes()).last()?.value
    }
}

/// A whole batch, for plugins that want to see records together.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// What is known of the batch.
    pub context: &'a Context,
    section: &'a [u8],
}

impl<'a> Batch<'a> {
    /// A batch over a record section in Kafka's v2 encoding.
    pub fn new(context: &'a Context, section: &'a [u8]) -> Self {
        Self { context, section }
    }

    /// The records, in order. Ends after the first error, which a handler must return: the batch is damaged.
    pub fn records(&self) -> Records<'a> {
        Records {
            reader: RecordReader::new(self.section, self.context.record_count),
            context: self.context,
        }
    }
}

/// Iterates over the records of a batch.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    reader: RecordReader<'a>,
    context: &'a Context,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let raw = self.reader.next()?;
        Some(raw.map(|raw| Record::new(raw, self.context)).map_err(Error::from))
    }
}
