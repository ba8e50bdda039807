//! Group records in the log of a partition of `__consumer_offsets`.

use bytes::Bytes;
use millstream_core::group::{GroupConfig, GroupCoordinator, GroupRecord, RecordDecodeError};
use millstream_log::{AppendError, LogError};
use millstream_protocol::{
    compression::{Compression, CompressionError},
    record::{BatchBuilder, BatchError, BatchHeader, NewRecord, Record, RecordIter},
};

use crate::partition::Partition;

/// Bytes of records after which a batch is full. One record alone may be larger: the coordinator bounds it by what the topic takes.
const BATCH_BYTES: usize = 512 << 10;
/// Most bytes that one batch may decompress to.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// Why group records could not be written or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum StorageError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An append to it.
    #[error("append group records: {0}")]
    Append(#[from] AppendError),
    /// A batch.
    #[error("batch of group records: {0}")]
    Batch(#[from] BatchError),
    /// A batch's record section.
    #[error("batch of group records: {0}")]
    Compression(#[from] CompressionError),
    /// A record.
    #[error("group record at offset {offset}: {source}")]
    Record {
        /// Where it lies.
        offset: i64,
        /// What is wrong.
        source: RecordDecodeError,
    },
}

/// Appends records in order, as one batch where they fit.
pub(super) fn append(partition: &Partition, records: &[GroupRecord], now_ms: i64) -> Result<(), StorageError> {
    for batch in encode(records, now_ms)? {
        partition.append(&BatchHeader::parse(&batch)?, &batch, now_ms)?;
    }
    Ok(())
}

fn encode(records: &[GroupRecord], now_ms: i64) -> Result<Vec<Bytes>, CompressionError> {
    let mut batches = Vec::new();
    let mut builder = BatchBuilder::new(Compression::None);
    for record in records {
        if builder.section_len() >= BATCH_BYTES {
            let full = std::mem::replace(&mut builder, BatchBuilder::new(Compression::None));
            batches.push(full.build()?);
        }
        let (key, value) = (record.encode_key(), record.encode_value());
        builder.push(&NewRecord {
            timestamp: now_ms,
            key: Some(&key),
            value: value.as_deref(),
            headers: Vec::new(),
        });
    }
    if builder.record_count() > 0 {
        batches.push(builder.build()?);
    }
    Ok(batches)
}

/// A coordinator with everything that the partition's log says. Blocks on the disk.
pub(super) fn replay(partition: &Partition, config: GroupConfig) -> Result<GroupCoordinator, StorageError> {
    let mut coordinator = GroupCoordinator::new(config);
    partition
        .log()
        .replay(0, |header, batch| replay_batch(&mut coordinator, &header, &batch))?;
    Ok(coordinator)
}

fn replay_batch(coordinator: &mut GroupCoordinator, header: &BatchHeader, batch: &Bytes) -> Result<(), StorageError> {
    let section = header
        .compression()?
        .decompress(&batch.slice(BatchHeader::SIZE..), DECOMPRESSED_BYTES_MAX)?;
    for record in RecordIter::new(&section, header.record_count) {
        let record = record?;
        let offset = header.base_offset + i64::from(record.offset_delta);
        replay_record(coordinator, header, &record).map_err(|source| StorageError::Record { offset, source })?;
    }
    Ok(())
}

fn replay_record(coordinator: &mut GroupCoordinator, header: &BatchHeader, record: &Record<'_>) -> Result<(), RecordDecodeError> {
    let key = record.key.unwrap_or_default();
    if header.is_control() {
        // A transaction marker: version, then 0 for abort and 1 for commit (KIP-98).
        let Some(&[_, _, kind_high, kind]) = key.first_chunk() else {
            return Err(RecordDecodeError::Truncated);
        };
        coordinator.apply_marker(header.producer_id, (kind_high, kind) == (0, 1));
        return Ok(());
    }
    // Records of kinds of groups that are unknown here are none of ours.
    let Some(decoded) = GroupRecord::decode(key, record.value)? else {
        return Ok(());
    };
    if header.is_transactional() {
        coordinator.apply_transactional(header.producer_id, &decoded);
    } else {
        coordinator.apply(&decoded);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use millstream_core::group::CommittedOffset;
    use millstream_protocol::record::control_batch;

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
        let batches = encode(&records, 5).unwrap();
        assert_eq!(batches.len(), 1);
        let mut live = GroupCoordinator::new(GroupConfig::default());
        records.iter().for_each(|record| live.apply(record));
        assert_eq!(replay_all(&batches).hard_state(), live.hard_state());
    }

    #[test]
    fn many_records_become_several_batches() {
        let text = "x".repeat(4_096);
        let records: Vec<_> = (0..300).map(|partition| commit(partition, 1, &text)).collect();
        let batches = encode(&records, 5).unwrap();
        assert!(batches.len() > 1 && batches.iter().all(|batch| batch.len() < BATCH_BYTES + 8_192));
        let counts = batches.iter().map(|batch| BatchHeader::parse(batch).unwrap().record_count);
        assert_eq!(counts.sum::<i32>(), 300);
    }

    #[test]
    fn transactional_offsets_become_visible_with_the_commit_marker() {
        let mut coordinator = GroupCoordinator::new(GroupConfig::default());
        coordinator.apply_transactional(77, &commit(0, 7, ""));
        let marker = control_batch(77, 0, true, 0, 5).unwrap();
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
