//! What a log knows of idempotent and transactional producers: their epoch and last five batches, to refuse gaps and recognise duplicates,
//! and their transactions (KIP-98, KIP-890).
//!
//! Snapshot file: `magic "MSPRD\0\0\2" | next offset i64 | count u32 | entries | aborted transactions | crc32c u32`, an entry being
//! `producer id i64 | epoch i16 | last timestamp i64 | coordinator epoch i32 | first offset of the open transaction i64 or -1 | batch count u8 |
//! { base sequence i32 | last sequence i32 | base offset i64 | last offset i64 | timestamp i64 }*`, all big-endian. Version 1 had no transactions.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use millstream_protocol::record::{BatchHeader, Marker, NO_SEQUENCE};

use crate::{
    AppendError,
    transactions::{AbortedTransaction, Transactions},
};

const MAGIC: [u8; 8] = *b"MSPRD\0\0\x02";
const MAGIC_V1: [u8; 8] = *b"MSPRD\0\0\x01";
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

/// Verifications under way at a time on one log.
const GUARDS_MAX: usize = 10_000;

/// The state of one producer on one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerEntry {
    epoch: i16,
    last_timestamp: i64,
    /// Of the last marker, -1 before any.
    coordinator_epoch: i32,
    batches: VecDeque<ProducedBatch>,
}

impl Default for ProducerEntry {
    fn default() -> Self {
        Self {
            epoch: -1,
            last_timestamp: -1,
            coordinator_epoch: -1,
            batches: VecDeque::new(),
        }
    }
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

    /// Epoch of the coordinator that wrote its last marker, -1 if none is known.
    pub fn coordinator_epoch(&self) -> i32 {
        self.coordinator_epoch
    }
}

/// The first batch of a transaction that a producer wants to write to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstBatch {
    /// Its producer.
    pub producer_id: i64,
    /// Its producer's epoch.
    pub epoch: i16,
    /// Sequence number of its first record, -1 if it has none.
    pub base_sequence: i32,
    /// Whether each transaction has an epoch, and so sequences from 0, of its own (version 2 of KIP-890).
    pub is_version_two: bool,
}

/// What is known of a producer that waits to be verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Verification {
    guard: VerificationGuard,
    epoch: i16,
    /// Of the batches that wait: none with a higher one may be the first.
    lowest_sequence: i32,
    is_version_two: bool,
}

/// That a transaction's coordinator knows of this partition, so that a first batch may be appended; void once a marker comes in between (KIP-890).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerificationGuard(u64);

/// How a transactional batch may be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionState {
    /// Its transaction is open on this log.
    Open,
    /// The coordinator has to say first that the partition belongs to the transaction.
    Unverified(VerificationGuard),
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
    transactions: Transactions,
    /// Who is being verified, by producer. Not in snapshots.
    verifications: BTreeMap<i64, Verification>,
    next_guard: u64,
}

impl ProducerStates {
    /// One producer.
    pub fn get(&self, producer_id: i64) -> Option<&ProducerEntry> {
        self.producers.get(&producer_id)
    }

