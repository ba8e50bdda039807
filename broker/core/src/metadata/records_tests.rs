//! Golden bytes of every record type: they are in logs out there and must be readable for ever.

use proptest::prelude::*;

use super::*;

const GOLDEN: [&str; 16] = [
    r#"{"type":1,"version":0,"body":{"name":"orders","id":"AAAAAAAAAAAAAAAAAAAABw","internal":false,"created_ms":5,"configs":{"retention.ms":"1"},"partitions":[{"replicas":[1,2],"isr":[1],"leader":1,"leader_epoch":3}]}}"#,
    r#"{"type":2,"version":0,"body":{"id":"AAAAAAAAAAAAAAAAAAAABw"}}"#,
    r#"{"type":3,"version":0,"body":{"topic_id":"AAAAAAAAAAAAAAAAAAAABw","first":1,"partitions":[]}}"#,
    r#"{"type":4,"version":0,"body":{"topic_id":"AAAAAAAAAAAAAAAAAAAABw","number":0,"partition":{"replicas":[1],"isr":[1],"leader":-1,"leader_epoch":4}}}"#,
    r#"{"type":5,"version":0,"body":{"target":{"topic":{"id":"AAAAAAAAAAAAAAAAAAAABw"}},"configs":{}}}"#,
    r#"{"type":5,"version":0,"body":{"target":{"broker":{"id":1}},"configs":{"log.retention.ms":"9"}}}"#,
    r#"{"type":5,"version":0,"body":{"target":"all-brokers","configs":{}}}"#,
    r#"{"type":6,"version":0,"body":{"name":"eu","id":"AAAAAAAAAAAAAAAAAAAACA","source":"orders","bindings":[],"configs":{},"created_ms":6}}"#,
    r#"{"type":7,"version":0,"body":{"id":"AAAAAAAAAAAAAAAAAAAACA"}}"#,
    r#"{"type":8,"version":0,"body":{"name":"redact","version":"1.0.0","sha256":"ab","size_bytes":9,"hooks":["produce","view"],"config_schema":"","pushed_ms":7}}"#,
    r#"{"type":9,"version":0,"body":{"name":"redact","version":"1.0.0"}}"#,
    r#"{"type":10,"version":0,"body":{"id":"AAAAAAAAAAAAAAAAAAAABw","binding":{"name":"b","hook":"produce","order":0,"plugin":"redact","version":"1.0.0","sha256":"ab","config":"{}","policy":"reject","breaker":"closed","limits":{"deadline-ms":50,"memory-bytes":33554432,"crashes-per-minute":10},"dead_letter_topic":null,"security":true}}}"#,
    r#"{"type":11,"version":0,"body":{"id":"AAAAAAAAAAAAAAAAAAAABw","name":"b"}}"#,
    r#"{"type":12,"version":0,"body":{"next_producer_id":1000}}"#,
    r#"{"type":13,"version":0,"body":{"entity":{"client-id":"c","user":null},"values":{"producer_byte_rate":"1000.0"}}}"#,
    r#"{"type":14,"version":0,"body":{"feature":"transaction.version","level":2}}"#,
];

#[test]
fn golden_records_are_read_and_written_byte_for_byte() {
    for golden in GOLDEN {
        let record = MetadataRecord::decode(golden.as_bytes()).expect(golden);
        assert_eq!(String::from_utf8(record.encode().expect(golden)).expect(golden), golden);
    }
}

#[test]
fn fuzz_metadata_records() {
    let corpus = GOLDEN.map(|golden| golden.as_bytes().to_vec());
    millstream_fuzz::fuzz("metadata records", &corpus, |input| {
        let Ok(record) = MetadataRecord::decode(input) else { return false };
        assert_eq!(MetadataRecord::decode(&record.encode().unwrap()).unwrap(), record);
        true
    });
}

#[test]
fn records_of_a_newer_version_are_named() {
    for (bytes, kind, version) in [
        (r#"{"type":99,"version":0,"body":{}}"#, 99, 0),
        (r#"{"type":2,"version":1,"body":{}}"#, 2, 1),
    ] {
        match MetadataRecord::decode(bytes.as_bytes()) {
            Err(RecordError::Unknown { kind: k, version: v }) => assert_eq!((k, v), (kind, version)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn fields_that_are_not_known_are_refused() {
    for bytes in [
        r#"{"type":2,"version":0,"body":{"id":"AAAAAAAAAAAAAAAAAAAABw","more":1}}"#,
        r#"{"type":2,"version":0,"body":{"id":"AAAAAAAAAAAAAAAAAAAABw"},"more":1}"#,
        r#"{"type":2,"version":0,"body":{"id":"x"}}"#,
        r#"{"type":2,"version":0}"#,
    ] {
        assert!(
            matches!(MetadataRecord::decode(bytes.as_bytes()), Err(RecordError::Malformed(_))),
            "{bytes}"
        );
    }
}

#[test]
fn a_record_may_have_the_longest_length_and_no_more() {
    let padded = |length: usize| format!("{}{}", GOLDEN[13], " ".repeat(length - GOLDEN[13].len()));
    assert!(MetadataRecord::decode(padded(RECORD_BYTES_MAX).as_bytes()).is_ok());
    assert!(matches!(
        MetadataRecord::decode(padded(RECORD_BYTES_MAX + 1).as_bytes()),
        Err(RecordError::TooLong { .. })
    ));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
        let _ = MetadataRecord::decode(&bytes);
    }

    #[test]
    fn damaged_records_are_read_without_a_panic(which in 0..GOLDEN.len(), at: prop::sample::Index, byte: u8) {
        let mut bytes = GOLDEN[which].as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = MetadataRecord::decode(&bytes);
    }
}
