//! Reading partitions of one topic from given offsets.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use millstream_protocol::{
    ErrorCode,
    messages::{
        FetchRequest,
        fetch_request::{FetchPartition, FetchTopic},
        fetch_response::PartitionData,
    },
    record::{BatchError, BatchHeader, RecordIter, TimestampType, split_batches, verify_crc},
};

use super::kafka::{Kafka, check};

const MAX_WAIT: Duration = Duration::from_millis(500);
const FETCH_BYTES_MAX: i32 = 32 << 20;
const PARTITION_BYTES_MAX: i32 = 4 << 20;
/// Largest batch that is decompressed.
const SECTION_BYTES_MAX: usize = 512 << 20;
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// Its key, `None` for null.
    pub key: Option<Bytes>,
    /// Its value, `None` for null.
    pub value: Option<Bytes>,
    /// Its headers in order.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Reads one topic.
#[derive(Debug)]
pub struct Consumer {
    topic: String,
    /// The next offset to read, by partition.
    positions: BTreeMap<i32, i64>,
}

/// What one fetch brought.
#[derive(Debug)]
pub struct Fetched {
    /// The records, in order within each partition.
    pub records: Vec<OwnedRecord>,
    /// Whether the node waited as long as it may because there was nothing more to find. A view that skipped records without finding
    /// one to show answers earlier.
    pub idle: bool,
}

impl Consumer {
    /// A consumer at given positions.
    pub fn new(topic: &str, positions: BTreeMap<i32, i64>) -> Self {
        Self {
            topic: topic.to_owned(),
            positions,
        }
    }

    /// The next offset to read, by partition.
    pub fn positions(&self) -> &BTreeMap<i32, i64> {
        &self.positions
    }

    /// No longer reads a partition.
    pub fn forget(&mut self, partition: i32) {
        self.positions.remove(&partition);
    }

