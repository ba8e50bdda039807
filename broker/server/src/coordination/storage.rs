//! A coordinator's records in the log of its partition.

use bytes::Bytes;
use millstream_core::RecordDecodeError;
use millstream_log::{AppendError, LogError};
use millstream_protocol::{
    ErrorCode,
    compression::{Compression, CompressionError},
    record::{BatchBuilder, BatchError, BatchHeader, Marker, NO_SEQUENCE, NewRecord, Record, RecordIter},
};

use super::{Core, shard::Producer};
use crate::{errors::append_error_code, partition::Partition};

/// Bytes of records after which a batch is full. One record alone may be larger: the coordinator bounds it by what the topic takes.
const BATCH_BYTES: usize = 512 << 10;
/// Most bytes that one batch may decompress to.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// Why a coordinator's records could not be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An append to it.
    #[error("append a coordinator's records: {0}")]
    Append(#[from] AppendError),
    /// A batch.
    #[error("batch of a coordinator's records: {0}")]
    Batch(#[from] BatchError),
    /// A batch's record section.
    #[error("batch of a coordinator's records: {0}")]
    Compression(#[from] CompressionError),
    /// A record.
    #[error("coordinator's record at offset {offset}: {source}")]
    Record {
        /// Where it lies.
        offset: i64,
        /// What is wrong.
        source: RecordDecodeError,
    },
}

/// Appends records in order, as one batch where they fit.
pub(super) fn append<C: Core>(partition: &Partition, records: &[C::Record], now_ms: i64) -> Result<(), StorageError> {
    for batch in encode::<C>(records, now_ms, || BatchBuilder::new(Compression::None))? {
        partition.append(&BatchHeader::parse(&batch)?, &batch, now_ms, None)?;
    }
    Ok(())
}

/// Appends records as part of a producer's transaction. The inner error is the producer's fault.
pub(super) fn append_transactional<C: Core>(
    partition: &Partition,
    producer: Producer,
    records: &[C::Record],
    now_ms: i64,
) -> Result<Result<(), ErrorCode>, StorageError> {
    let builder = || {
        BatchBuilder::new(Compression::None)
            .idempotent(producer.id, producer.epoch, NO_SEQUENCE)
            .transactional()
    };
    for batch in encode::<C>(records, now_ms, builder)? {
        let appended = partition.append(&BatchHeader::parse(&batch)?, &batch, now_ms, producer.guard);
        if let Err(refused) = appended.map(|_| Ok(())).or_else(refusal::<()>)? {
            return Ok(Err(refused));
        }
    }
    Ok(Ok(()))
}

/// Appends the end of a producer's transaction. The inner error says that it is not the current one.
pub(super) fn append_marker(
    partition: &Partition,
    producer_id: i64,
    producer_epoch: i16,
    marker: Marker,
    now_ms: i64,
) -> Result<Result<(), ErrorCode>, StorageError> {
    let batch = marker.encode(producer_id, producer_epoch, now_ms)?;
    let appended = partition.append(&BatchHeader::parse(&batch)?, &batch, now_ms, None);
    appended.map(|_| Ok(())).or_else(refusal)
}

/// Tells refusals, after which the log is as it was, from failures.
fn refusal<T>(error: AppendError) -> Result<Result<T, ErrorCode>, StorageError> {
    match error {
        AppendError::OutOfOrderSequence { .. }
        | AppendError::FencedProducerEpoch { .. }
        | AppendError::InvalidTransactionState { .. }
        | AppendError::FencedCoordinator { .. } => Ok(Err(append_error_code(&error))),
        AppendError::Log(_) | AppendError::Batch(_) | AppendError::TooLarge { .. } => Err(error.into()),
    }
}

fn encode<C: Core>(records: &[C::Record], now_ms: i64, builder: impl Fn() -> BatchBuilder) -> Result<Vec<Bytes>, CompressionError> {
    let mut batches = Vec::new();
    let mut batch = builder();
    for record in records {
        if batch.section_len() >= BATCH_BYTES {
            batches.push(std::mem::replace(&mut batch, builder()).build()?);
        }
        let (key, value) = C::encode(record);
        batch.push(&NewRecord {
            timestamp: now_ms,
            key: Some(&key),
            value: value.as_deref(),
            headers: Vec::new(),
        });
    }
    if batch.record_count() > 0 {
        batches.push(batch.build()?);
    }
    Ok(batches)
}

/// Tells a coordinator everything that the partition's log says. Blocks on the disk.
pub(super) fn replay<C: Core>(partition: &Partition, core: &mut C) -> Result<(), StorageError> {
    partition.log().replay(0, |header, batch| replay_batch(core, &header, &batch))
}

fn replay_batch<C: Core>(core: &mut C, header: &BatchHeader, batch: &Bytes) -> Result<(), StorageError> {
    if header.is_control() {
        if let Some(marker) = Marker::parse(header, batch)? {
            core.apply_marker(header.producer_id, marker.commit);
        }
        return Ok(());
    }
    let codec = header.compression()?;
    let body = batch.slice(BatchHeader::SIZE..);
    let section = codec.decompress(&body, body.len().max(DECOMPRESSED_BYTES_MAX))?;
    for record in RecordIter::new(&section, header.record_count) {
        let record = record?;
        let offset = header.base_offset + i64::from(record.offset_delta);
        replay_record(core, header, &record).map_err(|source| StorageError::Record { offset, source })?;
    }
    Ok(())
}

fn replay_record<C: Core>(core: &mut C, header: &BatchHeader, record: &Record<'_>) -> Result<(), RecordDecodeError> {
    // Records of kinds that are unknown here are none of ours.
    let Some(decoded) = C::decode(record.key.unwrap_or_default(), record.value)? else {
        return Ok(());
    };
    if header.is_transactional() {
        core.apply_transactional(header.producer_id, &decoded);
    } else {
        core.apply(&decoded);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use millstream_core::group::{CommittedOffset, GroupConfig, GroupCoordinator, GroupRecord};

    use super::*;

    fn commit(partition: i32, offset: i64, metadata: &str) -> GroupRecord {
        let value = CommittedOffset {
            offset,
            leader_epoch: -1,
            metadata: metadata.to_owned(),
            commit_timestamp_ms: 5,
            expire_timestamp_ms: None,
        };
        GroupRecord::Offset {
            group_id: "g".to_owned(),
            topic: "t".to_owned(),
            partition,
            value: Some(value),
        }
    }

    fn replay_all(batches: &[Bytes]) -> GroupCoordinator {
        let mut coordinator = GroupCoordinator::new(GroupConfig::default());
        for batch in batches {
            replay_batch(&mut coordinator, &BatchHeader::parse(batch).unwrap(), batch).unwrap();
        }
        coordinator
    }

    #[test]
    fn replay_gives_what_was_applied() {
        let records = [commit(0, 7, "text"), commit(1, 8, ""), commit(0, 9, "")];
        let batches = encode::<GroupCoordinator>(&records, 5, || BatchBuilder::new(Compression::None)).unwrap();
        assert_eq!(batches.len(), 1);
        let mut live = GroupCoordinator::new(GroupConfig::default());
        records.iter().for_each(|record| live.apply(record));
        assert_eq!(replay_all(&batches).hard_state(), live.hard_state());
    }

    #[test]
    fn many_records_become_several_batches() {
        let text = "x".repeat(4_096);
        let records: Vec<_> = (0..300).map(|partition| commit(partition, 1, &text)).collect();
        let batches = encode::<GroupCoordinator>(&records, 5, || BatchBuilder::new(Compression::None)).unwrap();
        assert!(batches.len() > 1 && batches.iter().all(|batch| batch.len() < BATCH_BYTES + 8_192));
        let counts = batches.iter().map(|batch| BatchHeader::parse(batch).unwrap().record_count);
        assert_eq!(counts.sum::<i32>(), 300);
    }

    #[test]
    fn transactional_offsets_become_visible_with_the_commit_marker() {
        let mut coordinator = GroupCoordinator::new(GroupConfig::default());
        coordinator.apply_transactional(77, &commit(0, 7, ""));
        let marker = Marker {
            commit: true,
            coordinator_epoch: 0,
        }
        .encode(77, 0, 5)
        .unwrap();
        replay_batch(&mut coordinator, &BatchHeader::parse(&marker).unwrap(), &marker).unwrap();
        let mut expected = GroupCoordinator::new(GroupConfig::default());
        expected.apply_transactional(77, &commit(0, 7, ""));
        expected.apply_marker(77, true);
        assert_eq!(coordinator.hard_state(), expected.hard_state());
    }

    #[test]
    fn damaged_record_is_an_error_with_its_offset() {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(&NewRecord {
            timestamp: 1,
            key: Some(&[0]),
            value: None,
            headers: Vec::new(),
        });
        let batch = builder.build().unwrap();
        let mut coordinator = GroupCoordinator::new(GroupConfig::default());
        let outcome = replay_batch(&mut coordinator, &BatchHeader::parse(&batch).unwrap(), &batch);
        assert!(matches!(
            outcome,
            Err(StorageError::Record {
                offset: 0,
                source: RecordDecodeError::Truncated
            })
        ));
    }
}
