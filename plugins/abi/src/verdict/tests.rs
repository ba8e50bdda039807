use proptest::prelude::*;

use super::*;
use crate::{AbiError, golden};

fn read(reply: &[u8], record_count: u32) -> Result<Vec<Verdict<'_>>, AbiError> {
    VerdictReader::new(reply, record_count)?.collect()
}

fn owned_headers(list: Option<HeaderList<'_>>) -> Option<Vec<(String, Option<Vec<u8>>)>> {
    list.map(|list| {
        list.iter()
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect()
    })
}

#[test]
fn the_golden_keep_all_is_read_and_written() {
    let golden = golden::bytes(include_str!("../../golden/verdicts-keep-all.hex"));
    assert!(VerdictReader::new(&golden, 3).unwrap().keeps_all());
    assert_eq!(read(&golden, 3), Ok(vec![Verdict::Keep; 3]));
    let mut writer = VerdictWriter::new(3);
    writer.keep_rest();
    assert_eq!(writer.finish(), Ok(golden));
}

#[test]
fn the_golden_list_of_every_tag_is_read_and_written() {
    let golden = golden::bytes(include_str!("../../golden/verdicts-every-tag.hex"));
    let mut writer = VerdictWriter::new(8);
    writer.keep();
    writer.drop_record();
    writer.replace(None, Some(Some(b"new")), None);
    let headers = [
        HeaderRef {
            key: "a",
            value: Some(b"1"),
        },
        HeaderRef { key: "b", value: None },
    ];
    writer.replace(Some(Some(b"k")), Some(None), Some(&headers));
    writer.replace(None, None, Some(&[]));
    writer.reject("no");
    writer.divert("für später");
    writer.error("oops");
    assert_eq!(writer.finish().as_ref(), Ok(&golden));

    let verdicts = read(&golden, 8).unwrap();
    let [
        Verdict::Keep,
        Verdict::Drop,
        first,
        second,
        third,
        Verdict::Reject("no"),
        Verdict::Divert("für später"),
        Verdict::Error("oops"),
    ] = verdicts[..]
    else {
        panic!("{verdicts:?}")
    };
    assert_eq!(
        first,
        Verdict::Replace {
            key: None,
            value: Some(Some(b"new")),
            headers: None
        }
    );
    let Verdict::Replace {
        key: Some(Some(b"k")),
        value: Some(None),
        headers,
    } = second
    else {
        panic!("{second:?}")
    };
    assert_eq!(
        owned_headers(headers),
        Some(vec![("a".into(), Some(b"1".to_vec())), ("b".into(), None)])
    );
    let Verdict::Replace {
        key: None,
        value: None,
        headers: Some(none),
    } = third
    else {
        panic!("{third:?}")
    };
    assert!(none.is_empty());
    assert_eq!(none.len(), 0, "len and is_empty agree");
}

#[test]
fn golden_broken_replies_are_refused() {
    let short = AbiError::Short {
        field: "reason",
        position: 12,
        needed: 0xffff_ffff,
        left: 2,
    };
    let cases = [
        (include_str!("../../golden/broken-version.hex"), AbiError::Version { version: 2 }),
        (include_str!("../../golden/broken-kind.hex"), AbiError::Kind { kind: 2 }),
        (
            include_str!("../../golden/broken-keep-all-with-more.hex"),
            AbiError::Trailing {
                field: "kind",
                position: 2,
                left: 1,
            },
        ),
        (
            include_str!("../../golden/broken-count.hex"),
            AbiError::Count { expected: 2, found: 3 },
        ),
        (include_str!("../../golden/broken-emit.hex"), AbiError::Tag { index: 1, tag: 5 }),
        (
            include_str!("../../golden/broken-parts.hex"),
            AbiError::Parts { index: 0, parts: 8 },
        ),
        (include_str!("../../golden/broken-short.hex"), short),
        (
            include_str!("../../golden/broken-length.hex"),
            AbiError::Length {
                field: "key",
                position: 12,
                length: -2,
            },
        ),
        (
            include_str!("../../golden/broken-utf8.hex"),
            AbiError::NotUtf8 {
                field: "reason",
                position: 11,
            },
        ),
        (
            include_str!("../../golden/broken-trailing.hex"),
            AbiError::Trailing {
                field: "verdict",
                position: 8,
                left: 1,
            },
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(read(&golden::bytes(text), 2), Err(expected));
    }
}

#[test]
fn an_empty_or_cut_reply_is_refused() {
    let golden = golden::bytes(include_str!("../../golden/verdicts-every-tag.hex"));
    for length in 0..golden.len() {
        assert!(read(&golden[..length], 8).is_err(), "{length} bytes");
    }
}

#[test]
fn reasons_are_cut_between_characters() {
    for (reason, bytes_left) in [
        ("x".repeat(REASON_BYTES_MAX), 1024),
        ("x".repeat(REASON_BYTES_MAX + 1), 1024),
        ("€".repeat(400), 1023),
    ] {
        let mut writer = VerdictWriter::new(1);
        writer.reject(&reason);
        let reply = writer.finish().unwrap();
        assert_eq!(read(&reply, 1), Ok(vec![Verdict::Reject(&reason[..bytes_left])]));
    }
}

#[test]
fn a_replacement_without_parts_keeps_the_record() {
    let mut writer = VerdictWriter::new(1);
    writer.replace(None, None, None);
    assert_eq!(writer.finish(), Ok(vec![1, 0]));
    assert_eq!(read(&[1, 1, 1, 0, 0, 0, 2, 0], 1), Ok(vec![Verdict::Keep]));
}

#[test]
fn a_writer_with_too_few_or_too_many_verdicts_does_not_finish() {
    let mut writer = VerdictWriter::new(2);
    writer.drop_record();
    assert_eq!(writer.finish(), Err(AbiError::Count { expected: 2, found: 1 }));
    let mut writer = VerdictWriter::new(0);
    writer.keep();
    assert_eq!(writer.finish(), Err(AbiError::Count { expected: 0, found: 1 }));
}

#[test]
fn keeps_before_the_first_other_verdict_are_written_out() {
    let mut writer = VerdictWriter::new(4);
    writer.keep();
    writer.keep();
    writer.drop_record();
    writer.keep_rest();
    assert_eq!(writer.finish(), Ok(vec![1, 1, 4, 0, 0, 0, 0, 0, 1, 0]));
}

type Bytes = Vec<u8>;

#[derive(Debug, Clone)]
enum Owned {
    Keep,
    Drop,
    Replace(Option<Option<Bytes>>, Option<Option<Bytes>>, Option<Vec<(String, Option<Bytes>)>>),
    Reject(String),
    Divert(String),
    Error(String),
}

fn any_verdict() -> impl Strategy<Value = Owned> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..30);
    let part = || prop::option::of(prop::option::of(bytes()));
    let headers = prop::option::of(prop::collection::vec((".{0,8}", prop::option::of(bytes())), 0..4));
    let replace = (part(), part(), headers)
        .prop_filter("names a part", |(key, value, headers)| {
            key.is_some() || value.is_some() || headers.is_some()
        })
        .prop_map(|(key, value, headers)| Owned::Replace(key, value, headers));
    prop_oneof![
        Just(Owned::Keep),
        Just(Owned::Drop),
        replace,
        ".{0,20}".prop_map(Owned::Reject),
        ".{0,20}".prop_map(Owned::Divert),
        ".{0,20}".prop_map(Owned::Error),
    ]
}

