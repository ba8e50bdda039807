//! What a log knows of idempotent producers: their epoch and last five batches, to refuse gaps and recognise duplicates (KIP-98).
//!
//! Snapshot file: `magic "MSPRD\0\0\1" | next offset i64 | count u32 | entries | crc32c u32`, an entry being `producer id i64 |
//! epoch i16 | last timestamp i64 | batch count u8 | { base sequence i32 | last sequence i32 | base offset i64 | last offset i64 | timestamp i64 }*`,
//! all big-endian.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use millstream_protocol::record::BatchHeader;

use crate::AppendError;

const MAGIC: [u8; 8] = *b"MSPRD\0\0\x01";
/// A producer may have this many requests in flight, so a retry can be at most this many batches old.
const BATCHES_KEPT: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ProducedBatch {
    base_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
    last_offset: i64,
    timestamp: i64,
}

/// The state of one producer on one log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProducerEntry {
    epoch: i16,
    last_timestamp: i64,
    batches: VecDeque<ProducedBatch>,
}

impl ProducerEntry {
    /// The producer's epoch.
    pub fn epoch(&self) -> i16 {
        self.epoch
    }

    /// Sequence number of its last record, -1 if none is known.
    pub fn last_sequence(&self) -> i32 {
        self.batches.back().map_or(-1, |batch| batch.last_sequence)
    }

    /// Timestamp of its last batch in milliseconds.
    pub fn last_timestamp(&self) -> i64 {
        self.last_timestamp
    }
}

/// What to do with a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sequence {
    /// It follows; append it.
    Next,
    /// It was appended before, at this offset and with this append time.
    Duplicate { base_offset: i64, timestamp: i64 },
}

/// The producers of one log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProducerStates {
    producers: BTreeMap<i64, ProducerEntry>,
}

impl ProducerStates {
    /// The producers in order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &ProducerEntry)> {
        self.producers.iter().map(|(id, entry)| (*id, entry))
    }

    /// Checks a batch against its producer's state, without changing it.
    pub(crate) fn check(&self, header: &BatchHeader) -> Result<Sequence, AppendError> {
        let Some(entry) = self.producers.get(&header.producer_id) else {
            // The producer may be known to have expired, so any sequence starts it anew.
            return Ok(Sequence::Next);
        };
        let producer_id = header.producer_id;
        if header.producer_epoch < entry.epoch {
            return Err(AppendError::FencedProducerEpoch {
                producer_id,
                found: header.producer_epoch,
                current: entry.epoch,
            });
        }
        if header.is_control() {
            return Ok(Sequence::Next);
        }
        let found = header.base_sequence;
        if header.producer_epoch > entry.epoch {
            return if found == 0 {
                Ok(Sequence::Next)
            } else {
                Err(AppendError::OutOfOrderSequence {
                    producer_id,
                    found,
                    expected: 0,
                })
            };
        }
        let same = |batch: &&ProducedBatch| batch.base_sequence == found && batch.last_sequence == header.last_sequence();
        if let Some(batch) = entry.batches.iter().find(same) {
            return Ok(Sequence::Duplicate {
                base_offset: batch.base_offset,
                timestamp: batch.timestamp,
            });
        }
        match entry.batches.back() {
            None => Ok(Sequence::Next),
            Some(last) => {
                let expected = last.last_sequence.wrapping_add(1) & i32::MAX;
                if found == expected {
                    Ok(Sequence::Next)
                } else {
                    Err(AppendError::OutOfOrderSequence {
                        producer_id,
                        found,
                        expected,
                    })
                }
            }
        }
    }

    /// Takes note of an appended batch; live and on replay.
    pub(crate) fn apply(&mut self, header: &BatchHeader) {
        if !header.has_producer_id() {
            return;
        }
        let entry = self.producers.entry(header.producer_id).or_default();
        if entry.epoch != header.producer_epoch {
            entry.epoch = header.producer_epoch;
            entry.batches.clear();
        }
        entry.last_timestamp = header.max_timestamp;
        if header.is_control() {
            return;
        }
        if entry.batches.len() == BATCHES_KEPT {
            entry.batches.pop_front();
        }
        entry.batches.push_back(ProducedBatch {
            base_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            timestamp: header.max_timestamp,
        });
    }

    /// Forgets producers that wrote nothing since `before_ms`.
    pub(crate) fn expire(&mut self, before_ms: i64) {
        self.producers.retain(|_, entry| entry.last_timestamp >= before_ms);
    }

    /// The snapshot of the state before `next_offset`.
    pub(crate) fn encode(&self, next_offset: i64) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_slice(&MAGIC);
        bytes.put_i64(next_offset);
        bytes.put_u32(u32::try_from(self.producers.len()).unwrap_or(u32::MAX));
        for (id, entry) in &self.producers {
            bytes.put_i64(*id);
            bytes.put_i16(entry.epoch);
            bytes.put_i64(entry.last_timestamp);
            bytes.put_u8(entry.batches.len() as u8);
            for batch in &entry.batches {
                bytes.put_i32(batch.base_sequence);
                bytes.put_i32(batch.last_sequence);
                bytes.put_i64(batch.base_offset);
                bytes.put_i64(batch.last_offset);
                bytes.put_i64(batch.timestamp);
            }
        }
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes) as u32;
        bytes.put_u32(crc);
        bytes.freeze()
    }

    /// Reads a snapshot; `None` if it is damaged or not of `next_offset`.
    pub(crate) fn decode(bytes: &[u8], next_offset: i64) -> Option<Self> {
        let (mut rest, crc) = bytes.split_last_chunk::<4>()?;
        if crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, rest) as u32 != u32::from_be_bytes(*crc) {
            return None;
        }
        rest = rest.strip_prefix(&MAGIC)?;
        if rest.try_get_i64().ok()? != next_offset {
            return None;
        }
        let count = rest.try_get_u32().ok()?;
        let mut producers = BTreeMap::new();
        for _ in 0..count {
            let id = rest.try_get_i64().ok()?;
            let mut entry = ProducerEntry {
                epoch: rest.try_get_i16().ok()?,
                last_timestamp: rest.try_get_i64().ok()?,
                batches: VecDeque::new(),
            };
            for _ in 0..rest.try_get_u8().ok()? {
                entry.batches.push_back(ProducedBatch {
                    base_sequence: rest.try_get_i32().ok()?,
                    last_sequence: rest.try_get_i32().ok()?,
                    base_offset: rest.try_get_i64().ok()?,
                    last_offset: rest.try_get_i64().ok()?,
                    timestamp: rest.try_get_i64().ok()?,
                });
            }
            producers.insert(id, entry);
        }
        rest.is_empty().then_some(Self { producers })
    }
}

