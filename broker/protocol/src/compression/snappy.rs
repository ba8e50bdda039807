//! Snappy as Kafka clients send it: raw blocks (librdkafka, Go) or xerial's framing (Java).
//!
//! ```text
//! xerial: magic 82 "SNAPPY" 00 | version u32 be | compatible version u32 be | { block length u32 be | raw snappy block }*
//! ```
//! We write raw blocks of xerial framing with 32 KiB of input each, which every client reads.

use bytes::Bytes;

use super::{Compression, CompressionError};

const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_LEN: usize = 16;
const BLOCK_LEN: usize = 32 * 1024;

pub(super) fn compress(input: &[u8]) -> Result<Vec<u8>, snap::Error> {
    let mut output = Vec::with_capacity(XERIAL_HEADER_LEN + input.len() / 2);
    output.extend_from_slice(&XERIAL_MAGIC);
    output.extend_from_slice(&1u32.to_be_bytes());
    output.extend_from_slice(&1u32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in input.chunks(BLOCK_LEN) {
        let compressed = encoder.compress_vec(block)?;
        let len = u32::try_from(compressed.len()).map_err(|_| snap::Error::TooBig {
            given: block.len() as u64,
            max: BLOCK_LEN as u64,
        })?;
        output.extend_from_slice(&len.to_be_bytes());
        output.extend_from_slice(&compressed);
    }
    Ok(output)
}

pub(super) fn decompress(input: &Bytes, budget_bytes: usize) -> Result<Bytes, CompressionError> {
    let mut output = Vec::new();
    if !input.starts_with(&XERIAL_MAGIC) {
        append_block(input, &mut output, budget_bytes)?;
        return Ok(Bytes::from(output));
    }
    let mut rest = input.get(XERIAL_HEADER_LEN..).ok_or_else(|| corrupt("xerial header is cut off"))?;
    while !rest.is_empty() {
        let (len, after) = rest
            .split_first_chunk::<4>()
            .ok_or_else(|| corrupt("xerial block length is cut off"))?;
        let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| corrupt("xerial block length"))?;
        let block = after.get(..len).ok_or_else(|| corrupt("xerial block is cut off"))?;
        append_block(block, &mut output, budget_bytes)?;
        rest = &after[len..];
    }
    Ok(Bytes::from(output))
}

fn append_block(block: &[u8], output: &mut Vec<u8>, budget_bytes: usize) -> Result<(), CompressionError> {
    let block_len = snap::raw::decompress_len(block).map_err(corrupt)?;
    let end = output.len().saturating_add(block_len);
    if end > budget_bytes {
        return Err(CompressionError::OverBudget {
            codec: Compression::Snappy.name(),
            budget_bytes,
        });
    }
    // A lying length is bounded by the budget; snappy itself cannot expand beyond about 21:1.
    if block_len > block.len().saturating_mul(64).saturating_add(64) {
        return Err(corrupt("announced length is impossible for its input"));
    }
    let start = output.len();
    output.resize(end, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut output[start..]).map_err(corrupt)?;
    output.truncate(start + written);
    Ok(())
}

fn corrupt(reason: impl ToString) -> CompressionError {
    CompressionError::Corrupt {
        codec: Compression::Snappy.name(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_blocks_of_librdkafka_are_read() {
        let raw = snap::raw::Encoder::new().compress_vec(b"hello hello hello").unwrap();
        assert_eq!(&decompress(&Bytes::from(raw), 100).unwrap()[..], b"hello hello hello");
    }

    #[test]
    fn a_block_that_announces_four_gigabytes_is_refused_without_reserving_them() {
        let lying = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]);
        assert!(decompress(&lying, 1 << 20).is_err());
        assert!(decompress(&lying, usize::MAX).is_err());
    }

    #[test]
    fn a_cut_off_frame_is_an_error() {
        let whole = Bytes::from(compress(&[7u8; 100_000]).unwrap());
        assert_eq!(decompress(&whole, 100_000).unwrap().len(), 100_000);
        assert!(decompress(&whole.slice(..whole.len() - 1), 100_000).is_err());
        assert!(decompress(&whole.slice(..18), 100_000).is_err());
    }
}
