use proptest::prelude::*;

use super::*;
use crate::golden;

type OwnedHeader = (String, Option<Vec<u8>>);
type OwnedRecord = (i64, i32, Option<Vec<u8>>, Option<Vec<u8>>, Vec<OwnedHeader>);

fn section_of(records: &[OwnedRecord]) -> Vec<u8> {
    let mut section = Vec::new();
    for (timestamp_delta, offset_delta, key, value, headers) in records {
        let headers: Vec<_> = headers
            .iter()
            .map(|(key, value)| HeaderRef {
                key,
                value: value.as_deref(),
            })
            .collect();
        append_record(
            &mut section,
            *timestamp_delta,
            *offset_delta,
            key.as_deref(),
            value.as_deref(),
            &headers,
        )
        .unwrap();
    }
    section
}

fn owned(record: &RawRecord<'_>) -> OwnedRecord {
    let header = |h: RawHeader<'_>| (h.key_str().unwrap().to_owned(), h.value.map(<[u8]>::to_vec));
    let bytes = |b: Option<&[u8]>| b.map(<[u8]>::to_vec);
    (
        record.timestamp_delta,
        record.offset_delta,
        bytes(record.key),
        bytes(record.value),
        record.headers.map(header).collect(),
    )
}

fn error_of(section: &[u8], count: i32) -> AbiError {
    RecordReader::new(section, count).find_map(Result::err).expect("an error")
}

#[test]
fn the_golden_section_reads_as_documented() {
    let section = golden::bytes(include_str!("../../golden/records.hex"));
    let records: Vec<_> = RecordReader::new(&section, 3).map(|record| owned(&record.unwrap())).collect();
    let expected: [OwnedRecord; 3] = [
        (
            0,
            0,
            Some(b"k1".to_vec()),
            Some(b"one".to_vec()),
            vec![("a".into(), Some(b"1".to_vec())), ("b".into(), None)],
        ),
        (300, 2, Some(b"k2".to_vec()), None, vec![]),
        (-5, 3, None, Some(vec![]), vec![]),
    ];
    assert_eq!(records, expected);
    assert_eq!(section_of(&expected), section);
}

#[test]
fn raw_slices_put_together_are_the_section() {
    let section = golden::bytes(include_str!("../../golden/records.hex"));
    let joined: Vec<u8> = RecordReader::new(&section, 3)
        .flat_map(|record| record.unwrap().raw.to_vec())
        .collect();
    assert_eq!(joined, section);
}

#[test]
fn a_count_that_is_not_the_sections_is_refused() {
    let section = golden::bytes(include_str!("../../golden/records.hex"));
    assert!(matches!(error_of(&section, 2), AbiError::Trailing { field: "record", .. }));
    assert!(matches!(
        error_of(&section, 4),
        AbiError::Short {
            field: "record length",
            ..
        }
    ));
    assert!(matches!(
        error_of(&section, -1),
        AbiError::Length {
            field: "record count",
            length: -1,
            ..
        }
    ));
    assert!(matches!(error_of(&section, i32::MAX), AbiError::Short { .. }));
}

#[test]
fn lengths_inside_a_record_cannot_leave_it() {
    // A record of 6 bytes whose key claims 100, with enough bytes behind the record.
    let mut section = vec![0x0c, 0, 0, 0, 0xc8, 0x01, 0];
    section.resize(200, 0);
    assert!(matches!(
        error_of(&section, 1),
        AbiError::Short {
            field: "key",
            position: 6,
            needed: 100,
            left: 1
        }
    ));
}

#[test]
fn bytes_behind_the_last_header_are_refused() {
    assert!(matches!(
        error_of(&[0x0e, 0, 0, 0, 1, 1, 0, 9], 1),
        AbiError::Trailing {
            field: "header",
            position: 7,
            left: 1
        }
    ));
}

#[test]
fn a_false_header_count_is_refused() {
    let section = [0x14, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f];
    assert!(matches!(error_of(&section, 1), AbiError::Short { field: "header key", .. }));
    assert!(matches!(
        error_of(&[0x0c, 0, 0, 0, 1, 1, 1], 1),
        AbiError::Length {
            field: "header count",
            length: -1,
            ..
        }
    ));
}

#[test]
fn the_reader_ends_after_an_error() {
    let mut reader = RecordReader::new(&[0xff], 5);
    assert!(reader.next().is_some_and(|item| item.is_err()));
    assert!(reader.next().is_none());
}

#[test]
fn header_keys_that_are_not_utf8_are_still_bytes() {
    let section = [0x14, 0, 0, 0, 1, 1, 2, 4, 0xff, 0xfe, 1];
    let record = RecordReader::new(&section, 1).next().unwrap().unwrap();
    let header = { record.headers }.next().unwrap();
    assert_eq!((header.key, header.key_str(), header.value), (&[0xff, 0xfe][..], None, None));
}

fn any_record() -> impl Strategy<Value = OwnedRecord> {
    let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..40));
    let headers = prop::collection::vec((".{0,8}", bytes()), 0..4);
    (any::<i64>(), any::<i32>(), bytes(), bytes(), headers)
}

proptest! {
    #[test]
    fn what_is_appended_is_read(records in prop::collection::vec(any_record(), 0..8)) {
        let section = section_of(&records);
        let count = i32::try_from(records.len()).unwrap();
        let read: Vec<_> = RecordReader::new(&section, count).map(|record| owned(&record.unwrap())).collect();
        prop_assert_eq!(read, records);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(section in prop::collection::vec(any::<u8>(), 0..200), count in any::<i32>()) {
        for record in RecordReader::new(&section, count).flatten() {
            prop_assert_eq!(record.headers.count(), record.headers.len());
        }
    }

    #[test]
    fn a_damaged_section_never_panics(records in prop::collection::vec(any_record(), 1..4), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut section = section_of(&records);
        let at = at.index(section.len());
        section[at] = byte;
        for record in RecordReader::new(&section, i32::try_from(records.len()).unwrap()).flatten() {
            prop_assert_eq!(record.headers.count(), record.headers.len());
        }
    }
}

#[test]
fn fuzz_records() {
    let corpus = [golden::bytes(include_str!("../../golden/records.hex"))];
    millstream_fuzz::fuzz("records of a section", &corpus, |section| {
        let mut read = 0;
        for count in [0, 1, 5, i32::MAX, -1] {
            for record in RecordReader::new(section, count).flatten() {
                assert!(record.headers.count() <= section.len());
                read += 1;
            }
        }
        read > 0
    });
}
