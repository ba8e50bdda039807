//! A writer that gathers small fields and passes record bytes on by reference.

use bytes::{BufMut, BytesMut};

use super::{Encode, EncodeError, Format, NullableEncode};
use crate::chunk::{Chunk, Records};

/// Record chunks below this size in bytes are copied: a copy is cheaper than another entry in a vectored write.
const COPY_BYTES_MAX: usize = 1024;

/// Writes values into a list of memory segments and file ranges.
#[derive(Debug, Default)]
pub struct Encoder {
    gathered: BytesMut,
    chunks: Vec<Chunk>,
    chunk_bytes: usize,
    /// The start of a frame, kept writable until its length is known.
    head: Option<BytesMut>,
    framed: bool,
}

impl Encoder {
    /// An encoder for bytes without a length prefix.
    pub fn new() -> Self {
        Self::default()
    }

    /// An encoder for a whole frame: room for the 4-byte length is kept in front, and [`Encoder::finish`] fills it in.
    pub fn framed() -> Self {
        let mut encoder = Self {
            framed: true,
            ..Self::default()
        };
        encoder.gathered.put_i32(0);
        encoder
    }

    /// Bytes written so far, with the length prefix if there is one.
    pub fn len(&self) -> usize {
        self.chunk_bytes + self.gathered.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything written, in order.
    pub fn finish(mut self) -> Vec<Chunk> {
        // A frame above 2 GiB cannot be described; the broker's fetch limits keep responses far below.
        let frame_bytes = u32::try_from(self.len().saturating_sub(4)).unwrap_or(u32::MAX);
        if !self.gathered.is_empty() {
            self.flush();
        }
        if let Some(mut head) = self.head {
            if let Some(prefix) = head.first_chunk_mut::<4>() {
                *prefix = frame_bytes.to_be_bytes();
            }
            self.chunks.insert(0, Chunk::Bytes(head.freeze()));
        }
        self.chunks
    }

    /// Writes any value.
    pub fn write<T: Encode + ?Sized>(&mut self, value: &T, f: Format) -> Result<(), EncodeError> {
        value.write(self, f)
    }

    /// Writes a value if the version has it; otherwise it must be the default, for dropping it would change the meaning.
    pub fn write_or<T: Encode + PartialEq>(
        &mut self,
        value: &T,
        f: Format,
        present: bool,
        default: &T,
        field: &'static str,
    ) -> Result<(), EncodeError> {
        if present {
            value.write(self, f)
        } else {
            self.absent(value, f, default, field)
        }
    }

    /// Checks a value that this version lacks.
    pub fn absent<T: PartialEq>(&self, value: &T, f: Format, default: &T, field: &'static str) -> Result<(), EncodeError> {
        if value == default {
            Ok(())
        } else {
            Err(EncodeError::UnsupportedField { field, version: f.version })
        }
    }

    /// Writes a value that is nullable in some versions only.
    pub fn write_nullable_if<T: NullableEncode>(
        &mut self,
        value: &Option<T>,
        f: Format,
        nullable: bool,
        field: &'static str,
    ) -> Result<(), EncodeError> {
        match value {
            _ if nullable => T::write_nullable(value.as_ref(), self, f),
            Some(value) => value.write(self, f),
            None => Err(EncodeError::UnexpectedNull { field, version: f.version }),
        }
    }

    /// Writes the tagged fields at the end of a struct; `tags` ascend.
    pub fn write_tags(&mut self, f: Format, tags: &[Option<Tag<'_>>]) -> Result<(), EncodeError> {
        if !f.flexible {
            return Ok(());
        }
        self.write_uvarint(to_u32(tags.iter().flatten().count())?);
        for tag in tags.iter().flatten() {
            let mut content = Self::new();
            tag.value.write(&mut content, f)?;
            self.write_uvarint(tag.number);
            self.write_uvarint(to_u32(content.len())?);
            content.finish().iter().for_each(|chunk| self.write_chunk(chunk));
        }
        Ok(())
    }

    /// Writes a varint without sign.
    pub fn write_uvarint(&mut self, value: u32) {
        let mut bits = value;
        while bits >= 0x80 {
            self.gathered.put_u8(bits.to_le_bytes()[0] | 0x80);
            bits >>= 7;
        }
        self.gathered.put_u8(bits.to_le_bytes()[0]);
    }

    /// Copies bytes as they are.
    pub fn write_slice(&mut self, bytes: &[u8]) {
        self.gathered.extend_from_slice(bytes);
    }

    pub(super) fn write_records(&mut self, records: &Records) {
        records.chunks().iter().for_each(|chunk| self.write_chunk(chunk));
    }

    /// Writes a length or count; none is null.
    pub(super) fn write_length(&mut self, length: Option<usize>, f: Format) -> Result<(), EncodeError> {
        if f.flexible {
            return self.write_compact_length(length);
        }
        let length = length.map_or(Ok(-1), |length| i32::try_from(length).map_err(|_| too_long(length)))?;
        self.gathered.put_i32(length);
        Ok(())
    }

    /// Writes the length of a string; none is null.
    pub(super) fn write_string_length(&mut self, length: Option<usize>, f: Format) -> Result<(), EncodeError> {
        let short = length.map_or(Ok(-1), |length| {
            i16::try_from(length).map_err(|_| EncodeError::TooLong {
                length,
                max: super::decoder::STRING_BYTES_MAX,
            })
        })?;
        if f.flexible {
            return self.write_compact_length(length);
        }
        self.gathered.put_i16(short);
        Ok(())
    }

    fn write_compact_length(&mut self, length: Option<usize>) -> Result<(), EncodeError> {
        let plus_one = length.map_or(Ok(0), |length| to_u32(length.saturating_add(1)))?;
        self.write_uvarint(plus_one);
        Ok(())
    }

    fn write_chunk(&mut self, chunk: &Chunk) {
        match chunk {
            Chunk::Bytes(bytes) if bytes.len() < COPY_BYTES_MAX => self.write_slice(bytes),
            Chunk::Bytes(_) | Chunk::File(_) => {
                self.flush();
                self.chunk_bytes += chunk.len();
                self.chunks.push(chunk.clone());
            }
        }
    }

    fn flush(&mut self) {
        let gathered = self.gathered.split();
        self.chunk_bytes += gathered.len();
        if self.framed && self.head.is_none() {
            self.head = Some(gathered);
        } else if !gathered.is_empty() {
            self.chunks.push(Chunk::Bytes(gathered.freeze()));
        }
    }
}

/// A tagged field about to be written.
pub struct Tag<'a> {
    number: u32,
    value: &'a dyn Encode,
}

/// The tagged field `number`, unless the version lacks it or it holds its default, which is never sent.
pub fn tag<'a, T: Encode + PartialEq>(number: u32, present: bool, value: &'a T, default: &T) -> Option<Tag<'a>> {
    (present && value != default).then_some(Tag { number, value })
}

fn to_u32(length: usize) -> Result<u32, EncodeError> {
    u32::try_from(length).map_err(|_| too_long(length))
}

const fn too_long(length: usize) -> EncodeError {
    EncodeError::TooLong { length, max: 0x7fff_ffff }
}
