//! A reader over hostile bytes: it moves forward only, and checks each length against what remains.

use crate::AbiError;

/// What is left of an input, and how long the input was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    /// Position just behind the last byte, in the coordinates that errors report.
    end: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            end: bytes.len(),
        }
    }

    pub(crate) const fn empty() -> Self {
        Self { rest: &[], end: 0 }
    }

    pub(crate) fn position(&self) -> usize {
        self.end - self.rest.len()
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Refuses bytes behind the last `field`.
    pub(crate) fn finish(&self, field: &'static str) -> Result<(), AbiError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(AbiError::Trailing {
                field,
                position: self.position(),
                left,
            }),
        }
    }

    pub(crate) fn take(&mut self, field: &'static str, count: usize) -> Result<&'a [u8], AbiError> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(AbiError::Short {
                field,
                position: self.position(),
                needed: count,
                left: self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(taken)
    }

    /// A cursor over the next `count` bytes that goes on reporting positions of the whole input.
    pub(crate) fn sub(&mut self, field: &'static str, count: usize) -> Result<Cursor<'a>, AbiError> {
        let rest = self.take(field, count)?;
        Ok(Cursor {
            rest,
            end: self.position(),
        })
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], AbiError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(AbiError::Short {
                field,
                position: self.position(),
                needed: N,
                left: self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, AbiError> {
        self.array::<1>(field).map(u8::from_le_bytes)
    }

    pub(crate) fn i8(&mut self, field: &'static str) -> Result<i8, AbiError> {
        self.array::<1>(field).map(i8::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, AbiError> {
        self.array::<4>(field).map(u32::from_le_bytes)
    }

    /// Text behind a 32-bit length.
    pub(crate) fn text(&mut self, field: &'static str) -> Result<&'a str, AbiError> {
        let length = self.u32(field)?;
        let position = self.position();
        let bytes = self.take(field, usize::try_from(length).unwrap_or(usize::MAX))?;
        std::str::from_utf8(bytes).map_err(|_| AbiError::NotUtf8 { field, position })
    }

    /// Bytes behind a 32-bit length in which -1 means null.
    pub(crate) fn nullable(&mut self, field: &'static str) -> Result<Option<&'a [u8]>, AbiError> {
        let length = self.array::<4>(field).map(i32::from_le_bytes)?;
        self.nullable_of(field, length)
    }

    /// Bytes behind a varint length in which -1 means null.
    pub(crate) fn varint_nullable(&mut self, field: &'static str) -> Result<Option<&'a [u8]>, AbiError> {
        let length = self.varint(field)?;
        self.nullable_of(field, length)
    }

    fn nullable_of(&mut self, field: &'static str, length: i32) -> Result<Option<&'a [u8]>, AbiError> {
        if length == -1 {
            return Ok(None);
        }
        let count = self.count_of(field, length)?;
        self.take(field, count).map(Some)
    }

    /// A varint that counts something, so it cannot be negative.
    pub(crate) fn varint_count(&mut self, field: &'static str) -> Result<usize, AbiError> {
        let length = self.varint(field)?;
        self.count_of(field, length)
    }

    fn count_of(&self, field: &'static str, length: i32) -> Result<usize, AbiError> {
        usize::try_from(length).map_err(|_| AbiError::Length {
            field,
            position: self.position(),
            length: i64::from(length),
        })
    }

    /// A zigzag varint of 32 bits.
    pub(crate) fn varint(&mut self, field: &'static str) -> Result<i32, AbiError> {
        let position = self.position();
        let raw = u32::try_from(self.unsigned(field, 32)?).map_err(|_| AbiError::Varint { field, position })?;
        Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    /// A zigzag varint of 64 bits.
    pub(crate) fn varlong(&mut self, field: &'static str) -> Result<i64, AbiError> {
        let raw = self.unsigned(field, 64)?;
        Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    fn unsigned(&mut self, field: &'static str, bits: u32) -> Result<u64, AbiError> {
        let mut value = 0u64;
        let mut shift = 0;
        loop {
            let position = self.position();
            let byte = self.u8(field)?;
            let low = u64::from(byte & 0x7f);
            let room = bits.saturating_sub(shift);
            if room == 0 || (room < 7 && low >> room != 0) {
                return Err(AbiError::Varint { field, position });
            }
            value |= low << shift;
            if byte < 0x80 {
                return Ok(value);
            }
            shift += 7;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varint(bytes: &[u8]) -> Result<i32, AbiError> {
        Cursor::new(bytes).varint("n")
    }

    #[test]
    fn varints_decode_to_their_limits() {
        assert_eq!(varint(&[0x00]), Ok(0));
        assert_eq!(varint(&[0x01]), Ok(-1));
        assert_eq!(varint(&[0xac, 0x02]), Ok(150));
        assert_eq!(varint(&[0xfe, 0xff, 0xff, 0xff, 0x0f]), Ok(i32::MAX));
        assert_eq!(varint(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok(i32::MIN));
        let longest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Cursor::new(&longest).varlong("n"), Ok(i64::MIN));
    }

    #[test]
    fn varints_that_overflow_are_refused() {
        assert_eq!(
            varint(&[0xff, 0xff, 0xff, 0xff, 0x1f]),
            Err(AbiError::Varint { field: "n", position: 4 })
        );
        assert_eq!(varint(&[0x80; 6]), Err(AbiError::Varint { field: "n", position: 5 }));
        assert_eq!(
            Cursor::new(&[0x80; 11]).varlong("n"),
            Err(AbiError::Varint { field: "n", position: 10 })
        );
        let too_wide = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(
            Cursor::new(&too_wide).varlong("n"),
            Err(AbiError::Varint { field: "n", position: 9 })
        );
    }

    #[test]
    fn a_length_past_the_end_is_refused_without_reading() {
        let error = Cursor::new(&[0xff, 0xff, 0xff, 0x7f, b'x']).nullable("key").unwrap_err();
        assert_eq!(
            error,
            AbiError::Short {
                field: "key",
                position: 4,
                needed: 0x7fff_ffff,
                left: 1
            }
        );
    }
}
