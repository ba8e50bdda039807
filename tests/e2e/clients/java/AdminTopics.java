import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.AlterConfigOp.OpType;
import org.apache.kafka.clients.admin.AlterConfigsOptions;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConfigEntry.ConfigSource;
import org.apache.kafka.clients.admin.CreatePartitionsOptions;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.DescribeTopicsOptions;
import org.apache.kafka.clients.admin.ListTopicsOptions;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionReplica;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.ElectionNotNeededException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicaAssignmentException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.LogDirNotFoundException;
import org.apache.kafka.common.errors.NoReassignmentInProgressException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicIdException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;

/** The admin client's methods on topics: their partitions, records, offsets, configurations and replicas. */
final class AdminTopics {
    private final Broker broker;
    private final Admin admin;

    private AdminTopics(Broker broker) {
        this.broker = broker;
        this.admin = broker.admin;
    }

    static void add(Checks checks, Broker broker) {
        AdminTopics topics = new AdminTopics(broker);
        checks.add("admin", "createTopics tells id, partitions, replication and configuration", topics::create);
        checks.add("admin", "createTopics places replicas as told", topics::createAssigned);
        checks.add("admin", "createTopics with validateOnly creates nothing", topics::createValidateOnly);
        checks.add("admin", "createTopics refuses what is wrong with it", topics::createRefused);
        checks.add("admin", "listTopics lists topics with their ids, internal ones if asked", topics::list);
        checks.add("admin", "describeTopics describes by name and by id", topics::describe);
        checks.add("admin", "deleteTopics deletes by name and by id", topics::delete);
        checks.add("admin", "createPartitions adds partitions, and refuses to remove some", topics::createPartitions);
        checks.add("admin", "deleteRecords deletes up to an offset, up to the end, and not beyond it", topics::deleteRecords);
        checks.add("admin", "listOffsets finds the earliest, the latest, a time's and the newest record's offset", topics::listOffsets);
        checks.add("admin", "listOffsets knows the tiers' offsets", topics::listTieredOffsets);
        checks.add("admin", "describeConfigs tells a topic's values, their sources, synonyms and documentation", topics::describeConfigs);
        checks.add("admin", "incrementalAlterConfigs sets, appends, subtracts and deletes", topics::alterConfigs);
        checks.add("admin", "incrementalAlterConfigs refuses unknown names and bad values, and changes nothing with validateOnly",
            topics::alterConfigsRefused);
        checks.add("admin", "electLeaders says that no election is needed", topics::electLeaders);
        checks.add("admin", "alterPartitionReassignments and listPartitionReassignments on one node", topics::reassignments);
        checks.add("admin", "describeLogDirs and describeReplicaLogDirs tell where a partition is and how large", topics::logDirs);
        checks.add("admin", "alterReplicaLogDirs moves to where it is, and not to a directory that is none", topics::alterReplicaLogDirs);
    }

    private int node() throws Exception {
        return Expect.got(admin.describeCluster().nodes()).iterator().next().id();
    }

    private NewTopic topic(String what) {
        return new NewTopic(broker.name(what), 1, (short) 1);
    }

    private void create() throws Exception {
        NewTopic topic = new NewTopic(broker.name("created"), Optional.of(3), Optional.empty()).configs(Map.of("retention.ms", "12345"));
        var created = admin.createTopics(List.of(topic));
        Expect.got(created.all());
        Expect.equal("partitions", 3, Expect.got(created.numPartitions(topic.name())));
        Expect.equal("replicas", 1, Expect.got(created.replicationFactor(topic.name())));
        Expect.that("an id", !Expect.got(created.topicId(topic.name())).equals(Uuid.ZERO_UUID), "zero");
        ConfigEntry entry = Expect.got(created.config(topic.name())).get("retention.ms");
        Expect.equal("its configuration", "12345 DYNAMIC_TOPIC_CONFIG", entry.value() + " " + entry.source());
    }

