//! Request and response headers, and what is particular about single API keys.
//!
//! ```text
//! request header   api_key i16 | api_version i16 | correlation_id i32 | client_id nullable string (never compact) | tagged fields in v2
//! response header  correlation_id i32 | tagged fields in v1
//! ```

use std::ops::RangeInclusive;

use crate::ApiKey;
use crate::chunk::Chunk;
use crate::wire::{Decode, DecodeError, Decoder, Encode, EncodeError, Encoder, Format, KString, Request, Response};

/// The `client_id` keeps its plain form in every header version.
const PLAIN: Format = Format {
    version: 0,
    flexible: false,
};
const FLEXIBLE: Format = Format {
    version: 0,
    flexible: true,
};

/// What stands in front of every request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestHeader {
    /// API key as sent; see [`ApiKey::from_i16`].
    pub api_key: i16,
    /// Version of the request as sent.
    pub api_version: i16,
    /// Comes back in the response.
    pub correlation_id: i32,
    /// Name the client gives itself; none also when the key or version is unknown and the rest of the header was not read.
    pub client_id: Option<KString>,
}

impl ApiKey {
    /// Header version of requests in this version: 2 when flexible, else 1.
    pub const fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// Header version of responses in this version: 1 when flexible, else 0. ApiVersions is always answered with 0, so that a client
    /// that does not know the broker's version can read it (KIP-511).
    pub const fn response_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) && !matches!(self, Self::ApiVersions) {
            1
        } else {
            0
        }
    }

    /// Whether this version has compact lengths and tagged fields.
    pub const fn is_flexible(self, version: i16) -> bool {
        version >= self.flexible_from()
    }
}

/// The versions that an ApiVersions response may offer at most: the stable ones of the schema, but Produce from 0. librdkafka turns
/// compression off when Produce 0 is missing (KAFKA-18659); versions 0 to 2 are then refused by the handler.
pub const fn advertised_versions(key: ApiKey) -> RangeInclusive<i16> {
    match key {
        ApiKey::Produce => 0..=*key.versions().end(),
        // Version 6 is still unstable in Kafka 4.2.
        ApiKey::InitProducerId => *key.versions().start()..=5,
        _ => key.versions(),
    }
}

/// Reads the header of a request and leaves the decoder at the body.
///
/// An unknown key or version is not an error here: only key, version and correlation id are read then, and the caller answers or closes.
pub fn decode_request_header(decoder: &mut Decoder) -> Result<RequestHeader, DecodeError> {
    let api_key: i16 = decoder.read(PLAIN)?;
    let api_version: i16 = decoder.read(PLAIN)?;
    let correlation_id = decoder.read(PLAIN)?;
    let header = RequestHeader {
        api_key,
        api_version,
        correlation_id,
        client_id: None,
    };
    let Some(key) = ApiKey::from_i16(api_key).filter(|key| key.versions().contains(&api_version)) else {
        return Ok(header);
    };
    let client_id = Option::<KString>::read(decoder, PLAIN)?;
    if key.is_flexible(api_version) {
        decoder.skip_tags(FLEXIBLE)?;
    }
    Ok(RequestHeader { client_id, ..header })
}

/// Reads the header of a response to a request of this key and version; gives the correlation id.
pub fn decode_response_header(decoder: &mut Decoder, key: ApiKey, version: i16) -> Result<i32, DecodeError> {
    let correlation_id = decoder.read(PLAIN)?;
    if key.response_header_version(version) >= 1 {
        decoder.skip_tags(FLEXIBLE)?;
    }
    Ok(correlation_id)
}

/// A whole request frame with its length prefix.
pub fn encode_request<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: Option<&KString>,
) -> Result<Vec<Chunk>, EncodeError> {
    let mut encoder = Encoder::framed();
    (R::API_KEY as i16).write(&mut encoder, PLAIN)?;
    version.write(&mut encoder, PLAIN)?;
    correlation_id.write(&mut encoder, PLAIN)?;
    client_id.cloned().write(&mut encoder, PLAIN)?;
    if R::API_KEY.is_flexible(version) {
        encoder.write_tags(FLEXIBLE, &[])?;
    }
    request.encode(&mut encoder, version)?;
    Ok(encoder.finish())
}

