//! How each type of the schema is laid out. Integers are big-endian.

use bytes::Bytes;
use uuid::Uuid;

use super::{Decode, DecodeError, Decoder, Encode, EncodeError, Encoder, Format, KString};
use crate::chunk::{Chunk, Records};

/// A value that has a null form on the wire.
pub trait NullableDecode: Decode {
    /// Reads the value or null.
    fn read_nullable(d: &mut Decoder, f: Format) -> Result<Option<Self>, DecodeError>;
}

/// A value that has a null form on the wire.
pub trait NullableEncode: Encode {
    /// Writes the value, or null if there is none.
    fn write_nullable(value: Option<&Self>, e: &mut Encoder, f: Format) -> Result<(), EncodeError>;
}

/// A struct that may be null: a byte in front of it says so, -1 for null and 1 otherwise.
pub trait NullableStruct {}

impl<T: Decode + NullableStruct> NullableDecode for T {
    fn read_nullable(d: &mut Decoder, f: Format) -> Result<Option<Self>, DecodeError> {
        if i8::read(d, f)? < 0 { Ok(None) } else { T::read(d, f).map(Some) }
    }
}

impl<T: Encode + NullableStruct> NullableEncode for T {
    fn write_nullable(value: Option<&Self>, e: &mut Encoder, f: Format) -> Result<(), EncodeError> {
        match value {
            Some(value) => 1i8.write(e, f).and_then(|()| value.write(e, f)),
            None => (-1i8).write(e, f),
        }
    }
}

impl<T: NullableDecode> Decode for Option<T> {
    fn read(d: &mut Decoder, f: Format) -> Result<Self, DecodeError> {
        T::read_nullable(d, f)
    }
}

impl<T: NullableEncode> Encode for Option<T> {
    fn write(&self, e: &mut Encoder, f: Format) -> Result<(), EncodeError> {
        T::write_nullable(self.as_ref(), e, f)
    }
}

impl Decode for i8 {
    fn read(d: &mut Decoder, _: Format) -> Result<Self, DecodeError> {
        d.read_fixed().map(Self::from_be_bytes)
    }
}

impl Encode for i8 {
    fn write(&self, e: &mut Encoder, _: Format) -> Result<(), EncodeError> {
        e.write_slice(&self.to_be_bytes());
        Ok(())
    }
}

impl Decode for i16 {
    fn read(d: &mut Decoder, _: Format) -> Result<Self, DecodeError> {
        d.read_fixed().map(Self::from_be_bytes)
    }
}

impl Encode for i16 {
    fn write(&self, e: &mut Encoder, _: Format) -> Result<(), EncodeError> {
        e.write_slice(&self.to_be_bytes());
        Ok(())
    }
}

impl Decode for i32 {
    fn read(d: &mut Decoder, _: Format) -> Result<Self, DecodeError> {
        d.read_fixed().map(Self::from_be_bytes)
    }
}

impl Encode for i32 {
    fn write(&self, e: &mut Encoder, _: Format) -> Result<(), EncodeError> {
        e.write_slice(&self.to_be_bytes());
        Ok(())
    }
}

impl Decode for i64 {
    fn read(d: &mut Decoder, _: Format) -> Result<Self, DecodeError> {
        d.read_fixed().map(Self::from_be_bytes)
    }
}

impl Encode for i64 {
    fn write(&self, e: &mut Encoder, _: Format) -> Result<(), EncodeError> {
        e.write_slice(&self.to_be_bytes());
        Ok(())
    }
}

impl Decode for u16 {
    fn read(d: &mut Decoder, _: Format) -> Result<Self, DecodeError> {
        d.read_fixed().map(Self::from_be_bytes)
    }
}

impl Encode for u16 {
    fn write(&self, e: &mut Encoder, _: Format) -> Result<(), EncodeError> {
        e.write_slice(&self.to_be_bytes());
        Ok(())
    }
}

impl Decode for f64 {
    fn read(d: &mut Decoder, _: Format) -> Result<Self, DecodeError> {
        d.read_fixed().map(Self::from_be_bytes)
    }
}

impl Encode for f64 {
    fn write(&self, e: &mut Encoder, _: Format) -> Result<(), EncodeError> {
        e.write_slice(&self.to_be_bytes());
        Ok(())
    }
}

impl Decode for bool {
    fn read(d: &mut Decoder, _: Format) -> Result<Self, DecodeError> {
        d.read_fixed().map(|[byte]| byte != 0)
    }
}

impl Encode for bool {
    fn write(&self, e: &mut Encoder, _: Format) -> Result<(), EncodeError> {
        e.write_slice(&[u8::from(*self)]);
        Ok(())
    }
}

