//! The records of `__consumer_offsets`, in Kafka's own binary form, so that tools that read the topic work.
//!
//! All integers are big-endian; `string` is an `i16` length (-1 is null) and UTF-8, `bytes` an `i32` length and bytes.
//! ```text
//! key 0, 1   i16 version, string group, string topic, i32 partition
//! key 2      i16 version, string group
//! offset     i16 version (0–4), i64 offset, i32 leader epoch (3+), string metadata, i64 commit time, i64 expire time (1 only)
//! group      i16 version (0–4), string protocol type, i32 generation, string? protocol, string? leader, i64 state time (2+), i32 n, n members:
//!            string id, string? instance (3+), string client id, string client host, i32 rebalance timeout (1+), i32 session timeout,
//!            bytes subscription, bytes assignment
//! ```
//! Version 4 of both values is "flexible": compact lengths (unsigned varint of length + 1) and tagged fields, which are skipped. We write
//! version 3, or 1 for an offset with its own expire time, as Kafka does. A null value is a tombstone. Keys from 3 up belong to
//! consumer and share groups ([`super::modern`]) and to streams groups ([`super::streams`]).

use bytes::{BufMut, Bytes, BytesMut};

use super::{modern::ModernRecord, streams::StreamsRecord};
use crate::records::{Reader, RecordDecodeError, length_i32, put_bytes, put_nullable_string, put_string};

const KEY_VERSION_OFFSET: i16 = 1;
const KEY_VERSION_GROUP: i16 = 2;
const OFFSET_VALUE_VERSION: i16 = 3;
const OFFSET_VALUE_VERSION_EXPIRING: i16 = 1;
const GROUP_VALUE_VERSION: i16 = 3;
/// First version of both values with compact lengths and tagged fields, and the newest known.
const VALUE_VERSION_FLEXIBLE: i16 = 4;

/// One change of hard state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupRecord {
    /// A group's metadata; `None` removes the group.
    Group {
        /// The group.
        group_id: String,
        /// Its metadata.
        value: Option<GroupMetadata>,
    },
    /// A committed offset; `None` removes it.
    Offset {
        /// The group.
        group_id: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The commit.
        value: Option<CommittedOffset>,
    },
    /// A change of a consumer or share group.
    Modern(ModernRecord),
    /// A change of a streams group.
    Streams(StreamsRecord),
}

/// What the log knows of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupMetadata {
    /// `consumer`, `connect`, …; empty if the group never had members.
    pub protocol_type: String,
    /// The generation.
    pub generation: i32,
    /// The selected protocol; `None` when empty.
    pub protocol: Option<String>,
    /// Member id of the leader.
    pub leader: Option<String>,
    /// When the group entered its state; `None` in records of old brokers.
    pub state_timestamp_ms: Option<i64>,
    /// The members, by id.
    pub members: Vec<MemberMetadata>,
}

/// What the log knows of a member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberMetadata {
    /// Its id.
    pub member_id: String,
    /// Its `group.instance.id`.
    pub group_instance_id: Option<String>,
    /// Its client id.
    pub client_id: String,
    /// Its host.
    pub client_host: String,
    /// Its rebalance timeout, -1 in records of old brokers.
    pub rebalance_timeout_ms: i32,
    /// Its session timeout.
    pub session_timeout_ms: i32,
    /// Its metadata for the selected protocol.
    pub subscription: Bytes,
    /// Its assignment.
    pub assignment: Bytes,
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: i64,
    /// Leader epoch of the last record read, -1 if unknown.
    pub leader_epoch: i32,
    /// The client's own text.
    pub metadata: String,
    /// When it was committed.
    pub commit_timestamp_ms: i64,
    /// When it expires, if the client said so (OffsetCommit v2–v4).
    pub expire_timestamp_ms: Option<i64>,
}

