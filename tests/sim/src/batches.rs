//! Records of the simulated clients and of the cores, as record batches and back.

use anyhow::{Context, Result};
use bytes::Bytes;
use millstream_core::{
    group::{GroupCoordinator, GroupRecord},
    metadata::{ClusterImage, MetadataRecord},
};
use millstream_log::Log;
use millstream_protocol::{
    compression::Compression,
    record::{BatchBuilder, BatchHeader, NewRecord, RecordIter, split_batches, verify_crc},
};

/// Most bytes that one batch may decompress to.
const BATCH_BUDGET_BYTES: usize = 1 << 20;
/// Most bytes of one read.
const READ_BYTES: usize = 4096;

/// Who sends an idempotent batch: producer id and base sequence.
pub type Identity = Option<(i64, i32)>;

/// A batch of a client's values; the padding makes batches of different sizes.
pub fn of_values(identity: Identity, now_ms: i64, values: &[u64], padding: usize) -> Result<(BatchHeader, Bytes)> {
    let mut builder = BatchBuilder::new(Compression::None);
    if let Some((producer_id, base_sequence)) = identity {
        builder = builder.idempotent(producer_id, 0, base_sequence);
    }
    let key = vec![b'k'; padding];
    for value in values {
        builder.push(&NewRecord {
            timestamp: now_ms,
            key: Some(&key),
            value: Some(&value.to_be_bytes()),
            headers: Vec::new(),
        });
    }
    finish(builder)
}

/// A batch of group records.
pub fn of_group(records: &[GroupRecord], now_ms: i64) -> Result<(BatchHeader, Bytes)> {
    let mut builder = BatchBuilder::new(Compression::None);
    for record in records {
        let (key, value) = (record.encode_key(), record.encode_value());
        builder.push(&NewRecord {
            timestamp: now_ms,
            key: Some(&key),
            value: value.as_deref(),
            headers: Vec::new(),
        });
    }
    finish(builder)
}

/// A batch of metadata records.
pub fn of_metadata(records: &[MetadataRecord], now_ms: i64) -> Result<(BatchHeader, Bytes)> {
    let mut builder = BatchBuilder::new(Compression::None);
    for record in records {
        let value = record.encode().context("encode a metadata record")?;
        builder.push(&NewRecord {
            timestamp: now_ms,
            value: Some(&value),
            ..NewRecord::default()
        });
    }
    finish(builder)
}

fn finish(builder: BatchBuilder) -> Result<(BatchHeader, Bytes)> {
    let batch = builder.build()?;
    Ok((BatchHeader::parse(&batch)?, batch))
}

/// Offsets and values of a client's records from `from` to `up_to` (exclusive): one read of them, or none.
pub fn values(log: &Log, from: i64, up_to: i64) -> Result<Vec<(i64, u64)>> {
    let mut found = Vec::new();
    let Some(read) = log.read(from, up_to, READ_BYTES, true)? else {
        return Ok(found);
    };
    for item in split_batches(read.bytes()?) {
        let (header, batch) = item?;
        verify_crc(&batch)?;
        let section = section(&header, &batch)?;
        for record in RecordIter::new(&section, header.record_count) {
            let record = record?;
            let offset = header.base_offset + i64::from(record.offset_delta);
            let value = record.value.and_then(|value| value.first_chunk()).context("a value has 8 bytes")?;
            if offset >= from {
                found.push((offset, u64::from_be_bytes(*value)));
            }
        }
    }
    Ok(found)
}

/// A coordinator with everything that its log says.
pub fn replay_group(log: &Log, mut coordinator: GroupCoordinator) -> Result<GroupCoordinator> {
    log.replay(0, |header, batch| -> Result<()> {
        for record in RecordIter::new(&section(&header, &batch)?, header.record_count) {
            let record = record?;
            let record = GroupRecord::decode(record.key.unwrap_or_default(), record.value)?;
            coordinator.apply(&record.context("a record of another kind of group")?);
        }
        Ok(())
    })?;
    Ok(coordinator)
}

/// An image with everything that its log says.
pub fn replay_metadata(log: &Log, mut image: ClusterImage) -> Result<ClusterImage> {
    log.replay(0, |header, batch| -> Result<()> {
        for record in RecordIter::new(&section(&header, &batch)?, header.record_count) {
            image.apply(&MetadataRecord::decode(record?.value.unwrap_or_default())?)?;
        }
        Ok(())
    })?;
    Ok(image)
}

fn section(header: &BatchHeader, batch: &Bytes) -> Result<Bytes> {
    Ok(header
        .compression()?
        .decompress(&batch.slice(BatchHeader::SIZE..), BATCH_BUDGET_BYTES)?)
}
