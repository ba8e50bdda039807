//! A bounded reader over one frame.

use bytes::{Buf, Bytes};

use super::{Decode, DecodeError, Format, KString, NullableDecode};

/// What decoding may allocate for any frame, in bytes. Short topic names take five times their wire size in memory, so that a metadata
/// request for some thousand topics needs this head start.
const BUDGET_BYTES_BASE: usize = 1024 * 1024;

/// What decoding may allocate besides, per byte of the frame.
const BUDGET_PER_FRAME_BYTE: usize = 4;

/// Longest string in bytes; the length is an `i16` in versions that are not flexible, and Kafka keeps the limit in the others.
pub(super) const STRING_BYTES_MAX: usize = 0x7fff;

/// Reads values from a frame, front to back.
///
/// Budget: each array is charged for the memory it reserves (capacity × element size), and capacity grows with the elements that were
/// really read. The budget is four times the frame's length and 1 MiB, so that a hostile frame cannot make the process allocate more than
/// that, whatever counts it claims.
#[derive(Debug)]
pub struct Decoder {
    rest: Bytes,
    frame_bytes: usize,
    budget_bytes: usize,
}

impl Decoder {
    /// A decoder over a whole frame, without its length prefix.
    pub fn new(frame: Bytes) -> Self {
        let budget_bytes = frame.len().saturating_mul(BUDGET_PER_FRAME_BYTE).saturating_add(BUDGET_BYTES_BASE);
        Self::with_budget(frame, budget_bytes)
    }

    /// A decoder that may allocate `budget_bytes`.
    pub fn with_budget(frame: Bytes, budget_bytes: usize) -> Self {
        Self {
            frame_bytes: frame.len(),
            rest: frame,
            budget_bytes,
        }
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.frame_bytes - self.rest.len()
    }

    /// Bytes that may still be allocated.
    pub fn budget_left(&self) -> usize {
        self.budget_bytes
    }

    /// Reads any value.
    pub fn read<T: Decode>(&mut self, f: Format) -> Result<T, DecodeError> {
        T::read(self, f)
    }

    /// Reads a value if the version has it, else gives its default.
    pub fn read_or<T: Decode>(&mut self, f: Format, present: bool, default: T) -> Result<T, DecodeError> {
        if present { T::read(self, f) } else { Ok(default) }
    }

    /// Reads a value that is nullable in some versions only.
    pub fn read_nullable_if<T: NullableDecode>(&mut self, f: Format, nullable: bool) -> Result<Option<T>, DecodeError> {
        if nullable {
            T::read_nullable(self, f)
        } else {
            T::read(self, f).map(Some)
        }
    }

    /// The next `length` bytes, shared with the frame.
    pub fn take(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        self.need(length)?;
        Ok(self.rest.split_to(length))
    }

    /// Reads a 32-bit varint without sign, at most 5 bytes long.
    pub fn read_uvarint(&mut self) -> Result<u32, DecodeError> {
        let position = self.position();
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.read_fixed()?;
            let part = u32::from(byte & 0x7f);
            if shift == 28 && part > 0x0f {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Varint { position })
    }

    /// Passes over the tagged fields at the end of a struct.
    pub fn skip_tags(&mut self, f: Format) -> Result<(), DecodeError> {
        self.read_tags(f, &mut |_, _| Ok(false))
    }

    /// Reads the tagged fields at the end of a struct. `known` reads the field's value and returns true, or returns false without reading
    /// anything: such a field is passed over, not stored.
    pub fn read_tags(&mut self, f: Format, known: &mut dyn FnMut(u32, &mut Self) -> Result<bool, DecodeError>) -> Result<(), DecodeError> {
        if !f.flexible {
            return Ok(());
        }
        let count = self.read_uvarint()?;
        for _ in 0..count {
            let tag = self.read_uvarint()?;
            let size = to_usize(self.read_uvarint()?);
            self.need(size)?;
            let expected = self.position() + size;
            if !known(tag, self)? {
                self.rest.advance(size);
            }
            let position = self.position();
            if position != expected {
                return Err(DecodeError::TagSize { tag, position, expected });
            }
        }
        Ok(())
    }

    pub(super) fn read_array<T: Decode>(&mut self, count: usize, f: Format) -> Result<Vec<T>, DecodeError> {
        let remaining = self.remaining();
        // Every element takes at least a byte.
        if count > remaining {
            return Err(DecodeError::ArrayTooLong {
                position: self.position(),
                count,
                remaining,
            });
        }
        let mut elements = Vec::new();
        for _ in 0..count {
            if elements.len() == elements.capacity() {
                // Doubles, but never past the count, so that a whole array is charged exactly for what it holds.
                let more = elements.len().max(4).min(count - elements.len());
                self.charge(more.saturating_mul(size_of::<T>()))?;
                elements.reserve_exact(more);
            }
            elements.push(T::read(self, f)?);
        }
        Ok(elements)
    }

    pub(super) fn read_text(&mut self, length: usize) -> Result<KString, DecodeError> {
        let position = self.position();
        if length > STRING_BYTES_MAX {
            return Err(DecodeError::StringTooLong { position, length });
        }
        KString::from_utf8(self.take(length)?).ok_or(DecodeError::Utf8 { position })
    }

    /// The length of a string, none for null.
    pub(super) fn read_string_length(&mut self, f: Format) -> Result<Option<usize>, DecodeError> {
        if f.flexible {
            self.read_compact_length()
        } else {
            i16::read(self, f).and_then(|length| self.check_length(i32::from(length)))
        }
    }