impl Decode for Uuid {
    fn read(d: &mut Decoder, _: Format) -> Result<Self, DecodeError> {
        d.read_fixed().map(Self::from_bytes)
    }
}

impl Encode for Uuid {
    fn write(&self, e: &mut Encoder, _: Format) -> Result<(), EncodeError> {
        e.write_slice(self.as_bytes());
        Ok(())
    }
}

impl Decode for KString {
    fn read(d: &mut Decoder, f: Format) -> Result<Self, DecodeError> {
        Self::read_nullable(d, f)?.ok_or_else(|| d.unexpected_null())
    }
}

impl NullableDecode for KString {
    fn read_nullable(d: &mut Decoder, f: Format) -> Result<Option<Self>, DecodeError> {
        let length = d.read_string_length(f)?;
        length.map(|length| d.read_text(length)).transpose()
    }
}

impl Encode for KString {
    fn write(&self, e: &mut Encoder, f: Format) -> Result<(), EncodeError> {
        Self::write_nullable(Some(self), e, f)
    }
}

impl NullableEncode for KString {
    fn write_nullable(value: Option<&Self>, e: &mut Encoder, f: Format) -> Result<(), EncodeError> {
        e.write_string_length(value.map(|text| text.as_bytes().len()), f)?;
        value.into_iter().for_each(|text| e.write_slice(text.as_bytes()));
        Ok(())
    }
}

impl Decode for Bytes {
    fn read(d: &mut Decoder, f: Format) -> Result<Self, DecodeError> {
        Self::read_nullable(d, f)?.ok_or_else(|| d.unexpected_null())
    }
}

impl NullableDecode for Bytes {
    fn read_nullable(d: &mut Decoder, f: Format) -> Result<Option<Self>, DecodeError> {
        let length = d.read_length(f)?;
        length.map(|length| d.take(length)).transpose()
    }
}

impl Encode for Bytes {
    fn write(&self, e: &mut Encoder, f: Format) -> Result<(), EncodeError> {
        Self::write_nullable(Some(self), e, f)
    }
}

impl NullableEncode for Bytes {
    fn write_nullable(value: Option<&Self>, e: &mut Encoder, f: Format) -> Result<(), EncodeError> {
        e.write_length(value.map(Self::len), f)?;
        value.into_iter().for_each(|bytes| e.write_slice(bytes));
        Ok(())
    }
}

impl Decode for Records {
    fn read(d: &mut Decoder, f: Format) -> Result<Self, DecodeError> {
        Self::read_nullable(d, f)?.ok_or_else(|| d.unexpected_null())
    }
}

impl NullableDecode for Records {
    fn read_nullable(d: &mut Decoder, f: Format) -> Result<Option<Self>, DecodeError> {
        let Some(bytes) = Bytes::read_nullable(d, f)? else {
            return Ok(None);
        };
        if !bytes.is_empty() {
            // A vector with one element reserves four.
            d.charge(4 * size_of::<Chunk>())?;
        }
        Ok(Some(Self::from(bytes)))
    }
}

impl Encode for Records {
    fn write(&self, e: &mut Encoder, f: Format) -> Result<(), EncodeError> {
        Self::write_nullable(Some(self), e, f)
    }
}

impl NullableEncode for Records {
    fn write_nullable(value: Option<&Self>, e: &mut Encoder, f: Format) -> Result<(), EncodeError> {
        e.write_length(value.map(Self::len), f)?;
        value.into_iter().for_each(|records| e.write_records(records));
        Ok(())
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn read(d: &mut Decoder, f: Format) -> Result<Self, DecodeError> {
        Self::read_nullable(d, f)?.ok_or_else(|| d.unexpected_null())
    }
}

impl<T: Decode> NullableDecode for Vec<T> {
    fn read_nullable(d: &mut Decoder, f: Format) -> Result<Option<Self>, DecodeError> {
        let count = d.read_length(f)?;
        count.map(|count| d.read_array(count, f)).transpose()
    }
}

impl<T: Encode> Encode for Vec<T> {
    fn write(&self, e: &mut Encoder, f: Format) -> Result<(), EncodeError> {
        Self::write_nullable(Some(self), e, f)
    }
}

impl<T: Encode> NullableEncode for Vec<T> {
    fn write_nullable(value: Option<&Self>, e: &mut Encoder, f: Format) -> Result<(), EncodeError> {
        e.write_length(value.map(Self::len), f)?;
        value.into_iter().flatten().try_for_each(|element| element.write(e, f))
    }
}
