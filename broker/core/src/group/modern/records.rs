//! The records of consumer and share groups, in Kafka's own binary form.
//!
//! Keys are `i16` record type, then strings with an `i16` length: the group, and the member where the record is about one. Values are
//! version 0 and flexible.
//! ```text
//! consumer share
//!    3      11    group         i32 epoch, tag 0: i64 hash of the subscribed topics
//!    5      10    member        consumer: string? instance, string? rack, string client id, string client host, string[] topics,
//!                               string? regex, i32 rebalance timeout, string? assignor, tag 0 of a classic member:
//!                               i8 1, i32 session timeout, { string name, bytes metadata }[]
//!                               share: string? rack, string client id, string client host, string[] topics
//!    6      12    target epoch  i32
//!    7      13    target        { uuid topic, i32[] partitions }[]
//!    8      14    current       consumer: i32 epoch, i32 previous epoch, i8 state, partitions assigned, partitions to give up
//!                               share: i32 epoch, i32 previous epoch, i8 state, partitions assigned
//!   16              pattern       string[] topics, i64 version of the metadata, i64 time; the key has the pattern, not a member
//! ```

use std::{collections::BTreeSet, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::{ClassicProtocols, CurrentAssignment, MemberState, ModernKind, ResolvedRegex, Subscription, TopicIdPartitions};
use crate::records::{
    Reader, RecordDecodeError, put_compact_array_length, put_compact_nullable_string, put_compact_string, put_string, put_unsigned_varint,
};

/// A change of a group's hard state; `None` takes away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModernChange {
    /// Group epoch and hash of the subscribed topics. Taken away, the group is gone.
    Group(Option<(i32, u64)>),
    /// A member's subscription.
    Member(String, Option<Subscription>),
    /// The epoch that the target is for.
    TargetEpoch(Option<i32>),
    /// A member's target.
    Target(String, Option<TopicIdPartitions>),
    /// What a member has.
    Current(String, Option<CurrentAssignment>),
    /// What a pattern of consumers means.
    Regex(String, Option<ResolvedRegex>),
}

/// A record of a consumer or share group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModernRecord {
    /// The kind of the group.
    pub kind: ModernKind,
    /// The group.
    pub group_id: String,
    /// What changes.
    pub change: ModernChange,
}

impl ModernRecord {
    /// The record's key.
    pub fn encode_key(&self) -> Bytes {
        let (consumer, share, name) = match &self.change {
            ModernChange::Group(_) => (3, 11, None),
            ModernChange::Member(member_id, _) => (5, 10, Some(member_id)),
            ModernChange::TargetEpoch(_) => (6, 12, None),
            ModernChange::Target(member_id, _) => (7, 13, Some(member_id)),
            ModernChange::Current(member_id, _) => (8, 14, Some(member_id)),
            ModernChange::Regex(regex, _) => (16, 16, Some(regex)),
        };
        let mut out = BytesMut::new();
        out.put_i16(match self.kind {
            ModernKind::Consumer => consumer,
            ModernKind::Share => share,
        });
        put_string(&mut out, &self.group_id);
        if let Some(name) = name {
            put_string(&mut out, name);
        }
        out.freeze()
    }