    private void createAssigned() throws Exception {
        int node = node();
        String name = broker.name("assigned");
        Expect.got(admin.createTopics(List.of(new NewTopic(name, Map.of(0, List.of(node), 1, List.of(node))))).all());
        Expect.equal("partitions", 2, describe(name).partitions().size());
        Expect.equal("leader", node, describe(name).partitions().get(0).leader().id());
        NewTopic wrong = new NewTopic(broker.name("misassigned"), Map.of(0, List.of(node + 1000)));
        Expect.failure("a node that is not there", InvalidReplicaAssignmentException.class, () -> admin.createTopics(List.of(wrong)).all());
    }

    private void createValidateOnly() throws Exception {
        NewTopic topic = topic("validated");
        Expect.got(admin.createTopics(List.of(topic), new CreateTopicsOptions().validateOnly(true)).all());
        Expect.that("it is not there", !Expect.got(admin.listTopics().names()).contains(topic.name()), "it is");
    }

    private void createRefused() throws Exception {
        NewTopic there = topic("there");
        Expect.got(admin.createTopics(List.of(there)).all());
        Expect.failure("one that is there", TopicExistsException.class, () -> admin.createTopics(List.of(there)).all());
        Expect.failure("no partitions", InvalidPartitionsException.class,
            () -> admin.createTopics(List.of(new NewTopic(broker.name("none"), 0, (short) 1))).all());
        Expect.failure("too many replicas", InvalidReplicationFactorException.class,
            () -> admin.createTopics(List.of(new NewTopic(broker.name("replicas"), 1, (short) 1000))).all());
        Expect.failure("a bad name", InvalidTopicException.class,
            () -> admin.createTopics(List.of(new NewTopic("no spaces please", 1, (short) 1))).all());
        Expect.failure("an unknown configuration", InvalidConfigurationException.class,
            () -> admin.createTopics(List.of(topic("config").configs(Map.of("no.such.thing", "1")))).all());
        Expect.failure("a bad value", InvalidConfigurationException.class,
            () -> admin.createTopics(List.of(topic("value").configs(Map.of("retention.ms", "soon")))).all());
        NewTopic good = topic("good");
        var mixed = admin.createTopics(List.of(good, there));
        Expect.got(mixed.values().get(good.name()));
        Expect.failure("the wrong one of two", TopicExistsException.class, () -> mixed.values().get(there.name()));
    }

    private void list() throws Exception {
        String name = broker.topic("listed", 1);
        try (var consumer = broker.consumer("group.id", broker.name("makes-offsets"))) {
            consumer.commitSync(Map.of(new TopicPartition(name, 0), new OffsetAndMetadata(0)));
        }
        var listing = Expect.got(admin.listTopics().namesToListings()).get(name);
        Expect.equal("its id", describe(name).topicId(), listing.topicId());
        Expect.that("no internal ones", !Expect.got(admin.listTopics().names()).contains("__consumer_offsets"), "internal ones");
        var all = Expect.got(admin.listTopics(new ListTopicsOptions().listInternal(true)).namesToListings());
        Expect.that("internal ones", all.containsKey("__consumer_offsets") && all.get("__consumer_offsets").isInternal(), all.keySet());
    }

    private TopicDescription describe(String name) throws Exception {
        return Expect.got(admin.describeTopics(List.of(name)).allTopicNames()).get(name);
    }

