//! The features of this broker and their versions (KIP-584). A new cluster has all of them at their highest level: there is no older node to
//! wait for.

use millstream_core::metadata::ClusterImage;

use crate::broker::Broker;

/// Kinds of groups that are served.
const REBALANCE_PROTOCOLS: &str = "group.coordinator.rebalance.protocols";

/// A feature and the versions of it that this broker can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Feature {
    pub name: &'static str,
    pub version_min: i16,
    pub version_max: i16,
}

/// The finalised level of a feature.
pub(crate) fn level(image: &ClusterImage, feature: &Feature) -> i16 {
    image.feature_levels.get(feature.name).copied().unwrap_or(feature.version_max)
}

/// Kinds of groups that can be switched off.
#[derive(Debug, Clone, Copy)]
pub(crate) enum GroupKind {
    Consumer,
    Share,
    Streams,
}

/// Whether groups of a kind are served: the configuration file names the protocol, and its feature is on.
pub(crate) fn serves_groups(broker: &Broker, image: &ClusterImage, kind: GroupKind) -> bool {
    // Share groups have no other switch than their feature.
    let (protocol, feature) = match kind {
        GroupKind::Consumer => (Some("consumer"), "group.version"),
        GroupKind::Share => (None, "share.version"),
        GroupKind::Streams => (Some("streams"), "streams.version"),
    };
    let protocols = broker.config.text(REBALANCE_PROTOCOLS);
    let mut named = protocols.split(',').map(str::trim);
    let is_named = protocol.is_none_or(|protocol| named.any(|name| name.eq_ignore_ascii_case(protocol)));
    let is_on = |feature: &&Feature| level(image, feature) >= 1;
    is_named && FEATURES.iter().filter(is_on).any(|on| on.name == feature)
}

/// Every feature, by name. Those of replicas and of the quorum change nothing here: they can be set as tools do that upgrade a cluster to a
/// release. Metadata is never written in an older form.
pub(crate) const FEATURES: &[Feature] = &[
    Feature {
        name: "eligible.leader.replicas.version",
        version_min: 0,
        version_max: 1,
    },
    Feature {
        name: "group.version",
        version_min: 0,
        version_max: 1,
    },
    Feature {
        name: "kraft.version",
        version_min: 0,
        version_max: 1,
    },
    Feature {
        name: "metadata.version",
        version_min: 29,
        version_max: 29,
    },
    Feature {
        name: "share.version",
        version_min: 0,
        version_max: 1,
    },
    Feature {
        name: "streams.version",
        version_min: 0,
        version_max: 1,
    },
    Feature {
        name: "transaction.version",
        version_min: 0,
        version_max: 2,
    },
];
