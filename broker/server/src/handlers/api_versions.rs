//! ApiVersions: what this broker serves. Every client's first request.

use std::sync::Arc;

use millstream_protocol::{
    ApiKey, ErrorCode, KString,
    messages::{
        ApiVersionsRequest, ApiVersionsResponse,
        api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey},
    },
};

use crate::{
    broker::Broker,
    context::RequestContext,
    dispatch::{API_VERSIONS, served_versions},
    features::{FEATURES, level},
};

/// First version in which clients name their software (KIP-511).
const NAMES_SOFTWARE: i16 = 3;
/// First version whose clients take 0 as a feature's lowest version.
const SUPPORTS_ZERO: i16 = 4;

/// Handles a request.
pub async fn handle(broker: Arc<Broker>, context: RequestContext, request: ApiVersionsRequest) -> ApiVersionsResponse {
    let is_named = is_software_text(&request.client_software_name) && is_software_text(&request.client_software_version);
    if context.version >= NAMES_SOFTWARE && !is_named {
        return ApiVersionsResponse {
            error_code: ErrorCode::InvalidRequest.code(),
            ..Default::default()
        };
    }
    if is_named {
        // The first ApiVersions of a connection counts.
        let named = (
            request.client_software_name.to_string(),
            request.client_software_version.to_string(),
        );
        let _ = context.software.set(named);
    }
    let supported = FEATURES.iter().map(|feature| SupportedFeatureKey {
        name: KString::from_static(feature.name),
        // Version 3 has no way to say 0 (KIP-1022).
        min_version: if context.version < SUPPORTS_ZERO {
            feature.version_min.max(1)
        } else {
            feature.version_min
        },
        max_version: feature.version_max,
    });
    let image = broker.metadata.image();
    let levels = FEATURES.iter().map(|feature| (feature, level(&image, feature)));
    // Level 0 is a feature that is off.
    let finalized = levels.filter(|(_, level)| *level > 0).map(|(feature, level)| FinalizedFeatureKey {
        name: KString::from_static(feature.name),
        max_version_level: level,
        min_version_level: level,
    });
    ApiVersionsResponse {
        supported_features: supported.collect(),
        finalized_features_epoch: broker.metadata.log().durable_end_offset(),
        finalized_features: finalized.collect(),
        api_keys: API_VERSIONS.iter().filter_map(|key| range(*key)).collect(),
        ..Default::default()
    }
}

/// The answer to a version that is not served: as in Kafka it names only the versions of ApiVersions, so that the client asks again.
pub fn unsupported() -> ApiVersionsResponse {
    ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: range(ApiKey::ApiVersions).into_iter().collect(),
        ..Default::default()
    }
}

fn range(key: ApiKey) -> Option<ApiVersion> {
    let versions = served_versions(key)?;
    Some(ApiVersion {
        api_key: key as i16,
        min_version: *versions.start(),
        max_version: *versions.end(),
    })
}

/// KIP-511: letters, digits, `.` and `-`, with a letter or digit at both ends.
fn is_software_text(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    is_end(bytes.first()) && is_end(bytes.last()) && bytes.iter().copied().all(is_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_served_key_is_offered_once_in_order() {
        let keys: Vec<i16> = API_VERSIONS
            .iter()
            .filter_map(|key| range(*key))
            .map(|version| version.api_key)
            .collect();
        assert_eq!(keys.len(), API_VERSIONS.len());
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
    }

    #[test]
    fn librdkafka_finds_produce_version_0() {
        let produce = range(ApiKey::Produce).unwrap();
        assert_eq!((produce.min_version, produce.max_version), (0, 13), "KAFKA-18659");
    }

    #[test]
    fn an_unsupported_version_learns_the_range_of_api_versions() {
        let response = unsupported();
        assert_eq!(response.error_code, 35);
        assert_eq!(response.api_keys.iter().map(|version| version.api_key).collect::<Vec<_>>(), [18]);
    }

    #[test]
    fn software_texts_follow_kip_511() {
        for text in ["librdkafka", "2.15.0", "apache-kafka-java", "a", "v1.0.0-rc.1"] {
            assert!(is_software_text(text), "{text}");
        }
        for text in ["", "-a", "a.", "a b", "a_b", "ä", "a\n"] {
            assert!(!is_software_text(text), "{text:?}");
        }
    }
}