impl GroupRecord {
    /// The record's key.
    pub fn encode_key(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Modern(record) => return record.encode_key(),
            Self::Streams(record) => return record.encode_key(),
            Self::Group { group_id, value: _ } => {
                out.put_i16(KEY_VERSION_GROUP);
                put_string(&mut out, group_id);
            }
            Self::Offset {
                group_id,
                topic,
                partition,
                value: _,
            } => {
                out.put_i16(KEY_VERSION_OFFSET);
                put_string(&mut out, group_id);
                put_string(&mut out, topic);
                out.put_i32(*partition);
            }
        }
        out.freeze()
    }

    /// The record's value, `None` for a tombstone.
    pub fn encode_value(&self) -> Option<Bytes> {
        match self {
            Self::Group { value, .. } => value.as_ref().map(GroupMetadata::encode),
            Self::Offset { value, .. } => value.as_ref().map(CommittedOffset::encode),
            Self::Modern(record) => record.encode_value(),
            Self::Streams(record) => record.encode_value(),
        }
    }

    /// Reads a record; `Ok(None)` if its key belongs to something else (a newer kind of group).
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<Self>, RecordDecodeError> {
        if let Some(record) = ModernRecord::decode(key, value)? {
            return Ok(Some(Self::Modern(record)));
        }
        if let Some(record) = StreamsRecord::decode(key, value)? {
            return Ok(Some(Self::Streams(record)));
        }
        let mut key = Reader::new(key);
        match key.i16()? {
            0 | KEY_VERSION_OFFSET => Ok(Some(Self::Offset {
                group_id: key.string()?,
                topic: key.string()?,
                partition: key.i32()?,
                value: value.map(CommittedOffset::decode).transpose()?,
            })),
            KEY_VERSION_GROUP => Ok(Some(Self::Group {
                group_id: key.string()?,
                value: value.map(GroupMetadata::decode).transpose()?,
            })),
            _ => Ok(None),
        }
    }
}

impl CommittedOffset {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(32 + self.metadata.len());
        match self.expire_timestamp_ms {
            // Only version 1 has the field; the leader epoch is lost, as in Kafka.
            Some(expire_timestamp_ms) => {
                out.put_i16(OFFSET_VALUE_VERSION_EXPIRING);
                out.put_i64(self.offset);
                put_string(&mut out, &self.metadata);
                out.put_i64(self.commit_timestamp_ms);
                out.put_i64(expire_timestamp_ms);
            }
            None => {
                out.put_i16(OFFSET_VALUE_VERSION);
                out.put_i64(self.offset);
                out.put_i32(self.leader_epoch);
                put_string(&mut out, &self.metadata);
                out.put_i64(self.commit_timestamp_ms);
            }
        }
        out.freeze()
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, RecordDecodeError> {
        let (version, mut reader) = Reader::of_value(value, 0..=VALUE_VERSION_FLEXIBLE, VALUE_VERSION_FLEXIBLE)?;
        Ok(Self {
            offset: reader.i64()?,
            leader_epoch: if version >= 3 { reader.i32()? } else { -1 },
            metadata: reader.string()?,
            commit_timestamp_ms: reader.i64()?,
            expire_timestamp_ms: if version == 1 {
                Some(reader.i64()?).filter(|time| *time != -1)
            } else {
                None
            },
        })
    }
}

impl GroupMetadata {
    /// Whether members wait for a rebalance that a failover interrupted: a consumer group became classic, and elected nobody yet.
    pub(super) fn is_leaderless(&self) -> bool {
        self.leader.is_none() && !self.members.is_empty()
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i16(GROUP_VALUE_VERSION);
        put_string(&mut out, &self.protocol_type);
        out.put_i32(self.generation);
        put_nullable_string(&mut out, self.protocol.as_deref());
        put_nullable_string(&mut out, self.leader.as_deref());
        out.put_i64(self.state_timestamp_ms.unwrap_or(-1));
        out.put_i32(length_i32(self.members.len()));
        for member in &self.members {
            put_string(&mut out, &member.member_id);
            put_nullable_string(&mut out, member.group_instance_id.as_deref());
            put_string(&mut out, &member.client_id);
            put_string(&mut out, &member.client_host);
            out.put_i32(member.rebalance_timeout_ms);
            out.put_i32(member.session_timeout_ms);
            put_bytes(&mut out, &member.subscription);
            put_bytes(&mut out, &member.assignment);
        }
        out.freeze()
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, RecordDecodeError> {
        let (version, mut reader) = Reader::of_value(value, 0..=VALUE_VERSION_FLEXIBLE, VALUE_VERSION_FLEXIBLE)?;
        let mut metadata = Self {
            protocol_type: reader.string()?,
            generation: reader.i32()?,
            protocol: reader.nullable_string()?,
            leader: reader.nullable_string()?,
            state_timestamp_ms: if version >= 2 {
                Some(reader.i64()?).filter(|time| *time != -1)
            } else {
                None
            },
            members: Vec::new(),
        };
        let count = reader.array_length()?;
        // Nothing is reserved by a number from outside: a lying count ends in `Truncated`.
        for _ in 0..count {
            metadata.members.push(MemberMetadata {
                member_id: reader.string()?,
                group_instance_id: if version >= 3 { reader.nullable_string()? } else { None },
                client_id: reader.string()?,
                client_host: reader.string()?,
                rebalance_timeout_ms: if version >= 1 { reader.i32()? } else { -1 },
                session_timeout_ms: reader.i32()?,
                subscription: reader.bytes()?,
                assignment: reader.bytes()?,
            });
            reader.skip_tagged_fields()?;
        }
        Ok(metadata)
    }
}
