//! Client quotas and feature levels: what AlterClientQuotas and UpdateFeatures decide.

use std::{collections::BTreeSet, net::IpAddr};

use millstream_protocol::error_code::ErrorCode;

use super::{Context, Decision, Draft, Outcome, Refusal};
use crate::{
    metadata::records::{FeatureLevelSet, MetadataRecord, QuotasReplaced},
    quota::{IP, QuotaEntity},
};

/// A change of one entity's quotas.
#[derive(Debug, Clone, PartialEq)]
pub struct AlterQuotas {
    /// Whose.
    pub entity: QuotaEntity,
    /// New values by quota; `None` removes one.
    pub changes: Vec<(String, Option<f64>)>,
}

/// AlterClientQuotas.
pub fn alter_client_quotas(context: &Context<'_>, items: &[AlterQuotas], validate_only: bool) -> Decision<Vec<Outcome<()>>> {
    let mut draft = Draft::new(context);
    let mut seen = BTreeSet::new();
    let mut reply = Vec::with_capacity(items.len());
    for item in items {
        let outcome = if seen.insert(&item.entity) {
            alter_entity(&mut draft, item)
        } else {
            Err(invalid("Each quota entity must appear at most once."))
        };
        reply.push(outcome);
    }
    draft.finish(validate_only, reply)
}

fn alter_entity(draft: &mut Draft, item: &AlterQuotas) -> Outcome<()> {
    let entity = &item.entity;
    if !entity.is_valid() || entity.0.values().flatten().any(String::is_empty) {
        return Err(invalid("Invalid quota entity: user, client-id, both, or ip."));
    }
    if let Some(Some(address)) = entity.0.get(IP)
        && address.parse::<IpAddr>().is_err()
    {
        return Err(invalid(format!(
            "{} is not a valid IP or resolvable host.",
            address.escape_default()
        )));
    }
    let current = draft.image.client_quotas.get(entity).cloned().unwrap_or_default();
    let mut values = current.clone();
    let mut seen = BTreeSet::new();
    for (key, value) in &item.changes {
        if !seen.insert(key) {
            return Err(invalid(format!("Duplicate quota {}", key.escape_default())));
        }
        if !entity.keys().contains(&key.as_str()) {
            return Err(invalid(format!("Invalid configuration key {}", key.escape_default())));
        }
        match value {
            Some(value) if !value.is_finite() || *value <= 0.0 => {
                return Err(invalid(format!("Quota {key} must be greater than 0")));
            }
            // Bytes come whole.
            Some(value) if key.ends_with("_byte_rate") && value.fract() != 0.0 => {
                return Err(invalid(format!("Quota {key} must be a whole number")));
            }
            Some(value) => drop(values.insert(key.clone(), value.to_string())),
            None => drop(values.remove(key)),
        }
    }
    if values == current {
        return Ok(());
    }
    draft.push(MetadataRecord::QuotasReplaced(QuotasReplaced {
        entity: entity.clone(),
        values,
    }))
}

/// How far a feature's level may move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureUpgrade {
    /// Up only.
    Upgrade,
    /// Also down, where that loses nothing.
    SafeDowngrade,
    /// Also down.
    UnsafeDowngrade,
}

/// A new level of a feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureUpdate {
    /// Its name.
    pub feature: String,
    /// The level.
    pub level: i16,
    /// Which way it may go.
    pub upgrade: FeatureUpgrade,
}

/// UpdateFeatures: all or none. `supported` tells a feature's lowest and highest level.
pub fn update_features(
    context: &Context<'_>,
    updates: &[FeatureUpdate],
    supported: impl Fn(&str) -> Option<(i16, i16)>,
    validate_only: bool,
) -> Decision<Outcome<()>> {
    let mut draft = Draft::new(context);
    for update in updates {
        if let Err(refusal) = update_feature(&mut draft, update, &supported) {
            return Decision {
                records: Vec::new(),
                reply: Err(refusal),
            };
        }
    }
    draft.finish(validate_only, Ok(()))
}

