//! Broker configurations that are not defaults of topics. Kafka's names and, unless said otherwise, Kafka 4.1's defaults.

use super::definition::{
    ConfigDef,
    ConfigType::{Boolean, Int, List, Long, Password, Short, String},
    Importance::{High, Low},
    Validator::Between,
    define,
};

/// Partitions of a topic that was created without a number.
pub const NUM_PARTITIONS: &str = "num.partitions";
/// Replicas of a topic that was created without a number.
pub const DEFAULT_REPLICATION_FACTOR: &str = "default.replication.factor";
/// Whether asking for a topic creates it.
pub const AUTO_CREATE_TOPICS_ENABLE: &str = "auto.create.topics.enable";
/// Whether the broker has a bucket.
pub const REMOTE_LOG_STORAGE_SYSTEM_ENABLE: &str = "remote.log.storage.system.enable";
/// Whether topics can be deleted.
pub const DELETE_TOPIC_ENABLE: &str = "delete.topic.enable";
/// Partitions of `__consumer_offsets`.
pub const OFFSETS_TOPIC_NUM_PARTITIONS: &str = "offsets.topic.num.partitions";
/// Replicas of `__consumer_offsets`.
pub const OFFSETS_TOPIC_REPLICATION_FACTOR: &str = "offsets.topic.replication.factor";
/// Segment size of `__consumer_offsets`.
pub const OFFSETS_TOPIC_SEGMENT_BYTES: &str = "offsets.topic.segment.bytes";
/// Partitions of `__transaction_state`.
pub const TRANSACTION_LOG_NUM_PARTITIONS: &str = "transaction.state.log.num.partitions";
/// Replicas of `__transaction_state`.
pub const TRANSACTION_LOG_REPLICATION_FACTOR: &str = "transaction.state.log.replication.factor";
/// Segment size of `__transaction_state`.
pub const TRANSACTION_LOG_SEGMENT_BYTES: &str = "transaction.state.log.segment.bytes";
/// In-sync replicas that `__transaction_state` needs.
pub const TRANSACTION_LOG_MIN_ISR: &str = "transaction.state.log.min.isr";

