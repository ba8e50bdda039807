//! Configurations of a topic: those of Kafka 4.1 with its defaults, and ours.

use super::definition::{
    ConfigDef,
    ConfigType::{Boolean, Double, Int, List, Long, String},
    Importance::Low,
    Validator::{Between, BetweenOr, Fraction, ListOf, OneOf, ThrottledReplicas},
    define, hours, minutes, same,
};

/// Whether records are deleted by age and size, or all but the last of a key.
pub const CLEANUP_POLICY: &str = "cleanup.policy";
/// How long records are kept, in all tiers.
pub const RETENTION_MS: &str = "retention.ms";
/// How much is kept per partition, in all tiers.
pub const RETENTION_BYTES: &str = "retention.bytes";
/// How long records are kept on local disk once they are in the tier.
pub const LOCAL_RETENTION_MS: &str = "local.retention.ms";
/// How much is kept on local disk per partition once it is in the tier.
pub const LOCAL_RETENTION_BYTES: &str = "local.retention.bytes";
/// Whether sealed segments are copied to the bucket.
pub const REMOTE_STORAGE_ENABLE: &str = "remote.storage.enable";
/// Whether remote data goes away when tiering is switched off.
pub const REMOTE_LOG_DELETE_ON_DISABLE: &str = "remote.log.delete.on.disable";
/// What an acknowledgement promises.
pub const DURABILITY: &str = "millstream.durability";
/// How far the tier may lag.
pub const TIERED_MAX_LAG_MS: &str = "millstream.tiered.max.lag.ms";

pub(super) const COMPRESSION_TYPES: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];
pub(super) const CLEANUP_POLICIES: &[&str] = &["compact", "delete"];
pub(super) const TIMESTAMP_TYPES: &[&str] = &["CreateTime", "LogAppendTime"];
pub(super) const DURABILITIES: &[&str] = &["fsync", "page-cache"];