fn update_feature(draft: &mut Draft, update: &FeatureUpdate, supported: &impl Fn(&str) -> Option<(i16, i16)>) -> Outcome<()> {
    let FeatureUpdate { feature, level, upgrade } = update;
    let refused = |why: String| {
        Err(Refusal::new(
            ErrorCode::InvalidUpdateVersion,
            format!("Invalid update version {level} for feature {feature}. {why}"),
        ))
    };
    let Some((least, most)) = supported(feature) else {
        return refused("Local controller does not support this feature.".to_owned());
    };
    if *level < least || *level > most {
        return refused(format!("Local controller only supports versions {least}-{most}"));
    }
    let current = draft.image.feature_levels.get(feature).copied().unwrap_or(most);
    if *level < current && *upgrade == FeatureUpgrade::Upgrade {
        return refused(
            "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe downgrade.".to_owned(),
        );
    }
    if *level > current && *upgrade != FeatureUpgrade::Upgrade {
        return refused("Can't downgrade to a newer version.".to_owned());
    }
    if *level == current {
        return Ok(());
    }
    draft.push(MetadataRecord::FeatureLevelSet(FeatureLevelSet {
        feature: feature.clone(),
        level: *level,
    }))
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Cluster;
    use super::*;
    use crate::quota::{CLIENT_ID, PRODUCER_BYTE_RATE, USER};

    fn alter(cluster: &mut Cluster, entity: QuotaEntity, key: &str, value: Option<f64>) -> Outcome<()> {
        let item = AlterQuotas {
            entity,
            changes: vec![(key.to_owned(), value)],
        };
        cluster.run(|context| alter_client_quotas(context, &[item], false)).remove(0)
    }

    #[test]
    fn quotas_are_set_and_removed() {
        let mut cluster = Cluster::with_topics(&[]);
        let entity = QuotaEntity::of(&[(USER, Some("u")), (CLIENT_ID, None)]);
        assert_eq!(alter(&mut cluster, entity.clone(), PRODUCER_BYTE_RATE, Some(1024.0)), Ok(()));
        assert_eq!(cluster.image.client_quotas[&entity][PRODUCER_BYTE_RATE], "1024");
        assert_eq!(alter(&mut cluster, entity, PRODUCER_BYTE_RATE, None), Ok(()));
        assert!(cluster.image.client_quotas.is_empty());
    }

    #[test]
    fn wrong_entities_keys_and_values_are_refused() {
        let mut cluster = Cluster::with_topics(&[]);
        let user = || QuotaEntity::of(&[(USER, Some("u"))]);
        for (entity, key, value) in [
            (user(), "no_such", 1.0),
            (user(), PRODUCER_BYTE_RATE, 0.0),
            (user(), PRODUCER_BYTE_RATE, f64::NAN),
            (QuotaEntity::of(&[(USER, Some(""))]), PRODUCER_BYTE_RATE, 1.0),
            (QuotaEntity::of(&[("group", None)]), PRODUCER_BYTE_RATE, 1.0),
            (QuotaEntity::of(&[(IP, Some("no address"))]), "connection_creation_rate", 1.0),
        ] {
            assert_eq!(
                alter(&mut cluster, entity, key, Some(value)).unwrap_err().code,
                ErrorCode::InvalidRequest
            );
        }
    }

    #[test]
    fn features_go_down_only_when_asked_to() {
        let mut cluster = Cluster::with_topics(&[]);
        let mut update = |level, upgrade| {
            let update = FeatureUpdate {
                feature: "f".to_owned(),
                level,
                upgrade,
            };
            let supported = |name: &str| (name == "f").then_some((0, 2));
            cluster.run(|context| update_features(context, &[update], supported, false)).is_ok()
        };
        assert!(!update(1, FeatureUpgrade::Upgrade));
        assert!(update(1, FeatureUpgrade::SafeDowngrade));
        assert!(!update(2, FeatureUpgrade::UnsafeDowngrade));
        assert!(update(2, FeatureUpgrade::Upgrade));
        assert!(!update(3, FeatureUpgrade::Upgrade));
    }
}
