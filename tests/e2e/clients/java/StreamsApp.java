import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicReference;

import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.StreamsGroupDescription;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.state.BuiltInDslStoreSuppliers;

/** Kafka Streams: an application that counts words exactly once, with repartition and changelog topics. */
final class StreamsApp {
    private static final int RECORDS = 600;
    private static final int PARTITIONS = 3;
    private static final String STREAMS = "streams";

    private final Broker broker;

    private StreamsApp(Broker broker) {
        this.broker = broker;
    }

    static void add(Checks checks, Broker broker) {
        StreamsApp all = new StreamsApp(broker);
        checks.add("streams", "two instances of an application count every word exactly once, though one is replaced",
            () -> all.countsExactlyOnce("classic"));
        checks.add("streams", "streams groups: two instances count every word exactly once, though one is replaced",
            () -> all.countsExactlyOnce("streams"));
    }

    private void countsExactlyOnce(String protocol) throws Exception {
        String input = broker.topic("words", PARTITIONS);
        String output = broker.topic("counts", PARTITIONS);
        String application = broker.name("application");
        if (protocol.equals(STREAMS)) {
            var resource = new ConfigResource(ConfigResource.Type.GROUP, application);
            var standbys = new AlterConfigOp(new ConfigEntry("streams.num.standby.replicas", "1"), AlterConfigOp.OpType.SET);
            Expect.got(broker.admin.incrementalAlterConfigs(Map.of(resource, List.of(standbys))).all());
        }
        AtomicReference<Throwable> failure = new AtomicReference<>();
        Path directory = Files.createTempDirectory("streams");
        List<KafkaStreams> instances = new ArrayList<>();
        try {
            instances.add(start(application, protocol, input, output, directory.resolve("one"), failure));
            instances.add(start(application, protocol, input, output, directory.resolve("two"), failure));
            send(input, 0, RECORDS / 2);
            await(output, RECORDS / 2, failure);
            if (protocol.equals(STREAMS)) {
                describes(application);
            }
            instances.remove(0).close(Duration.ofSeconds(10));
            send(input, RECORDS / 2, RECORDS);
            instances.add(start(application, protocol, input, output, directory.resolve("three"), failure));
            Map<String, Long> counts = await(output, RECORDS, failure);
            Expect.equal("the count of a word that every tenth record has", (long) RECORDS / 10, counts.get("word7"));
        } finally {
            instances.forEach(instance -> instance.close(Duration.ofSeconds(10)));
        }
    }

    /** The group once it has come to rest: every task is active once, and copied once where it has state. */
    private void describes(String application) throws Exception {
        StreamsGroupDescription group;
        do {
            group = Expect.got(broker.admin.describeStreamsGroups(List.of(application)).all()).get(application);
        } while (group.groupState() != GroupState.STABLE || group.members().size() < 2);
        Expect.equal("subtopologies", 2, group.subtopologies().size());
        List<String> active = new ArrayList<>();
        List<String> standby = new ArrayList<>();
        group.members().forEach(member -> {
            member.assignment().activeTasks().forEach(ids -> ids.partitions().forEach(p -> active.add(ids.subtopologyId() + "_" + p)));
            member.assignment().standbyTasks().forEach(ids -> ids.partitions().forEach(p -> standby.add(ids.subtopologyId() + "_" + p)));
        });
        active.sort(null);
        standby.sort(null);
        Expect.equal("active tasks", List.of("0_0", "0_1", "0_2", "1_0", "1_1", "1_2"), active);
        Expect.equal("standby tasks", List.of("1_0", "1_1", "1_2"), standby);
    }

    private KafkaStreams start(String application, String protocol, String input, String output, Path state,
            AtomicReference<Throwable> failure) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
        settings.putAll(broker.settings(Map.of()));
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 100);
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, state.toString());
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        settings.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.StringSerde.class);
        // No native code: the default store is RocksDB.
        settings.put(StreamsConfig.DSL_STORE_SUPPLIERS_CLASS_CONFIG, BuiltInDslStoreSuppliers.InMemoryDslStoreSuppliers.class);
        settings.put(StreamsConfig.GROUP_PROTOCOL_CONFIG, protocol);
        if (!protocol.equals(STREAMS)) {
            settings.put(StreamsConfig.consumerPrefix("session.timeout.ms"), 6000);
            settings.put(StreamsConfig.consumerPrefix("heartbeat.interval.ms"), 500);
        }
        StreamsBuilder builder = new StreamsBuilder();
        builder.<String, String>stream(input)
            .flatMapValues(text -> List.of(text.split(" ")))
            .groupBy((key, word) -> word, Grouped.as("words"))
            .count()
            .toStream()
            .mapValues(String::valueOf)
            .to(output);
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        streams.setUncaughtExceptionHandler(thrown -> {
            failure.compareAndSet(null, thrown);
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.start();
        return streams;
    }

    private void send(String topic, int from, int to) throws Exception {
        try (var producer = broker.producer()) {
            for (int i = from; i < to; i++) {
                producer.send(new ProducerRecord<>(topic, "key" + i, "all word" + i % 10));
            }
        }
    }

    /** Every count that was committed, until that of the word in all records is there. Each must be told once. */
    private Map<String, Long> await(String output, long expected, AtomicReference<Throwable> failure) throws Exception {
        Map<String, Long> counts = new HashMap<>();
        try (var reader = broker.consumer("isolation.level", "read_committed", "auto.offset.reset", "earliest")) {
            List<TopicPartition> partitions = new ArrayList<>();
            for (int i = 0; i < PARTITIONS; i++) {
                partitions.add(new TopicPartition(output, i));
            }
            reader.assign(partitions);
            reader.seekToBeginning(partitions);
            while (counts.getOrDefault("all", 0L) < expected) {
                if (failure.get() != null) {
                    throw new AssertionError("the application failed", failure.get());
                }
                reader.poll(Duration.ofMillis(200)).forEach(record -> {
                    long count = Long.parseLong(record.value());
                    Expect.equal("the next count of " + record.key(), counts.getOrDefault(record.key(), 0L) + 1, count);
                    counts.put(record.key(), count);
                });
            }
        }
        return counts;
    }
}
