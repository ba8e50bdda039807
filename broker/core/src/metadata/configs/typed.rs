//! A topic's configuration as the log and the partition use it.
//!
//! Values were checked before they became records. One that a newer version wrote and this one cannot read is passed over for
//! the next place in which it is set, and in the end for zero, the empty text or `false`: an image must always load.

use std::str::FromStr;

use super::{
    BrokerLayers, Overrides, Scope,
    definition::list_items,
    effective::settings,
    topic::{
        CLEANUP_POLICY, DURABILITY, LOCAL_RETENTION_BYTES, LOCAL_RETENTION_MS, REMOTE_STORAGE_ENABLE, RETENTION_BYTES, RETENTION_MS,
        TIERED_MAX_LAG_MS,
    },
};

/// Kafka's number for "take the total retention".
const INHERIT: i64 = -2;
/// Kafka's number for "no limit".
const NO_LIMIT: i64 = -1;

/// What happens to old records; both may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Segments are deleted by age and size.
    pub delete: bool,
    /// Only the last record of a key stays.
    pub compact: bool,
}

/// How stored batches are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As the producer chose.
    Producer,
    /// Not at all.
    Uncompressed,
    /// With gzip.
    Gzip,
    /// With snappy.
    Snappy,
    /// With lz4.
    Lz4,
    /// With zstd.
    Zstd,
}

/// Whose time records carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// That of the append.
    LogAppendTime,
}

/// What an acknowledgement promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On disk.
    Fsync,
    /// With the operating system.
    PageCache,
}

/// A topic's resolved configuration. Sizes in bytes, times in milliseconds, -1 is no limit; each field is Kafka's name with
/// underscores. Those on which nothing depends are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicConfig {
    /// `cleanup.policy`
    pub cleanup_policy: CleanupPolicy,
    /// `compression.type`
    pub compression_type: Compression,
    /// `compression.gzip.level`; -1 is the library's default.
    pub compression_gzip_level: i32,
    /// `compression.zstd.level`
    pub compression_zstd_level: i32,
    /// `delete.retention.ms`
    pub delete_retention_ms: i64,
    /// `flush.messages`
    pub flush_messages: i64,
    /// `flush.ms`
    pub flush_ms: i64,
    /// `index.interval.bytes`
    pub index_interval_bytes: i32,
    /// `local.retention.bytes`, with -2 resolved.
    pub local_retention_bytes: i64,
    /// `local.retention.ms`, with -2 resolved.
    pub local_retention_ms: i64,
    /// `max.compaction.lag.ms`
    pub max_compaction_lag_ms: i64,
    /// `max.message.bytes`
    pub max_message_bytes: i32,
    /// `message.timestamp.type`
    pub message_timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`
    pub message_timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`
    pub message_timestamp_after_max_ms: i64,
    /// `min.cleanable.dirty.ratio`, 0 to 1.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`
    pub min_compaction_lag_ms: i64,
    /// `min.insync.replicas`
    pub min_insync_replicas: i32,
    /// `remote.storage.enable`
    pub remote_storage_enable: bool,
    /// `remote.log.copy.disable`
    pub remote_log_copy_disable: bool,
    /// `remote.log.delete.on.disable`
    pub remote_log_delete_on_disable: bool,
    /// `retention.bytes`
    pub retention_bytes: i64,
    /// `retention.ms`
    pub retention_ms: i64,
    /// `segment.bytes`
    pub segment_bytes: i32,
    /// `segment.ms`
    pub segment_ms: i64,
    /// `segment.jitter.ms`
    pub segment_jitter_ms: i64,
    /// `millstream.durability`
    pub durability: Durability,
    /// `millstream.tiered.max.lag.ms`
    pub tiered_max_lag_ms: i64,
}