    /// The record's value, `None` for a tombstone.
    pub fn encode_value(&self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        out.put_i16(0);
        match &self.change {
            ModernChange::Group(value) => {
                let (epoch, hash) = (*value)?;
                out.put_i32(epoch);
                put_unsigned_varint(&mut out, 1);
                put_unsigned_varint(&mut out, 0);
                put_unsigned_varint(&mut out, 8);
                out.put_u64(hash);
                return Some(out.freeze());
            }
            ModernChange::Member(_, value) => {
                let subscription = value.as_ref()?;
                put_subscription(&mut out, self.kind, subscription);
                if let Some(classic) = &subscription.classic {
                    put_classic(&mut out, classic);
                    return Some(out.freeze());
                }
            }
            ModernChange::TargetEpoch(value) => out.put_i32((*value)?),
            ModernChange::Target(_, value) => put_partitions(&mut out, value.as_ref()?),
            ModernChange::Current(_, value) => {
                let current = value.as_ref()?;
                out.put_i32(current.epoch);
                out.put_i32(current.previous_epoch);
                out.put_i8(current.state as i8);
                put_partitions(&mut out, &current.assigned);
                if self.kind == ModernKind::Consumer {
                    put_partitions(&mut out, &current.revoking);
                }
            }
            ModernChange::Regex(_, value) => {
                let resolved = value.as_ref()?;
                put_compact_array_length(&mut out, resolved.topics.len());
                resolved.topics.iter().for_each(|topic| put_compact_string(&mut out, topic));
                out.put_u64(resolved.version);
                out.put_i64(resolved.resolved_ms);
            }
        }
        put_unsigned_varint(&mut out, 0);
        Some(out.freeze())
    }

    /// Reads a record; `Ok(None)` if its key belongs to something else.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<Self>, RecordDecodeError> {
        let mut key = Reader::new(key);
        let number = key.i16()?;
        let kind = match number {
            3 | 5..=8 | 16 => ModernKind::Consumer,
            10..=14 => ModernKind::Share,
            _ => return Ok(None),
        };
        let group_id = key.string()?;
        let value = value
            .map(|value| Reader::of_value(value, 0..=0, 0).map(|(_, reader)| reader))
            .transpose()?;
        let change = match number {
            3 | 11 => ModernChange::Group(value.map(read_group).transpose()?),
            5 | 10 => ModernChange::Member(key.string()?, value.map(|value| read_subscription(value, kind)).transpose()?),
            6 | 12 => ModernChange::TargetEpoch(value.map(|mut value| value.i32()).transpose()?),
            7 | 13 => ModernChange::Target(key.string()?, value.map(|mut value| read_partitions(&mut value)).transpose()?),
            16 => ModernChange::Regex(key.string()?, value.map(read_regex).transpose()?),
            _ => ModernChange::Current(key.string()?, value.map(|value| read_current(value, kind)).transpose()?),
        };
        Ok(Some(Self { kind, group_id, change }))
    }
}

fn read_group(mut value: Reader<'_>) -> Result<(i32, u64), RecordDecodeError> {
    let epoch = value.i32()?;
    let mut hash = 0;
    value.tagged_fields(|tag, field| {
        if tag == 0 {
            hash = field.i64()?.cast_unsigned();
        }
        Ok(())
    })?;
    Ok((epoch, hash))
}

fn put_subscription(out: &mut BytesMut, kind: ModernKind, subscription: &Subscription) {
    if kind == ModernKind::Consumer {
        put_compact_nullable_string(out, subscription.instance_id.as_deref());
    }
    put_compact_nullable_string(out, subscription.rack_id.as_deref());
    put_compact_string(out, &subscription.client_id);
    put_compact_string(out, &subscription.client_host);
    put_compact_array_length(out, subscription.topics.len());
    subscription.topics.iter().for_each(|topic| put_compact_string(out, topic));
    if kind == ModernKind::Consumer {
        put_compact_nullable_string(out, subscription.regex.as_deref());
        out.put_i32(subscription.rebalance_timeout_ms);
        put_compact_nullable_string(out, subscription.assignor.as_deref());
    }
}

fn read_subscription(mut value: Reader<'_>, kind: ModernKind) -> Result<Subscription, RecordDecodeError> {
    let mut subscription = Subscription::default();
    if kind == ModernKind::Consumer {
        subscription.instance_id = value.nullable_string()?;
    }
    subscription.rack_id = value.nullable_string()?;
    subscription.client_id = value.string()?;
    subscription.client_host = value.string()?;
    for _ in 0..value.nullable_array_length()?.unwrap_or(0) {
        subscription.topics.insert(value.string()?);
    }
    if kind == ModernKind::Consumer {
        // Kafka's own records say "none" by an empty pattern.
        subscription.regex = value.nullable_string()?.filter(|regex| !regex.is_empty());
        subscription.rebalance_timeout_ms = value.i32()?;
        subscription.assignor = value.nullable_string()?;
    }
    value.tagged_fields(|tag, field| {
        if tag == 0 && kind == ModernKind::Consumer && field.i8()? == 1 {
            subscription.classic = Some(read_classic(field)?);
        }
        Ok(())
    })?;
    Ok(subscription)
}

