//! Running a topic's chain on a produced batch, and what follows from its verdicts.

use std::sync::Arc;

use bytes::Bytes;
use millstream_core::{
    metadata::configs::{Compression as ConfiguredCompression, TopicConfig},
    transform::{BatchContext, Chain, ChainOutcome, Diverted, Rejected},
};
use millstream_protocol::{
    ErrorCode,
    compression::Compression,
    record::{BatchBuilder, BatchHeader, Header, NewRecord, RecordIter, TimestampType, rebuild_at},
};

use crate::{
    broker::Broker,
    context::RequestContext,
    partition::Partition,
    validation::{Refused, ValidBatch, off_turn},
};

/// The codec that a topic stores batches in.
pub(crate) fn stored_codec(config: &TopicConfig, produced: Compression) -> Compression {
    match config.compression_type {
        ConfiguredCompression::Producer => produced,
        ConfiguredCompression::Uncompressed => Compression::None,
        ConfiguredCompression::Gzip => Compression::Gzip,
        ConfiguredCompression::Snappy => Compression::Snappy,
        ConfiguredCompression::Lz4 => Compression::Lz4,
        ConfiguredCompression::Zstd => Compression::Zstd,
    }
}

/// The batch's header with the largest timestamp that its records really have, as searches by time rely on it, and without a claim that the
/// broker gave it: where that is so, the log says it.
pub(crate) fn honest_header(valid: &ValidBatch) -> BatchHeader {
    let mut header = BatchHeader {
        max_timestamp: valid.max_timestamp,
        ..valid.header
    };
    header.set_timestamp_type(TimestampType::CreateTime);
    header
}

/// A batch made anew from its header and a record section, compressed with the level that the topic wants of the broker.
pub(crate) fn encode(
    config: &TopicConfig,
    header: &BatchHeader,
    codec: Compression,
    section: &[u8],
    record_count: i32,
) -> Result<(BatchHeader, Bytes), Refused> {
    let level = match codec {
        // -1 is the library's own.
        Compression::Gzip => Some(config.compression_gzip_level).filter(|level| *level >= 0),
        Compression::Zstd => Some(config.compression_zstd_level),
        Compression::None | Compression::Snappy | Compression::Lz4 => None,
    };
    // Not UNKNOWN_SERVER_ERROR: idempotent producers end on it.
    let failed = |reason: String| Refused::new(ErrorCode::InvalidRecord, reason);
    let batch =
        off_turn(section.len(), || rebuild_at(header, (codec, level), section, record_count)).map_err(|error| failed(error.to_string()))?;
    let header = BatchHeader::parse(&batch).map_err(|error| failed(error.to_string()))?;
    Ok((header, batch))
}

/// What a chain leaves of a batch, ready to be appended. Diverted records are durable in their dead-letter topics when this returns.
pub(crate) async fn apply(
    broker: &Arc<Broker>,
    context: &RequestContext,
    partition: &Partition,
    chain: Arc<Chain>,
    config: &TopicConfig,
    valid: ValidBatch,
    records: Bytes,
) -> Result<(BatchHeader, Bytes), Refused> {
    let produced = valid.header;
    let header = honest_header(&valid);
    let ValidBatch { codec, section, .. } = valid;
    let batch_context = BatchContext {
        partition: partition.id.partition,
        base_offset: -1,
        base_timestamp: header.base_timestamp,
        leader_epoch: -1,
        record_count: header.record_count,
        principal: Some(context.principal.to_owned()),
        client_id: Some(context.client_id.to_string()),
    };
    let codec_wanted = stored_codec(config, codec);
    match broker.plugins.run(chain, batch_context, section.clone()).await {
        ChainOutcome::Unchanged if codec_wanted == codec && header == produced => Ok((header, records)),
        ChainOutcome::Unchanged => encode(config, &header, codec_wanted, &section, header.record_count),
        ChainOutcome::Stalled { reason } => Err(Refused::new(ErrorCode::KafkaStorageError, reason)),
        ChainOutcome::Changed { rejected, .. } if !rejected.is_empty() => Err(refuse(rejected)),
        ChainOutcome::Changed {
            records,
            record_count,
            diverted,
            ..
        } => {
            let changed = encode(config, &header, codec_wanted, &records, record_count)?;
            let max = usize::try_from(config.max_message_bytes).unwrap_or(0);
            if changed.1.len() > max {
                let message = format!(
                    "the plugins of {} made the batch {} bytes large, max.message.bytes is {max}",
                    partition.topic,
                    changed.1.len()
                );
                return Err(Refused::new(ErrorCode::MessageTooLarge, message));
            }
            // Last, when nothing can refuse the batch any more: a batch that is sent again must not be diverted again.
            divert(broker, partition, &header, &diverted).await?;
            Ok(changed)
        }
    }
}

