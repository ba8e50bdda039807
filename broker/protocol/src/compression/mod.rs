//! The four codecs of record batches, under a byte budget.
//!
//! Kafka's numbering of the lowest three attribute bits: 0 none, 1 gzip, 2 snappy, 3 lz4 (frame format), 4 zstd (KIP-110).
//! Decompression stops as soon as the output would exceed its budget: zeros expand 32,300:1 with zstd.

mod snappy;

use std::io::{self, Read, Write};

use bytes::Bytes;

/// A compression codec of record batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Compression {
    /// Uncompressed.
    #[default]
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Raw snappy, or in the framing of xerial's snappy-java.
    Snappy = 2,
    /// LZ4 frame format.
    Lz4 = 3,
    /// RFC 8878.
    Zstd = 4,
}

/// Why bytes could not be decompressed or compressed.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// The output would be larger than allowed.
    #[error("{codec} data expands beyond its budget of {budget_bytes} bytes")]
    OverBudget {
        /// The codec's Kafka name.
        codec: &'static str,
        /// Bytes that were allowed.
        budget_bytes: usize,
    },
    /// The input is not valid.
    #[error("bad {codec} data: {reason}")]
    Corrupt {
        /// The codec's Kafka name.
        codec: &'static str,
        /// What the decoder said.
        reason: String,
    },
}

impl Compression {
    /// All codecs, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec in the lowest three bits of a batch's attributes, `None` for the unassigned numbers 5 to 7.
    pub fn from_attributes(attributes: i16) -> Option<Self> {
        Self::ALL.get(usize::from(attributes.unsigned_abs() & 7)).copied()
    }

