//! Bytes agree with the schema and with the `kafka-protocol` crate, for every message and version.

use bytes::Bytes;
use kafka_protocol::protocol::Decodable;
use millstream_protocol::api::encode_request;
use millstream_protocol::chunk::Chunk;
use millstream_protocol::messages::FetchRequest;
use millstream_protocol::{KString, Message as _};

use crate::sample::{Random, sample};
use crate::schema::{self, Message};
use crate::table::CODECS;

const SEEDS: u64 = 24;

/// Calls `check` with every message, codec and version.
pub fn for_every_version(mut check: impl FnMut(&Message, &crate::codec::Codec, i16)) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let messages = schema::read_all(&root.join("schema")).unwrap();
    assert_eq!(messages.len(), CODECS.len());
    for (message, codec) in messages.iter().zip(CODECS) {
        assert_eq!(message.name, codec.name);
        (message.versions.0..=message.versions.1).for_each(|version| check(message, codec, version));
    }
}

#[test]
fn every_message_survives_decode_and_encode() {
    for_every_version(|message, codec, version| {
        for seed in 0..SEEDS {
            let bytes = Bytes::from(sample(message, version, &mut Random(seed)));
            let at = format!("{} v{version} seed {seed}", codec.name);
            let decoded = (codec.ours)(bytes.clone(), version).unwrap_or_else(|e| panic!("{at}: {e}"));
            assert_eq!(decoded.unread_bytes, 0, "{at}");
            assert_eq!(decoded.encoded.unwrap_or_else(|e| panic!("{at}: {e}")), bytes, "{at}");
        }
    });
}

#[test]
fn every_message_agrees_with_the_oracle() {
    let (mut agreed, mut unknown) = (0, Vec::new());
    for_every_version(|message, codec, version| {
        for seed in 0..SEEDS {
            let bytes = Bytes::from(sample(message, version, &mut Random(seed)));
            match codec.oracle.and_then(|oracle| oracle(bytes.clone(), version)) {
                Some(result) => {
                    assert_eq!(result, Ok(bytes), "{} v{version} seed {seed}", codec.name);
                    agreed += 1;
                }
                None if seed == 0 => unknown.push(format!("{} v{version}", codec.name)),
                None => {}
            }
        }
    });
    assert!(agreed > 500 * SEEDS, "only {agreed} comparisons");
    let expected = [
        "DescribeShareGroupOffsetsRequest v1",
        "DescribeShareGroupOffsetsResponse v1",
        "InitProducerIdRequest v6",
        "ListOffsetsRequest v11",
        "ListOffsetsResponse v11",
        "OffsetCommitRequest v10",
        "OffsetFetchRequest v10",
        "ShareAcknowledgeRequest v2",
        "ShareAcknowledgeResponse v2",
        "ShareFetchRequest v2",
        "ShareFetchResponse v2",
        "StreamsGroupDescribeRequest v0",
        "StreamsGroupDescribeResponse v0",
        "StreamsGroupHeartbeatRequest v0",
        "StreamsGroupHeartbeatResponse v0",
        "WriteTxnMarkersRequest v2",
        "WriteTxnMarkersResponse v2",
    ];
    assert_eq!(unknown, expected, "versions that the oracle does not know");
}

#[test]
fn request_headers_agree_with_the_oracle() {
    for (version, header_version) in [(11, 1), (12, 2)] {
        let chunks = encode_request(&FetchRequest::default(), version, 7, Some(&KString::from_static("c1"))).unwrap();
        let [Chunk::Bytes(frame)] = chunks.as_slice() else {
            panic!("more than one chunk")
        };
        let mut rest = frame.slice(4..);
        let header = kafka_protocol::messages::RequestHeader::decode(&mut rest, header_version).unwrap();
        assert_eq!(
            (header.request_api_key, header.request_api_version, header.correlation_id),
            (1, version, 7)
        );
        assert_eq!(header.client_id.as_deref(), Some("c1"));
        assert_eq!(rest, FetchRequest::default().encode_to_bytes(version).unwrap());
    }
}