    private void describe() throws Exception {
        String name = broker.topic("described", 2);
        var options = new DescribeTopicsOptions().includeAuthorizedOperations(true);
        TopicDescription description = Expect.got(admin.describeTopics(List.of(name), options).allTopicNames()).get(name);
        Expect.equal("partitions", 2, description.partitions().size());
        Expect.equal("internal", false, description.isInternal());
        var partition = description.partitions().get(0);
        Expect.equal("replicas", List.of(partition.leader()), partition.replicas());
        Expect.equal("in sync", List.of(partition.leader()), partition.isr());
        Expect.equal("out of sync for election", List.of(), partition.elr());
        Set<AclOperation> operations = Set.of(AclOperation.READ, AclOperation.WRITE, AclOperation.CREATE, AclOperation.DELETE,
            AclOperation.ALTER, AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS, AclOperation.ALTER_CONFIGS);
        Expect.equal("what everybody may do", operations, description.authorizedOperations());
        Uuid id = description.topicId();
        var byId = admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).allTopicIds();
        Expect.equal("by id", name, Expect.got(byId).get(id).name());
        Expect.failure("an unknown name", UnknownTopicOrPartitionException.class,
            () -> admin.describeTopics(List.of(broker.name("unknown"))).allTopicNames());
        Expect.failure("an unknown id", UnknownTopicIdException.class,
            () -> admin.describeTopics(TopicCollection.ofTopicIds(List.of(Uuid.randomUuid()))).allTopicIds());
    }

    private void delete() throws Exception {
        String byName = broker.topic("by-name", 1);
        String byId = broker.topic("by-id", 1);
        Uuid id = describe(byId).topicId();
        Expect.got(admin.deleteTopics(List.of(byName)).all());
        Expect.got(admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all());
        Expect.until("they are gone", () -> {
            Set<String> names = Expect.got(admin.listTopics().names());
            return !names.contains(byName) && !names.contains(byId);
        }, () -> "still there");
        Expect.failure("again by name", UnknownTopicOrPartitionException.class, () -> admin.deleteTopics(List.of(byName)).all());
        Expect.failure("again by id", UnknownTopicIdException.class,
            () -> admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all());
    }

    private void createPartitions() throws Exception {
        String name = broker.topic("more", 2);
        NewPartitions three = NewPartitions.increaseTo(3);
        Expect.got(admin.createPartitions(Map.of(name, three), new CreatePartitionsOptions().validateOnly(true)).all());
        Expect.equal("partitions after validateOnly", 2, describe(name).partitions().size());
        Expect.got(admin.createPartitions(Map.of(name, three)).all());
        Expect.equal("partitions", 3, describe(name).partitions().size());
        Expect.failure("fewer", InvalidPartitionsException.class,
            () -> admin.createPartitions(Map.of(name, NewPartitions.increaseTo(1))).all());
        Expect.failure("as many", InvalidPartitionsException.class, () -> admin.createPartitions(Map.of(name, three)).all());
        Expect.failure("of an unknown topic", UnknownTopicOrPartitionException.class,
            () -> admin.createPartitions(Map.of(broker.name("unknown"), three)).all());
    }

    private void deleteRecords() throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic("records", 1), 0);
        broker.fill(partition, Broker.values("v", 10));
        for (long[] expected : new long[][] {{4, 4}, {2, 4}, {-1, 10}}) {
            var deleted = admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(expected[0])));
            long beginning = Expect.got(deleted.lowWatermarks().get(partition)).lowWatermark();
            Expect.equal("the beginning after " + expected[0], expected[1], beginning);
        }
        Expect.failure("beyond the end", OffsetOutOfRangeException.class,
            () -> admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(11))).all());
    }

    private long offset(TopicPartition partition, OffsetSpec spec) throws Exception {
        return Expect.got(admin.listOffsets(Map.of(partition, spec)).partitionResult(partition)).offset();
    }

    private void listOffsets() throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic("offsets", 1), 0);
        Expect.equal("the newest of an empty one", -1L, offset(partition, OffsetSpec.maxTimestamp()));
        try (var producer = broker.producer()) {
            for (long time : new long[] {1000, 3000, 2000}) {
                Expect.got(producer.send(new ProducerRecord<>(partition.topic(), 0, time, null, "v")));
            }
        }
        Expect.equal("earliest", 0L, offset(partition, OffsetSpec.earliest()));
        Expect.equal("latest", 3L, offset(partition, OffsetSpec.latest()));
        Expect.equal("at 1500", 1L, offset(partition, OffsetSpec.forTimestamp(1500)));
        Expect.equal("at 9000", -1L, offset(partition, OffsetSpec.forTimestamp(9000)));
        var newest = Expect.got(admin.listOffsets(Map.of(partition, OffsetSpec.maxTimestamp())).partitionResult(partition));
        Expect.equal("the newest", "1 at 3000", newest.offset() + " at " + newest.timestamp());
        Expect.equal("its leader epoch", Optional.of(0), newest.leaderEpoch());
    }

    private void listTieredOffsets() throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic("tiers", 1), 0);
        broker.fill(partition, "v", "w");
        Expect.equal("earliest on the node", 0L, offset(partition, OffsetSpec.earliestLocal()));
        Expect.equal("latest in the tier", -1L, offset(partition, OffsetSpec.latestTiered()));
        Expect.equal("earliest to be uploaded", -1L, offset(partition, OffsetSpec.earliestPendingUpload()));
    }

    private static ConfigResource resource(String topic) {
        return new ConfigResource(ConfigResource.Type.TOPIC, topic);
    }

    private Config config(String topic) throws Exception {
        return Expect.got(admin.describeConfigs(List.of(resource(topic))).all()).get(resource(topic));
    }

    private void describeConfigs() throws Exception {
        String name = broker.topic("config", 1, "segment.bytes", "2000000");
        var options = new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true);
        Config config = Expect.got(admin.describeConfigs(List.of(resource(name)), options).all()).get(resource(name));
        ConfigEntry set = config.get("segment.bytes");
        Expect.equal("one that is set", "2000000 DYNAMIC_TOPIC_CONFIG INT", set.value() + " " + set.source() + " " + set.type());
        Expect.equal("its synonyms", List.of("segment.bytes", "log.segment.bytes"),
            set.synonyms().stream().map(ConfigEntry.ConfigSynonym::name).toList());
        Expect.that("its documentation", set.documentation() != null && set.documentation().length() > 20, set.documentation());
        ConfigEntry usual = config.get("cleanup.policy");
        Expect.equal("one that is not set", "delete DEFAULT_CONFIG LIST", usual.value() + " " + usual.source() + " " + usual.type());
        Expect.equal("flags", "false false", usual.isSensitive() + " " + usual.isReadOnly());
        List<String> missing = new ArrayList<>();
        for (String wanted : List.of("cleanup.policy", "compression.type", "delete.retention.ms", "file.delete.delay.ms", "flush.messages",
                "flush.ms", "index.interval.bytes", "local.retention.bytes", "local.retention.ms", "max.compaction.lag.ms",
                "max.message.bytes", "message.timestamp.after.max.ms", "message.timestamp.before.max.ms", "message.timestamp.type",
                "min.cleanable.dirty.ratio", "min.compaction.lag.ms", "min.insync.replicas", "preallocate", "remote.storage.enable",
                "retention.bytes", "retention.ms", "segment.bytes", "segment.index.bytes", "segment.jitter.ms", "segment.ms",
                "unclean.leader.election.enable")) {
            if (config.get(wanted) == null) {
                missing.add(wanted);
            }
        }
        Expect.equal("configurations that are missing", List.of(), missing);
        Expect.failure("of an unknown topic", UnknownTopicOrPartitionException.class,
            () -> admin.describeConfigs(List.of(resource(broker.name("unknown")))).all());
    }

    private void alter(String topic, String name, String value, OpType operation, boolean validateOnly) throws Exception {
        Collection<AlterConfigOp> one = List.of(new AlterConfigOp(new ConfigEntry(name, value), operation));
        var operations = Map.of(resource(topic), one);
        Expect.got(admin.incrementalAlterConfigs(operations, new AlterConfigsOptions().validateOnly(validateOnly)).all());
    }

    private void alterConfigs() throws Exception {
        String topic = broker.topic("altered", 1);
        alter(topic, "retention.ms", "777", OpType.SET, false);
        Expect.until("it is set", () -> config(topic).get("retention.ms").value().equals("777"), () -> config(topic).get("retention.ms"));
        alter(topic, "retention.ms", null, OpType.DELETE, false);
        Expect.until("it is deleted", () -> config(topic).get("retention.ms").source() == ConfigSource.DEFAULT_CONFIG,
            () -> config(topic).get("retention.ms"));
        alter(topic, "cleanup.policy", "compact", OpType.APPEND, false);
        Expect.until("it is appended", () -> config(topic).get("cleanup.policy").value().equals("delete,compact"),
            () -> config(topic).get("cleanup.policy"));
        alter(topic, "cleanup.policy", "delete", OpType.SUBTRACT, false);
        Expect.until("it is subtracted", () -> config(topic).get("cleanup.policy").value().equals("compact"),
            () -> config(topic).get("cleanup.policy"));
    }

    private void alterConfigsRefused() throws Exception {
        String topic = broker.topic("unaltered", 1);
        alter(topic, "retention.ms", "888", OpType.SET, true);
        Expect.equal("after validateOnly", "604800000", config(topic).get("retention.ms").value());
        for (String[] bad : new String[][] {{"retention.ms", "soon"}, {"no.such.thing", "1"}, {"cleanup.policy", "shred"}}) {
            Expect.failure(bad[0] + "=" + bad[1], InvalidConfigurationException.class, () -> {
                alter(topic, bad[0], bad[1], OpType.SET, false);
                return null;
            });
        }
        Expect.failure("of an unknown topic", UnknownTopicOrPartitionException.class, () -> {
            alter(broker.name("unknown"), "retention.ms", "1", OpType.SET, false);
            return null;
        });
    }

    private void electLeaders() throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic("elected", 1), 0);
        for (ElectionType type : ElectionType.values()) {
            Expect.failure(type.name(), ElectionNotNeededException.class, () -> {
                var answer = Expect.got(admin.electLeaders(type, Set.of(partition)).partitions()).get(partition);
                throw (Exception) answer.orElseThrow();
            });
        }
        TopicPartition unknown = new TopicPartition(broker.name("unknown"), 0);
        Expect.failure("of an unknown topic", UnknownTopicOrPartitionException.class,
            () -> admin.electLeaders(ElectionType.PREFERRED, Set.of(unknown)).all());
    }

    private void reassignments() throws Exception {
        int node = node();
        TopicPartition partition = new TopicPartition(broker.topic("reassigned", 1), 0);
        var here = Optional.of(new NewPartitionReassignment(List.of(node)));
        Expect.got(admin.alterPartitionReassignments(Map.of(partition, here)).all());
        Expect.equal("what is going on", Map.of(), Expect.got(admin.listPartitionReassignments(Set.of(partition)).reassignments()));
        Expect.equal("anywhere", Map.of(), Expect.got(admin.listPartitionReassignments().reassignments()));
        Expect.failure("cancelling none", NoReassignmentInProgressException.class,
            () -> admin.alterPartitionReassignments(Map.of(partition, Optional.empty())).all());
        Expect.failure("to a node that is not there", InvalidReplicaAssignmentException.class, () -> admin.alterPartitionReassignments(
            Map.of(partition, Optional.of(new NewPartitionReassignment(List.of(node + 1000))))).all());
    }

    private void logDirs() throws Exception {
        int node = node();
        TopicPartition partition = new TopicPartition(broker.topic("dirs", 1), 0);
        broker.fill(partition, "x".repeat(5000));
        var dirs = Expect.got(admin.describeLogDirs(List.of(node)).allDescriptions()).get(node);
        var holding = dirs.entrySet().stream().filter(dir -> dir.getValue().replicaInfos().containsKey(partition)).toList();
        Expect.equal("directories with the partition", 1, holding.size());
        var dir = holding.get(0).getValue();
        Expect.equal("error", null, dir.error());
        Expect.that("space is known", dir.totalBytes().orElse(0) > dir.usableBytes().orElse(-1), dir);
        var replica = dir.replicaInfos().get(partition);
        Expect.that("size", replica.size() > 0, replica);
        Expect.equal("lag and future", "0 false", replica.offsetLag() + " " + replica.isFuture());
        TopicPartitionReplica here = new TopicPartitionReplica(partition.topic(), 0, node);
        var info = Expect.got(admin.describeReplicaLogDirs(List.of(here)).all()).get(here);
        Expect.equal("the same by replica", holding.get(0).getKey(), info.getCurrentReplicaLogDir());
        Expect.equal("no future one", null, info.getFutureReplicaLogDir());
    }

    private void alterReplicaLogDirs() throws Exception {
        int node = node();
        String topic = broker.topic("moved", 1);
        TopicPartitionReplica here = new TopicPartitionReplica(topic, 0, node);
        String dir = Expect.got(admin.describeReplicaLogDirs(List.of(here)).all()).get(here).getCurrentReplicaLogDir();
        Expect.got(admin.alterReplicaLogDirs(Map.of(here, dir)).all());
        Expect.failure("a directory that is none of the broker's", LogDirNotFoundException.class,
            () -> admin.alterReplicaLogDirs(Map.of(here, "/no/such/directory")).all());
    }
}