    /// One fetch over all partitions; waits a moment for records if there are none.
    pub async fn fetch(&mut self, kafka: &mut Kafka) -> Result<Fetched> {
        let started = Instant::now();
        let response = kafka.call(&self.request()).await?;
        check(response.error_code, None, || format!("read {}", self.topic))?;
        let mut fetched = Fetched {
            records: Vec::new(),
            idle: true,
        };
        for partition in response.responses.into_iter().flat_map(|topic| topic.partitions) {
            match ErrorCode::from_code(partition.error_code) {
                Some(ErrorCode::None) => fetched.idle &= !self.take(partition, &mut fetched.records)?,
                Some(code) if code.is_retriable() && !matches!(code, ErrorCode::CorruptMessage | ErrorCode::UnknownTopicOrPartition) => {
                    tracing::warn!(
                        topic = self.topic,
                        partition = partition.partition_index,
                        error = code.name(),
                        "waiting"
                    );
                    fetched.idle = false;
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                _ => check(partition.error_code, None, || {
                    format!("read {} partition {}", self.topic, partition.partition_index)
                })?,
            }
        }
        fetched.idle &= started.elapsed() >= MAX_WAIT;
        Ok(fetched)
    }

    fn request(&self) -> FetchRequest {
        let partition = |(index, offset): (&i32, &i64)| FetchPartition {
            partition: *index,
            current_leader_epoch: -1,
            fetch_offset: *offset,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: PARTITION_BYTES_MAX,
            ..FetchPartition::default()
        };
        FetchRequest {
            replica_id: -1,
            max_wait_ms: i32::try_from(MAX_WAIT.as_millis()).unwrap_or(i32::MAX),
            min_bytes: 1,
            max_bytes: FETCH_BYTES_MAX,
            session_id: 0,
            session_epoch: -1,
            topics: vec![FetchTopic {
                topic: self.topic.as_str().into(),
                partitions: self.positions.iter().map(partition).collect(),
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        }
    }

    /// Takes a partition's records and moves its position; says whether there were any bytes.
    fn take(&mut self, data: PartitionData, records: &mut Vec<OwnedRecord>) -> Result<bool> {
        let index = data.partition_index;
        let bytes = data
            .records
            .and_then(millstream_protocol::chunk::Records::into_bytes)
            .unwrap_or_default();
        let Some(position) = self.positions.get_mut(&index) else {
            return Ok(false);
        };
        let mut took = false;
        for batch in split_batches(bytes) {
            let (header, batch) = match batch {
                Ok(batch) => batch,
                // A response may end within a batch; the rest comes with the next one.
                Err(BatchError::Truncated { .. }) if took => break,
                Err(error) => return Err(error).with_context(|| format!("{} partition {index} at {position}", self.topic)),
            };
            let place = || format!("batch at {} of {} partition {index}", header.base_offset, self.topic);
            read_batch(index, &header, &batch, *position, records).with_context(place)?;
            if header.next_offset() <= *position && !took {
                bail!("{}: the answer is older than the question", place());
            }
            *position = header.next_offset().max(*position);
            took = true;
        }
        Ok(took)
    }
}

/// Appends a batch's records from an offset on; control records are none.
fn read_batch(partition: i32, header: &BatchHeader, batch: &Bytes, from: i64, records: &mut Vec<OwnedRecord>) -> Result<()> {
    verify_crc(batch)?;
    if header.is_control() {
        return Ok(());
    }
    let section = header
        .compression()?
        .decompress(&batch.slice(BatchHeader::SIZE.min(batch.len())..), SECTION_BYTES_MAX)?;
    for record in RecordIter::new(&section, header.record_count) {
        let record = record?;
        let offset = header.base_offset.saturating_add(i64::from(record.offset_delta));
        if offset < from {
            continue;
        }
        let timestamp = match header.timestamp_type() {
            TimestampType::CreateTime => header.base_timestamp.saturating_add(record.timestamp_delta),
            TimestampType::LogAppendTime => header.max_timestamp,
        };
        records.push(OwnedRecord {
            partition,
            offset,
            timestamp,
            key: record.key.map(|key| section.slice_ref(key)),
            value: record.value.map(|value| section.slice_ref(value)),
            headers: record
                .headers()
                .map(|header| (section.slice_ref(header.key), header.value.map(|value| section.slice_ref(value))))
                .collect(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use millstream_protocol::{
        chunk::Records,
        compression::Compression,
        record::{BatchBuilder, Header, NewRecord, assign_offsets},
    };

    use super::*;

    fn batch(base_offset: i64, values: &[&str]) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Compression::Lz4);
        for value in values {
            builder.push(&NewRecord {
                timestamp: 7,
                key: None,
                value: Some(value.as_bytes()),
                headers: vec![Header { key: b"h", value: None }],
            });
        }
        let mut bytes = builder.build().unwrap().to_vec();
        assign_offsets(&mut bytes, base_offset, 0);
        bytes
    }

    fn data(bytes: Vec<u8>) -> PartitionData {
        PartitionData {
            partition_index: 0,
            records: Some(Records::from(Bytes::from(bytes))),
            ..PartitionData::default()
        }
    }

    #[test]
    fn reading_starts_within_a_batch_and_goes_on_after_a_cut_one() {
        let mut consumer = Consumer::new("t", BTreeMap::from([(0, 11)]));
        let mut bytes = batch(10, &["a", "b", "c"]);
        bytes.extend_from_slice(&batch(20, &["d"])[..40]);
        let mut records = Vec::new();
        assert!(consumer.take(data(bytes), &mut records).unwrap());
        let read: Vec<_> = records
            .iter()
            .map(|record| (record.offset, record.timestamp, record.value.clone().unwrap()))
            .collect();
        assert_eq!(read, [(11, 7, Bytes::from("b")), (12, 7, Bytes::from("c"))]);
        assert_eq!(consumer.positions()[&0], 13);
        assert_eq!(records[0].headers, [(Bytes::from("h"), None)]);
    }

    #[test]
    fn nothing_moves_nothing() {
        let mut consumer = Consumer::new("t", BTreeMap::from([(0, 11)]));
        assert!(!consumer.take(data(Vec::new()), &mut Vec::new()).unwrap());
        assert_eq!(consumer.positions()[&0], 11);
    }

    #[test]
    fn damaged_batches_are_named() {
        let mut consumer = Consumer::new("t", BTreeMap::from([(0, 0)]));
        let mut bytes = batch(0, &["a"]);
        *bytes.last_mut().unwrap() ^= 1;
        let error = consumer.take(data(bytes), &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("batch at 0 of t partition 0"), "{error:#}");
    }
}
