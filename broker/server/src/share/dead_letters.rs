//! The dead-letter topic of a share group: records that were rejected, or delivered as often as is allowed (KIP-1191).

use std::sync::Arc;

use millstream_core::{
    metadata::ClusterImage,
    share::{GivenUp, GivenUpReason, ShareKey},
};
use millstream_protocol::{
    ErrorCode,
    compression::Compression,
    record::{BatchBuilder, BatchHeader, Header, NewRecord, RecordIter, split_batches},
};
use tokio::time::{Duration, Instant};

use crate::{
    broker::{Broker, Named},
    partition::{Isolation, Partition},
    validation::SECTION_BYTES_MAX,
    views::{self, ReadWish},
};

/// Bytes of the source read at a time.
const READ_BYTES: usize = 1 << 20;
/// Time that a read of the source may take.
const READ_TIME: Duration = Duration::from_secs(30);

/// Copies records to the dead-letter topic and waits until they are on disk there. What can never be copied is logged and passed over.
pub(super) async fn send(broker: &Arc<Broker>, image: &ClusterImage, key: &ShareKey, topic: &str, run: GivenUp) -> Result<(), ErrorCode> {
    let target = image.topic(topic).filter(|target| !target.internal);
    let target = target.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if target.id == key.topic_id {
        // The copies would be delivered, and given up, for ever.
        tracing::error!(
            group_id = key.group_id,
            topic,
            ?run,
            "a topic cannot be its own dead-letter topic; records are dropped"
        );
        return Ok(());
    }
    let source = Named::by_id(image, key.topic_id).and_then(|named| broker.partition(named.stored_in(), key.partition));
    // With its topic the record is gone as well.
    let Some(source) = source else { return Ok(()) };
    let count = i32::try_from(target.partitions.len()).unwrap_or(i32::MAX).max(1);
    let partition = broker
        .partition(target, key.partition % count)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let end = copy(broker, key, &source, &partition, run).await?;
    if partition.wait_durable(end, broker.clock.wall_ms()).await {
        Ok(())
    } else {
        Err(ErrorCode::KafkaStorageError)
    }
}

/// Copies one run; the target's end afterwards.
async fn copy(broker: &Arc<Broker>, key: &ShareKey, source: &Arc<Partition>, target: &Partition, run: GivenUp) -> Result<i64, ErrorCode> {
    let mut next = run.first_offset.max(source.log().log_start_offset());
    let mut end = 0;
    while next <= run.last_offset {
        let wish = ReadWish {
            offset: next,
            isolation: Isolation::Uncommitted,
            max_bytes: READ_BYTES,
            deadline: Instant::now() + READ_TIME,
        };
        let scanned = views::read_topic(broker, source, &wish).await?;
        if scanned.next_offset <= next {
            if next >= source.readable_end(Isolation::Uncommitted) {
                break;
            }
            return Err(ErrorCode::RequestTimedOut);
        }
        let bytes = scanned.records.into_bytes().ok_or(ErrorCode::KafkaStorageError)?;
        for item in split_batches(bytes) {
            let (header, batch) = item.map_err(|_| ErrorCode::CorruptMessage)?;
            if header.is_control() || header.base_offset > run.last_offset {
                continue;
            }
            match copy_batch(broker, key, source, target, run, (&header, &batch)) {
                Ok(copied) => end = copied.max(end),
                Err(error @ (ErrorCode::CorruptMessage | ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge)) => {
                    let (group_id, offset) = (&key.group_id, header.base_offset);
                    tracing::error!(
                        group_id,
                        topic = source.topic,
                        offset,
                        ?error,
                        "a batch cannot be copied to the dead-letter topic"
                    );
                }
                Err(error) => return Err(error),
            }
        }
        next = scanned.next_offset;
    }
    Ok(end)
}

fn copy_batch(
    broker: &Broker,
    key: &ShareKey,
    source: &Partition,
    target: &Partition,
    run: GivenUp,
    (header, batch): (&BatchHeader, &bytes::Bytes),
) -> Result<i64, ErrorCode> {
    let codec = header.compression().map_err(|_| ErrorCode::CorruptMessage)?;
    let section = codec
        .decompress(&batch.slice(BatchHeader::SIZE..), SECTION_BYTES_MAX)
        .map_err(|_| ErrorCode::CorruptMessage)?;
    let reason = match run.reason {
        GivenUpReason::Rejected => "rejected",
        GivenUpReason::DeliveryCount => "delivery-count",
    };
    let (number, deliveries) = (key.partition.to_string(), run.delivery_count.to_string());
    let mut end = 0;
    for record in RecordIter::new(&section, header.record_count) {
        let record = record.map_err(|_| ErrorCode::CorruptMessage)?;
        let offset = header.base_offset + i64::from(record.offset_delta);
        if offset < run.first_offset || offset > run.last_offset {
            continue;
        }
        let offset = offset.to_string();
        let facts: [(&[u8], &str); 6] = [
            (b"millstream.dlq.topic", &source.topic),
            (b"millstream.dlq.partition", &number),
            (b"millstream.dlq.offset", &offset),
            (b"millstream.dlq.group", &key.group_id),
            (b"millstream.dlq.deliveries", &deliveries),
            (b"millstream.dlq.kind", reason),
        ];
        let mut headers: Vec<Header<'_>> = record.headers().collect();
        headers.extend(facts.iter().map(|(key, value)| Header {
            key,
            value: Some(value.as_bytes()),
        }));
        // One batch a record: a record alone always fits, whatever its neighbours are.
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(&NewRecord {
            timestamp: header.base_timestamp.saturating_add(record.timestamp_delta),
            key: record.key,
            value: record.value,
            headers,
        });
        let copied = builder.build().map_err(|_| ErrorCode::UnknownServerError)?;
        let copied_header = BatchHeader::parse(&copied).map_err(|_| ErrorCode::UnknownServerError)?;
        let appended = target.append(&copied_header, &copied, broker.clock.wall_ms(), None);
        end = appended.map_err(|error| crate::errors::append_error_code(&error))?.log_end_offset;
    }
    Ok(end)
}