    /// The producers in order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &ProducerEntry)> {
        self.producers.iter().map(|(id, entry)| (*id, entry))
    }

    /// Where a producer's open transaction begins.
    pub fn transaction_since(&self, producer_id: i64) -> Option<i64> {
        self.transactions.open_since(producer_id)
    }

    pub(crate) fn last_stable_offset(&mut self, high_watermark: i64) -> i64 {
        self.transactions.last_stable_offset(high_watermark)
    }

    pub(crate) fn aborted_between(&self, from: i64, to: i64) -> Vec<AbortedTransaction> {
        self.transactions.aborted_between(from, to)
    }

    pub(crate) fn forget_below(&mut self, log_start_offset: i64) {
        self.transactions.forget_below(log_start_offset);
    }

    /// Whether a producer's transaction is open here; if not, what its first batch needs.
    pub(crate) fn transaction_state(&mut self, first: FirstBatch) -> TransactionState {
        let producer_id = first.producer_id;
        let is_current = self.producers.get(&producer_id).is_some_and(|entry| entry.epoch == first.epoch);
        if is_current && self.transactions.open_since(producer_id).is_some() {
            return TransactionState::Open;
        }
        if self.verifications.len() >= GUARDS_MAX && !self.verifications.contains_key(&producer_id) {
            let oldest = self.verifications.iter().min_by_key(|(_, known)| known.guard.0);
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                self.verifications.remove(&oldest);
            }
        }
        let next_guard = &mut self.next_guard;
        let known = self.verifications.entry(producer_id).or_insert_with(|| {
            *next_guard += 1;
            Verification {
                guard: VerificationGuard(*next_guard),
                epoch: first.epoch,
                lowest_sequence: first.base_sequence,
                is_version_two: first.is_version_two,
            }
        });
        if first.epoch > known.epoch {
            (known.epoch, known.lowest_sequence) = (first.epoch, first.base_sequence);
        } else if first.epoch == known.epoch {
            known.lowest_sequence = known.lowest_sequence.min(first.base_sequence);
        }
        TransactionState::Unverified(known.guard)
    }

    /// The coordinator refused for good. What waits under a later epoch is not meant.
    pub(crate) fn forget_verification(&mut self, producer_id: i64, epoch: i16, guard: VerificationGuard) {
        let known = self.verifications.get(&producer_id);
        if known.is_some_and(|known| known.guard == guard && known.epoch == epoch) {
            self.verifications.remove(&producer_id);
        }
    }

    /// Checks that a transactional batch continues an open transaction or was verified after the last marker.
    pub(crate) fn check_transaction(&self, header: &BatchHeader, guard: Option<VerificationGuard>) -> Result<(), AppendError> {
        let producer_id = header.producer_id;
        match (self.transactions.open_since(producer_id), self.producers.get(&producer_id)) {
            (Some(_), Some(entry)) if !header.is_control() && !header.is_transactional() => Err(AppendError::InvalidTransactionState {
                producer_id,
                epoch: entry.epoch,
            }),
            _ if !header.is_transactional() || header.is_control() => Ok(()),
            // A newer epoch must not carry on an older one's transaction: its abort comes first.
            (Some(_), Some(entry)) if header.producer_epoch == entry.epoch => Ok(()),
            (None, _) if guard.is_some() && self.verifications.get(&producer_id).map(|known| known.guard) == guard => Ok(()),
            _ => Err(AppendError::InvalidTransactionState {
                producer_id,
                epoch: header.producer_epoch,
            }),
        }
    }

    /// Transactions whose outcome lies below `durable_end` cannot come back.
    pub(crate) fn forget_ended(&mut self, durable_end: i64) {
        self.transactions.last_stable_offset(durable_end);
    }

    /// Whether no transaction could hold readers of committed records back.
    pub(crate) fn is_stable(&self) -> bool {
        self.transactions.is_quiet()
    }

    /// Checks a marker against its producer's state.
    pub(crate) fn check_marker(&self, header: &BatchHeader, marker: Marker) -> Result<(), AppendError> {
        let Some(entry) = self.producers.get(&header.producer_id) else {
            return Ok(());
        };
        if header.producer_epoch < entry.epoch {
            return Err(AppendError::FencedProducerEpoch {
                producer_id: header.producer_id,
                found: header.producer_epoch,
                current: entry.epoch,
            });
        }
        if marker.coordinator_epoch < entry.coordinator_epoch {
            return Err(AppendError::FencedCoordinator {
                found: marker.coordinator_epoch,
                current: entry.coordinator_epoch,
            });
        }
        Ok(())
    }

    /// Checks a batch of records against its producer's state, without changing it.
    pub(crate) fn check(&self, header: &BatchHeader) -> Result<Sequence, AppendError> {
        let producer_id = header.producer_id;
        let Some(entry) = self.producers.get(&producer_id) else {
            return self.check_first(header, true).map(|()| Sequence::Next);
        };
        if header.producer_epoch < entry.epoch {
            return Err(AppendError::FencedProducerEpoch {
                producer_id,
                found: header.producer_epoch,
                current: entry.epoch,
            });
        }
        if header.base_sequence == NO_SEQUENCE {
            // The group coordinator's commits inside a producer's transaction carry none.
            return Ok(Sequence::Next);
        }
        let found = header.base_sequence;
        let same = |batch: &&ProducedBatch| batch.base_sequence == found && batch.last_sequence == header.last_sequence();
        if header.producer_epoch == entry.epoch
            && let Some(batch) = entry.batches.iter().find(same)
        {
            return Ok(Sequence::Duplicate {
                base_offset: batch.base_offset,
                timestamp: batch.timestamp,
            });
        }
        let last = entry.batches.back().filter(|_| header.producer_epoch == entry.epoch);
        let expected = last.map_or(0, |last| last.last_sequence.wrapping_add(1) & i32::MAX);
        if found == expected {
            return self.check_first(header, entry.batches.is_empty()).map(|()| Sequence::Next);
        }
        Err(AppendError::OutOfOrderSequence {
            producer_id,
            found,
            expected,
        })
    }

    /// Checks the first batch of a transaction. Where batches were sent one after the other, and the first of them was told to come again,
    /// the next must not take its place. Otherwise a producer that is not known begins with any sequence, as it may have expired.
    fn check_first(&self, header: &BatchHeader, is_new: bool) -> Result<(), AppendError> {
        let Some(known) = self.verifications.get(&header.producer_id).filter(|_| header.is_transactional()) else {
            return Ok(());
        };
        let found = header.base_sequence;
        let expected = if known.is_version_two && is_new { 0 } else { known.lowest_sequence };
        if found <= expected {
            return Ok(());
        }
        Err(AppendError::OutOfOrderSequence {
            producer_id: header.producer_id,
            found,
            expected,
        })
    }

    /// Takes note of an appended batch; live and on replay. `marker` is what a control batch says.
    pub(crate) fn apply(&mut self, header: &BatchHeader, marker: Option<Marker>) {
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
            if let Some(marker) = marker {
                entry.coordinator_epoch = marker.coordinator_epoch;
                self.transactions.ended(header.producer_id, header.base_offset, marker.commit);
                self.verifications.remove(&header.producer_id);
            }
            return;
        }
        if header.base_sequence != NO_SEQUENCE {
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
        if header.is_transactional() {
            self.verifications.remove(&header.producer_id);
            self.transactions.continued(header.producer_id, header.base_offset);
        }
    }

    /// Forgets producers that wrote nothing since `before_ms` and have no open transaction.
    pub(crate) fn expire(&mut self, before_ms: i64) {
        let transactions = &self.transactions;
        self.producers
            .retain(|id, entry| entry.last_timestamp >= before_ms || transactions.open_since(*id).is_some());
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
            bytes.put_i32(entry.coordinator_epoch);
            bytes.put_i64(self.transactions.open_since(*id).unwrap_or(-1));
            bytes.put_u8(entry.batches.len() as u8);
            for batch in &entry.batches {
                bytes.put_i32(batch.base_sequence);
                bytes.put_i32(batch.last_sequence);
                bytes.put_i64(batch.base_offset);
                bytes.put_i64(batch.last_offset);
                bytes.put_i64(batch.timestamp);
            }
        }
        self.transactions.encode(&mut bytes);
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
        let has_transactions = rest.starts_with(&MAGIC);
        rest = rest.strip_prefix(if has_transactions { &MAGIC } else { &MAGIC_V1 })?;
        if rest.try_get_i64().ok()? != next_offset {
            return None;
        }
        let mut states = Self::default();
        let mut open = Vec::new();
        for _ in 0..rest.try_get_u32().ok()? {
            let id = rest.try_get_i64().ok()?;
            let mut entry = ProducerEntry {
                epoch: rest.try_get_i16().ok()?,
                last_timestamp: rest.try_get_i64().ok()?,
                ..ProducerEntry::default()
            };
            if has_transactions {
                entry.coordinator_epoch = rest.try_get_i32().ok()?;
                open.push((id, rest.try_get_i64().ok()?));
            }
            for _ in 0..rest.try_get_u8().ok()? {
                entry.batches.push_back(ProducedBatch {
                    base_sequence: rest.try_get_i32().ok()?,
                    last_sequence: rest.try_get_i32().ok()?,
                    base_offset: rest.try_get_i64().ok()?,
                    last_offset: rest.try_get_i64().ok()?,
                    timestamp: rest.try_get_i64().ok()?,
                });
            }
            states.producers.insert(id, entry);
        }
        if has_transactions {
            states.transactions = Transactions::decode(&mut rest)?;
        }
        for (id, first_offset) in open.into_iter().filter(|(_, first_offset)| *first_offset >= 0) {
            states.transactions.continued(id, first_offset);
        }
        rest.is_empty().then_some(states)
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
            states.apply(&header, None);
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
        states.apply(&batch(3, 7, 1, 0), None);
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
        states.apply(&batch(0, i32::MAX, 1, 0), None);
        assert_eq!(states.check(&batch(0, 0, 1, 1)).unwrap(), Sequence::Next);
    }

    fn transactional(epoch: i16, sequence: i32, base_offset: i64) -> BatchHeader {
        let plain = batch(epoch, sequence, 1, base_offset);
        BatchHeader {
            attributes: plain.attributes | 1 << 4,
            ..plain
        }
    }

    fn marker(epoch: i16, base_offset: i64, commit: bool) -> (BatchHeader, Marker) {
        let marker = Marker {
            commit,
            coordinator_epoch: 4,
        };
        let header = BatchHeader::parse(&marker.encode(9, epoch, 50).unwrap()).unwrap();
        (BatchHeader { base_offset, ..header }, marker)
    }

    fn first(epoch: i16, base_sequence: i32, is_version_two: bool) -> FirstBatch {
        FirstBatch {
            producer_id: 9,
            epoch,
            base_sequence,
            is_version_two,
        }
    }

    #[test]
    fn no_batch_takes_the_place_of_an_earlier_one_that_was_told_to_come_again() {
        for is_version_two in [false, true] {
            let mut states = ProducerStates::default();
            states.transaction_state(first(0, 3, is_version_two));
            states.transaction_state(first(0, 4, is_version_two));
            assert!(matches!(
                states.check(&transactional(0, 4, 0)),
                Err(AppendError::OutOfOrderSequence { found: 4, .. })
            ));
            // Only where each transaction begins at 0 is it known that 3 cannot be the first.
            assert_eq!(states.check(&transactional(0, 3, 0)).is_ok(), !is_version_two);
            // A later epoch begins anew.
            states.transaction_state(first(1, 0, is_version_two));
            assert_eq!(states.check(&transactional(1, 0, 0)).unwrap(), Sequence::Next);
            assert!(states.check(&transactional(1, 1, 0)).is_err());
        }
    }

    #[test]
    fn too_many_verifications_cost_the_oldest() {
        let mut states = ProducerStates::default();
        let ask = |states: &mut ProducerStates, producer_id| match states.transaction_state(FirstBatch {
            producer_id,
            ..first(0, 0, true)
        }) {
            TransactionState::Unverified(guard) => guard,
            TransactionState::Open => panic!("nothing is open"),
        };
        let guards: Vec<_> = (0..=GUARDS_MAX as i64).map(|id| ask(&mut states, id)).collect();
        assert_ne!(ask(&mut states, 0), guards[0], "the oldest has to ask again");
        assert_eq!(ask(&mut states, 2), guards[2]);
        states.forget_verification(2, 0, guards[3]);
        states.forget_verification(2, -1, guards[2]);
        assert_eq!(ask(&mut states, 2), guards[2], "not its own");
        states.forget_verification(2, 0, guards[2]);
        assert_ne!(ask(&mut states, 2), guards[2]);
    }

    #[test]
    fn a_transaction_begins_only_after_it_was_verified_and_no_marker_came_between() {
        let mut states = ProducerStates::default();
        let begin = transactional(0, 0, 0);
        let TransactionState::Unverified(guard) = states.transaction_state(first(0, 0, false)) else {
            panic!("nothing is open")
        };
        assert!(states.check_transaction(&begin, None).is_err());
        assert!(states.check_transaction(&begin, Some(guard)).is_ok());
        let (header, end) = marker(1, 0, false);
        states.apply(&header, Some(end));
        assert!(
            states.check_transaction(&begin, Some(guard)).is_err(),
            "the transaction was aborted meanwhile"
        );
        let TransactionState::Unverified(guard) = states.transaction_state(first(1, 0, false)) else {
            panic!("nothing is open")
        };
        let begin = transactional(1, 0, 1);
        assert!(states.check_transaction(&begin, Some(guard)).is_ok());
        states.apply(&begin, None);
        assert_eq!(states.transaction_state(first(1, 0, false)), TransactionState::Open);
        assert!(states.check_transaction(&transactional(1, 1, 2), None).is_ok());
        assert!(states.check_transaction(&transactional(2, 0, 2), None).is_err(), "another epoch");
        assert!(
            states.check_transaction(&batch(1, 1, 1, 2), None).is_err(),
            "outside its own transaction"
        );
    }

    #[test]
    fn markers_of_old_epochs_and_old_coordinators_are_fenced() {
        let mut states = ProducerStates::default();
        let (header, end) = marker(3, 0, true);
        states.apply(&header, Some(end));
        assert!(states.check_marker(&header, end).is_ok());
        let older = Marker {
            coordinator_epoch: 3,
            ..end
        };
        assert!(matches!(
            states.check_marker(&header, older),
            Err(AppendError::FencedCoordinator { found: 3, current: 4 })
        ));
        let (header, end) = marker(2, 1, true);
        assert!(matches!(
            states.check_marker(&header, end),
            Err(AppendError::FencedProducerEpoch { .. })
        ));
    }

    #[test]
    fn sequences_begin_at_zero_after_a_marker_with_a_new_epoch() {
        let mut states = ProducerStates::default();
        states.apply(&transactional(0, 0, 0), None);
        let (header, end) = marker(1, 1, true);
        states.apply(&header, Some(end));
        assert!(matches!(
            states.check(&transactional(1, 5, 2)),
            Err(AppendError::OutOfOrderSequence { expected: 0, .. })
        ));
        assert_eq!(states.check(&transactional(1, 0, 2)).unwrap(), Sequence::Next);
    }

    #[test]
    fn snapshots_round_trip_and_damage_is_noticed() {
        let mut states = ProducerStates::default();
        states.apply(&batch(3, 7, 1, 0), None);
        let other = BatchHeader {
            producer_id: 10,
            ..transactional(0, 0, 0)
        };
        states.apply(&other, None);
        states.apply(&batch(3, 8, 4, 1), None);
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