fn put_classic(out: &mut BytesMut, classic: &ClassicProtocols) {
    let mut field = BytesMut::new();
    field.put_i8(1);
    field.put_i32(classic.session_timeout_ms);
    put_compact_array_length(&mut field, classic.protocols.len());
    for (name, metadata) in &classic.protocols {
        put_compact_string(&mut field, name);
        put_compact_array_length(&mut field, metadata.len());
        field.put_slice(metadata);
        put_unsigned_varint(&mut field, 0);
    }
    put_unsigned_varint(&mut field, 0);
    put_unsigned_varint(out, 1);
    put_unsigned_varint(out, 0);
    put_unsigned_varint(out, u32::try_from(field.len()).unwrap_or(u32::MAX));
    out.put_slice(&field);
}

fn read_classic(value: &mut Reader<'_>) -> Result<ClassicProtocols, RecordDecodeError> {
    let session_timeout_ms = value.i32()?;
    let mut protocols = Vec::new();
    for _ in 0..value.array_length()? {
        protocols.push((value.string()?, value.bytes()?));
        value.skip_tagged_fields()?;
    }
    value.skip_tagged_fields()?;
    Ok(ClassicProtocols {
        session_timeout_ms,
        protocols,
    })
}

fn put_partitions(out: &mut BytesMut, topics: &TopicIdPartitions) {
    put_compact_array_length(out, topics.len());
    for (topic_id, partitions) in topics {
        out.put_slice(topic_id.as_bytes());
        put_compact_array_length(out, partitions.len());
        partitions.iter().for_each(|partition| out.put_i32(*partition));
        put_unsigned_varint(out, 0);
    }
}

fn read_partitions(value: &mut Reader<'_>) -> Result<TopicIdPartitions, RecordDecodeError> {
    let mut topics = TopicIdPartitions::new();
    for _ in 0..value.nullable_array_length()?.unwrap_or(0) {
        let topic_id = Uuid::from_bytes(value.fixed()?);
        let mut partitions = BTreeSet::new();
        for _ in 0..value.array_length()? {
            partitions.insert(value.i32()?);
        }
        value.skip_tagged_fields()?;
        topics.insert(topic_id, partitions);
    }
    Ok(topics)
}

fn read_current(mut value: Reader<'_>, kind: ModernKind) -> Result<CurrentAssignment, RecordDecodeError> {
    let (epoch, previous_epoch) = (value.i32()?, value.i32()?);
    let state = match value.i8()? {
        0 => MemberState::Stable,
        1 => MemberState::UnrevokedPartitions,
        2 => MemberState::UnreleasedPartitions,
        other => return Err(RecordDecodeError::UnknownValue(other.into())),
    };
    let assigned = read_partitions(&mut value)?;
    let revoking = match kind {
        ModernKind::Consumer => read_partitions(&mut value)?,
        ModernKind::Share => TopicIdPartitions::new(),
    };
    Ok(CurrentAssignment {
        epoch,
        previous_epoch,
        state,
        assigned,
        revoking,
    })
}

