//! Broker configurations of the cleaner, quotas, the metadata log, the tier and telemetry.

use super::definition::{
    ConfigDef,
    ConfigType::{Boolean, Double, Int, List, Long, String},
    Importance::{High, Low},
    Validator::{AddressLimits, Between},
    define,
};

/// Bytes of memory that the cleaner may use for keys.
pub const CLEANER_DEDUPE_BUFFER_BYTES: &str = "log.cleaner.dedupe.buffer.size";
/// Bytes that the cleaner may read and write in a second.
pub const CLEANER_IO_BYTES_PER_SECOND: &str = "log.cleaner.io.max.bytes.per.second";

/// The table.
pub const CONFIGS: &[ConfigDef] = &[
    define(
        Int,
        "alter.log.dirs.replication.quota.window.num",
        "11",
        "Samples of the quota for moves between log directories.",
    )
    .without_effect()
    .at_least(1)
    .fixed()
    .rated(Low),
    define(
        Int,
        "alter.log.dirs.replication.quota.window.size.seconds",
        "1",
        "Length of such a sample.",
    )
    .without_effect()
    .at_least(1)
    .fixed()
    .rated(Low),
    define(
        Int,
        "broker.heartbeat.interval.ms",
        "2000",
        "Interval of heartbeats between a broker and the controller.",
    )
    .without_effect()
    .at_least(1)
    .fixed(),
    define(
        Int,
        "broker.session.timeout.ms",
        "9000",
        "Silence after which the controller fences a broker.",
    )
    .without_effect()
    .at_least(1)
    .fixed(),
    define(
        Int,
        "controller.quota.window.num",
        "11",
        "Samples of the quota on changes of metadata.",
    )
    .at_least(1)
    .fixed()
    .rated(Low),
    define(Int, "controller.quota.window.size.seconds", "1", "Length of such a sample.")
        .at_least(1)
        .fixed()
        .rated(Low),
    define(
        Int,
        "controller.quorum.election.backoff.max.ms",
        "1000",
        "Longest pause before a new election of the metadata quorum.",
    )
    .without_effect()
    .at_least(1)
    .fixed()
    .rated(High),
    define(
        Int,
        "controller.quorum.election.timeout.ms",
        "1000",
        "Time that an election of the metadata quorum waits for a leader.",
    )
    .without_effect()
    .at_least(1)
    .fixed()
    .rated(High),
    define(
        Int,
        "controller.quorum.fetch.timeout.ms",
        "2000",
        "Silence after which a voter of the metadata quorum starts an election.",
    )
    .without_effect()
    .at_least(1)
    .fixed()
    .rated(High),
    define(
        Int,
        "controller.quorum.request.timeout.ms",
        "2000",
        "Time that a request within the metadata quorum may take.",
    )
    .without_effect()
    .at_least(1)
    .fixed(),
    define(
        Int,
        "controller.quorum.retry.backoff.ms",
        "20",
        "Pause before such a request is tried again.",
    )
    .without_effect()
    .at_least(0)
    .fixed(),
    define(List, "controller.quorum.voters", "", "Voters of the metadata quorum.")
        .without_effect()
        .fixed()
        .rated(High),
    define(
        Int,
        "controller.socket.timeout.ms",
        "30000",
        "Time that a request to the controller may take.",
    )
    .without_effect()
    .at_least(1)
    .fixed(),
    define(List, "early.start.listeners", "", "Listeners that are opened before the others.")
        .without_effect()
        .unset()
        .fixed(),
    define(
        Long,
        "follower.replication.throttled.rate",
        "9223372036854775807",
        "Bytes a second that this broker's throttled replicas fetch.",
    )
    .without_effect()
    .at_least(0)
    .shown_if_set(),
    define(
        Int,
        "initial.broker.registration.timeout.ms",
        "60000",
        "Time that a broker may take to register at start.",
    )
    .without_effect()
    .at_least(1)
    .fixed(),
    define(
        String,
        "inter.broker.listener.name",
        "",
        "Listener for the traffic between brokers.",
    )
    .without_effect()
    .unset()
    .fixed(),
    define(
        Long,
        "leader.imbalance.check.interval.seconds",
        "300",
        "Pause between two looks whether preferred replicas lead.",
    )
    .without_effect()
    .at_least(1)
    .fixed()
    .rated(High),
    define(
        Long,
        "leader.replication.throttled.rate",
        "9223372036854775807",
        "Bytes a second that this broker gives to throttled replicas.",
    )
    .without_effect()
    .at_least(0)
    .shown_if_set(),
    define(
        Long,
        "log.cleaner.backoff.ms",
        "15000",
        "Pause of the cleaner when there is nothing to compact.",
    )
    .at_least(0),
    define(
        Long,
        CLEANER_DEDUPE_BUFFER_BYTES,
        "134217728",
        "Memory for keys while compacting, in bytes, of all cleaner threads together.",
    )
    .at_least(1 << 20),
    define(
        Boolean,
        "log.cleaner.enable",
        "true",
        "Whether topics with cleanup.policy=compact are compacted.",
    )
    .fixed(),
    define(
        Double,
        "log.cleaner.io.buffer.load.factor",
        "0.9",
        "How full the map of keys may get while compacting; it grows as needed.",
    )
    .without_effect(),
    define(
        Int,
        "log.cleaner.io.buffer.size",
        "524288",
        "Bytes that the cleaner reads at a time.",
    )
    .without_effect()
    .at_least(0),
    define(
        Double,
        CLEANER_IO_BYTES_PER_SECOND,
        "1.7976931348623157E308",
        "Bytes that the cleaner may read and write in a second.",
    ),
    define(Int, "log.cleaner.threads", "1", "Threads that compact.")
        .without_effect()
        .at_least(0),
    define(
        Long,
        "log.dir.failure.timeout.ms",
        "30000",
        "Time after which a broker with a failed log directory stops.",
    )
    .without_effect()
    .at_least(1)
    .fixed()
    .rated(Low),
    define(
        Int,
        "log.flush.offset.checkpoint.interval.ms",
        "60000",
        "Time between two writes of recovery points; they are written with the syncs.",
    )
    .without_effect()
    .at_least(0)
    .fixed(),
    define(
        Int,
        "log.flush.start.offset.checkpoint.interval.ms",
        "60000",
        "Time between two writes of log start offsets; they are written when they change.",
    )
    .without_effect()
    .at_least(0)
    .fixed(),
    define(
        String,
        "max.connections.per.ip.overrides",
        "",
        "Other limits than max.connections.per.ip for some addresses: ip:limit,…. Names of hosts are not looked up.",
    )
    .valid(AddressLimits),
    define(
        Long,
        "metadata.log.max.record.bytes.between.snapshots",
        "20971520",
        "Bytes of metadata records between two snapshots.",
    )
    .without_effect()
    .at_least(1)
    .fixed()
    .rated(High),
    define(
        Long,
        "metadata.log.max.snapshot.interval.ms",
        "3600000",
        "Longest time between two snapshots of the metadata.",
    )
    .without_effect()
    .at_least(0)
    .fixed()
    .rated(High),
    define(Int, "metadata.log.segment.bytes", "1073741824", "Segment size of the metadata log.")
        .without_effect()
        .at_least(1)
        .fixed()
        .rated(High),
    define(
        Long,
        "metadata.log.segment.ms",
        "604800000",
        "Time after which a segment of the metadata log is rolled.",
    )
    .without_effect()
    .at_least(1)
    .fixed()
    .rated(High),
    define(
        Int,
        "metadata.max.idle.interval.ms",
        "500",
        "Time after which an idle metadata log gets an empty record; it gets none.",
    )
    .without_effect()
    .at_least(0)
    .fixed()
    .rated(Low),
    define(
        Long,
        "metadata.max.retention.bytes",
        "104857600",
        "Bytes of metadata log and snapshots that are kept.",
    )
    .without_effect()
    .fixed()
    .rated(High),
    define(
        Long,
        "metadata.max.retention.ms",
        "604800000",
        "Time that metadata log and snapshots are kept.",
    )
    .without_effect()
    .fixed()
    .rated(High),
    define(Int, "metrics.num.samples", "2", "Samples of a metric.")
        .without_effect()
        .at_least(1)
        .fixed()
        .rated(Low),
    define(String, "metrics.recording.level", "INFO", "Detail of the metrics.")
        .without_effect()
        .fixed()
        .rated(Low),
    define(Long, "metrics.sample.window.ms", "30000", "Length of a metric's sample.")
        .without_effect()
        .at_least(1)
        .fixed()
        .rated(Low),
    define(
        Int,
        "num.replica.alter.log.dirs.threads",
        "",
        "Threads that move replicas between log directories.",
    )
    .without_effect()
    .unset()
    .fixed(),
    define(
        Long,
        "queued.max.request.bytes",
        "-1",
        "Bytes of requests that may wait; -1 is no limit of their own.",
    )
    .without_effect()
    .fixed(),
    define(Int, "quota.window.num", "11", "Samples of client quotas.")
        .at_least(1)
        .fixed()
        .rated(Low),
    define(Int, "quota.window.size.seconds", "1", "Length of such a sample.")
        .at_least(1)
        .fixed()
        .rated(Low),
    define(
        Int,
        "remote.fetch.max.wait.ms",
        "500",
        "Longest time that a fetch waits for the tier.",
    )
    .without_effect()
    .at_least(1),
    define(
        Long,
        "remote.list.offsets.request.timeout.ms",
        "30000",
        "Time that a search by time in the tier may take.",
    )
    .without_effect()
    .at_least(1),
    define(
        Long,
        "remote.log.index.file.cache.total.size.bytes",
        "1073741824",
        "Bytes of indexes of the tier that are kept locally.",
    )
    .without_effect()
    .at_least(1)
    .rated(Low),
    define(
        Int,
        "remote.log.manager.copier.thread.pool.size",
        "10",
        "Uploads to the tier at a time.",
    )
    .without_effect()
    .at_least(1),
    define(
        Long,
        "remote.log.manager.copy.max.bytes.per.second",
        "9223372036854775807",
        "Bytes that may be uploaded in a second.",
    )
    .without_effect()
    .at_least(1),
    define(
        Int,
        "remote.log.manager.copy.quota.window.num",
        "11",
        "Samples of the upload quota.",
    )
    .without_effect()
    .at_least(1)
    .fixed(),
    define(
        Int,
        "remote.log.manager.copy.quota.window.size.seconds",
        "1",
        "Length of such a sample.",
    )
    .without_effect()
    .at_least(1)
    .fixed(),
    define(
        Int,
        "remote.log.manager.expiration.thread.pool.size",
        "10",
        "Partitions of the tier whose retention runs at a time.",
    )
    .without_effect()
    .at_least(1),
    define(
        Long,
        "remote.log.manager.fetch.max.bytes.per.second",
        "9223372036854775807",
        "Bytes that may be read from the tier in a second.",
    )
    .without_effect()
    .at_least(1),
    define(Int, "remote.log.manager.fetch.quota.window.num", "11", "Samples of the read quota.")
        .without_effect()
        .at_least(1)
        .fixed(),
    define(
        Int,
        "remote.log.manager.fetch.quota.window.size.seconds",
        "1",
        "Length of such a sample.",
    )
    .without_effect()
    .at_least(1)
    .fixed(),
    define(
        Int,
        "remote.log.manager.follower.thread.pool.size",
        "2",
        "Threads for the tier's work of followers; they have none.",
    )
    .without_effect()
    .at_least(1),
    define(
        Int,
        "remote.log.manager.thread.pool.size",
        "2",
        "Threads that plan the tier's work; each partition of the tier has a task of its own.",
    )
    .without_effect()
    .at_least(1)
    .fixed(),
    define(
        Int,
        "remote.log.reader.max.pending.tasks",
        "100",
        "Reads of the tier that may wait.",
    )
    .without_effect()
    .at_least(1)
    .fixed(),
    define(Int, "remote.log.reader.threads", "10", "Reads of the tier at a time.")
        .without_effect()
        .at_least(1),
    define(
        Long,
        "replica.alter.log.dirs.io.max.bytes.per.second",
        "9223372036854775807",
        "Bytes a second at which replicas move between log directories.",
    )
    .without_effect()
    .at_least(0)
    .shown_if_set(),
    define(Int, "replica.fetch.backoff.ms", "1000", "Pause of a follower after a failed fetch.")
        .without_effect()
        .at_least(0)
        .fixed(),
    define(Int, "replica.fetch.response.max.bytes", "10485760", "Bytes of a follower's fetch.")
        .without_effect()
        .at_least(0)
        .fixed(),
    define(
        Long,
        "replica.high.watermark.checkpoint.interval.ms",
        "5000",
        "Pause between two writes of high watermarks.",
    )
    .without_effect()
    .fixed()
    .rated(High),
    define(
        Int,
        "replica.socket.receive.buffer.bytes",
        "65536",
        "Receive buffer of a follower's connection.",
    )
    .without_effect()
    .fixed()
    .rated(High),
    define(
        Int,
        "replica.socket.timeout.ms",
        "30000",
        "Time that a follower's request may take.",
    )
    .without_effect()
    .fixed()
    .rated(High),
    define(Int, "replication.quota.window.num", "11", "Samples of replication quotas.")
        .without_effect()
        .at_least(1)
        .fixed()
        .rated(Low),
    define(Int, "replication.quota.window.size.seconds", "1", "Length of such a sample.")
        .without_effect()
        .at_least(1)
        .fixed()
        .rated(Low),
    define(
        Int,
        "telemetry.max.bytes",
        "1048576",
        "Bytes of metrics that a client may push at a time, decompressed.",
    )
    .valid(Between(1, i32::MAX as i64))
    .fixed(),
];