#[cfg(test)]
mod tests {
    use millstream_protocol::{
        compression::Compression,
        record::{BatchBuilder, NewRecord},
    };

    use super::*;

    fn batch(epoch: i16, sequence: i32, records: usize, base_offset: i64) -> BatchHeader {
        let mut builder = BatchBuilder::new(Compression::None).idempotent(9, epoch, sequence);
        for _ in 0..records {
            builder.push(&NewRecord {
                timestamp: 50,
                ..NewRecord::default()
            });
        }
        BatchHeader {
            base_offset,
            ..BatchHeader::parse(&builder.build().unwrap()).unwrap()
        }
    }

    #[test]
    fn the_last_five_batches_are_recognised_and_answered_with_their_offset() {
        let mut states = ProducerStates::default();
        for index in 0..6 {
            let header = batch(0, index * 2, 2, i64::from(index) * 10);
            assert_eq!(states.check(&header).unwrap(), Sequence::Next);
            states.apply(&header);
        }
        for index in 1..6 {
            let again = batch(0, index * 2, 2, 999);
            assert_eq!(
                states.check(&again).unwrap(),
                Sequence::Duplicate {
                    base_offset: i64::from(index) * 10,
                    timestamp: 50
                }
            );
        }
        assert!(matches!(
            states.check(&batch(0, 0, 2, 0)),
            Err(AppendError::OutOfOrderSequence { expected: 12, .. })
        ));
    }

    #[test]
    fn gaps_old_epochs_and_new_epochs_not_at_zero_are_refused() {
        let mut states = ProducerStates::default();
        states.apply(&batch(3, 7, 1, 0));
        assert!(matches!(
            states.check(&batch(3, 9, 1, 0)),
            Err(AppendError::OutOfOrderSequence { expected: 8, found: 9, .. })
        ));
        assert!(matches!(
            states.check(&batch(2, 8, 1, 0)),
            Err(AppendError::FencedProducerEpoch { current: 3, .. })
        ));
        assert!(matches!(
            states.check(&batch(4, 8, 1, 0)),
            Err(AppendError::OutOfOrderSequence { expected: 0, .. })
        ));
        assert_eq!(states.check(&batch(4, 0, 1, 0)).unwrap(), Sequence::Next);
    }

    #[test]
    fn sequences_wrap_from_the_largest_to_zero() {
        let mut states = ProducerStates::default();
        states.apply(&batch(0, i32::MAX, 1, 0));
        assert_eq!(states.check(&batch(0, 0, 1, 1)).unwrap(), Sequence::Next);
    }

    #[test]
    fn snapshots_round_trip_and_damage_is_noticed() {
        let mut states = ProducerStates::default();
        states.apply(&batch(3, 7, 1, 0));
        states.apply(&batch(3, 8, 4, 1));
        let bytes = states.encode(5);
        assert_eq!(ProducerStates::decode(&bytes, 5), Some(states));
        assert_eq!(ProducerStates::decode(&bytes, 6), None);
        for index in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[index] ^= 1;
            assert_eq!(ProducerStates::decode(&damaged, 5), None);
        }
    }
}
