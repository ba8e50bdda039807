//! Cutting frames out of a byte stream: a 4-byte big-endian length, then that many bytes.

use bytes::{Bytes, BytesMut};

/// Largest first frame of a connection. Until a client has shown that it speaks the protocol, a stranger's "length" (an HTTP
/// request's `GET ` is 1.2 GB, a TLS hello 352 MB) must cost nothing.
pub(super) const FIRST_FRAME_BYTES_MAX: usize = 512 * 1024;
/// Smallest frame that can hold a request header.
const FRAME_BYTES_MIN: usize = 8;
/// The buffer grows with the bytes that arrive, by at most this much at a time, never by what a length field says.
const READ_BYTES: usize = 64 * 1024;

/// A length that no frame can have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame length {length} is not within {FRAME_BYTES_MIN} to {max}")]
pub(super) struct BadLength {
    pub length: i32,
    pub max: usize,
}

/// Bytes read and not yet cut.
#[derive(Debug, Default)]
pub(super) struct FrameBuffer {
    bytes: BytesMut,
}

impl FrameBuffer {
    /// Room to read into.
    pub fn space(&mut self) -> &mut BytesMut {
        let missing = self.wanted().saturating_sub(self.bytes.len());
        self.bytes.reserve(missing.clamp(READ_BYTES / 16, READ_BYTES * 16));
        &mut self.bytes
    }

    /// Bytes of the frame that is being read, as far as its length can be trusted.
    fn wanted(&self) -> usize {
        match self.bytes.first_chunk::<4>() {
            Some(length) => usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0).saturating_add(4),
            None => 0,
        }
    }

    /// The next whole frame without its length, if it has arrived.
    pub fn next(&mut self, max: usize) -> Result<Option<Bytes>, BadLength> {
        let Some(length) = self.bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = i32::from_be_bytes(*length);
        let len = match usize::try_from(length) {
            Ok(len) if (FRAME_BYTES_MIN..=max).contains(&len) => len,
            _ => return Err(BadLength { length, max }),
        };
        if self.bytes.len() < 4 + len {
            return Ok(None);
        }
        let mut frame = self.bytes.split_to(4 + len);
        Ok(Some(frame.split_off(4).freeze()))
    }

    /// Whether a frame has begun.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(bytes: &[u8]) -> FrameBuffer {
        FrameBuffer {
            bytes: BytesMut::from(bytes),
        }
    }

    #[test]
    fn frames_are_cut_whole_and_in_order() {
        let mut stream = buffer(b"\0\0\0\x0812345678\0\0\0\x09abcdefghi\0\0");
        assert_eq!(stream.next(100).unwrap().as_deref(), Some(&b"12345678"[..]));
        assert_eq!(stream.next(100).unwrap().as_deref(), Some(&b"abcdefghi"[..]));
        assert_eq!(stream.next(100).unwrap(), None);
        assert!(!stream.is_empty());
    }

    #[test]
    fn impossible_lengths_are_refused_before_their_bytes_arrive() {
        for (bytes, length) in [
            (&b"GET / HTTP"[..], 0x4745_5420),
            (&[0x16, 3, 1, 0][..], 0x1603_0100),
            (&[0xff; 4][..], -1),
            (&[0, 0, 0, 7][..], 7),
        ] {
            assert_eq!(
                buffer(bytes).next(FIRST_FRAME_BYTES_MAX),
                Err(BadLength {
                    length,
                    max: FIRST_FRAME_BYTES_MAX
                })
            );
        }
        assert!(buffer(&[0, 0, 1, 0]).next(256).unwrap().is_none());
        assert!(buffer(&[0, 0, 1, 1]).next(256).is_err());
    }

    #[test]
    fn a_claimed_length_reserves_little() {
        let mut stream = buffer(&[0x05, 0, 0, 0]);
        assert!(stream.space().capacity() <= READ_BYTES * 16 + 1024);
    }
}
