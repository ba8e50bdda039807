//! One shape for all messages, so that tests can walk them in a table.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable};
use millstream_protocol::{DecodeError, Decoder, EncodeError, Message};

/// A message's name with our codec and, if it has one, the oracle's.
pub struct Codec {
    pub name: &'static str,
    pub ours: fn(Bytes, i16) -> Result<Decoded, DecodeError>,
    pub oracle: Option<Oracle>,
}

/// Decodes and encodes again; none if the oracle does not know the version.
pub type Oracle = fn(Bytes, i16) -> Option<Result<Bytes, String>>;

/// What our decoder made of some bytes.
pub struct Decoded {
    pub encoded: Result<Bytes, EncodeError>,
    pub unread_bytes: usize,
}

/// The codec of a message that the oracle has, too.
pub const fn both<T: Message, O: Decodable + Encodable + kafka_protocol::protocol::Message>() -> Codec {
    Codec {
        name: T::NAME,
        ours: ours::<T>,
        oracle: Some(oracle::<O>),
    }
}

/// The codec of a message that only we have.
pub const fn alone<T: Message>() -> Codec {
    Codec {
        name: T::NAME,
        ours: ours::<T>,
        oracle: None,
    }
}

fn ours<T: Message>(bytes: Bytes, version: i16) -> Result<Decoded, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let message = T::decode(&mut decoder, version)?;
    Ok(Decoded {
        encoded: message.encode_to_bytes(version),
        unread_bytes: decoder.remaining(),
    })
}

fn oracle<T: Decodable + Encodable + kafka_protocol::protocol::Message>(mut bytes: Bytes, version: i16) -> Option<Result<Bytes, String>> {
    if !(T::VERSIONS.min..=T::VERSIONS.max).contains(&version) {
        return None;
    }
    let mut decode_and_encode = || {
        let message = T::decode(&mut bytes, version).map_err(|e| format!("decode: {e:#}"))?;
        if !bytes.is_empty() {
            return Err(format!("decode: {} bytes left", bytes.len()));
        }
        let mut out = BytesMut::new();
        message.encode(&mut out, version).map_err(|e| format!("encode: {e:#}"))?;
        Ok(out.freeze())
    };
    Some(decode_and_encode())
}