fn read_regex(mut value: Reader<'_>) -> Result<ResolvedRegex, RecordDecodeError> {
    let mut topics = BTreeSet::new();
    for _ in 0..value.nullable_array_length()?.unwrap_or(0) {
        topics.insert(value.string()?);
    }
    Ok(ResolvedRegex {
        topics: Arc::new(topics),
        version: value.i64()?.cast_unsigned(),
        resolved_ms: value.i64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: ModernKind, change: ModernChange) {
        let record = ModernRecord {
            kind,
            group_id: "g".to_owned(),
            change,
        };
        let (key, value) = (record.encode_key(), record.encode_value());
        assert_eq!(ModernRecord::decode(&key, value.as_deref()), Ok(Some(record)));
        if let Some(value) = value {
            for end in 0..value.len() - 1 {
                // A reader stops where it knows the rest; it never panics.
                drop(ModernRecord::decode(&key, Some(&value[..end])));
            }
        }
    }

    fn samples() -> Vec<(ModernKind, ModernChange)> {
        let mut samples = Vec::new();
        let mut add = |kind, change| samples.push((kind, change));
        let partitions = TopicIdPartitions::from([(Uuid::from_u128(7), [0, 3].into())]);
        let subscription = Subscription {
            rack_id: Some("r".to_owned()),
            client_id: "c".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            topics: ["a".to_owned(), "b".to_owned()].into(),
            ..Subscription::default()
        };
        let current = CurrentAssignment {
            epoch: 5,
            previous_epoch: 4,
            state: MemberState::UnreleasedPartitions,
            assigned: partitions.clone(),
            revoking: TopicIdPartitions::new(),
        };
        for kind in [ModernKind::Consumer, ModernKind::Share] {
            add(kind, ModernChange::Group(Some((7, u64::MAX))));
            add(kind, ModernChange::Group(None));
            add(kind, ModernChange::Member("m".to_owned(), Some(subscription.clone())));
            add(kind, ModernChange::TargetEpoch(Some(7)));
            add(kind, ModernChange::Target("m".to_owned(), Some(partitions.clone())));
            add(kind, ModernChange::Current("m".to_owned(), Some(current.clone())));
            add(kind, ModernChange::Current("m".to_owned(), None));
        }
        let resolved = ResolvedRegex {
            topics: Arc::new(["a".to_owned(), "ab".to_owned()].into()),
            version: 9,
            resolved_ms: 1_700_000_000_000,
        };
        add(ModernKind::Consumer, ModernChange::Regex("a.*".to_owned(), Some(resolved)));
        add(ModernKind::Consumer, ModernChange::Regex("a.*".to_owned(), None));
        let with_all = Subscription {
            instance_id: Some("i".to_owned()),
            regex: Some("a.*".to_owned()),
            rebalance_timeout_ms: 300_000,
            assignor: Some("uniform".to_owned()),
            ..subscription
        };
        add(ModernKind::Consumer, ModernChange::Member("m".to_owned(), Some(with_all.clone())));
        let classic = ClassicProtocols {
            session_timeout_ms: 45_000,
            protocols: vec![
                ("range".to_owned(), Bytes::from_static(b"metadata")),
                ("x".to_owned(), Bytes::new()),
            ],
        };
        let with_classic = Subscription {
            classic: Some(classic),
            ..with_all
        };
        add(ModernKind::Consumer, ModernChange::Member("m".to_owned(), Some(with_classic)));
        samples
    }

    #[test]
    fn records_read_back() {
        for (kind, change) in samples() {
            check(kind, change);
        }
    }

    #[test]
    fn fuzz_records_of_consumer_and_share_groups() {
        let record = |(kind, change)| ModernRecord {
            kind,
            group_id: "g".to_owned(),
            change,
        };
        let records = samples().into_iter().map(record);
        let corpus: Vec<_> = records
            .filter_map(|record| Some(millstream_fuzz::pair(&record.encode_key(), &record.encode_value()?)))
            .collect();
        millstream_fuzz::fuzz("records of consumer and share groups", &corpus, |input| {
            let Some((key, value)) = millstream_fuzz::split(input) else {
                return false;
            };
            let Ok(Some(record)) = ModernRecord::decode(key, Some(value)) else {
                return false;
            };
            let again = ModernRecord::decode(&record.encode_key(), record.encode_value().as_deref());
            assert_eq!(again, Ok(Some(record)));
            true
        });
    }
}
