//! Configurations of single groups, and of client metrics subscriptions (KIP-714).

use super::definition::{
    ConfigDef,
    ConfigType::{Int, List, String},
    Validator::{Between, OneOf},
    define, same,
};

/// A group's session timeout under the consumer protocol.
pub const CONSUMER_SESSION_TIMEOUT_MS: &str = "consumer.session.timeout.ms";
/// A group's heartbeat interval under the consumer protocol.
pub const CONSUMER_HEARTBEAT_INTERVAL_MS: &str = "consumer.heartbeat.interval.ms";
/// A share group's session timeout.
pub const SHARE_SESSION_TIMEOUT_MS: &str = "share.session.timeout.ms";
/// A share group's heartbeat interval.
pub const SHARE_HEARTBEAT_INTERVAL_MS: &str = "share.heartbeat.interval.ms";
/// Time that a record stays locked in a share group.
pub const SHARE_LOCK_DURATION_MS: &str = "share.record.lock.duration.ms";
/// Where a share group begins to read.
pub const SHARE_AUTO_OFFSET_RESET: &str = "share.auto.offset.reset";
/// Which records of transactions a share group sees.
pub const SHARE_ISOLATION_LEVEL: &str = "share.isolation.level";
/// Deliveries before a record is given up.
pub const SHARE_DELIVERY_COUNT_LIMIT: &str = "share.delivery.count.limit";
/// A streams group's session timeout.
pub const STREAMS_SESSION_TIMEOUT_MS: &str = "streams.session.timeout.ms";
/// A streams group's heartbeat interval.
pub const STREAMS_HEARTBEAT_INTERVAL_MS: &str = "streams.heartbeat.interval.ms";
/// How long a streams group without members waits for more than the first.
pub const STREAMS_INITIAL_REBALANCE_DELAY_MS: &str = "streams.initial.rebalance.delay.ms";
/// Standby copies of a streams group's tasks.
pub const STREAMS_NUM_STANDBY_REPLICAS: &str = "streams.num.standby.replicas";
/// Topic for records that were given up.
pub const DEAD_LETTER_TOPIC: &str = "errors.deadletterqueue.topic.name";

/// Configurations of a group.
pub const CONFIGS: &[ConfigDef] = &[
    define(
        Int,
        CONSUMER_HEARTBEAT_INTERVAL_MS,
        "5000",
        "Heartbeat interval of the group's consumers.",
    )
    .at_least(1)
    .or(&[same("group.consumer.heartbeat.interval.ms")]),
    define(
        Int,
        CONSUMER_SESSION_TIMEOUT_MS,
        "45000",
        "Silence after which a consumer of the group is removed.",
    )
    .at_least(1)
    .or(&[same("group.consumer.session.timeout.ms")]),
    define(
        String,
        DEAD_LETTER_TOPIC,
        "",
        "Topic that takes the records which the share group gave up or rejected; empty drops them. It must exist, and the broker adds headers that say where a record comes from.",
    ),
    define(
        String,
        SHARE_AUTO_OFFSET_RESET,
        "latest",
        "Where a share group begins to read a partition: latest, earliest, or by_duration:PnDTnHnMn.nS before now.",
    ),
    define(
        Int,
        SHARE_DELIVERY_COUNT_LIMIT,
        "5",
        "Deliveries of a record before it is given up.",
    )
    .valid(Between(2, 10))
    .or(&[same("group.share.delivery.count.limit")]),
    define(
        Int,
        SHARE_HEARTBEAT_INTERVAL_MS,
        "5000",
        "Heartbeat interval of the share group's members.",
    )
    .at_least(1)
    .or(&[same("group.share.heartbeat.interval.ms")]),
    define(
        String,
        SHARE_ISOLATION_LEVEL,
        "read_uncommitted",
        "Whether records of open and aborted transactions are delivered.",
    )
    .valid(OneOf(&["read_committed", "read_uncommitted"])),
    define(
        Int,
        SHARE_LOCK_DURATION_MS,
        "30000",
        "Time that a record stays locked for the member that got it.",
    )
    .at_least(1_000)
    .or(&[same("group.share.record.lock.duration.ms")]),
    define(
        Int,
        SHARE_SESSION_TIMEOUT_MS,
        "45000",
        "Silence after which a member of the share group is removed.",
    )
    .at_least(1)
    .or(&[same("group.share.session.timeout.ms")]),
    define(
        Int,
        STREAMS_HEARTBEAT_INTERVAL_MS,
        "5000",
        "Heartbeat interval of the streams group's members.",
    )
    .at_least(1)
    .or(&[same("group.streams.heartbeat.interval.ms")]),
    define(
        Int,
        STREAMS_INITIAL_REBALANCE_DELAY_MS,
        "3000",
        "Time that the group waits for more than its first member before it assigns tasks.",
    )
    .at_least(0)
    .or(&[same("group.streams.initial.rebalance.delay.ms")]),
    define(Int, STREAMS_NUM_STANDBY_REPLICAS, "0", "Standby copies of each task with state.")
        .at_least(0)
        .or(&[same("group.streams.num.standby.replicas")]),
    define(
        Int,
        STREAMS_SESSION_TIMEOUT_MS,
        "45000",
        "Silence after which a member of the streams group is removed.",
    )
    .at_least(1)
    .or(&[same("group.streams.session.timeout.ms")]),
];

/// How often clients push metrics.
pub const METRICS_INTERVAL_MS: &str = "interval.ms";
/// Which clients do.
pub const METRICS_MATCH: &str = "match";
/// Which metrics they push.
pub const METRICS_NAMES: &str = "metrics";

/// Configurations of a client metrics subscription.
pub const CLIENT_METRICS_CONFIGS: &[ConfigDef] = &[
    define(Int, METRICS_INTERVAL_MS, "300000", "How often clients push, in milliseconds.").valid(Between(100, 3_600_000)),
    define(
        List,
        METRICS_MATCH,
        "",
        "Which clients push: client_instance_id, client_id, client_software_name, client_software_version, client_source_address or client_source_port, each with = and a pattern; all must match.",
    ),
    define(
        List,
        METRICS_NAMES,
        "",
        "Prefixes of the names of metrics; * is all of them, empty is none.",
    ),
];
