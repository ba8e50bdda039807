//! The record formats: Kafka's bytes, old and flexible versions, hostile input, round trips.

use bytes::Bytes;
use proptest::prelude::*;

use super::records::*;
use crate::RecordDecodeError;

fn sample_group() -> GroupMetadata {
    GroupMetadata {
        protocol_type: "consumer".into(),
        generation: 7,
        protocol: Some("range".into()),
        leader: Some("m".into()),
        state_timestamp_ms: Some(258),
        members: vec![MemberMetadata {
            member_id: "m".into(),
            group_instance_id: None,
            client_id: "c".into(),
            client_host: "/h".into(),
            rebalance_timeout_ms: 2,
            session_timeout_ms: 1,
            subscription: Bytes::from_static(b"s"),
            assignment: Bytes::new(),
        }],
    }
}

#[test]
fn offset_record_has_kafkas_bytes() {
    let value = CommittedOffset {
        offset: 5,
        leader_epoch: 1,
        metadata: "x".into(),
        commit_timestamp_ms: 256,
        expire_timestamp_ms: None,
    };
    let record = GroupRecord::Offset {
        group_id: "g".into(),
        topic: "tp".into(),
        partition: 3,
        value: Some(value),
    };
    assert_eq!(record.encode_key().as_ref(), b"\0\x01\0\x01g\0\x02tp\0\0\0\x03");
    let value = record.encode_value().unwrap();
    assert_eq!(value.as_ref(), b"\0\x03\0\0\0\0\0\0\0\x05\0\0\0\x01\0\x01x\0\0\0\0\0\0\x01\0");
}

#[test]
fn expiring_offset_is_written_as_version_1() {
    let value = CommittedOffset {
        offset: 5,
        leader_epoch: 1,
        metadata: "x".into(),
        commit_timestamp_ms: 2,
        expire_timestamp_ms: Some(3),
    };
    assert_eq!(
        value.encode().as_ref(),
        b"\0\x01\0\0\0\0\0\0\0\x05\0\x01x\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03"
    );
    assert_eq!(
        CommittedOffset::decode(&value.encode()),
        Ok(CommittedOffset { leader_epoch: -1, ..value })
    );
}

#[test]
fn group_record_has_kafkas_bytes() {
    let record = GroupRecord::Group {
        group_id: "g".into(),
        value: Some(sample_group()),
    };
    assert_eq!(record.encode_key().as_ref(), b"\0\x02\0\x01g");
    let expected: &[u8] = b"\0\x03\0\x08consumer\0\0\0\x07\0\x05range\0\x01m\0\0\0\0\0\0\x01\x02\0\0\0\x01\
        \0\x01m\xff\xff\0\x01c\0\x02/h\0\0\0\x02\0\0\0\x01\0\0\0\x01s\0\0\0\0";
    assert_eq!(record.encode_value().unwrap().as_ref(), expected);
}

#[test]
fn old_and_flexible_versions_are_read() {
    let offset_v0 = b"\0\0\0\0\0\0\0\0\0\x05\0\x01x\0\0\0\0\0\0\0\x02";
    let read = CommittedOffset {
        offset: 5,
        leader_epoch: -1,
        metadata: "x".into(),
        commit_timestamp_ms: 2,
        expire_timestamp_ms: None,
    };
    assert_eq!(CommittedOffset::decode(offset_v0), Ok(read.clone()));
    let offset_v4 = b"\0\x04\0\0\0\0\0\0\0\x05\xff\xff\xff\xff\x02x\0\0\0\0\0\0\0\x02\x01\0\x02ab";
    assert_eq!(CommittedOffset::decode(offset_v4), Ok(read));

    let group_v0 = b"\0\0\0\x08consumer\0\0\0\x07\0\x05range\0\x01m\0\0\0\x01\0\x01m\0\x01c\0\x02/h\0\0\0\x01\0\0\0\x01s\0\0\0\0";
    let mut old = sample_group();
    old.state_timestamp_ms = None;
    old.members.iter_mut().for_each(|member| member.rebalance_timeout_ms = -1);
    assert_eq!(GroupMetadata::decode(group_v0), Ok(old));
    let group_v4 = b"\0\x04\x09consumer\0\0\0\x07\x06range\x02m\0\0\0\0\0\0\x01\x02\x02\
        \x02m\0\x02c\x03/h\0\0\0\x02\0\0\0\x01\x02s\x01\x01\x05\x01z\0";
    assert_eq!(GroupMetadata::decode(group_v4), Ok(sample_group()));
}

