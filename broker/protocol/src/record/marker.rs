//! The end of a transaction in a partition: a control batch of one record (KIP-98).

use bytes::Bytes;

use super::{BatchBuilder, BatchError, BatchHeader, NewRecord, RecordIter, builder::transactional_control};
use crate::compression::{Compression, CompressionError};

const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// What a transaction marker says besides the producer that its batch header names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// The transaction was committed, not aborted.
    pub commit: bool,
    /// Epoch of the coordinator that wrote it.
    pub coordinator_epoch: i32,
}

impl Marker {
    /// The control batch. Its record's key is `version i16 = 0, kind i16` (0 abort, 1 commit), its value `version i16 = 0, coordinator epoch i32`.
    pub fn encode(&self, producer_id: i64, producer_epoch: i16, timestamp: i64) -> Result<Bytes, CompressionError> {
        let mut builder: BatchBuilder = transactional_control(producer_id, producer_epoch);
        let kind = if self.commit { COMMIT } else { ABORT };
        let mut key = [0; 4];
        key[2..].copy_from_slice(&kind.to_be_bytes());
        let mut value = [0; 6];
        value[2..].copy_from_slice(&self.coordinator_epoch.to_be_bytes());
        builder.push(&NewRecord {
            timestamp,
            key: Some(&key),
            value: Some(&value),
            headers: Vec::new(),
        });
        builder.build()
    }

    /// Reads the marker of a control batch; `None` for control records of other kinds, and for a batch that compaction emptied.
    pub fn parse(header: &BatchHeader, batch: &[u8]) -> Result<Option<Self>, BatchError> {
        let malformed = BatchError::Record {
            index: 0,
            field: "control record",
        };
        if !header.is_control() || header.record_count == 0 {
            return Ok(None);
        }
        let section = batch.get(BatchHeader::SIZE..).ok_or(malformed.clone())?;
        // Brokers write control batches uncompressed.
        if header.compression()? != Compression::None {
            return Err(malformed);
        }
        let record = RecordIter::new(section, header.record_count).next().ok_or(malformed.clone())??;
        let kind = record.key.and_then(|key| key.get(2..4)).and_then(|kind| kind.try_into().ok());
        let epoch = record
            .value
            .and_then(|value| value.get(2..6))
            .and_then(|epoch| epoch.try_into().ok());
        match kind.map(i16::from_be_bytes).ok_or(malformed.clone())? {
            kind @ (ABORT | COMMIT) => Ok(Some(Self {
                commit: kind == COMMIT,
                coordinator_epoch: epoch.map(i32::from_be_bytes).ok_or(malformed)?,
            })),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_reads_back() {
        for commit in [false, true] {
            let marker = Marker {
                commit,
                coordinator_epoch: 7,
            };
            let batch = marker.encode(3, 2, 50).unwrap();
            let header = BatchHeader::parse(&batch).unwrap();
            assert!(header.is_control() && header.is_transactional());
            assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (3, 2, -1));
            assert_eq!(Marker::parse(&header, &batch), Ok(Some(marker)));
            for end in BatchHeader::SIZE..batch.len() {
                assert!(Marker::parse(&header, &batch[..end]).is_err(), "cut at {end}");
            }
        }
    }

    #[test]
    fn other_control_records_are_no_markers() {
        let batch = Marker {
            commit: true,
            coordinator_epoch: 7,
        }
        .encode(3, 2, 50)
        .unwrap()
        .to_vec();
        let header = BatchHeader::parse(&batch).unwrap();
        let mut other = batch;
        // length, attributes, timestamp delta, offset delta, key length, then the key: version and kind.
        other[BatchHeader::SIZE + 8] = 2;
        assert_eq!(Marker::parse(&header, &other), Ok(None));
    }
}