    /// The length of bytes or records, or the count of an array; none for null.
    pub(super) fn read_length(&mut self, f: Format) -> Result<Option<usize>, DecodeError> {
        if f.flexible {
            self.read_compact_length()
        } else {
            i32::read(self, f).and_then(|length| self.check_length(length))
        }
    }

    /// The null that a version does not allow.
    pub(super) fn unexpected_null(&self) -> DecodeError {
        DecodeError::UnexpectedNull { position: self.position() }
    }

    /// Pays for memory that a value takes besides its place in an array.
    pub(super) fn charge(&mut self, needed: usize) -> Result<(), DecodeError> {
        let left = self.budget_bytes;
        self.budget_bytes = left.checked_sub(needed).ok_or(DecodeError::Budget {
            position: self.position(),
            needed,
            left,
        })?;
        Ok(())
    }

    pub(super) fn read_fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some(fixed) = self.rest.first_chunk::<N>().copied() else {
            return Err(DecodeError::Truncated {
                position: self.position(),
                needed: N,
                remaining: self.remaining(),
            });
        };
        self.rest.advance(N);
        Ok(fixed)
    }

    fn read_compact_length(&mut self) -> Result<Option<usize>, DecodeError> {
        Ok(to_usize(self.read_uvarint()?).checked_sub(1))
    }

    fn check_length(&self, length: i32) -> Result<Option<usize>, DecodeError> {
        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(DecodeError::NegativeLength {
                position: self.position(),
                length,
            }),
        }
    }

    fn need(&self, needed: usize) -> Result<(), DecodeError> {
        let remaining = self.remaining();
        if needed > remaining {
            return Err(DecodeError::Truncated {
                position: self.position(),
                needed,
                remaining,
            });
        }
        Ok(())
    }
}

/// Lengths on the wire have 32 bits; where `usize` is shorter they saturate and then fail the check against the frame.
fn to_usize(length: u32) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Format = Format {
        version: 0,
        flexible: false,
    };
    const FLEXIBLE: Format = Format {
        version: 0,
        flexible: true,
    };

    fn decoder(bytes: &'static [u8]) -> Decoder {
        Decoder::new(Bytes::from_static(bytes))
    }

    #[test]
    fn varints_end_within_five_bytes_and_32_bits() {
        let cases: [(&'static [u8], Option<u32>); 6] = [
            (&[0x7f], Some(127)),
            (&[0x80, 0x01], Some(128)),
            (&[0xff, 0xff, 0xff, 0xff, 0x0f], Some(u32::MAX)),
            (&[0xff, 0xff, 0xff, 0xff, 0x1f], None),
            (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00], None),
            (&[0x80], None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(decoder(bytes).read_uvarint().ok(), expected, "{bytes:?}");
        }
    }

    #[test]
    fn strings_are_checked() {
        assert_eq!(decoder(&[0, 2, b'h', b'i']).read::<KString>(PLAIN), Ok(KString::from_static("hi")));
        assert_eq!(decoder(&[0xff, 0xff]).read::<Option<KString>>(PLAIN), Ok(None));
        assert_eq!(
            decoder(&[0xff, 0xff]).read::<KString>(PLAIN),
            Err(DecodeError::UnexpectedNull { position: 2 })
        );
        assert_eq!(
            decoder(&[0xff, 0xfe]).read::<KString>(PLAIN),
            Err(DecodeError::NegativeLength { position: 2, length: -2 })
        );
        assert_eq!(
            decoder(&[2, 0xc3]).read::<KString>(FLEXIBLE),
            Err(DecodeError::Utf8 { position: 1 })
        );
        let mut long = vec![0x81, 0x80, 0x02];
        long.resize(40_000, b'x');
        let error = DecodeError::StringTooLong {
            position: 3,
            length: STRING_BYTES_MAX + 1,
        };
        assert_eq!(Decoder::new(Bytes::from(long)).read::<KString>(FLEXIBLE), Err(error));
    }

    #[test]
    fn arrays_are_charged_for_exactly_what_they_hold() {
        for count in [1u8, 4, 5, 100] {
            let mut frame = vec![0, 0, 0, count];
            frame.resize(4 + 4 * usize::from(count), 0);
            let mut decoder = Decoder::with_budget(Bytes::from(frame), 4 * usize::from(count));
            let elements: Vec<i32> = decoder.read(PLAIN).unwrap();
            assert_eq!((elements.len(), elements.capacity()), (usize::from(count), usize::from(count)));
            assert_eq!(decoder.budget_left(), 0);
        }
    }

    #[test]
    fn budget_follows_the_frame() {
        assert_eq!(Decoder::new(Bytes::new()).budget_left(), BUDGET_BYTES_BASE);
        assert_eq!(
            Decoder::new(Bytes::from(vec![0; 100_000])).budget_left(),
            400_000 + BUDGET_BYTES_BASE
        );
    }

    #[test]
    fn budget_ends_at_its_limit() {
        let frame = Bytes::from_static(&[0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(Decoder::with_budget(frame.clone(), 8).read::<Vec<i32>>(PLAIN).is_ok());
        let error = DecodeError::Budget {
            position: 4,
            needed: 8,
            left: 7,
        };
        assert_eq!(Decoder::with_budget(frame, 7).read::<Vec<i32>>(PLAIN), Err(error));
    }
}
