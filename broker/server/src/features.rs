//! The features of this broker and their versions (KIP-584). A new cluster has all of them at their highest level: there is no older node to
//! wait for.

use millstream_core::metadata::ClusterImage;

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

/// Every feature, by name.
pub(crate) const FEATURES: &[Feature] = &[
    Feature {
        name: "group.version",
        version_min: 0,
        version_max: 1,
    },
    Feature {
        name: "metadata.version",
        version_min: 7,
        version_max: 29,
    },
    Feature {
        name: "share.version",
        version_min: 0,
        version_max: 1,
    },
    Feature {
        name: "transaction.version",
        version_min: 0,
        version_max: 2,
    },
];