/// The table.
pub const CONFIGS: &[ConfigDef] = &[
    define(
        List,
        CLEANUP_POLICY,
        "delete",
        "delete: segments go by age or size; compact: only the last record of each key stays; both may be combined.",
    )
    .valid(ListOf(CLEANUP_POLICIES))
    .or(&[same("log.cleanup.policy")]),
    define(
        Int,
        "compression.gzip.level",
        "-1",
        "Level with which the broker compresses gzip batches; -1 is the library's default.",
    )
    .valid(BetweenOr(1, 9, -1))
    .or(&[same("compression.gzip.level")]),
    define(Int, "compression.lz4.level", "9", "Level of lz4, which has only one here.")
        .without_effect()
        .valid(Between(1, 17))
        .or(&[same("compression.lz4.level")]),
    define(
        String,
        "compression.type",
        "producer",
        "Compression of stored batches; producer keeps what the producer chose.",
    )
    .valid(OneOf(COMPRESSION_TYPES))
    .or(&[same("compression.type")]),
    define(
        Int,
        "compression.zstd.level",
        "3",
        "Level with which the broker compresses zstd batches.",
    )
    .valid(Between(-131_072, 22))
    .or(&[same("compression.zstd.level")]),
    define(
        Long,
        "delete.retention.ms",
        "86400000",
        "How long tombstones stay in a compacted topic, in milliseconds.",
    )
    .at_least(0)
    .or(&[same("log.cleaner.delete.retention.ms")]),
    define(
        Long,
        "file.delete.delay.ms",
        "60000",
        "How long a deleted segment's files stay on disk, in milliseconds. They go at once; reads that have begun end.",
    )
    .without_effect()
    .at_least(0)
    .or(&[same("log.segment.delete.delay.ms")]),
    define(
        Long,
        "flush.messages",
        "9223372036854775807",
        "Records after which page-cache durability syncs anyway.",
    )
    .at_least(1)
    .or(&[same("log.flush.interval.messages")]),
    define(
        Long,
        "flush.ms",
        "9223372036854775807",
        "Milliseconds after which page-cache durability syncs anyway.",
    )
    .at_least(0)
    .or(&[same("log.flush.interval.ms"), same("log.flush.scheduler.interval.ms")]),
    define(
        List,
        "follower.replication.throttled.replicas",
        "",
        "Replicas whose fetching is throttled: *, or a list of partition:broker.",
    )
    .without_effect()
    .valid(ThrottledReplicas),
    define(
        Int,
        "index.interval.bytes",
        "4096",
        "Bytes of records between two entries of the offset index.",
    )
    .at_least(0)
    .or(&[same("log.index.interval.bytes")]),
    define(
        List,
        "leader.replication.throttled.replicas",
        "",
        "Replicas whose serving is throttled: *, or a list of partition:broker.",
    )
    .without_effect()
    .valid(ThrottledReplicas),
    define(
        Long,
        LOCAL_RETENTION_BYTES,
        "-2",
        "Bytes per partition kept on local disk once tiered; -1 is no limit, -2 takes retention.bytes.",
    )
    .at_least(-2)
    .or(&[same("log.local.retention.bytes")]),
    define(
        Long,
        LOCAL_RETENTION_MS,
        "-2",
        "Milliseconds records stay on local disk once tiered; -1 is no limit, -2 takes retention.ms.",
    )
    .at_least(-2)
    .or(&[same("log.local.retention.ms")]),
    define(
        Long,
        "max.compaction.lag.ms",
        "9223372036854775807",
        "Milliseconds after which a record is compacted at the latest.",
    )
    .at_least(1)
    .or(&[same("log.cleaner.max.compaction.lag.ms")]),
    define(
        Int,
        "max.message.bytes",
        "1048588",
        "Largest record batch, after compression, in bytes.",
    )
    .at_least(0)
    .or(&[same("message.max.bytes")]),
    define(
        Long,
        "message.timestamp.after.max.ms",
        "3600000",
        "How far a record's timestamp may lie ahead of the broker's clock, in milliseconds.",
    )
    .at_least(0)
    .or(&[same("log.message.timestamp.after.max.ms")]),
    define(
        Long,
        "message.timestamp.before.max.ms",
        "9223372036854775807",
        "How far a record's timestamp may lie behind the broker's clock, in milliseconds.",
    )
    .at_least(0)
    .or(&[same("log.message.timestamp.before.max.ms")]),
    define(
        String,
        "message.timestamp.type",
        "CreateTime",
        "Whether records carry the producer's time or that of the append.",
    )
    .valid(OneOf(TIMESTAMP_TYPES))
    .or(&[same("log.message.timestamp.type")]),
    define(
        String,
        DURABILITY,
        "fsync",
        "fsync: acknowledged records are on disk; page-cache: they are with the operating system.",
    )
    .valid(OneOf(DURABILITIES))
    .or(&[same("millstream.durability")]),
    define(
        Long,
        TIERED_MAX_LAG_MS,
        "600000",
        "Milliseconds after which an active segment is rolled so that it can be tiered.",
    )
    .at_least(1_000)
    .or(&[same("millstream.tiered.max.lag.ms")]),
    define(
        Double,
        "min.cleanable.dirty.ratio",
        "0.5",
        "Share of a log that must be uncompacted before it is compacted, 0 to 1.",
    )
    .valid(Fraction)
    .or(&[same("log.cleaner.min.cleanable.ratio")]),
    define(
        Long,
        "min.compaction.lag.ms",
        "0",
        "Milliseconds for which a record stays uncompacted at least.",
    )
    .at_least(0)
    .or(&[same("log.cleaner.min.compaction.lag.ms")]),
    define(Int, "min.insync.replicas", "1", "In-sync replicas that acks=all needs.")
        .at_least(1)
        .or(&[same("min.insync.replicas")]),
    define(
        Boolean,
        "preallocate",
        "false",
        "Whether a new segment's file is given its full size at once.",
    )
    .without_effect()
    .or(&[same("log.preallocate")]),
    define(
        Boolean,
        "remote.log.copy.disable",
        "false",
        "Keeps reading the tier but uploads nothing more.",
    ),
    define(
        Boolean,
        REMOTE_LOG_DELETE_ON_DISABLE,
        "false",
        "Deletes what is in the bucket when remote.storage.enable is turned off.",
    ),
    define(
        Boolean,
        REMOTE_STORAGE_ENABLE,
        "false",
        "Copies sealed segments to the bucket. Not for compacted topics.",
    ),
    define(
        Long,
        RETENTION_BYTES,
        "-1",
        "Bytes per partition, in all tiers, above which the oldest segments go; -1 is no limit.",
    )
    .or(&[same("log.retention.bytes")]),
    define(
        Long,
        RETENTION_MS,
        "604800000",
        "Milliseconds after which records go, in all tiers; -1 is no limit.",
    )
    .at_least(-1)
    .or(&[
        same("log.retention.ms"),
        minutes("log.retention.minutes"),
        hours("log.retention.hours"),
    ]),
    define(Int, "segment.bytes", "1073741824", "Size at which a segment is sealed, in bytes.")
        .at_least(1 << 20)
        .or(&[same("log.segment.bytes")]),
    define(
        Int,
        "segment.index.bytes",
        "10485760",
        "Largest size of a segment's offset index, in bytes. Indexes grow with their segments.",
    )
    .without_effect()
    .at_least(4)
    .or(&[same("log.index.size.max.bytes")]),
    define(
        Long,
        "segment.jitter.ms",
        "0",
        "Most that is taken off segment.ms, in milliseconds, for each segment another part, so that segments do not roll together.",
    )
    .at_least(0)
    .or(&[same("log.roll.jitter.ms"), hours("log.roll.jitter.hours")]),
    define(
        Long,
        "segment.ms",
        "604800000",
        "Age at which a segment is sealed, in milliseconds.",
    )
    .at_least(1)
    .or(&[same("log.roll.ms"), hours("log.roll.hours")]),
    define(
        Boolean,
        "unclean.leader.election.enable",
        "false",
        "Whether a replica that lags may lead when no other is left; loses records.",
    )
    .without_effect()
    .rated(Low)
    .or(&[same("unclean.leader.election.enable")]),
];
