import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** The broker under test as checks see it: clients of it, names nobody else uses, and the few things that most of them do. */
final class Broker {
    static final Duration BRIEF = Duration.ofMillis(50);

    /** One admin client for all checks, which notes the methods that were called. */
    final Admin admin;
    /** The names of the methods of Admin called so far. */
    final Set<String> called = ConcurrentHashMap.newKeySet();
    private final String bootstrap;
    private final String prefix;
    private final AtomicInteger names = new AtomicInteger();

    Broker(String bootstrap, String prefix) {
        this.bootstrap = bootstrap;
        this.prefix = prefix;
        this.admin = noting(Admin.create(settings(Map.of())));
    }

    Map<String, Object> settings(Map<String, Object> defaults, Object... overrides) {
        Map<String, Object> all = new HashMap<>(defaults);
        all.put("bootstrap.servers", bootstrap);
        for (int i = 0; i < overrides.length; i += 2) {
            all.put((String) overrides[i], overrides[i + 1]);
        }
        return all;
    }

    /** A name for a topic, a group or a transactional id that nothing else has. */
    String name(String what) {
        return prefix + what + "-" + names.incrementAndGet();
    }

    /** A new topic with these settings: name, value, name, value… */
    String topic(String what, int partitions, String... config) throws Exception {
        String name = name(what);
        create(name, partitions, config);
        return name;
    }

    void create(String name, int partitions, String... config) throws Exception {
        Map<String, String> configs = new HashMap<>();
        for (int i = 0; i < config.length; i += 2) {
            configs.put(config[i], config[i + 1]);
        }
        Expect.got(admin.createTopics(List.of(new NewTopic(name, partitions, (short) 1).configs(configs))).all());
        for (int partition = 0; partition < partitions; partition++) {
            awaitLeader(new TopicPartition(name, partition));
        }
    }

    /** Sets one configuration of a topic, a group or a broker. */
    void configure(ConfigResource.Type type, String name, String key, String value) throws Exception {
        AlterConfigOp set = new AlterConfigOp(new ConfigEntry(key, value), AlterConfigOp.OpType.SET);
        Expect.got(admin.incrementalAlterConfigs(Map.of(new ConfigResource(type, name), List.of(set))).all());
    }

    KafkaProducer<String, String> producer(Object... overrides) {
        Map<String, Object> all = settings(Map.of("max.block.ms", 20000, "delivery.timeout.ms", 20000,
            "request.timeout.ms", 10000), overrides);
        return new KafkaProducer<>(all, new StringSerializer(), new StringSerializer());
    }

    KafkaProducer<String, String> transactional(String id, Object... overrides) {
        List<Object> all = new ArrayList<>(List.of("transactional.id", id));
        all.addAll(List.of(overrides));
        return producer(all.toArray());
    }

    /** A consumer that reads from the beginning and commits nothing by itself. */
    KafkaConsumer<String, String> consumer(Object... overrides) {
        Map<String, Object> defaults = Map.of("auto.offset.reset", "earliest", "enable.auto.commit", false);
        return new KafkaConsumer<>(settings(defaults, overrides), new StringDeserializer(), new StringDeserializer());
    }

    /** A member of a group, which notices soon when others come and go. */
    KafkaConsumer<String, String> member(String group, Object... overrides) {
        List<Object> all = new ArrayList<>(List.of("group.id", group, "metadata.max.age.ms", 1000));
        all.addAll(List.of(overrides));
        if (!all.contains("group.protocol")) {
            all.addAll(List.of("session.timeout.ms", 6000, "heartbeat.interval.ms", 300));
        }
        return consumer(all.toArray());
    }

    /** A member of a share group. */
    KafkaShareConsumer<String, String> share(String group, Object... overrides) {
        Map<String, Object> all = settings(Map.of("group.id", group), overrides);
        return new KafkaShareConsumer<>(all, new StringDeserializer(), new StringDeserializer());
    }

    /** Sends values to a partition, without keys, and waits for them. */
    void fill(TopicPartition partition, String... values) throws Exception {
        try (KafkaProducer<String, String> producer = producer()) {
            sendAll(producer, partition, values);
        }
    }

