//! Damaged messages, batches and compressed data are errors, never a panic.

use bytes::Bytes;
use millstream_fuzz::fuzz;
use millstream_protocol::{
    compression::Compression,
    record::{BatchBuilder, Header, Marker, NewRecord, RecordIter, split_batches},
};

use crate::{
    oracle::for_every_version,
    sample::{Random, sample},
};

/// Most bytes that a damaged batch may decompress to.
const BUDGET_BYTES: usize = 1 << 20;

#[test]
fn fuzz_message_decoders() {
    let (mut samples, mut codecs) = (Vec::new(), Vec::new());
    for_every_version(|message, codec, version| {
        // Which decoder it is for comes first, so that damage also brings bytes to decoders they were not meant for.
        let number = u16::try_from(codecs.len()).unwrap().to_be_bytes();
        samples.push([&number[..], &sample(message, version, &mut Random(5))].concat());
        codecs.push((codec.ours, version));
    });
    fuzz("message decoders", &samples, |input| {
        let Some((number, body)) = input.split_first_chunk::<2>() else {
            return false;
        };
        let (decode, version) = codecs[usize::from(u16::from_be_bytes(*number)) % codecs.len()];
        decode(Bytes::copy_from_slice(body), version).is_ok()
    });
}

fn batches() -> Vec<Vec<u8>> {
    let build = |codec| {
        let mut builder = BatchBuilder::new(codec).idempotent(7, 1, 3);
        for number in 0..20 {
            builder.push(&NewRecord {
                timestamp: 1_000 + number,
                key: Some(b"key"),
                value: (number % 3 > 0).then_some(b"a value that comes again and again"),
                headers: vec![Header {
                    key: b"name",
                    value: Some(b"value"),
                }],
            });
        }
        builder.build().unwrap().to_vec()
    };
    Compression::ALL.into_iter().map(build).collect()
}

#[test]
fn fuzz_batch_reader() {
    fuzz("batch reader", &batches(), |input| {
        let mut records = 0;
        for batch in split_batches(Bytes::copy_from_slice(input)) {
            let Ok((header, batch)) = batch else { break };
            drop(Marker::parse(&header, &batch));
            let Ok(codec) = header.compression() else { continue };
            let Ok(section) = codec.decompress(&batch.slice(millstream_protocol::record::BatchHeader::SIZE..), BUDGET_BYTES) else {
                continue;
            };
            assert!(section.len() <= BUDGET_BYTES);
            for record in RecordIter::new(&section, header.record_count) {
                let Ok(record) = record else { break };
                records += record.headers().count();
            }
        }
        records >= 20
    });
}

#[test]
fn fuzz_decompression() {
    let section = b"the same words, the same words, the same words again".repeat(20);
    let compressed: Vec<Vec<u8>> = Compression::ALL
        .into_iter()
        .filter(|codec| *codec != Compression::None)
        .map(|codec| codec.compress(&section, None).unwrap().to_vec())
        .collect();
    fuzz("decompression", &compressed, |input| {
        let read = Compression::ALL
            .into_iter()
            .filter(|codec| *codec != Compression::None)
            .filter_map(|codec| codec.decompress(&Bytes::copy_from_slice(input), BUDGET_BYTES).ok());
        let read: Vec<_> = read.collect();
        assert!(read.iter().all(|section| section.len() <= BUDGET_BYTES));
        !read.is_empty()
    });
}