    /// Kafka's name, as in `compression.type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The codec of Kafka's name (`uncompressed` is a synonym of `none`).
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "uncompressed" {
            return Some(Self::None);
        }
        Self::ALL.into_iter().find(|codec| codec.name() == name)
    }

    /// Decompresses `input`, of which at most `budget_bytes` may come out. Uncompressed input is returned as it is.
    pub fn decompress(self, input: &Bytes, budget_bytes: usize) -> Result<Bytes, CompressionError> {
        match self {
            Self::None if input.len() > budget_bytes => Err(self.over_budget(budget_bytes)),
            Self::None => Ok(input.clone()),
            Self::Gzip => self.read_all(flate2::read::MultiGzDecoder::new(&input[..]), input.len(), budget_bytes),
            Self::Snappy => snappy::decompress(input, budget_bytes),
            Self::Lz4 => self.read_all(lz4_flex::frame::FrameDecoder::new(&input[..]), input.len(), budget_bytes),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(&input[..]).map_err(|error| self.corrupt(error))?;
                // Window logs above 27 need more than 128 MiB for the window alone; Kafka clients use at most 27.
                decoder.window_log_max(27).map_err(|error| self.corrupt(error))?;
                self.read_all(decoder, input.len(), budget_bytes)
            }
        }
    }

    /// Compresses `input`, with the codec's default level unless one is given; snappy and lz4 have only one.
    pub fn compress(self, input: &[u8], level: Option<i32>) -> Result<Bytes, CompressionError> {
        let compressed = match self {
            Self::None => Ok(input.to_vec()),
            Self::Gzip => {
                let level = level.and_then(|level| u32::try_from(level).ok()).map(flate2::Compression::new);
                let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(input.len() / 2), level.unwrap_or_default());
                encoder.write_all(input).and_then(|()| encoder.finish())
            }
            Self::Snappy => snappy::compress(input).map_err(io::Error::other),
            Self::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::with_capacity(input.len() / 2));
                encoder.write_all(input).and_then(|()| encoder.finish().map_err(io::Error::other))
            }
            Self::Zstd => zstd::bulk::compress(input, level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL)),
        };
        compressed.map(Bytes::from).map_err(|error| self.corrupt(error))
    }

    fn read_all(self, reader: impl Read, input_len: usize, budget_bytes: usize) -> Result<Bytes, CompressionError> {
        let mut output = Vec::with_capacity(input_len.saturating_mul(4).min(budget_bytes));
        let limit = u64::try_from(budget_bytes).unwrap_or(u64::MAX).saturating_add(1);
        reader.take(limit).read_to_end(&mut output).map_err(|error| self.corrupt(error))?;
        if output.len() > budget_bytes {
            return Err(self.over_budget(budget_bytes));
        }
        Ok(Bytes::from(output))
    }

    fn over_budget(self, budget_bytes: usize) -> CompressionError {
        CompressionError::OverBudget {
            codec: self.name(),
            budget_bytes,
        }
    }

    fn corrupt(self, reason: impl ToString) -> CompressionError {
        CompressionError::Corrupt {
            codec: self.name(),
            reason: reason.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_level_is_what_is_compressed_with() {
        let input: Vec<u8> = (0..60_000_u32).flat_map(|n| (n.wrapping_mul(n) % 251).to_be_bytes()).collect();
        for (codec, low, high) in [(Compression::Gzip, 1, 9), (Compression::Zstd, -100, 19)] {
            let size = |level| codec.compress(&input, Some(level)).unwrap().len();
            assert!(size(high) < size(low), "{}: {} and {}", codec.name(), size(high), size(low));
        }
    }

    proptest! {
        #[test]
        fn every_codec_gives_back_what_it_was_given(input in proptest::collection::vec(any::<u8>(), 0..5000)) {
            for codec in Compression::ALL {
                let compressed = codec.compress(&input, None).unwrap();
                prop_assert_eq!(&codec.decompress(&compressed, input.len()).unwrap()[..], &input[..]);
            }
        }

        #[test]
        fn random_bytes_never_panic_and_never_exceed_the_budget(input in proptest::collection::vec(any::<u8>(), 0..500)) {
            let input = Bytes::from(input);
            for codec in Compression::ALL {
                if let Ok(output) = codec.decompress(&input, 1000) {
                    prop_assert!(output.len() <= 1000);
                }
            }
        }
    }

    #[test]
    fn a_bomb_is_refused_at_its_budget() {
        let zeros = vec![0u8; 16 << 20];
        for codec in &Compression::ALL[1..] {
            let bomb = codec.compress(&zeros, None).unwrap();
            assert!(
                matches!(codec.decompress(&bomb, 1 << 20), Err(CompressionError::OverBudget { .. })),
                "{}",
                codec.name()
            );
        }
    }

    #[test]
    fn frames_that_ask_for_too_much_or_for_a_dictionary_are_corrupt() {
        // A zstd frame with a window of 2^31 bytes, and one that needs dictionary 7.
        let large_window = Bytes::from_static(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00]);
        let dictionary = Bytes::from_static(&[
            0x28, 0xb5, 0x2f, 0xfd, 0x21, 0x07, 0x05, 0x29, 0x00, 0x00, b'h', b'e', b'l', b'l', b'o',
        ]);
        for frame in [large_window, dictionary] {
            let output = Compression::Zstd.decompress(&frame, 1 << 20);
            assert!(matches!(output, Err(CompressionError::Corrupt { .. })), "{output:?}");
        }
        // An LZ4 frame whose descriptor names a dictionary.
        let dictionary = Bytes::from_static(&[0x04, 0x22, 0x4d, 0x18, 0x61, 0x40, 7, 0, 0, 0, 0x9c, 0, 0, 0, 0]);
        assert!(Compression::Lz4.decompress(&dictionary, 1 << 20).is_err());
    }

    #[test]
    fn unassigned_codec_numbers_are_no_codec() {
        assert_eq!(
            (0..8).filter_map(Compression::from_attributes).collect::<Vec<_>>(),
            Compression::ALL
        );
    }

    #[test]
    fn names_round_trip() {
        for codec in Compression::ALL {
            assert_eq!(Compression::from_name(codec.name()), Some(codec));
        }
        assert_eq!(Compression::from_name("producer"), None);
    }
}