/// The table.
pub const CONFIGS: &[ConfigDef] = &[
    define(
        List,
        "advertised.listeners",
        "",
        "Addresses that clients are told to use; unset advertises the listeners.",
    )
    .unset()
    .fixed()
    .rated(High),
    define(
        Boolean,
        "allow.everyone.if.no.acl.found",
        "false",
        "Whether a resource without any ACL is open to everybody.",
    )
    .without_effect()
    .fixed(),
    define(
        Boolean,
        AUTO_CREATE_TOPICS_ENABLE,
        "true",
        "Whether a client that asks for a topic that does not exist creates it.",
    )
    .fixed()
    .rated(High),
    define(
        Boolean,
        "auto.leader.rebalance.enable",
        "true",
        "Whether leadership goes back to preferred replicas by itself.",
    )
    .without_effect()
    .fixed()
    .rated(High),
    define(Int, "background.threads", "10", "Threads for background work.")
        .without_effect()
        .at_least(1)
        .rated(High),
    define(
        String,
        "broker.rack",
        "",
        "Rack or zone of this broker; replicas are spread over racks.",
    )
    .unset()
    .fixed(),
    define(
        Long,
        "connections.max.idle.ms",
        "600000",
        "Milliseconds after which an idle connection is closed.",
    )
    .fixed(),
    define(
        Int,
        "controlled.shutdown.max.retries",
        "3",
        "Attempts to hand leadership over before stopping.",
    )
    .without_effect()
    .fixed(),
    define(
        Boolean,
        "controlled.shutdown.enable",
        "true",
        "Whether a stopping broker hands its leadership over first.",
    )
    .without_effect()
    .fixed(),
    define(
        Int,
        DEFAULT_REPLICATION_FACTOR,
        "1",
        "Replicas of a topic created with replication factor -1.",
    )
    .fixed()
    .at_least(1),
    define(Boolean, DELETE_TOPIC_ENABLE, "true", "Whether topics can be deleted.")
        .fixed()
        .rated(High),
    define(Int, "fetch.max.bytes", "57671680", "Most bytes that one fetch answers with.")
        .fixed()
        .at_least(1024),
    define(
        Int,
        "group.consumer.session.timeout.ms",
        "45000",
        "Session timeout of the new consumer protocol, in milliseconds.",
    )
    .fixed()
    .at_least(1),
    define(
        Int,
        "group.consumer.heartbeat.interval.ms",
        "5000",
        "Heartbeat interval of the new consumer protocol, in milliseconds.",
    )
    .fixed()
    .at_least(1),
    define(
        Int,
        "group.consumer.max.size",
        "2147483647",
        "Most members of a group of the new consumer protocol.",
    )
    .fixed()
    .at_least(1),
    define(
        Int,
        "group.initial.rebalance.delay.ms",
        "3000",
        "Milliseconds a new group waits for more members before its first rebalance.",
    )
    .fixed()
    .at_least(0),
    define(
        Int,
        "group.max.session.timeout.ms",
        "1800000",
        "Longest session timeout a member may ask for, in milliseconds.",
    )
    .fixed()
    .at_least(1),
    define(Int, "group.max.size", "2147483647", "Most members of a group.")
        .fixed()
        .at_least(1),
    define(
        Int,
        "group.min.session.timeout.ms",
        "6000",
        "Shortest session timeout a member may ask for, in milliseconds.",
    )
    .fixed()
    .at_least(1),
    define(
        List,
        "listeners",
        "PLAINTEXT://127.0.0.1:9092",
        "Addresses to listen on. Only loopback may go without authentication.",
    )
    .fixed()
    .rated(High),
    define(List, "log.dirs", "./millstream-data", "Directories that hold the logs.")
        .fixed()
        .rated(High),
    define(
        Long,
        "log.retention.check.interval.ms",
        "300000",
        "Milliseconds between two looks for segments to delete.",
    )
    .fixed()
    .at_least(1),
    define(Int, "max.connections", "2147483647", "Most connections of the broker.").at_least(0),
    define(Int, "max.connection.creation.rate", "2147483647", "Most new connections a second.").at_least(0),
    define(Int, "max.connections.per.ip", "2147483647", "Most connections from one address.").at_least(0),
    define(
        Int,
        "max.incremental.fetch.session.cache.slots",
        "1000",
        "Most fetch sessions that are remembered.",
    )
    .fixed()
    .at_least(0),
    define(
        Long,
        "millstream.request.memory.bytes",
        "268435456",
        "Bytes of requests that are worked on at the same time, and as many of answers that clients have not read; further requests wait.",
    )
    .fixed()
    .at_least(1 << 20),
    define(
        Int,
        "max.request.partition.size.limit",
        "2000",
        "Most partitions in one DescribeTopicPartitions answer.",
    )
    .fixed()
    .at_least(1),
    define(Int, "node.id", "1", "Number of this node, unique in the cluster.")
        .fixed()
        .at_least(0)
        .rated(High),
    define(Int, "num.io.threads", "8", "Threads that serve requests.")
        .without_effect()
        .at_least(1)
        .rated(High),
    define(Int, "num.network.threads", "3", "Threads that move bytes.")
        .without_effect()
        .at_least(1)
        .rated(High),
    define(Int, NUM_PARTITIONS, "1", "Partitions of a topic created with partition number -1.")
        .fixed()
        .at_least(1),
    define(
        Int,
        "num.recovery.threads.per.data.dir",
        "2",
        "Threads per log directory for recovery at start.",
    )
    .without_effect()
    .at_least(1),
    define(Int, "num.replica.fetchers", "1", "Fetch streams to each other broker.")
        .without_effect()
        .at_least(1),
    define(
        Int,
        "offset.metadata.max.bytes",
        "4096",
        "Longest metadata text of a committed offset.",
    )
    .fixed()
    .rated(High),
    define(
        Int,
        "offsets.commit.timeout.ms",
        "5000",
        "Milliseconds an offset commit waits for its replicas.",
    )
    .without_effect()
    .fixed()
    .at_least(1)
    .rated(High),
    define(
        Long,
        "offsets.retention.check.interval.ms",
        "600000",
        "Milliseconds between two looks for expired offsets.",
    )
    .fixed()
    .at_least(1)
    .rated(High),
    define(
        Int,
        "offsets.retention.minutes",
        "10080",
        "Minutes after which offsets of an empty group expire.",
    )
    .fixed()
    .at_least(1)
    .rated(High),
    define(
        Int,
        OFFSETS_TOPIC_NUM_PARTITIONS,
        "50",
        "Partitions of __consumer_offsets; must not change once it exists.",
    )
    .fixed()
    .at_least(1)
    .rated(High),
    define(
        Short,
        OFFSETS_TOPIC_REPLICATION_FACTOR,
        "3",
        "Replicas of __consumer_offsets, fewer if there are fewer brokers.",
    )
    .fixed()
    .at_least(1)
    .rated(High),
    define(
        Int,
        OFFSETS_TOPIC_SEGMENT_BYTES,
        "104857600",
        "Segment size of __consumer_offsets, in bytes.",
    )
    .fixed()
    .at_least(1)
    .rated(High),
    define(
        Int,
        "producer.id.expiration.ms",
        "86400000",
        "Milliseconds after which an idle producer's sequence numbers are forgotten.",
    )
    .at_least(1)
    .rated(Low),
    define(
        Int,
        "producer.id.expiration.check.interval.ms",
        "600000",
        "Milliseconds between two looks for idle producers.",
    )
    .without_effect()
    .fixed()
    .at_least(1)
    .rated(Low),
    define(
        Int,
        "queued.max.requests",
        "500",
        "Requests that may wait before the network is paused.",
    )
    .without_effect()
    .fixed()
    .at_least(1)
    .rated(High),
    define(Int, "replica.fetch.max.bytes", "1048576", "Bytes a follower fetches per partition.")
        .without_effect()
        .fixed()
        .at_least(0),
    define(Int, "replica.fetch.min.bytes", "1", "Bytes a follower's fetch waits for.")
        .without_effect()
        .fixed(),
    define(
        Int,
        "replica.fetch.wait.max.ms",
        "500",
        "Milliseconds a follower's fetch waits at most.",
    )
    .without_effect()
    .fixed(),
    define(
        Boolean,
        REMOTE_LOG_STORAGE_SYSTEM_ENABLE,
        "false",
        "Whether the broker has a bucket, and so topics can be tiered.",
    )
    .fixed(),
    define(
        Long,
        "remote.log.manager.task.interval.ms",
        "1000",
        "Milliseconds between two looks of a partition for segments to upload.",
    )
    .fixed()
    .at_least(1),
    define(
        Long,
        "replica.lag.time.max.ms",
        "30000",
        "Milliseconds after which a lagging follower leaves the in-sync replicas.",
    )
    .without_effect()
    .fixed()
    .rated(High),
    define(
        Int,
        "request.timeout.ms",
        "30000",
        "Milliseconds after which a request between brokers fails.",
    )
    .without_effect()
    .fixed()
    .rated(High),
    define(
        List,
        "sasl.enabled.mechanisms",
        "SCRAM-SHA-256,SCRAM-SHA-512",
        "SASL mechanisms that are offered (Kafka's default is GSSAPI).",
    )
    .without_effect()
    .fixed(),
    define(
        Int,
        "sasl.server.max.receive.size",
        "524288",
        "Largest SASL message before authentication, in bytes.",
    )
    .without_effect()
    .fixed()
    .at_least(0),
    define(
        Int,
        "socket.listen.backlog.size",
        "50",
        "Connections that the operating system queues; less than 1024 counts as 1024.",
    )
    .fixed()
    .at_least(1),
    define(
        Int,
        "socket.receive.buffer.bytes",
        "102400",
        "SO_RCVBUF in bytes. Unless it is set, or with -1, the operating system adapts it to each connection.",
    )
    .fixed()
    .rated(High),
    define(Int, "socket.request.max.bytes", "104857600", "Largest request, in bytes.")
        .fixed()
        .valid(Between(1, 1 << 30))
        .rated(High),
    define(
        Int,
        "socket.send.buffer.bytes",
        "102400",
        "SO_SNDBUF in bytes. Unless it is set, or with -1, the operating system adapts it to each connection.",
    )
    .fixed()
    .rated(High),
    define(Password, "ssl.key.password", "", "Password of the private key.")
        .without_effect()
        .unset()
        .secret()
        .fixed()
        .rated(High),
    define(List, "super.users", "", "Principals that may do everything, such as User:admin.")
        .without_effect()
        .fixed(),
    define(
        Int,
        "transaction.abort.timed.out.transaction.cleanup.interval.ms",
        "10000",
        "Milliseconds between two looks for timed-out transactions.",
    )
    .without_effect()
    .fixed()
    .at_least(1)
    .rated(Low),
    define(
        Int,
        "transaction.max.timeout.ms",
        "900000",
        "Longest transaction timeout a producer may ask for, in milliseconds.",
    )
    .fixed()
    .at_least(1)
    .rated(High),
    define(
        Int,
        "transaction.remove.expired.transaction.cleanup.interval.ms",
        "3600000",
        "Milliseconds between two looks for expired transactional ids.",
    )
    .fixed()
    .at_least(1)
    .rated(Low),
    define(
        Int,
        TRANSACTION_LOG_MIN_ISR,
        "2",
        "In-sync replicas that __transaction_state needs, fewer if it has fewer.",
    )
    .fixed()
    .at_least(1)
    .rated(High),
    define(
        Int,
        TRANSACTION_LOG_NUM_PARTITIONS,
        "50",
        "Partitions of __transaction_state; must not change once it exists.",
    )
    .fixed()
    .at_least(1)
    .rated(High),
    define(
        Short,
        TRANSACTION_LOG_REPLICATION_FACTOR,
        "3",
        "Replicas of __transaction_state, fewer if there are fewer brokers.",
    )
    .fixed()
    .at_least(1)
    .rated(High),
    define(
        Int,
        TRANSACTION_LOG_SEGMENT_BYTES,
        "104857600",
        "Segment size of __transaction_state, in bytes.",
    )
    .fixed()
    .at_least(1)
    .rated(High),
    define(
        Int,
        "transactional.id.expiration.ms",
        "604800000",
        "Milliseconds after which an idle transactional id is forgotten.",
    )
    .fixed()
    .at_least(1)
    .rated(High),
];