/// A whole response frame with its length prefix.
pub fn encode_response<R: Response>(response: &R, version: i16, correlation_id: i32) -> Result<Vec<Chunk>, EncodeError> {
    let mut encoder = Encoder::framed();
    correlation_id.write(&mut encoder, PLAIN)?;
    if R::API_KEY.response_header_version(version) >= 1 {
        encoder.write_tags(FLEXIBLE, &[])?;
    }
    response.encode(&mut encoder, version)?;
    Ok(encoder.finish())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::Message;
    use crate::messages::{ApiVersionsRequest, ApiVersionsResponse, FetchRequest};

    fn unframed(chunks: Vec<Chunk>) -> Decoder {
        let [Chunk::Bytes(frame)] = chunks.as_slice() else {
            panic!("more than one chunk")
        };
        assert_eq!(frame.len() - 4, u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize);
        Decoder::new(frame.slice(4..))
    }

    #[test]
    fn request_header_round_trips_in_both_versions() {
        for version in [11, 12] {
            let client_id = KString::from_static("c1");
            let mut decoder = unframed(encode_request(&FetchRequest::default(), version, 7, Some(&client_id)).unwrap());
            let expected = RequestHeader {
                api_key: 1,
                api_version: version,
                correlation_id: 7,
                client_id: Some(client_id),
            };
            assert_eq!(decode_request_header(&mut decoder), Ok(expected));
            assert_eq!(FetchRequest::decode(&mut decoder, version), Ok(FetchRequest::default()));
            assert_eq!(decoder.remaining(), 0);
        }
    }

    #[test]
    fn header_of_unknown_key_or_version_is_read_as_far_as_it_is_known() {
        for (key, version) in [(18, 99), (18, -1), (999, 0)] {
            let mut encoder = Encoder::new();
            for part in [key, version, 0, 5] {
                i16::write(&part, &mut encoder, PLAIN).unwrap();
            }
            encoder.write_slice(&[0xff; 3]);
            let chunks = encoder.finish();
            let [Chunk::Bytes(frame)] = chunks.as_slice() else {
                panic!("more than one chunk")
            };
            let expected = RequestHeader {
                api_key: key,
                api_version: version,
                correlation_id: 5,
                client_id: None,
            };
            assert_eq!(decode_request_header(&mut Decoder::new(frame.clone())), Ok(expected));
        }
    }

    #[test]
    fn api_versions_is_answered_with_the_old_header() {
        assert_eq!(
            (
                ApiKey::ApiVersions.request_header_version(3),
                ApiKey::ApiVersions.response_header_version(3)
            ),
            (2, 0)
        );
        assert_eq!(
            (ApiKey::Fetch.request_header_version(12), ApiKey::Fetch.response_header_version(12)),
            (2, 1)
        );
        assert_eq!(ApiKey::SaslHandshake.request_header_version(1), 1);
        let mut decoder = unframed(encode_response(&ApiVersionsResponse::default(), 3, 9).unwrap());
        assert_eq!(decode_response_header(&mut decoder, ApiKey::ApiVersions, 3), Ok(9));
        assert_eq!(ApiVersionsResponse::decode(&mut decoder, 3), Ok(ApiVersionsResponse::default()));
    }

    #[test]
    fn short_headers_are_truncated() {
        let whole = unframed(encode_request(&ApiVersionsRequest::default(), 3, 7, None).unwrap())
            .take(10)
            .unwrap();
        for length in 0..10 {
            let cut: Bytes = whole.slice(..length);
            assert!(matches!(
                decode_request_header(&mut Decoder::new(cut)),
                Err(DecodeError::Truncated { .. })
            ));
        }
    }

    #[test]
    fn produce_is_advertised_from_zero_and_unstable_versions_are_not() {
        assert_eq!(advertised_versions(ApiKey::Produce), 0..=13);
        assert_eq!(advertised_versions(ApiKey::Fetch), 4..=18);
        assert_eq!(advertised_versions(ApiKey::OffsetCommit), 2..=10);
        assert_eq!(advertised_versions(ApiKey::InitProducerId), 0..=5);
    }
}