fn refuse(rejected: Vec<Rejected>) -> Refused {
    let records: Vec<(i32, String)> = rejected.into_iter().map(|record| (record.index, record.reason)).collect();
    let first = records.first().map_or("", |(_, reason)| reason);
    let message = format!("{} records of the batch were rejected; the first: {first}", records.len());
    Refused {
        code: ErrorCode::InvalidRecord,
        message,
        records,
    }
}

/// Appends diverted records to their dead-letter topics and waits until they are durable there.
async fn divert(broker: &Arc<Broker>, source: &Partition, header: &BatchHeader, diverted: &[Diverted]) -> Result<(), Refused> {
    let mut topics: Vec<&str> = diverted.iter().map(|record| record.dead_letter_topic.as_str()).collect();
    topics.sort_unstable();
    topics.dedup();
    for topic in topics {
        let records: Vec<&Diverted> = diverted.iter().filter(|record| record.dead_letter_topic == topic).collect();
        append_dead_letters(broker, source, header, topic, &records)
            .await
            .map_err(|reason| {
                let message = format!("{} records could not be diverted to {topic}: {reason}", records.len());
                tracing::warn!(topic = %source.topic, partition = source.id.partition, "{message}");
                Refused::new(ErrorCode::KafkaStorageError, message)
            })?;
    }
    Ok(())
}

async fn append_dead_letters(
    broker: &Arc<Broker>,
    source: &Partition,
    header: &BatchHeader,
    topic: &str,
    records: &[&Diverted],
) -> Result<(), String> {
    let image = broker.metadata.image();
    let target = image.topic(topic).ok_or("the topic does not exist")?;
    let count = i32::try_from(target.partitions.len()).unwrap_or(i32::MAX).max(1);
    let partition = broker
        .partition(target, source.id.partition % count)
        .ok_or("the partition does not exist")?;
    let config = partition.topic_config();
    let limit = usize::try_from(config.max_message_bytes).unwrap_or(0) / 2;
    let codec = stored_codec(&config, header.compression().map_err(|error| error.to_string())?);
    let mut end = 0;
    let mut builder = BatchBuilder::new(codec);
    for record in records {
        if builder.record_count() > 0 && builder.section_len() + record.original.len() > limit {
            end = append_built(broker, &partition, std::mem::replace(&mut builder, BatchBuilder::new(codec)))?;
        }
        push_dead_letter(&mut builder, source, header, record)?;
    }
    if builder.record_count() > 0 {
        end = append_built(broker, &partition, builder)?;
    }
    if partition.wait_for(end).await {
        Ok(())
    } else {
        Err("its log is offline".to_owned())
    }
}

fn append_built(broker: &Broker, partition: &Partition, builder: BatchBuilder) -> Result<i64, String> {
    let batch = builder.build().map_err(|error| error.to_string())?;
    let header = BatchHeader::parse(&batch).map_err(|error| error.to_string())?;
    let appended = partition
        .append(&header, &batch, broker.clock.wall_ms(), None)
        .map_err(|error| error.to_string())?;
    Ok(appended.log_end_offset)
}

/// The record as it was produced, with where it came from and why it is here in its headers.
fn push_dead_letter(builder: &mut BatchBuilder, source: &Partition, header: &BatchHeader, diverted: &Diverted) -> Result<(), String> {
    let record = RecordIter::new(&diverted.original, 1)
        .next()
        .ok_or("empty record")?
        .map_err(|error| error.to_string())?;
    let timestamp = header.base_timestamp.saturating_add(record.timestamp_delta);
    let partition = source.id.partition.to_string();
    let time = timestamp.to_string();
    let facts: [(&[u8], &str); 8] = [
        (b"millstream.dlq.topic", &source.topic),
        (b"millstream.dlq.partition", &partition),
        (b"millstream.dlq.timestamp", &time),
        (b"millstream.dlq.hook", "produce"),
        (b"millstream.dlq.plugin", &diverted.plugin),
        (b"millstream.dlq.version", &diverted.version),
        (b"millstream.dlq.kind", diverted.kind),
        (b"millstream.dlq.error", &diverted.reason),
    ];
    let mut headers: Vec<Header<'_>> = record.headers().collect();
    headers.extend(facts.iter().map(|(key, value)| Header {
        key,
        value: Some(value.as_bytes()),
    }));
    builder.push(&NewRecord {
        timestamp,
        key: record.key,
        value: record.value,
        headers,
    });
    Ok(())
}