impl TopicConfig {
    /// Resolves what applies to a topic with these values on a broker with those.
    pub fn resolve(overrides: &Overrides, layers: &BrokerLayers<'_>) -> Self {
        let values = Values { overrides, layers };
        let retention_bytes = values.number(RETENTION_BYTES);
        let retention_ms = values.number(RETENTION_MS);
        let inherit = |local: i64, total: i64| if local == INHERIT { total } else { local };
        Self {
            cleanup_policy: values.cleanup_policy(),
            compression_type: values.choice("compression.type", compression).unwrap_or(Compression::Producer),
            compression_gzip_level: values.number("compression.gzip.level"),
            compression_zstd_level: values.number("compression.zstd.level"),
            delete_retention_ms: values.number("delete.retention.ms"),
            flush_messages: values.number("flush.messages"),
            flush_ms: values.number("flush.ms"),
            index_interval_bytes: values.number("index.interval.bytes"),
            local_retention_bytes: inherit(values.number(LOCAL_RETENTION_BYTES), retention_bytes),
            local_retention_ms: inherit(values.number(LOCAL_RETENTION_MS), retention_ms),
            max_compaction_lag_ms: values.number("max.compaction.lag.ms"),
            max_message_bytes: values.number("max.message.bytes"),
            message_timestamp_type: values
                .choice("message.timestamp.type", timestamp_type)
                .unwrap_or(TimestampType::CreateTime),
            message_timestamp_before_max_ms: values.number("message.timestamp.before.max.ms"),
            message_timestamp_after_max_ms: values.number("message.timestamp.after.max.ms"),
            min_cleanable_dirty_ratio: values.number("min.cleanable.dirty.ratio"),
            min_compaction_lag_ms: values.number("min.compaction.lag.ms"),
            min_insync_replicas: values.number("min.insync.replicas"),
            remote_storage_enable: values.flag(REMOTE_STORAGE_ENABLE),
            remote_log_copy_disable: values.flag("remote.log.copy.disable"),
            remote_log_delete_on_disable: values.flag("remote.log.delete.on.disable"),
            retention_bytes,
            retention_ms,
            segment_bytes: values.number("segment.bytes"),
            segment_ms: values.number("segment.ms"),
            segment_jitter_ms: values.number("segment.jitter.ms"),
            durability: values.choice(DURABILITY, durability).unwrap_or(Durability::Fsync),
            tiered_max_lag_ms: values.number(TIERED_MAX_LAG_MS),
        }
    }
}

/// Checks what one definition alone cannot; the error is a message in Kafka's words.
pub fn check_topic_rules(config: &TopicConfig) -> Result<(), String> {
    let invalid = |value: i64, name: &str, problem: &str| Err(format!("Invalid value {value} for configuration {name}: {problem}"));
    if config.remote_storage_enable && config.cleanup_policy.compact {
        return Err(
            "Invalid value true for configuration remote.storage.enable: Tiered storage is not supported for compacted topics".to_owned(),
        );
    }
    if config.min_compaction_lag_ms > config.max_compaction_lag_ms {
        return invalid(
            config.min_compaction_lag_ms,
            "min.compaction.lag.ms",
            "Value must not be more than property: max.compaction.lag.ms",
        );
    }
    if config.remote_storage_enable && is_longer(config.local_retention_ms, config.retention_ms) {
        return invalid(
            config.local_retention_ms,
            LOCAL_RETENTION_MS,
            "Value must not be more than property: retention.ms",
        );
    }
    if config.remote_storage_enable && is_longer(config.local_retention_bytes, config.retention_bytes) {
        return invalid(
            config.local_retention_bytes,
            LOCAL_RETENTION_BYTES,
            "Value must not be more than property: retention.bytes",
        );
    }
    Ok(())
}

fn is_longer(local: i64, total: i64) -> bool {
    total != NO_LIMIT && (local == NO_LIMIT || local > total)
}

struct Values<'a> {
    overrides: &'a Overrides,
    layers: &'a BrokerLayers<'a>,
}

