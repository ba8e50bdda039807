//! The records of `__share_group_state`, in Kafka's own binary form.
//!
//! ```text
//! key    i16 record type 0 (snapshot), string group, uuid topic, i32 partition
//! value  i16 version 0, i32 snapshot epoch, i32 state epoch, i32 leader epoch, i64 start offset, i64 create time, i64 write time,
//!        { i64 first offset, i64 last offset, i8 state, i16 delivery count }[]
//! ```
//! Values are flexible. Every write is a snapshot: it is small, and compaction leaves one per key. A null value is a tombstone.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::records::{Reader, RecordDecodeError, put_compact_array_length, put_string, put_unsigned_varint};

/// Record type of a snapshot.
const SNAPSHOT: i16 = 0;

/// A partition as a share group reads it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareKey {
    /// The group.
    pub group_id: String,
    /// The topic.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
}

impl ShareKey {
    /// What its coordinator is found by.
    pub fn coordinator_key(&self) -> String {
        format!(
            "{}:{}:{}",
            self.group_id,
            crate::metadata::id::render(self.topic_id),
            self.partition
        )
    }
}

/// Records of equal state that are not done with, or lie above some that are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateBatch {
    /// First offset.
    pub first_offset: i64,
    /// Last offset.
    pub last_offset: i64,
    /// 0 available, 2 acknowledged, 4 archived.
    pub state: i8,
    /// How often they were delivered.
    pub delivery_count: i16,
}

/// What is durable of a partition of a share group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareState {
    /// Grows when an administrator moves the start.
    pub state_epoch: i32,
    /// Everything below is done with.
    pub start_offset: i64,
    /// When it was written.
    pub write_ms: i64,
    /// What lies above.
    pub batches: Vec<StateBatch>,
}

/// One change of hard state; `None` forgets a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareRecord {
    /// Whose state.
    pub key: ShareKey,
    /// The state.
    pub value: Option<ShareState>,
}

impl ShareRecord {
    /// The record's key.
    pub fn encode_key(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i16(SNAPSHOT);
        put_string(&mut out, &self.key.group_id);
        out.put_slice(self.key.topic_id.as_bytes());
        out.put_i32(self.key.partition);
        out.freeze()
    }

    /// The record's value, `None` for a tombstone.
    pub fn encode_value(&self) -> Option<Bytes> {
        let state = self.value.as_ref()?;
        let mut out = BytesMut::new();
        out.put_i16(0);
        out.put_i32(0);
        out.put_i32(state.state_epoch);
        out.put_i32(0);
        out.put_i64(state.start_offset);
        out.put_i64(state.write_ms);
        out.put_i64(state.write_ms);
        put_compact_array_length(&mut out, state.batches.len());
        for batch in &state.batches {
            out.put_i64(batch.first_offset);
            out.put_i64(batch.last_offset);
            out.put_i8(batch.state);
            out.put_i16(batch.delivery_count);
            put_unsigned_varint(&mut out, 0);
        }
        put_unsigned_varint(&mut out, 0);
        Some(out.freeze())
    }

    /// Reads a record; `Ok(None)` if its key belongs to something else.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<Self>, RecordDecodeError> {
        let mut key = Reader::new(key);
        if key.i16()? != SNAPSHOT {
            return Ok(None);
        }
        let key = ShareKey {
            group_id: key.string()?,
            topic_id: Uuid::from_bytes(key.fixed()?),
            partition: key.i32()?,
        };
        let value = value.map(decode_state).transpose()?;
        Ok(Some(Self { key, value }))
    }
}

fn decode_state(value: &[u8]) -> Result<ShareState, RecordDecodeError> {
    let (_, mut value) = Reader::of_value(value, 0..=0, 0)?;
    value.i32()?;
    let state_epoch = value.i32()?;
    value.i32()?;
    let start_offset = value.i64()?;
    value.i64()?;
    let write_ms = value.i64()?;
    let mut batches = Vec::new();
    for _ in 0..value.array_length()? {
        batches.push(StateBatch {
            first_offset: value.i64()?,
            last_offset: value.i64()?,
            state: value.i8()?,
            delivery_count: value.i16()?,
        });
        value.skip_tagged_fields()?;
    }
    Ok(ShareState {
        state_epoch,
        start_offset,
        write_ms,
        batches,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back() {
        let record = ShareRecord {
            key: ShareKey {
                group_id: "g".to_owned(),
                topic_id: Uuid::from_u128(7),
                partition: 3,
            },
            value: Some(ShareState {
                state_epoch: 1,
                start_offset: 10,
                write_ms: 5,
                batches: vec![StateBatch {
                    first_offset: 12,
                    last_offset: 14,
                    state: 2,
                    delivery_count: 1,
                }],
            }),
        };
        let (key, value) = (record.encode_key(), record.encode_value().unwrap());
        assert_eq!(ShareRecord::decode(&key, Some(&value)), Ok(Some(record.clone())));
        for end in 0..value.len() - 1 {
            assert!(ShareRecord::decode(&key, Some(&value[..end])).is_err(), "cut at {end}");
        }
        let forgotten = ShareRecord { value: None, ..record };
        assert_eq!(ShareRecord::decode(&key, None), Ok(Some(forgotten)));
    }
}
