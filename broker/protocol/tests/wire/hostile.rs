//! Hostile bytes end in an error: no panic, no read past the end, no allocation beyond the budget.

use bytes::Bytes;
use millstream_protocol::messages::metadata_request::MetadataRequestTopic;
use millstream_protocol::messages::{ApiVersionsRequest, FetchRequest, MetadataRequest, ProduceRequest};
use millstream_protocol::{ApiKey, DecodeError, Decoder, KString, Message};

use crate::oracle::for_every_version;
use crate::sample::{Random, sample};

#[test]
fn garbage_never_panics() {
    for_every_version(|_, codec, version| {
        for seed in 0..60 {
            let mut random = Random(seed);
            let length = random.below(200);
            drop((codec.ours)(Bytes::from(random.bytes(length)), version));
        }
    });
}

#[test]
fn damaged_messages_never_panic() {
    for_every_version(|message, codec, version| {
        let mut random = Random(7);
        let valid = sample(message, version, &mut random);
        for _ in 0..100.min(valid.len()) {
            let mut damaged = valid.clone();
            let position = random.below(damaged.len());
            damaged[position] = [0xff, 0x7f, 0x80, 0x00][random.below(4)];
            drop((codec.ours)(Bytes::from(damaged), version));
        }
    });
}

#[test]
fn cut_messages_are_truncated_or_too_long_arrays() {
    for_every_version(|message, codec, version| {
        let valid = sample(message, version, &mut Random(3));
        let step = valid.len() / 64 + 1;
        for length in (0..valid.len()).step_by(step) {
            match (codec.ours)(Bytes::copy_from_slice(&valid[..length]), version) {
                Err(DecodeError::Truncated { .. } | DecodeError::ArrayTooLong { .. }) => {}
                Err(other) => panic!("{} v{version} cut at {length}: {other}", codec.name),
                Ok(_) => panic!("{} v{version} cut at {length}: decoded", codec.name),
            }
        }
    });
}

/// Counts of the largest kind in every place a short body can have them.
#[test]
fn huge_counts_are_refused_everywhere() {
    let counts: [&[u8]; 4] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff; 10],
        &[0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
    ];
    for_every_version(|_, codec, version| {
        for count in counts {
            for lead in 0..24 {
                let body = [&vec![0; lead], count, count, count].concat();
                drop((codec.ours)(Bytes::from(body), version));
            }
        }
    });
}

#[test]
fn four_byte_metadata_body_is_refused() {
    let mut decoder = Decoder::new(Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff]));
    assert!(matches!(
        MetadataRequest::decode(&mut decoder, 1),
        Err(DecodeError::ArrayTooLong { count: 0x7fff_ffff, .. })
    ));
}

#[test]
fn a_large_frame_of_tiny_elements_exhausts_the_budget() {
    // Four million topics of two bytes each (an empty name, no tagged fields); each would take 48 bytes in memory.
    let mut frame = vec![0x81, 0x80, 0x80, 0x02];
    frame.extend((0..4 << 20).flat_map(|_| [1, 0]));
    let mut decoder = Decoder::new(Bytes::from(frame));
    assert!(matches!(MetadataRequest::decode(&mut decoder, 9), Err(DecodeError::Budget { .. })));
}

#[test]
fn unknown_tagged_fields_cost_nothing() {
    // ApiVersions v3 with two empty strings and a million tagged fields of no bytes.
    let mut frame = vec![1, 1, 0xc0, 0x84, 0x3d];
    frame.extend((0..1_000_000).flat_map(|_| [99, 0]));
    let mut decoder = Decoder::new(Bytes::from(frame));
    let before = decoder.budget_left();
    assert_eq!(ApiVersionsRequest::decode(&mut decoder, 3), Ok(ApiVersionsRequest::default()));
    assert_eq!((decoder.remaining(), decoder.budget_left()), (0, before));
}

#[test]
fn fifty_million_tagged_fields_in_a_short_frame_are_truncated() {
    let mut decoder = Decoder::new(Bytes::from_static(&[1, 1, 0x80, 0xe1, 0xeb, 0x17]));
    assert!(matches!(
        ApiVersionsRequest::decode(&mut decoder, 3),
        Err(DecodeError::Truncated { .. })
    ));
}

#[test]
fn nested_arrays_share_one_budget() {
    // Produce v3: topics with an empty name, each with one partition without records.
    let mut frame = vec![0xff, 0xff, 0, 1, 0, 0, 0, 0, 0, 3, 0, 0];
    for _ in 0..0x30000 {
        frame.extend([0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    }
    let mut decoder = Decoder::new(Bytes::from(frame));
    assert!(matches!(ProduceRequest::decode(&mut decoder, 3), Err(DecodeError::Budget { .. })));
}

#[test]
fn versions_outside_the_schema_are_refused() {
    for version in [i16::MIN, -1, 3, 19, i16::MAX] {
        let result = FetchRequest::decode(&mut Decoder::new(Bytes::new()), version);
        assert_eq!(
            result,
            Err(DecodeError::UnsupportedVersion {
                message: "FetchRequest",
                version
            })
        );
    }
    assert_eq!(ApiKey::Fetch.versions(), FetchRequest::VERSIONS);
}

#[test]
fn honest_requests_for_many_topics_fit_the_budget() {
    for topics in [1, 1_000, 20_000, 100_000] {
        let name = |i| Some(KString::from(format!("topic{i}")));
        let topics = (0..topics)
            .map(|i| MetadataRequestTopic {
                name: name(i),
                ..Default::default()
            })
            .collect();
        let request = MetadataRequest {
            topics: Some(topics),
            ..Default::default()
        };
        for version in [1, 9, 13] {
            let frame = request.encode_to_bytes(version).unwrap();
            assert_eq!(MetadataRequest::decode(&mut Decoder::new(frame), version).as_ref(), Ok(&request));
        }
    }
}
