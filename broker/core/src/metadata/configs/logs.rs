//! Broker configurations that stand behind those of topics.
//!
//! `log.retention.ms`, `.minutes` and `.hours` and their like say the same in several units; the first that is set wins.

use super::{
    definition::{
        ConfigDef,
        ConfigType::{Boolean, Double, Int, List, Long, String},
        Importance::{High, Low},
        Validator::{Between, BetweenOr, Fraction, ListOf, OneOf},
        define, hours, minutes, same,
    },
    topic::{CLEANUP_POLICIES, COMPRESSION_TYPES, DURABILITIES, DURABILITY, TIERED_MAX_LAG_MS, TIMESTAMP_TYPES},
};

/// The table.
pub const CONFIGS: &[ConfigDef] = &[
    define(Int, "compression.gzip.level", "-1", "Default of compression.gzip.level.").valid(BetweenOr(1, 9, -1)),
    define(Int, "compression.lz4.level", "9", "Default of compression.lz4.level.")
        .without_effect()
        .valid(Between(1, 17)),
    define(String, "compression.type", "producer", "Default of compression.type.")
        .valid(OneOf(COMPRESSION_TYPES))
        .rated(High),
    define(Int, "compression.zstd.level", "3", "Default of compression.zstd.level.").valid(Between(-131_072, 22)),
    define(
        Long,
        "log.cleaner.delete.retention.ms",
        "86400000",
        "Default of delete.retention.ms, in milliseconds.",
    )
    .at_least(0),
    define(
        Long,
        "log.cleaner.max.compaction.lag.ms",
        "9223372036854775807",
        "Default of max.compaction.lag.ms, in milliseconds.",
    )
    .at_least(1),
    define(
        Double,
        "log.cleaner.min.cleanable.ratio",
        "0.5",
        "Default of min.cleanable.dirty.ratio, 0 to 1.",
    )
    .valid(Fraction),
    define(
        Long,
        "log.cleaner.min.compaction.lag.ms",
        "0",
        "Default of min.compaction.lag.ms, in milliseconds.",
    )
    .at_least(0),
    define(List, "log.cleanup.policy", "delete", "Default of cleanup.policy.").valid(ListOf(CLEANUP_POLICIES)),
    define(
        Long,
        "log.flush.interval.messages",
        "9223372036854775807",
        "Default of flush.messages.",
    )
    .at_least(1)
    .rated(High),
    define(
        Long,
        "log.flush.interval.ms",
        "",
        "Default of flush.ms, in milliseconds; unset takes log.flush.scheduler.interval.ms.",
    )
    .unset()
    .rated(High)
    .or(&[same("log.flush.interval.ms"), same("log.flush.scheduler.interval.ms")]),
    define(
        Long,
        "log.flush.scheduler.interval.ms",
        "9223372036854775807",
        "Stands in for log.flush.interval.ms, in milliseconds.",
    )
    .fixed()
    .rated(High),
    define(Int, "log.index.interval.bytes", "4096", "Default of index.interval.bytes.").at_least(0),
    define(Int, "log.index.size.max.bytes", "10485760", "Default of segment.index.bytes.")
        .without_effect()
        .at_least(4),
    define(
        Long,
        "log.local.retention.bytes",
        "-2",
        "Default of local.retention.bytes; -2 takes the total retention.",
    )
    .at_least(-2),
    define(
        Long,
        "log.local.retention.ms",
        "-2",
        "Default of local.retention.ms, in milliseconds; -2 takes the total retention.",
    )
    .at_least(-2),
    define(
        Long,
        "log.message.timestamp.after.max.ms",
        "3600000",
        "Default of message.timestamp.after.max.ms, in milliseconds.",
    )
    .at_least(0),
    define(
        Long,
        "log.message.timestamp.before.max.ms",
        "9223372036854775807",
        "Default of message.timestamp.before.max.ms, in milliseconds.",
    )
    .at_least(0),
    define(
        String,
        "log.message.timestamp.type",
        "CreateTime",
        "Default of message.timestamp.type.",
    )
    .valid(OneOf(TIMESTAMP_TYPES)),
    define(Boolean, "log.preallocate", "false", "Default of preallocate.").without_effect(),
    define(Long, "log.retention.bytes", "-1", "Default of retention.bytes, per partition.").rated(High),
    define(Int, "log.retention.hours", "168", "Default of retention.ms, in hours.")
        .fixed()
        .rated(High),
    define(
        Int,
        "log.retention.minutes",
        "",
        "Default of retention.ms, in minutes; comes before log.retention.hours.",
    )
    .unset()
    .fixed()
    .rated(High),
    define(
        Long,
        "log.retention.ms",
        "",
        "Default of retention.ms, in milliseconds; comes before the other two.",
    )
    .unset()
    .at_least(-1)
    .rated(High)
    .or(&[
        same("log.retention.ms"),
        minutes("log.retention.minutes"),
        hours("log.retention.hours"),
    ]),
    define(Int, "log.roll.hours", "168", "Default of segment.ms, in hours.")
        .fixed()
        .at_least(1)
        .rated(High),
    define(Int, "log.roll.jitter.hours", "0", "Default of segment.jitter.ms, in hours.")
        .fixed()
        .at_least(0)
        .rated(High),
    define(Long, "log.roll.jitter.ms", "", "Default of segment.jitter.ms, in milliseconds.")
        .unset()
        .at_least(0)
        .rated(High)
        .or(&[same("log.roll.jitter.ms"), hours("log.roll.jitter.hours")]),
    define(Long, "log.roll.ms", "", "Default of segment.ms, in milliseconds.")
        .unset()
        .at_least(1)
        .rated(High)
        .or(&[same("log.roll.ms"), hours("log.roll.hours")]),
    define(Int, "log.segment.bytes", "1073741824", "Default of segment.bytes.")
        .at_least(1 << 20)
        .rated(High),
    define(
        Long,
        "log.segment.delete.delay.ms",
        "60000",
        "Default of file.delete.delay.ms, in milliseconds.",
    )
    .without_effect()
    .at_least(0)
    .rated(High),
    define(Int, "message.max.bytes", "1048588", "Default of max.message.bytes.")
        .at_least(0)
        .rated(High),
    define(String, DURABILITY, "fsync", "Default of a topic's millstream.durability.")
        .valid(OneOf(DURABILITIES))
        .rated(High),
    define(
        Long,
        TIERED_MAX_LAG_MS,
        "600000",
        "Default of a topic's millstream.tiered.max.lag.ms, in milliseconds.",
    )
    .at_least(1_000),
    define(Int, "min.insync.replicas", "1", "Default of min.insync.replicas.")
        .at_least(1)
        .rated(High),
    define(
        Boolean,
        "unclean.leader.election.enable",
        "false",
        "Default of unclean.leader.election.enable.",
    )
    .without_effect()
    .rated(Low),
];