fn write(verdicts: &[Owned]) -> Vec<u8> {
    let mut writer = VerdictWriter::new(u32::try_from(verdicts.len()).unwrap());
    for verdict in verdicts {
        match verdict {
            Owned::Keep => writer.keep(),
            Owned::Drop => writer.drop_record(),
            Owned::Replace(key, value, headers) => {
                let refs = headers.as_ref().map(|list| {
                    list.iter().map(|(key, value)| HeaderRef {
                        key,
                        value: value.as_deref(),
                    })
                });
                let refs: Option<Vec<_>> = refs.map(Iterator::collect);
                writer.replace(
                    key.as_ref().map(Option::as_deref),
                    value.as_ref().map(Option::as_deref),
                    refs.as_deref(),
                );
            }
            Owned::Reject(reason) => writer.reject(reason),
            Owned::Divert(reason) => writer.divert(reason),
            Owned::Error(message) => writer.error(message),
        }
    }
    writer.finish().unwrap()
}

fn is_same(owned: &Owned, verdict: Verdict<'_>) -> bool {
    match (owned, verdict) {
        (Owned::Keep, Verdict::Keep) | (Owned::Drop, Verdict::Drop) => true,
        (
            Owned::Replace(key, value, headers),
            Verdict::Replace {
                key: k,
                value: v,
                headers: h,
            },
        ) => key.as_ref().map(Option::as_deref) == k && value.as_ref().map(Option::as_deref) == v && *headers == owned_headers(h),
        (Owned::Reject(a), Verdict::Reject(b)) | (Owned::Divert(a), Verdict::Divert(b)) | (Owned::Error(a), Verdict::Error(b)) => a == b,
        _ => false,
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(verdicts in prop::collection::vec(any_verdict(), 0..12)) {
        let reply = write(&verdicts);
        let read = read(&reply, u32::try_from(verdicts.len()).unwrap()).unwrap();
        prop_assert_eq!(read.len(), verdicts.len());
        prop_assert!(verdicts.iter().zip(read).all(|(owned, verdict)| is_same(owned, verdict)));
    }

    #[test]
    fn no_reply_makes_the_reader_panic(tail in prop::collection::vec(any::<u8>(), 0..200), count in 0u32..6) {
        let mut reply = vec![1, 1];
        reply.extend_from_slice(&count.to_le_bytes());
        reply.extend_from_slice(&tail);
        for verdict in [read(&reply, count), read(&tail, count)].into_iter().flatten().flatten() {
            if let Verdict::Replace { headers: Some(list), .. } = verdict {
                prop_assert_eq!(list.iter().count(), list.len());
            }
        }
    }

    #[test]
    fn a_damaged_reply_never_panics(verdicts in prop::collection::vec(any_verdict(), 1..6), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut reply = write(&verdicts);
        let at = at.index(reply.len());
        reply[at] = byte;
        let _ = read(&reply, u32::try_from(verdicts.len()).unwrap());
    }
}

#[test]
fn fuzz_verdicts() {
    let corpus = [
        golden::bytes(include_str!("../../golden/verdicts-every-tag.hex")),
        golden::bytes(include_str!("../../golden/verdicts-keep-all.hex")),
    ];
    millstream_fuzz::fuzz("verdicts", &corpus, |reply| {
        let counts = (0..=8).chain([1_000]);
        let read = counts.filter_map(|count| read(reply, count).ok().map(|verdicts| (count, verdicts)));
        let read: Vec<_> = read.collect();
        assert!(read.iter().all(|(count, verdicts)| verdicts.len() <= *count as usize));
        !read.is_empty()
    });
}
