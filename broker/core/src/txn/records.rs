//! The records of `__transaction_state`, in Kafka's own binary form, so that tools that read the topic work.
//!
//! ```text
//! key    i16 version 0, string transactional id
//! value  i16 version (0 or 1), i64 producer id, i16 epoch, i32 timeout, i8 state, array? { string topic, array i32 } partitions,
//!        i64 last update, i64 start; version 1 is flexible, with tagged fields: 0 previous producer id i64, 1 next producer id i64,
//!        2 client transaction version i16
//! ```
//! Version 1 has compact lengths. We write version 1 where a tagged field is needed, else 0, as Kafka does. A null value is a tombstone.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

use super::{EndedTransaction, ProducerIdAndEpoch, TopicPartitions, TransactionVersion};
use crate::records::{Reader, RecordDecodeError, put_compact_array_length, put_compact_string, put_string, put_unsigned_varint};

const KEY_VERSION: i16 = 0;
const VALUE_VERSION: i16 = 0;
const VALUE_VERSION_FLEXIBLE: i16 = 1;

/// The state of a transactional id. The numbers are Kafka's, in the log and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransactionState {
    /// Known, and never had a transaction with this epoch.
    Empty = 0,
    /// A transaction is open.
    Ongoing = 1,
    /// Committed; markers are being written.
    PrepareCommit = 2,
    /// Aborted; markers are being written.
    PrepareAbort = 3,
    /// The last transaction was committed.
    CompleteCommit = 4,
    /// The last transaction was aborted.
    CompleteAbort = 5,
}

impl TransactionState {
    /// All states.
    pub const ALL: [Self; 6] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
    ];

    /// Its name as DescribeTransactions and ListTransactions have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    /// The outcome is decided and its markers are not all written.
    pub fn is_ending(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }

    fn from_number(number: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as i8 == number)
    }
}

/// What the log knows of a transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// The producer that may use the id, with its current epoch.
    pub producer: ProducerIdAndEpoch,
    /// The epoch before the last change that its producer asked for or that a timeout or takeover made, -1 if there was none: a retry names it.
    pub last_epoch: i16,
    /// The producer id before the current one, -1 if there was none.
    pub previous_producer_id: i64,
    /// The producer id after the ending transaction, if the epochs of the current one are used up, else -1.
    pub next_producer_id: i64,
    /// Time after which an open transaction is aborted, in milliseconds.
    pub timeout_ms: i32,
    /// The state.
    pub state: TransactionState,
    /// Partitions of the open or ending transaction.
    pub partitions: TopicPartitions,
    /// When the last record was written.
    pub last_update_ms: i64,
    /// When the open or last transaction began, -1 if there was none.
    pub start_ms: i64,
    /// The client's version of the protocol.
    pub version: TransactionVersion,
}

impl Transaction {
    /// When an open transaction is aborted.
    pub fn deadline_ms(&self) -> Option<i64> {
        (self.state == TransactionState::Ongoing).then(|| self.start_ms.saturating_add(self.timeout_ms.into()))
    }

    /// The markers that an ending transaction needs.
    pub(super) fn ended(&self, transactional_id: &str) -> EndedTransaction {
        EndedTransaction {
            transactional_id: transactional_id.to_owned(),
            producer: self.producer,
            commit: self.state == TransactionState::PrepareCommit,
            partitions: self.partitions.clone(),
            prepared_ms: self.last_update_ms,
        }
    }

    fn encode(&self) -> Bytes {
        let flexible = self.version > TransactionVersion::One || self.previous_producer_id >= 0 || self.next_producer_id >= 0;
        let mut out = BytesMut::new();
        out.put_i16(if flexible { VALUE_VERSION_FLEXIBLE } else { VALUE_VERSION });
        out.put_i64(self.producer.id);
        out.put_i16(self.producer.epoch);
        out.put_i32(self.timeout_ms);
        out.put_i8(self.state as i8);
        if flexible {
            put_compact_array_length(&mut out, self.partitions.len());
        } else {
            out.put_i32(length_i32(self.partitions.len()));
        }
        for (topic, partitions) in &self.partitions {
            if flexible {
                put_compact_string(&mut out, topic);
                put_compact_array_length(&mut out, partitions.len());
            } else {
                put_string(&mut out, topic);
                out.put_i32(length_i32(partitions.len()));
            }
            partitions.iter().for_each(|partition| out.put_i32(*partition));
            if flexible {
                put_unsigned_varint(&mut out, 0);
            }
        }
        out.put_i64(self.last_update_ms);
        out.put_i64(self.start_ms);
        if flexible {
            self.put_tagged_fields(&mut out);
        }
        out.freeze()
    }

