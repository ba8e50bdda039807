//! Produce throughput: the same batches over one connection, several requests ahead of their acknowledgements.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use millstream_protocol::{
    chunk::Records,
    messages::{
        ProduceRequest, ProduceResponse,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
};

use super::{Batch, Moved};
use crate::client::{Connection, check, frame};

/// Requests without an acknowledgement at a time, as Kafka's producers allow by default (`max.in.flight.requests.per.connection`).
const IN_FLIGHT: i32 = 5;
const ACKS_ALL: i16 = -1;
const TIMEOUT_MS: i32 = 30_000;

/// A produce request frame of one batch, acks=all.
pub(super) fn produce_frame(topic: &str, partition: i32, batch: &Bytes) -> Result<Vec<u8>> {
    frame(&ProduceRequest {
        transactional_id: None,
        acks: ACKS_ALL,
        timeout_ms: TIMEOUT_MS,
        topic_data: vec![TopicProduceData {
            name: topic.into(),
            partition_data: vec![PartitionProduceData {
                index: partition,
                records: Some(Records::from(batch.clone())),
            }],
            ..TopicProduceData::default()
        }],
    })
}

/// Sends `count` batches, one per request, to the partitions in turns; returns when all are acknowledged.
pub fn produce(address: &str, topic: &str, partitions: i32, batch: &Batch, count: u64) -> Result<Moved> {
    let mut connection = Connection::open(address)?;
    let mut frames = Vec::new();
    for partition in 0..partitions {
        frames.push(produce_frame(topic, partition, &batch.bytes)?);
    }
    let started = Instant::now();
    let mut left = count;
    while left > 0 {
        for frame in frames.iter_mut().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            if connection.in_flight() == IN_FLIGHT {
                acknowledged(&mut connection)?;
            }
            connection.send(frame)?;
            left -= 1;
        }
    }
    while connection.in_flight() > 0 {
        acknowledged(&mut connection)?;
    }
    Ok(Moved {
        records: count * batch.records,
        value_bytes: count * batch.value_bytes,
        time: started.elapsed(),
    })
}

/// Waits for one acknowledgement, which must be of one partition and without error.
pub(super) fn acknowledged(connection: &mut Connection) -> Result<()> {
    let response: ProduceResponse = connection.receive::<ProduceRequest>()?;
    let mut partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    let partition = partitions.next().context("an acknowledgement without a partition")?;
    check(partition.error_code, "produce")?;
    ensure!(partitions.next().is_none(), "an acknowledgement of a partition that was not sent");
    Ok(())
}
