use proptest::prelude::*;

use super::*;
use crate::{
    segment_builder::{SegmentBuilder, SegmentError},
    testkit::batch,
};

const GOLDEN_V1: &[u8] = include_bytes!("../fixtures/segment-v1.mseg");

fn meta(base_offset: i64, next_offset: i64) -> SegmentMeta {
    SegmentMeta {
        cluster_id: "c".to_owned(),
        topic_id: "t".to_owned(),
        partition: 3,
        epoch: 2,
        base_offset,
        next_offset,
        min_timestamp: -1,
        max_timestamp: -1,
        batches: 0,
        records: 0,
        unit_bytes: UNIT_BYTES_MIN,
        extra: Map::new(),
    }
}

fn batches(count: i64, size: usize) -> Vec<u8> {
    (0..count)
        .flat_map(|number| batch(number * 3, 3, 1_000 + number, size).to_vec())
        .collect()
}

fn build(body: &[u8], next_offset: i64, cut: usize) -> Result<Footer, SegmentError> {
    let mut builder = SegmentBuilder::new(meta(0, next_offset));
    for piece in body.chunks(cut) {
        builder.push(piece)?;
    }
    builder.finish(vec![EpochEntry { epoch: 2, start_offset: 0 }], Bytes::from_static(b"producers"))
}

fn object(body: &[u8], footer: &Footer) -> Bytes {
    let mut object = BytesMut::from(body);
    object.put_slice(&footer.encode());
    object.freeze()
}

fn decode(object: &Bytes) -> Result<Footer, FormatError> {
    let trailer = Trailer::decode(object, object.len() as u64)?;
    let start = trailer.footer_pos as usize;
    Footer::decode(trailer, &object.slice(start..start + trailer.footer_len as usize))
}

#[test]
fn a_segment_object_of_version_1_still_reads_the_same() {
    let body = batches(40, 100);
    let footer = build(&body, 120, 1000).unwrap();
    assert_eq!(decode(&Bytes::from_static(GOLDEN_V1)).unwrap(), footer);
    assert_eq!(GOLDEN_V1.get(..body.len()), Some(body.as_slice()));
}

#[test]
fn the_index_finds_every_batch_and_time() {
    let body = batches(2_000, 300);
    let footer = build(&body, 6_000, 70_000).unwrap();
    assert!(footer.index.len() > 5);
    for offset in [0, 1, 2_999, 3_000, 5_999] {
        let position = footer.position_of(offset);
        let distance = (offset as u64 / 3) * 361 - position;
        assert!(
            distance < INDEX_INTERVAL_BYTES + 361,
            "offset {offset} is {distance} bytes after its entry"
        );
    }
    assert_eq!(footer.seek_timestamp(0), Some(0));
    assert!(footer.seek_timestamp(2_500).unwrap() <= 1_500 * 3);
    assert_eq!(footer.seek_timestamp(3_000), None);
    assert_eq!(
        (
            footer.meta.batches,
            footer.meta.records,
            footer.meta.min_timestamp,
            footer.meta.max_timestamp
        ),
        (2_000, 6_000, 1_000, 2_999)
    );
}

#[test]
fn damage_in_the_body_stops_the_build() {
    let mut body = batches(3, 100);
    body[200] ^= 1;
    assert_eq!(build(&body, 9, 50), Err(SegmentError::Crc { position: 161 }));
    let body = batches(3, 100);
    assert_eq!(build(&body[..400], 9, 50), Err(SegmentError::CutOff { position: 322 }));
    assert_eq!(build(&body[..170], 9, 50), Err(SegmentError::CutOff { position: 161 }));
    assert!(matches!(
        build(&body, 8, 50),
        Err(SegmentError::Order {
            base_offset: 6,
            next_offset: 9,
            ..
        })
    ));
    let twice = [batches(1, 10), batches(1, 10)].concat();
    assert!(matches!(build(&twice, 9, 50), Err(SegmentError::Order { base_offset: 0, .. })));
}

proptest! {
    #[test]
    fn how_the_stream_is_cut_does_not_matter(cut in 1_usize..5_000) {
        let body = batches(30, 333);
        prop_assert_eq!(build(&body, 90, cut), build(&body, 90, body.len()));
    }

    #[test]
    fn one_changed_byte_of_the_footer_is_noticed(at in 0_usize..1_000, to: u8) {
        let body = batches(40, 100);
        let whole = object(&body, &build(&body, 120, 1000).unwrap());
        let mut damaged = whole.to_vec();
        if let Some(byte) = damaged.get_mut(body.len() + at) {
            // Flags and reserved bytes are for later versions.
            let from_end = whole.len() - body.len() - at;
            let free = (9..=18).contains(&from_end) || (19..=20).contains(&from_end);
            let changed = *byte != to;
            *byte = to;
            let decoded = decode(&Bytes::from(damaged));
            // The CRC of the body is compared with the head's copy, not here.
            let body_crc = (21..=24).contains(&from_end);
            prop_assert!(!changed || free || body_crc || decoded.is_err(), "byte {} from the end", from_end);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let bytes = Bytes::from(bytes);
        let _ = Trailer::decode(&bytes, bytes.len() as u64);
        // With matching checksum and length, so that the sections are looked at.
        let trailer = Trailer { footer_pos: 100, footer_len: bytes.len() as u32, footer_crc: crc32c(&bytes), body_crc: 0 };
        let _ = Footer::decode(trailer, &bytes);
    }
}

#[test]
fn fuzz_segment_footer() {
    let body = batches(40, 100);
    let footer = build(&body, 120, 1000).unwrap();
    let objects = [GOLDEN_V1.to_vec(), object(&body, &footer).to_vec()];
    millstream_fuzz::fuzz("segment object", &objects, |bytes| decode(&Bytes::copy_from_slice(bytes)).is_ok());
    // As a writer with a mistake would have written it: the checksum is right.
    let footers = objects.map(|whole| {
        let whole = Bytes::from(whole);
        let trailer = Trailer::decode(&whole, whole.len() as u64).unwrap();
        let start = trailer.footer_pos as usize;
        whole[start..start + trailer.footer_len as usize].to_vec()
    });
    millstream_fuzz::fuzz("segment footer", &footers, |bytes| {
        let bytes = Bytes::copy_from_slice(bytes);
        let trailer = Trailer {
            footer_pos: body.len() as u64,
            footer_len: bytes.len() as u32,
            footer_crc: crc32c(&bytes),
            body_crc: 0,
        };
        let Ok(footer) = Footer::decode(trailer, &bytes) else {
            return false;
        };
        footer.position_of(7);
        footer.seek_timestamp(1_005);
        true
    });
}