    fn put_tagged_fields(&self, out: &mut BytesMut) {
        let ids = [(0, self.previous_producer_id), (1, self.next_producer_id)];
        let ids = ids.into_iter().filter(|(_, id)| *id >= 0);
        let has_version = self.version > TransactionVersion::One;
        put_unsigned_varint(out, u32::try_from(ids.clone().count()).unwrap_or(0) + u32::from(has_version));
        for (tag, id) in ids {
            put_unsigned_varint(out, tag);
            put_unsigned_varint(out, 8);
            out.put_i64(id);
        }
        if has_version {
            put_unsigned_varint(out, 2);
            put_unsigned_varint(out, 2);
            out.put_i16(2);
        }
    }

    fn decode(value: &[u8]) -> Result<Self, RecordDecodeError> {
        let (version, mut reader) = Reader::of_value(value, VALUE_VERSION..=VALUE_VERSION_FLEXIBLE, VALUE_VERSION_FLEXIBLE)?;
        let producer = ProducerIdAndEpoch {
            id: reader.i64()?,
            epoch: reader.i16()?,
        };
        let timeout_ms = reader.i32()?;
        let state = reader.i8()?;
        let mut partitions: TopicPartitions = BTreeMap::new();
        for _ in 0..reader.nullable_array_length()?.unwrap_or(0) {
            let of_topic = partitions.entry(reader.string()?).or_default();
            for _ in 0..reader.array_length()? {
                of_topic.insert(reader.i32()?);
            }
            reader.skip_tagged_fields()?;
        }
        let mut transaction = Self {
            producer,
            last_epoch: -1,
            previous_producer_id: -1,
            next_producer_id: -1,
            timeout_ms,
            state: TransactionState::from_number(state).ok_or(RecordDecodeError::UnknownValue(state.into()))?,
            partitions,
            last_update_ms: reader.i64()?,
            start_ms: reader.i64()?,
            version: TransactionVersion::One,
        };
        if version >= VALUE_VERSION_FLEXIBLE {
            reader.tagged_fields(|tag, field| {
                match tag {
                    0 => transaction.previous_producer_id = field.i64()?.max(-1),
                    1 => transaction.next_producer_id = field.i64()?.max(-1),
                    2 if field.i16()? >= 2 => transaction.version = TransactionVersion::Two,
                    _ => {}
                }
                Ok(())
            })?;
        }
        Ok(transaction)
    }
}

/// One change of hard state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionRecord {
    /// Whose state it is.
    pub transactional_id: String,
    /// The new state; `None` forgets the id.
    pub value: Option<Transaction>,
}

impl TransactionRecord {
    /// The record's key.
    pub fn encode_key(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i16(KEY_VERSION);
        put_string(&mut out, &self.transactional_id);
        out.freeze()
    }

    /// The record's value, `None` for a tombstone.
    pub fn encode_value(&self) -> Option<Bytes> {
        self.value.as_ref().map(Transaction::encode)
    }

    /// Reads a record.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Self, RecordDecodeError> {
        let mut key = Reader::new(key);
        match key.i16()? {
            KEY_VERSION => Ok(Self {
                transactional_id: key.string()?,
                value: value.map(Transaction::decode).transpose()?,
            }),
            version => Err(RecordDecodeError::UnknownVersion(version)),
        }
    }
}

fn length_i32(length: usize) -> i32 {
    // Requests bound every length far below this.
    i32::try_from(length).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction() -> Transaction {
        Transaction {
            producer: ProducerIdAndEpoch { id: 7, epoch: 3 },
            last_epoch: -1,
            previous_producer_id: -1,
            next_producer_id: -1,
            timeout_ms: 60_000,
            state: TransactionState::Ongoing,
            partitions: BTreeMap::from([("a".to_owned(), [0, 5].into()), ("b".to_owned(), [1].into())]),
            last_update_ms: 50,
            start_ms: 40,
            version: TransactionVersion::One,
        }
    }

    fn round_trip(transaction: Transaction) -> Bytes {
        let record = TransactionRecord {
            transactional_id: "t".to_owned(),
            value: Some(transaction),
        };
        let (key, value) = (record.encode_key(), record.encode_value().unwrap());
        assert_eq!(TransactionRecord::decode(&key, Some(&value)), Ok(record));
        for end in 0..value.len() {
            assert!(TransactionRecord::decode(&key, Some(&value[..end])).is_err(), "cut at {end}");
        }
        value
    }

    #[test]
    fn records_read_back_in_both_versions() {
        assert_eq!(round_trip(transaction())[..2], [0, 0]);
        let newer = Transaction {
            previous_producer_id: 6,
            next_producer_id: 8,
            version: TransactionVersion::Two,
            ..transaction()
        };
        assert_eq!(round_trip(newer)[..2], [0, 1]);
    }

    #[test]
    fn a_tombstone_has_no_value() {
        let record = TransactionRecord {
            transactional_id: "t".to_owned(),
            value: None,
        };
        assert_eq!(record.encode_value(), None);
        assert_eq!(TransactionRecord::decode(&record.encode_key(), None), Ok(record));
    }
}
