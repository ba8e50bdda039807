//! Broker configurations of the coordinators: groups of all kinds, transactions, and their internal topics.

use super::definition::{
    ConfigDef,
    ConfigType::{Boolean, Int, List, Long, Short, String},
    Importance::{High, Low},
    Validator::{ListOf, OneOf},
    define,
};

/// Assignors of consumer groups.
pub const CONSUMER_ASSIGNORS: &str = "group.consumer.assignors";
/// Longest lock on a record of a share group.
pub const SHARE_LOCK_DURATION_MS_MAX: &str = "group.share.max.record.lock.duration.ms";

/// The table.
pub const CONFIGS: &[ConfigDef] = &[
    define(
        Int,
        "add.partitions.to.txn.retry.backoff.max.ms",
        "100",
        "Longest time that a produce request waits for the previous transaction to complete.",
    )
    .at_least(0)
    .fixed()
    .rated(High),
    define(
        Int,
        "add.partitions.to.txn.retry.backoff.ms",
        "20",
        "Pause before the coordinator is asked again whether the previous transaction has completed.",
    )
    .at_least(1)
    .fixed()
    .rated(High),
    define(
        List,
        CONSUMER_ASSIGNORS,
        "uniform,range",
        "Assignors that members of consumer groups may choose; the first is the default.",
    )
    .valid(ListOf(&["uniform", "range"]))
    .fixed(),
    define(
        Int,
        "group.consumer.max.heartbeat.interval.ms",
        "15000",
        "Longest heartbeat interval that a consumer group may be configured with.",
    )
    .at_least(1)
    .fixed(),
    define(
        Int,
        "group.consumer.max.session.timeout.ms",
        "60000",
        "Longest session timeout that a consumer group may be configured with.",
    )
    .at_least(1)
    .fixed(),
    define(
        String,
        "group.consumer.migration.policy",
        "bidirectional",
        "Which changes between the classic and the consumer protocol a group may make.",
    )
    .valid(OneOf(&["bidirectional", "upgrade", "downgrade", "disabled"]))
    .fixed(),
    define(
        Int,
        "group.consumer.min.heartbeat.interval.ms",
        "5000",
        "Shortest heartbeat interval that a consumer group may be configured with.",
    )
    .at_least(1)
    .fixed(),
    define(
        Int,
        "group.consumer.min.session.timeout.ms",
        "45000",
        "Shortest session timeout that a consumer group may be configured with.",
    )
    .at_least(1)
    .fixed(),
    define(
        Int,
        "group.coordinator.append.linger.ms",
        "-1",
        "Time that group records wait for others; -1 writes as fast as the disk takes them.",
    )
    .without_effect()
    .at_least(-1)
    .fixed(),
    define(
        List,
        "group.coordinator.rebalance.protocols",
        "classic,consumer,streams",
        "Kinds of groups that are served; share groups are, if the feature share.version is on.",
    )
    .valid(ListOf(&["classic", "consumer", "share", "streams"]))
    .fixed(),
    define(
        Int,
        "group.coordinator.threads",
        "4",
        "Threads of the group coordinator. Each partition of the offsets topic has a task of its own.",
    )
    .without_effect()
    .at_least(1)
    .fixed(),
    define(List, "group.share.assignors", "simple", "Assignors of share groups.")
        .without_effect()
        .valid(ListOf(&["simple"]))
        .fixed(),
    define(
        Int,
        "group.share.delivery.count.limit",
        "5",
        "Deliveries of a record in a share group before it is given up.",
    )
    .valid(super::definition::Validator::Between(2, 10))
    .fixed(),
    define(
        Int,
        "group.share.heartbeat.interval.ms",
        "5000",
        "Heartbeat interval of share groups.",
    )
    .at_least(1)
    .fixed(),
    define(
        Int,
        "group.share.max.heartbeat.interval.ms",
        "15000",
        "Longest heartbeat interval that a share group may be configured with.",
    )
    .at_least(1)
    .fixed(),
    define(
        Int,
        SHARE_LOCK_DURATION_MS_MAX,
        "60000",
        "Longest lock on a record that a share group may be configured with.",
    )
    .at_least(1_000)
    .fixed(),
    define(
        Int,
        "group.share.max.session.timeout.ms",
        "60000",
        "Longest session timeout that a share group may be configured with.",
    )
    .at_least(1)
    .fixed(),
    define(
        Int,
        "group.share.max.share.sessions",
        "2000",
        "Share sessions that are kept at a time.",
    )
    .at_least(1)
    .fixed(),
    define(Int, "group.share.max.size", "200", "Members that a share group may have.")
        .valid(super::definition::Validator::Between(1, 1_000))
        .fixed(),
    define(
        Int,
        "group.share.min.heartbeat.interval.ms",
        "5000",
        "Shortest heartbeat interval that a share group may be configured with.",
    )
    .at_least(1)
    .fixed(),
    define(
        Int,
        "group.share.min.record.lock.duration.ms",
        "15000",
        "Shortest lock on a record that a share group may be configured with.",
    )
    .at_least(1_000)
    .fixed(),
    define(
        Int,
        "group.share.min.session.timeout.ms",
        "45000",
        "Shortest session timeout that a share group may be configured with.",
    )
    .at_least(1)
    .fixed(),
    define(
        Int,
        "group.share.partition.max.record.locks",
        "2000",
        "Records of one partition that a share group may hold locked.",
    )
    .valid(super::definition::Validator::Between(100, 10_000))
    .fixed(),
    define(
        Int,
        "group.share.record.lock.duration.ms",
        "30000",
        "Time that a record stays locked for the member that got it.",
    )
    .at_least(1_000)
    .fixed(),
    define(
        Int,
        "group.share.session.timeout.ms",
        "45000",
        "Silence after which a member of a share group is removed.",
    )
    .at_least(1)
    .fixed(),
    define(
        Int,
        "group.streams.heartbeat.interval.ms",
        "5000",
        "Heartbeat interval of streams groups.",
    )
    .at_least(1)
    .fixed(),
    define(
        Int,
        "group.streams.initial.rebalance.delay.ms",
        "3000",
        "Time that a streams group without members waits for more than the first one before it assigns tasks.",
    )
    .at_least(0)
    .fixed(),
    define(
        Int,
        "group.streams.max.heartbeat.interval.ms",
        "15000",
        "Longest heartbeat interval that a streams group may be configured with.",
    )
    .at_least(1)
    .fixed(),
    define(
        Int,
        "group.streams.max.session.timeout.ms",
        "60000",
        "Longest session timeout that a streams group may be configured with.",
    )
    .at_least(1)
    .fixed(),
    define(
        Int,
        "group.streams.max.size",
        "2147483647",
        "Members that a streams group may have.",
    )
    .at_least(1)
    .fixed(),
    define(
        Int,
        "group.streams.max.standby.replicas",
        "2",
        "Most standby copies that a streams group may be configured with.",
    )
    .at_least(0)
    .fixed(),
    define(
        Int,
        "group.streams.min.heartbeat.interval.ms",
        "5000",
        "Shortest heartbeat interval that a streams group may be configured with.",
    )
    .at_least(1)
    .fixed(),
    define(
        Int,
        "group.streams.min.session.timeout.ms",
        "45000",
        "Shortest session timeout that a streams group may be configured with.",
    )
    .at_least(1)
    .fixed(),
    define(
        Int,
        "group.streams.num.standby.replicas",
        "0",
        "Standby copies of each task with state.",
    )
    .at_least(0)
    .fixed(),
    define(
        Int,
        "group.streams.session.timeout.ms",
        "45000",
        "Silence after which a member of a streams group is removed.",
    )
    .at_least(1)
    .fixed(),
    define(
        Int,
        "offsets.load.buffer.size",
        "5242880",
        "Bytes that are read at a time when the offsets topic is loaded.",
    )
    .without_effect()
    .at_least(1)
    .fixed(),
    define(
        Int,
        "offsets.topic.compression.codec",
        "0",
        "Codec of the offsets topic; 0 is none.",
    )
    .without_effect()
    .fixed(),
    define(
        Int,
        "share.coordinator.append.linger.ms",
        "-1",
        "Time that share state records wait for others; -1 writes as fast as the disk takes them.",
    )
    .without_effect()
    .at_least(-1)
    .fixed(),
    define(
        Int,
        "share.coordinator.load.buffer.size",
        "5242880",
        "Bytes that are read at a time when the share state topic is loaded.",
    )
    .without_effect()
    .at_least(1)
    .fixed(),
    define(
        Int,
        "share.coordinator.snapshot.update.records.per.snapshot",
        "500",
        "Updates of a share partition's state between two snapshots.",
    )
    .without_effect()
    .valid(super::definition::Validator::Between(0, 500))
    .fixed(),
    define(
        Int,
        "share.coordinator.state.topic.compression.codec",
        "0",
        "Codec of the share state topic; 0 is none.",
    )
    .without_effect()
    .fixed(),
    define(
        Short,
        "share.coordinator.state.topic.min.isr",
        "2",
        "In-sync replicas that the share state topic needs.",
    )
    .at_least(1)
    .fixed(),
    define(
        Int,
        "share.coordinator.state.topic.num.partitions",
        "50",
        "Partitions of the share state topic.",
    )
    .at_least(1)
    .fixed(),
    define(
        Short,
        "share.coordinator.state.topic.replication.factor",
        "3",
        "Replicas of the share state topic.",
    )
    .at_least(1)
    .fixed(),
    define(
        Int,
        "share.coordinator.state.topic.segment.bytes",
        "104857600",
        "Segment size of the share state topic.",
    )
    .at_least(1)
    .fixed(),
    define(
        Int,
        "share.coordinator.threads",
        "1",
        "Threads of the share coordinator. Each partition of the share state topic has a task of its own.",
    )
    .without_effect()
    .at_least(1)
    .fixed(),
    define(
        Int,
        "share.coordinator.write.timeout.ms",
        "5000",
        "Time that writing share state may take.",
    )
    .without_effect()
    .at_least(1)
    .fixed(),
    define(
        Boolean,
        "transaction.partition.verification.enable",
        "true",
        "Whether the first write of a transaction to a partition is checked with its coordinator; it always is.",
    )
    .without_effect(),
    define(
        Int,
        "transaction.state.log.load.buffer.size",
        "5242880",
        "Bytes that are read at a time when the transaction log is loaded.",
    )
    .without_effect()
    .at_least(1)
    .fixed(),
    define(
        Boolean,
        "transaction.two.phase.commit.enable",
        "false",
        "Whether producers may prepare transactions for an external coordinator.",
    )
    .without_effect()
    .fixed()
    .rated(Low),
    define(
        Long,
        "connections.max.reauth.ms",
        "0",
        "Time after which a client has to authenticate again; 0 is never.",
    )
    .without_effect()
    .fixed(),
];
