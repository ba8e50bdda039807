//! Cutting frames out of a byte stream: a 4-byte big-endian length, then that many bytes.

use bytes::{Bytes, BytesMut};

/// Largest first frame of a connection that is not known to be a request. Until a client has shown that it speaks the protocol, a
/// stranger's "length" (an HTTP request's `GET ` is 1.2 GB, a TLS hello 352 MB) must cost nothing.
const STRANGE_FRAME_BYTES_MAX: usize = 512 * 1024;
/// Smallest frame that can hold a request header.
const FRAME_BYTES_MIN: usize = 8;
/// Room made at a time, at least and at most. A length field alone gets the least: four bytes must not cost a megabyte.
const ROOM_BYTES_MIN: usize = 4 * 1024;
const ROOM_BYTES_MAX: usize = 1 << 20;

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
    /// The largest frame that this connection has sent whole.
    largest: usize,
}

impl FrameBuffer {
    /// Room to read into: as much as is missing of the frame, but about no more than has arrived, or did before.
    pub fn space(&mut self) -> &mut BytesMut {
        let missing = self.wanted().saturating_sub(self.bytes.len());
        let earned = self.bytes.len().max(self.largest);
        self.bytes
            .reserve(missing.clamp(ROOM_BYTES_MIN, earned.clamp(ROOM_BYTES_MIN, ROOM_BYTES_MAX)));
        &mut self.bytes
    }

    /// Makes room for the rest of the frame, whose bytes are counted now, so that it is not copied as it grows.
    pub fn make_room_for_all(&mut self) {
        let missing = self.wanted().saturating_sub(self.bytes.len());
        // With what the last read has room for at least.
        self.bytes.reserve(missing.saturating_add(ROOM_BYTES_MIN));
    }

    /// Bytes that are there.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of the frame that is being read, as far as its length can be trusted.
    pub fn wanted(&self) -> usize {
        match self.bytes.first_chunk::<4>() {
            Some(length) => usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0).saturating_add(4),
            None => 0,
        }
    }

    /// The first frame of a connection, if it has arrived. It may be as long as any if it begins as a request does: clients that know
    /// the broker's versions from another connection begin with records.
    pub fn first(&mut self, max: usize, is_request: impl Fn(i16, i16) -> bool) -> Result<Option<Bytes>, BadLength> {
        match self.bytes.first_chunk::<8>() {
            Some([_, _, _, _, key @ .., version_high, version_low])
                if is_request(i16::from_be_bytes(*key), i16::from_be_bytes([*version_high, *version_low])) =>
            {
                self.next(max)
            }
            // The bytes that tell come next.
            None if self.bytes.len() >= 4 => self.next(max).map(|_| None),
            _ => self.next(max.min(STRANGE_FRAME_BYTES_MAX)),
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
        self.largest = self.largest.max(len);
        let mut frame = self.bytes.split_to(4 + len);
        Ok(Some(frame.split_off(4).freeze()))
    }

    /// Whether no frame has begun.
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
            largest: 0,
        }
    }

    #[test]
    fn first_frame_may_be_long_only_if_it_begins_as_a_request() {
        let max = STRANGE_FRAME_BYTES_MAX + 1;
        let whole = |key: i16| {
            let body = [&key.to_be_bytes()[..], &[0, 9], &vec![0; max - 4]].concat();
            [&i32::try_from(max).unwrap().to_be_bytes()[..], &body].concat()
        };
        let is_request = |key, version| key == 0 && version == 9;
        assert!(buffer(&whole(0)).first(max, is_request).unwrap().is_some());
        assert!(buffer(&whole(7)).first(max, is_request).is_err());
        assert_eq!(buffer(&whole(0)[..6]).first(max, is_request).unwrap(), None);
        assert_eq!(buffer(&[0, 0, 0, 8, 1, 2]).first(max, is_request).unwrap(), None);
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
                buffer(bytes).next(STRANGE_FRAME_BYTES_MAX),
                Err(BadLength {
                    length,
                    max: STRANGE_FRAME_BYTES_MAX
                })
            );
        }
        assert!(buffer(&[0, 0, 1, 0]).next(256).unwrap().is_none());
        assert!(buffer(&[0, 0, 1, 1]).next(256).is_err());
    }

    #[test]
    fn room_grows_with_what_arrived() {
        let mut stream = buffer(&[0, 0x0f, 0, 0]);
        assert!(stream.space().capacity() <= ROOM_BYTES_MIN + 1024, "a length alone");
        stream.bytes.extend_from_slice(&[0; 100_000]);
        let room = stream.space().capacity() - stream.len();
        assert!((50_000..=250_000).contains(&room), "{room}");
        stream.make_room_for_all();
        let whole = stream.bytes.capacity();
        // A connection whose frames are large gets its room at once.
        stream.bytes.extend_from_slice(&vec![0; 0x0f_0000 - 100_000]);
        assert_eq!(stream.space().capacity(), whole, "it was not moved");
        assert!(stream.next(ROOM_BYTES_MAX).unwrap().is_some());
        stream.bytes.extend_from_slice(&[0, 0x0f, 0, 0]);
        assert!(stream.space().capacity() >= 0x0f_0000);
    }
}
