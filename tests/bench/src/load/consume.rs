//! Consume throughput: one partition from an offset on, one fetch at a time with the sizes of a Kafka consumer.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use millstream_protocol::{
    messages::{
        FetchRequest,
        fetch_request::{FetchPartition, FetchTopic},
        fetch_response::PartitionData,
    },
    record::BatchHeader,
};

use super::Moved;
use crate::client::{Connection, check, frame};

/// `max.partition.fetch.bytes` of Kafka's consumers.
const PARTITION_BYTES_MAX: i32 = 1 << 20;
/// `fetch.max.bytes` of Kafka's consumers.
const FETCH_BYTES_MAX: i32 = 50 << 20;
/// `fetch.max.wait.ms` of Kafka's consumers.
const WAIT_MS_MAX: i32 = 500;
/// Fetches without a record after which data is taken for missing.
const EMPTY_FETCHES_MAX: u32 = 20;

/// Where to stop.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// The high watermark, as each response tells it.
    HighWatermark,
    /// The first offset that is not asked for.
    Offset(i64),
}

/// A fetch of one partition, for at least one byte.
pub(super) fn fetch_request(topic: &str, partition: i32, offset: i64) -> FetchRequest {
    FetchRequest {
        max_wait_ms: WAIT_MS_MAX,
        min_bytes: 1,
        max_bytes: FETCH_BYTES_MAX,
        topics: vec![FetchTopic {
            topic: topic.into(),
            partitions: vec![FetchPartition {
                partition,
                fetch_offset: offset,
                partition_max_bytes: PARTITION_BYTES_MAX,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

/// Sends a fetch and returns its one partition, which must be without error.
pub(super) fn fetch(connection: &mut Connection, request: &FetchRequest) -> Result<PartitionData> {
    let response = connection.call(request)?;
    check(response.error_code, "fetch")?;
    let mut partitions = response.responses.into_iter().flat_map(|topic| topic.partitions);
    let partition = partitions.next().context("a fetch response without a partition")?;
    check(partition.error_code, "fetch")?;
    ensure!(
        partitions.next().is_none(),
        "a fetch response with a partition that was not asked for"
    );
    Ok(partition)
}

/// A consumer that waits for a record of partition 0, for as long as the measurement may take.
#[derive(Debug)]
pub struct Waiting(Connection);

impl Waiting {
    /// Connects, and begins to wait.
    pub fn open(address: &str, topic: &str) -> Result<Self> {
        let mut connection = Connection::open(address)?;
        let request = FetchRequest {
            max_wait_ms: i32::MAX,
            ..fetch_request(topic, 0, 0)
        };
        connection.send(&mut frame(&request)?)?;
        Ok(Self(connection))
    }

    /// Fails unless it still waits.
    pub fn check(self) -> Result<()> {
        ensure!(
            self.0.is_quiet()?,
            "a consumer that should wait has an answer, or lost its connection"
        );
        Ok(())
    }
}

/// Record bytes of a partition in a response; they are in memory, for they came from a socket.
pub(super) fn record_bytes(partition: PartitionData) -> Bytes {
    partition.records.and_then(|records| records.into_bytes()).unwrap_or_default()
}

/// Reads partition 0 from its start; looks at batch headers only. `value_bytes` is the size of every value.
pub fn consume(address: &str, topic: &str, until: Until, value_bytes: u64) -> Result<Moved> {
    let mut connection = Connection::open(address)?;
    let (mut next, mut records, mut empty) = (0, 0, 0);
    let started = Instant::now();
    loop {
        let partition = fetch(&mut connection, &fetch_request(topic, 0, next))?;
        let end = match until {
            Until::HighWatermark => partition.high_watermark,
            Until::Offset(offset) => offset,
        };
        let read = walk(record_bytes(partition), next, end)?;
        records += read.records;
        next = next.max(read.next_offset);
        if next >= end {
            break;
        }
        empty = if read.records == 0 { empty + 1 } else { 0 };
        if empty > EMPTY_FETCHES_MAX {
            bail!("no records at offset {next} of {topic}, which ends at {end}");
        }
    }
    Ok(Moved {
        records,
        value_bytes: records * value_bytes,
        time: started.elapsed(),
    })
}

/// The high watermark of a partition.
pub fn high_watermark(address: &str, topic: &str, partition: i32) -> Result<i64> {
    let mut request = fetch_request(topic, partition, 0);
    request.max_wait_ms = 0;
    Ok(fetch(&mut Connection::open(address)?, &request)?.high_watermark)
}

struct Walked {
    records: u64,
    next_offset: i64,
}

/// Counts the records of whole batches from `from` to `end`. The last batch may be cut, as Kafka cuts it at the size limit.
fn walk(bytes: Bytes, from: i64, end: i64) -> Result<Walked> {
    let mut rest = &bytes[..];
    let mut walked = Walked {
        records: 0,
        next_offset: from,
    };
    while rest.len() >= BatchHeader::SIZE {
        let header = BatchHeader::parse(rest).context("read a batch header")?;
        let Some(after) = rest.get(header.size()..) else { break };
        rest = after;
        if header.next_offset() <= from || header.base_offset >= end {
            continue;
        }
        // Offsets may have holes, where a plugin dropped records; they never go back.
        ensure!(
            header.last_offset() >= walked.next_offset,
            "offset {} came twice",
            header.last_offset()
        );
        walked.records += u64::try_from(header.record_count).context("a batch has records")?;
        walked.next_offset = header.next_offset();
    }
    Ok(walked)
}

#[cfg(test)]
mod tests {
    use millstream_protocol::record::assign_offsets;

    use super::super::{Batch, plain_values};
    use super::*;

    #[test]
    fn cut_batches_are_not_counted() {
        let batch = Batch::full(&plain_values(1024)).unwrap();
        let records = i64::try_from(batch.records).unwrap();
        let mut second = batch.bytes.to_vec();
        assign_offsets(&mut second, records, 0);
        let mut bytes = [&batch.bytes[..], &second].concat();
        let whole = walk(Bytes::from(bytes.clone()), 0, i64::MAX).unwrap();
        assert_eq!((whole.records, whole.next_offset), (2 * batch.records, 2 * records));
        bytes.pop();
        let cut = walk(Bytes::from(bytes.clone()), 0, i64::MAX).unwrap();
        assert_eq!((cut.records, cut.next_offset), (batch.records, records));
        assert_eq!(walk(Bytes::from(bytes), records, i64::MAX).unwrap().records, 0, "below the start");
    }
}