#[test]
fn keys_of_other_group_kinds_are_skipped() {
    assert_eq!(GroupRecord::decode(b"\0\x12\0\x01g", None), Ok(None));
    assert_eq!(GroupRecord::decode(b"\0\x18anything", Some(b"")), Ok(None));
}

#[test]
fn hostile_values_are_refused() {
    let lying_count = b"\0\x03\0\0\0\0\0\x01\xff\xff\xff\xff\0\0\0\0\0\0\0\0\x7f\xff\xff\xff";
    assert_eq!(GroupMetadata::decode(lying_count), Err(RecordDecodeError::Truncated));
    assert_eq!(GroupRecord::decode(b"\0\x02\xff\xffg", None), Err(RecordDecodeError::BadLength(-1)));
    assert_eq!(GroupRecord::decode(b"\0\x02\xff\xfeg", None), Err(RecordDecodeError::BadLength(-2)));
    assert_eq!(GroupRecord::decode(b"\0\x02\0\x01\xff", None), Err(RecordDecodeError::BadUtf8));
    assert_eq!(
        GroupRecord::decode(b"\0\x02\0\x01g", Some(b"\0\x05")),
        Err(RecordDecodeError::UnknownVersion(5))
    );
    assert_eq!(
        GroupRecord::decode(b"\0\x02\0\x01g", Some(b"\0\x04\xff\xff\xff\xff\xff")),
        Err(RecordDecodeError::BadVarint)
    );
}

prop_compose! {
    fn any_member()(
        ids in ("[a-z]{0,9}", proptest::option::of("[a-z]{0,9}"), ".{0,9}", ".{0,9}"),
        timeouts in any::<(i32, i32)>(),
        subscription in proptest::collection::vec(any::<u8>(), 0..20),
        assignment in proptest::collection::vec(any::<u8>(), 0..20),
    ) -> MemberMetadata {
        let (member_id, group_instance_id, client_id, client_host) = ids;
        let (rebalance_timeout_ms, session_timeout_ms) = timeouts;
        MemberMetadata {
            member_id, group_instance_id, client_id, client_host, rebalance_timeout_ms, session_timeout_ms,
            subscription: subscription.into(), assignment: assignment.into(),
        }
    }
}

prop_compose! {
    fn any_group()(
        text in (".{0,9}", proptest::option::of(".{0,9}"), proptest::option::of(".{0,9}")),
        generation in any::<i32>(),
        state_timestamp_ms in proptest::option::of(0..i64::MAX),
        members in proptest::collection::vec(any_member(), 0..4),
    ) -> GroupMetadata {
        let (protocol_type, protocol, leader) = text;
        GroupMetadata { protocol_type, generation, protocol, leader, state_timestamp_ms, members }
    }
}

proptest! {
    #[test]
    fn group_records_survive_a_round_trip(group_id in ".{0,20}", value in proptest::option::of(any_group())) {
        let record = GroupRecord::Group { group_id, value };
        let decoded = GroupRecord::decode(&record.encode_key(), record.encode_value().as_deref());
        prop_assert_eq!(decoded, Ok(Some(record)));
    }

    #[test]
    fn offset_records_survive_a_round_trip(
        (group_id, topic, partition) in (".{0,20}", ".{0,20}", any::<i32>()),
        (offset, epoch, commit_timestamp_ms) in any::<(i64, i32, i64)>(),
        metadata in ".{0,30}",
        expire_timestamp_ms in proptest::option::of(0..i64::MAX),
        tombstone in any::<bool>(),
    ) {
        let leader_epoch = if expire_timestamp_ms.is_some() { -1 } else { epoch };
        let value = CommittedOffset { offset, leader_epoch, metadata, commit_timestamp_ms, expire_timestamp_ms };
        let record = GroupRecord::Offset { group_id, topic, partition, value: (!tombstone).then_some(value) };
        let decoded = GroupRecord::decode(&record.encode_key(), record.encode_value().as_deref());
        prop_assert_eq!(decoded, Ok(Some(record)));
    }

    #[test]
    fn any_bytes_decode_or_fail_without_a_panic(
        key in proptest::collection::vec(any::<u8>(), 0..40),
        key_version in 0_i16..4,
        value in proptest::collection::vec(any::<u8>(), 0..80),
        value_version in 0_i16..5,
    ) {
        let _ = GroupRecord::decode(&key, Some(&value));
        let key = [&key_version.to_be_bytes(), key.as_slice()].concat();
        let value = [&value_version.to_be_bytes(), value.as_slice()].concat();
        let _ = GroupRecord::decode(&key, Some(&value));
    }
}
