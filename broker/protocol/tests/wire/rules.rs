//! What the schema's facts mean when a message is written in an old version, and other rules that are not about single bytes.

use bytes::Bytes;
use millstream_protocol::chunk::{Chunk, Records};
use millstream_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use millstream_protocol::messages::{FetchRequest, FetchResponse, JoinGroupResponse, MetadataRequest, SaslAuthenticateRequest};
use millstream_protocol::{DecodeError, Decoder, EncodeError, Encoder, KString, Message};

#[test]
fn a_field_that_an_old_version_lacks_is_refused() {
    let request = FetchRequest {
        rack_id: KString::from_static("r1"),
        ..Default::default()
    };
    assert!(request.encode_to_bytes(4).is_ok(), "rack_id is ignorable");
    let request = MetadataRequest {
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    let refused = EncodeError::UnsupportedField {
        field: "allow_auto_topic_creation",
        version: 3,
    };
    assert_eq!(request.encode_to_bytes(3), Err(refused));
    assert!(request.encode_to_bytes(4).is_ok());
}

#[test]
fn null_is_refused_in_versions_that_do_not_allow_it() {
    let response = JoinGroupResponse {
        protocol_name: None,
        ..Default::default()
    };
    assert_eq!(
        response.encode_to_bytes(6),
        Err(EncodeError::UnexpectedNull {
            field: "protocol_name",
            version: 6
        })
    );
    assert!(response.encode_to_bytes(7).is_ok());
    let null_topics = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff]);
    assert!(matches!(
        MetadataRequest::decode(&mut Decoder::new(null_topics.clone()), 0),
        Err(DecodeError::UnexpectedNull { .. })
    ));
    assert_eq!(
        MetadataRequest::decode(&mut Decoder::new(null_topics), 1).map(|request| request.topics),
        Ok(None)
    );
}

#[test]
fn defaults_are_those_of_the_schema() {
    let request = FetchRequest::default();
    assert_eq!((request.replica_id, request.max_bytes, request.session_epoch), (-1, i32::MAX, -1));
    assert_eq!(JoinGroupResponse::default().protocol_name, Some(KString::default()));
}

#[test]
fn secrets_are_not_printed() {
    let request = SaslAuthenticateRequest {
        auth_bytes: Bytes::from_static(b"canary"),
    };
    assert_eq!(format!("{request:?}"), "SaslAuthenticateRequest { auth_bytes: [redacted] }");
}

fn fetch_response(records: Bytes) -> FetchResponse {
    let partition = PartitionData {
        records: Some(Records::from(records)),
        ..Default::default()
    };
    let topic = FetchableTopicResponse {
        partitions: vec![partition],
        ..Default::default()
    };
    FetchResponse {
        responses: vec![topic],
        ..Default::default()
    }
}

#[test]
fn record_bytes_are_passed_on_without_a_copy() {
    let records = Bytes::from(vec![7; 4096]);
    let mut encoder = Encoder::framed();
    fetch_response(records.clone()).encode(&mut encoder, 12).unwrap();
    let frame_bytes = encoder.len();
    let chunks = encoder.finish();
    assert_eq!(chunks.len(), 3);
    let Chunk::Bytes(middle) = &chunks[1] else {
        panic!("not in memory")
    };
    assert_eq!(middle.as_ptr(), records.as_ptr());
    let Chunk::Bytes(head) = &chunks[0] else { panic!("not in memory") };
    assert_eq!(head[..4], u32::try_from(frame_bytes - 4).unwrap().to_be_bytes());
    assert_eq!(chunks.iter().map(Chunk::len).sum::<usize>(), frame_bytes);
}

#[test]
fn short_record_bytes_are_gathered() {
    for (length, segments) in [(1023, 1), (1024, 3)] {
        let mut encoder = Encoder::new();
        fetch_response(Bytes::from(vec![7; length])).encode(&mut encoder, 12).unwrap();
        assert_eq!(encoder.finish().len(), segments, "{length}");
    }
}

#[test]
fn decoded_records_and_strings_share_the_frame() {
    let frame = fetch_response(Bytes::from(vec![7; 4096])).encode_to_bytes(12).unwrap();
    let response = FetchResponse::decode(&mut Decoder::new(frame.clone()), 12).unwrap();
    let records = response.responses[0].partitions[0].records.clone().unwrap().into_bytes().unwrap();
    assert!(frame.as_ptr_range().contains(&records.as_ptr()));
}

#[test]
fn known_tags_keep_to_their_size() {
    // Fetch v12 without topics; tag 0 (cluster id, "ab") claims five bytes and takes three.
    let mut frame = FetchRequest::default().encode_to_bytes(12).unwrap().to_vec();
    frame.pop();
    frame.extend([1, 0, 5, 3, b'a', b'b', 0, 0]);
    assert!(matches!(
        FetchRequest::decode(&mut Decoder::new(Bytes::from(frame)), 12),
        Err(DecodeError::TagSize { tag: 0, .. })
    ));
}