    static List<RecordMetadata> sendAll(KafkaProducer<String, String> producer, TopicPartition partition, String... values)
            throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (String value : values) {
            sent.add(producer.send(new ProducerRecord<>(partition.topic(), partition.partition(), null, value)));
        }
        producer.flush();
        List<RecordMetadata> stored = new ArrayList<>();
        for (Future<RecordMetadata> one : sent) {
            stored.add(Expect.got(one));
        }
        return stored;
    }

    /** Values as many as wanted: name-0, name-1, … */
    static String[] values(String name, int count) {
        String[] values = new String[count];
        for (int i = 0; i < count; i++) {
            values[i] = name + "-" + i;
        }
        return values;
    }

    /** Polls until so many records came. */
    static List<ConsumerRecord<String, String>> poll(Consumer<String, String> consumer, int count) throws Exception {
        List<ConsumerRecord<String, String>> records = new ArrayList<>();
        Expect.until(count + " records come", () -> {
            consumer.poll(BRIEF).forEach(records::add);
            return records.size() >= count;
        }, records::size);
        return records;
    }

    /** All values of a partition up to its end as this isolation level has it. */
    List<String> read(TopicPartition partition, String isolation) throws Exception {
        return values(records(partition, isolation));
    }

    List<ConsumerRecord<String, String>> records(TopicPartition partition, String isolation) throws Exception {
        try (Consumer<String, String> consumer = consumer("isolation.level", isolation)) {
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            long end = consumer.endOffsets(List.of(partition)).get(partition);
            List<ConsumerRecord<String, String>> records = new ArrayList<>();
            Expect.until("a " + isolation + " reader gets to the end " + end, () -> {
                consumer.poll(BRIEF).forEach(records::add);
                return consumer.position(partition) >= end;
            }, () -> "position " + consumer.position(partition) + " after " + values(records));
            return records;
        }
    }

    /** A partition's end for readers with this isolation. */
    long end(TopicPartition partition, IsolationLevel isolation) throws Exception {
        var latest = admin.listOffsets(Map.of(partition, OffsetSpec.latest()), new ListOffsetsOptions(isolation));
        return Expect.got(latest.partitionResult(partition)).offset();
    }

    /** Waits for the markers of a partition's transactions, which are written a little after their ends were answered. */
    void awaitTransactions(TopicPartition partition) throws Exception {
        Expect.until("the transactions are over", () -> end(partition, IsolationLevel.READ_COMMITTED)
            == end(partition, IsolationLevel.READ_UNCOMMITTED), () -> end(partition, IsolationLevel.READ_COMMITTED));
    }

    /** What was committed to a partition once no transaction is open. */
    List<String> committed(TopicPartition partition) throws Exception {
        awaitTransactions(partition);
        return read(partition, "read_committed");
    }

    static List<String> values(Collection<ConsumerRecord<String, String>> records) {
        return records.stream().map(ConsumerRecord::value).toList();
    }

    /** Polls members in turn until the group is as wanted. */
    static void settle(String what, List<? extends Consumer<String, String>> members, Callable<Boolean> wanted) throws Exception {
        Expect.until(what, () -> {
            for (Consumer<String, String> member : members) {
                member.poll(BRIEF);
            }
            return wanted.call();
        }, () -> members.stream().map(Consumer::assignment).toList());
    }

    /** How many partitions each of these members has. */
    static List<Integer> shares(List<? extends Consumer<String, String>> members) {
        return members.stream().map(member -> member.assignment().size()).toList();
    }

    /** A new topic gets to be known a little after its creation was answered. */
    private void awaitLeader(TopicPartition partition) throws Exception {
        Expect.until(partition + " has a leader", () -> {
            try {
                Expect.got(admin.listOffsets(Map.of(partition, OffsetSpec.latest())).all());
                return true;
            } catch (UnknownTopicOrPartitionException early) {
                return false;
            }
        }, () -> "unknown");
    }

    private Admin noting(Admin real) {
        return (Admin) Proxy.newProxyInstance(Broker.class.getClassLoader(), new Class<?>[] {Admin.class}, (self, method, arguments) -> {
            called.add(method.getName());
            try {
                return method.invoke(real, arguments);
            } catch (InvocationTargetException thrown) {
                throw thrown.getCause();
            }
        });
    }
}
