//! The frame around a JSON document in the bucket: heads and pages.
//!
//! ```text
//! magic 8 B | version u16 | min_reader u16 | crc32c of the payload u32 | payload = zstd(JSON)
//! ```
//! Numbers are big-endian. A reader accepts a document whose `min_reader` it reaches, whatever its `version`; so a newer broker
//! may add fields. Skip the first 16 bytes and `zstd -d | jq` shows the document.

use std::io::Read;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

/// The newest format version that this code writes and reads.
pub(crate) const VERSION: u16 = 1;
/// Largest frame in bytes, and largest document after decompression.
pub(crate) const FRAME_BYTES_MAX: usize = 16 << 20;
const DOCUMENT_BYTES_MAX: u64 = 64 << 20;
const HEADER_BYTES: usize = 16;
const ZSTD_LEVEL: i32 = 3;

/// Why bytes in the bucket are not what their name says.
#[derive(Debug, Error)]
pub enum FormatError {
    /// The object is shorter or longer than its format allows.
    #[error("{what} has {bytes} bytes")]
    Size {
        /// The kind of object.
        what: &'static str,
        /// Its size.
        bytes: u64,
    },
    /// The object does not start or end with its magic.
    #[error("{what} has the wrong magic")]
    Magic {
        /// The kind of object.
        what: &'static str,
    },
    /// A newer program wrote the object and says that this one must not read it.
    #[error("{what} needs a reader of version {needed}, this one is {VERSION}")]
    TooNew {
        /// The kind of object.
        what: &'static str,
        /// The version that can read it.
        needed: u16,
    },
    /// A checksum does not match.
    #[error("{what} has a bad crc")]
    Crc {
        /// The part of the object.
        what: &'static str,
    },
    /// The JSON document does not parse or does not decompress.
    #[error("{what} does not decode: {reason}")]
    Document {
        /// The kind of object.
        what: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// A field contradicts another one.
    #[error("{what} is inconsistent: {reason}")]
    Inconsistent {
        /// The kind of object.
        what: &'static str,
        /// Which rule is broken.
        reason: &'static str,
    },
}

/// CRC-32C of `bytes`.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Frames a JSON document.
pub(crate) fn seal(magic: [u8; 8], json: &[u8]) -> Bytes {
    // Compression into memory fails only when memory does, and that aborts; the level is a constant in range.
    let payload = zstd::bulk::compress(json, ZSTD_LEVEL).unwrap_or_else(|error| panic!("zstd refused {} bytes: {error}", json.len()));
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + payload.len());
    frame.put_slice(&magic);
    frame.put_u16(VERSION);
    frame.put_u16(VERSION);
    frame.put_u32(crc32c(&payload));
    frame.put_slice(&payload);
    frame.freeze()
}

/// Checks a frame and returns the JSON document in it.
pub(crate) fn open(what: &'static str, magic: [u8; 8], frame: &[u8]) -> Result<Vec<u8>, FormatError> {
    let wrong_size = || FormatError::Size {
        what,
        bytes: frame.len() as u64,
    };
    if frame.len() > FRAME_BYTES_MAX {
        return Err(wrong_size());
    }
    let (header, payload) = frame.split_first_chunk::<HEADER_BYTES>().ok_or_else(wrong_size)?;
    let [m @ .., _, _, r0, r1, c0, c1, c2, c3] = header;
    if *m != magic {
        return Err(FormatError::Magic { what });
    }
    let needed = u16::from_be_bytes([*r0, *r1]);
    if needed > VERSION {
        return Err(FormatError::TooNew { what, needed });
    }
    if crc32c(payload) != u32::from_be_bytes([*c0, *c1, *c2, *c3]) {
        return Err(FormatError::Crc { what });
    }
    let undecodable = |error: std::io::Error| FormatError::Document {
        what,
        reason: error.to_string(),
    };
    let mut document = Vec::new();
    let decoder = zstd::stream::read::Decoder::with_buffer(payload).map_err(undecodable)?;
    decoder
        .take(DOCUMENT_BYTES_MAX + 1)
        .read_to_end(&mut document)
        .map_err(undecodable)?;
    if document.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(FormatError::Size {
            what,
            bytes: document.len() as u64,
        });
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAGIC: [u8; 8] = *b"MSTEST\0\0";

    #[test]
    fn a_frame_opens_to_its_document() {
        assert_eq!(open("test", MAGIC, &seal(MAGIC, b"{}")).unwrap(), b"{}");
    }

    #[test]
    fn a_document_for_newer_readers_is_refused() {
        let mut frame = seal(MAGIC, b"{}").to_vec();
        frame[10..12].copy_from_slice(&2_u16.to_be_bytes());
        assert!(matches!(open("test", MAGIC, &frame), Err(FormatError::TooNew { needed: 2, .. })));
    }

    #[test]
    fn a_decompression_bomb_is_refused() {
        let frame = seal(MAGIC, &vec![b' '; DOCUMENT_BYTES_MAX as usize + 1]);
        assert!(matches!(open("test", MAGIC, &frame), Err(FormatError::Size { .. })));
    }

    proptest! {
        #[test]
        fn random_and_damaged_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0_usize..40, to: u8) {
            let _ = open("test", MAGIC, &bytes);
            let mut frame = seal(MAGIC, br#"{"a":1,"b":[1,2,3]}"#).to_vec();
            if let Some(byte) = frame.get_mut(at) {
                let changed = *byte != to;
                *byte = to;
                // The version field is informative, every other byte is protected.
                prop_assert!(!changed || at == 8 || at == 9 || at == 10 || at == 11 || open("test", MAGIC, &frame).is_err());
            }
        }
    }
}
