//! Configurations of a view. All of them are ours; the stored log is configured by the source topic.

use super::definition::{ConfigDef, ConfigType::Long, Validator::Between, define};

/// Bytes of the source one fetch may read.
pub const SCAN_MAX_BYTES: &str = "millstream.view.scan.max.bytes";
/// Time one fetch may scan.
pub const SCAN_MAX_MS: &str = "millstream.view.scan.max.ms";

/// The table.
pub const CONFIGS: &[ConfigDef] = &[
    define(
        Long,
        SCAN_MAX_BYTES,
        "8388608",
        "Bytes of the source that one fetch scans before it answers without records.",
    )
    .valid(Between(64 << 10, 256 << 20)),
    define(
        Long,
        SCAN_MAX_MS,
        "100",
        "Milliseconds that one fetch scans before it answers without records.",
    )
    .valid(Between(1, 10_000)),
];
