//! UpdateFeatures: raises or lowers the finalised levels of features (KIP-584). All updates of a request, or none.

use std::sync::Arc;

use millstream_core::metadata::controller::{self, FeatureUpdate, FeatureUpgrade, Outcome};
use millstream_protocol::{
    ErrorCode, KString,
    messages::{
        UpdateFeaturesRequest, UpdateFeaturesResponse, update_features_request::FeatureUpdateKey,
        update_features_response::UpdatableFeatureResult,
    },
};

use super::decisions::{not_stored, refusal, verdict};
use crate::{broker::Broker, context::RequestContext, features::FEATURES};

/// Last version with a result for each feature.
const LAST_WITH_RESULTS: i16 = 1;

pub(crate) async fn handle(broker: Arc<Broker>, context: RequestContext, request: UpdateFeaturesRequest) -> UpdateFeaturesResponse {
    let names: Vec<KString> = request.feature_updates.iter().map(|update| update.feature.clone()).collect();
    let updates: Result<Vec<FeatureUpdate>, _> = request
        .feature_updates
        .into_iter()
        .map(|update| to_core(context.version, update))
        .collect();
    let validate_only = request.validate_only;
    let outcome = match updates {
        Err(refused) => Err(refused),
        Ok(updates) => {
            let supported = |name: &str| {
                let feature = FEATURES.iter().find(|feature| feature.name == name)?;
                Some((feature.version_min, feature.version_max))
            };
            let decided = broker.metadata.decide(true, move |context| {
                controller::update_features(context, &updates, supported, validate_only)
            });
            decided
                .await
                .unwrap_or_else(|error| Err(refusal(not_stored(&error), "The change could not be stored.")))
        }
    };
    let (error_code, error_message) = verdict(&outcome);
    let is_told_each = context.version <= LAST_WITH_RESULTS && outcome.is_ok();
    let results = names.into_iter().filter(|_| is_told_each).map(|feature| UpdatableFeatureResult {
        feature,
        error_code,
        error_message: None,
    });
    UpdateFeaturesResponse {
        throttle_time_ms: 0,
        error_code,
        error_message,
        results: results.collect(),
    }
}

fn to_core(version: i16, update: FeatureUpdateKey) -> Outcome<FeatureUpdate> {
    let upgrade = match update.upgrade_type {
        _ if version == 0 && update.allow_downgrade => FeatureUpgrade::SafeDowngrade,
        1 => FeatureUpgrade::Upgrade,
        2 => FeatureUpgrade::SafeDowngrade,
        3 => FeatureUpgrade::UnsafeDowngrade,
        other => return Err(refusal(ErrorCode::InvalidUpdateVersion, format!("Unknown upgrade type {other}."))),
    };
    Ok(FeatureUpdate {
        feature: update.feature.into(),
        level: update.max_version_level,
        upgrade,
    })
}
