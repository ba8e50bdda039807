//! Reading and writing Kafka's primitive types, and the traits that the generated messages implement.
//!
//! A message has one outermost struct. [`Message::decode`] fixes the [`Format`] (version, flexible or not) once; every nested struct and
//! field is then read with it, in wire order. Flexible versions use compact lengths and end each struct with tagged fields.
//!
//! Two rules protect the reader: nothing is read past the end of the frame, and what decoding allocates is charged to a budget that
//! follows from the frame's length (see [`Decoder`]). Strings and bytes share the frame's memory.

mod decoder;
mod encoder;
mod error;
mod kstring;
mod types;

use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};

pub use self::decoder::Decoder;
pub use self::encoder::{Encoder, Tag, tag};
pub use self::error::{DecodeError, EncodeError};
pub use self::kstring::{KString, Redacted};
pub use self::types::{NullableDecode, NullableEncode, NullableStruct};
use crate::api_key::ApiKey;
use crate::chunk::Chunk;

/// How the fields of one message are laid out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Format {
    /// Version of the message.
    pub version: i16,
    /// Compact lengths and tagged fields.
    pub flexible: bool,
}

/// A value that can be read from a frame.
pub trait Decode: Sized {
    /// Reads the value at the decoder's position.
    fn read(d: &mut Decoder, f: Format) -> Result<Self, DecodeError>;
}

/// A value that can be written to a frame.
pub trait Encode {
    /// Appends the value.
    fn write(&self, e: &mut Encoder, f: Format) -> Result<(), EncodeError>;
}

/// The outermost struct of a request, a response or an embedded protocol message.
pub trait Message: Decode + Encode {
    /// Kafka's name.
    const NAME: &'static str;
    /// Versions that can be decoded and encoded.
    const VERSIONS: RangeInclusive<i16>;
    /// First flexible version; `i16::MAX` when there is none.
    const FLEXIBLE_FROM: i16;

    /// Reads the message; bytes after it are left for the caller.
    fn decode(decoder: &mut Decoder, version: i16) -> Result<Self, DecodeError> {
        if !Self::VERSIONS.contains(&version) {
            return Err(DecodeError::UnsupportedVersion {
                message: Self::NAME,
                version,
            });
        }
        Self::read(
            decoder,
            Format {
                version,
                flexible: version >= Self::FLEXIBLE_FROM,
            },
        )
    }

    /// Appends the message.
    fn encode(&self, encoder: &mut Encoder, version: i16) -> Result<(), EncodeError> {
        if !Self::VERSIONS.contains(&version) {
            return Err(EncodeError::UnsupportedVersion {
                message: Self::NAME,
                version,
            });
        }
        self.write(
            encoder,
            Format {
                version,
                flexible: version >= Self::FLEXIBLE_FROM,
            },
        )
    }

    /// The message alone as one piece of memory. For embedded messages, tests and the metadata log; refuses records that lie in a file.
    fn encode_to_bytes(&self, version: i16) -> Result<Bytes, EncodeError> {
        let mut encoder = Encoder::new();
        self.encode(&mut encoder, version)?;
        let mut chunks = encoder.finish();
        if let [Chunk::Bytes(_)] = chunks.as_slice()
            && let Some(Chunk::Bytes(only)) = chunks.pop()
        {
            return Ok(only);
        }
        let mut joined = BytesMut::new();
        for chunk in &chunks {
            match chunk {
                Chunk::Bytes(bytes) => joined.extend_from_slice(bytes),
                Chunk::File(_) => return Err(EncodeError::FileRange { message: Self::NAME }),
            }
        }
        Ok(joined.freeze())
    }
}

/// A request, and the response that answers it.
pub trait Request: Message {
    /// Its API key.
    const API_KEY: ApiKey;
    /// Its answer, in the same version.
    type Response: Response;
}

/// A response.
pub trait Response: Message {
    /// The API key of its request.
    const API_KEY: ApiKey;

    /// Tells the client how long its next requests wait, in milliseconds (KIP-219); nothing in the few responses that cannot say it.
    fn set_throttle_time_ms(&mut self, _throttle_time_ms: i32) {}
}