impl Values<'_> {
    /// The strongest value that `read` understands.
    fn choice<T>(&self, name: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let definition = Scope::Topic.definition(name)?;
        let set = settings(Scope::Topic, definition, self.overrides, self.layers);
        set.iter().find_map(|one| read(one.unit.convert(one.value).trim()))
    }

    fn number<T: FromStr + Default>(&self, name: &str) -> T {
        self.choice(name, |value| value.parse().ok()).unwrap_or_default()
    }

    fn flag(&self, name: &str) -> bool {
        self.choice(name, |value| value.to_ascii_lowercase().parse().ok())
            .unwrap_or_default()
    }

    fn cleanup_policy(&self) -> CleanupPolicy {
        let read = |value: &str| {
            let policy = CleanupPolicy {
                delete: list_items(value).any(|item| item == "delete"),
                compact: list_items(value).any(|item| item == "compact"),
            };
            (policy.delete || policy.compact).then_some(policy)
        };
        self.choice(CLEANUP_POLICY, read).unwrap_or(CleanupPolicy {
            delete: true,
            compact: false,
        })
    }
}

fn compression(value: &str) -> Option<Compression> {
    match value {
        "producer" => Some(Compression::Producer),
        "uncompressed" => Some(Compression::Uncompressed),
        "gzip" => Some(Compression::Gzip),
        "snappy" => Some(Compression::Snappy),
        "lz4" => Some(Compression::Lz4),
        "zstd" => Some(Compression::Zstd),
        _ => None,
    }
}

fn timestamp_type(value: &str) -> Option<TimestampType> {
    match value {
        "CreateTime" => Some(TimestampType::CreateTime),
        "LogAppendTime" => Some(TimestampType::LogAppendTime),
        _ => None,
    }
}

fn durability(value: &str) -> Option<Durability> {
    match value {
        "fsync" => Some(Durability::Fsync),
        "page-cache" => Some(Durability::PageCache),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(pairs: &[(&str, &str)]) -> TopicConfig {
        let overrides = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        TopicConfig::resolve(&overrides, &BrokerLayers::none())
    }

    #[test]
    fn defaults_are_kafkas_and_durable() {
        let config = resolve(&[]);
        assert_eq!(
            config.cleanup_policy,
            CleanupPolicy {
                delete: true,
                compact: false
            }
        );
        assert_eq!(
            (config.segment_bytes, config.retention_ms, config.retention_bytes),
            (1 << 30, 604_800_000, -1)
        );
        assert_eq!((config.max_message_bytes, config.min_insync_replicas), (1_048_588, 1));
        assert_eq!(
            (config.durability, config.compression_type),
            (Durability::Fsync, Compression::Producer)
        );
    }

    #[test]
    fn local_retention_inherits_the_total() {
        let config = resolve(&[("retention.ms", "5000"), ("retention.bytes", "70")]);
        assert_eq!((config.local_retention_ms, config.local_retention_bytes), (5000, 70));
        let config = resolve(&[("retention.ms", "5000"), ("local.retention.ms", "1")]);
        assert_eq!(config.local_retention_ms, 1);
    }

    #[test]
    fn what_cannot_be_read_is_passed_over() {
        assert_eq!(resolve(&[("retention.ms", "soon"), ("cleanup.policy", "shred")]), resolve(&[]));
        assert!(resolve(&[("remote.storage.enable", "TRUE")]).remote_storage_enable);
    }

    #[test]
    fn values_that_contradict_each_other_are_refused() {
        let refused = |pairs: &[(&str, &str)]| check_topic_rules(&resolve(pairs)).is_err();
        assert!(!refused(&[]));
        assert!(refused(&[("remote.storage.enable", "true"), ("cleanup.policy", "compact")]));
        assert!(refused(&[("remote.storage.enable", "true"), ("cleanup.policy", "delete,compact")]));
        assert!(refused(&[("min.compaction.lag.ms", "2"), ("max.compaction.lag.ms", "1")]));
        assert!(refused(&[
            ("remote.storage.enable", "true"),
            ("retention.ms", "10"),
            ("local.retention.ms", "11")
        ]));
        assert!(refused(&[
            ("remote.storage.enable", "true"),
            ("retention.bytes", "10"),
            ("local.retention.bytes", "-1")
        ]));
        assert!(!refused(&[
            ("remote.storage.enable", "true"),
            ("retention.ms", "10"),
            ("local.retention.ms", "10")
        ]));
    }
}
