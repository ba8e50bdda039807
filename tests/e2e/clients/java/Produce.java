import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.Future;

import org.apache.kafka.clients.admin.ProducerState;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidTimestampException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Producers of every kind: what they send is what a consumer reads. */
final class Produce {
    private static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    private static final int MEGABYTE = 1_000_000;

    private final Broker broker;

    private Produce(Broker broker) {
        this.broker = broker;
    }

    static void add(Checks checks, Broker broker) {
        Produce produce = new Produce(broker);
        for (String codec : CODECS) {
            checks.add(codec, codec + " batches are read as they were sent, in order", () -> produce.codec(codec));
            checks.add(codec, "a topic with compression.type=" + codec + " serves what was sent otherwise",
                () -> produce.topicCodec(codec));
        }
        for (String acks : List.of("0", "1", "all")) {
            checks.add("none", "acks=" + acks + ": every record arrives", () -> produce.acks(acks));
        }
        checks.add("none", "batches that wait with linger.ms fill up and keep the order", produce::linger);
        checks.add("none", "a record goes to the partition it names, and a key always to the same", produce::partitions);
        checks.add("none", "one producer fills 50 partitions", produce::manyPartitions);
        checks.add("none", "the first record to a topic creates it", produce::autoCreate);
        checks.add("none", "a topic name with a slash is refused", produce::invalidTopic);
        checks.add("idempotence", "idempotent producers' records arrive once and in order with 5 requests in flight", produce::idempotent);
        checks.add("idempotence", "each idempotent producer has an id of its own", produce::producerIds);
        checks.add("headers", "headers keep order, doubled keys, null and empty values", produce::headers);
        checks.add("headers", "headers survive every codec", produce::headersInCodecs);
        checks.add("nulls", "null keys and null values stay null", produce::nulls);
        checks.add("empty values", "empty keys and values stay empty and do not become null", produce::empty);
        checks.add("1 MB", "records of 1 MB arrive unchanged, whatever the codec", produce::large);
        checks.add("1 MB", "records of 1 MB are fetched one by one by a consumer that asks for little", produce::largeInSmallFetches);
        checks.add("1 MB", "a record larger than max.message.bytes is refused with RecordTooLarge", produce::tooLarge);
        checks.add("1 MB", "a batch larger than max.message.bytes is split and arrives", produce::split);
        checks.add("timestamps", "records keep the producer's timestamps", produce::createTime);
        checks.add("timestamps", "a LogAppendTime topic stamps records itself and tells the producer", produce::logAppendTime);
        checks.add("timestamps", "a timestamp too far in the future is refused", produce::futureTimestamp);
    }

    private void codec(String codec) throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic(codec, 1), 0);
        String[] values = Broker.values("a value that compresses well, a value that compresses well", 500);
        try (KafkaProducer<String, String> producer = broker.producer("compression.type", codec, "linger.ms", 20)) {
            List<RecordMetadata> stored = Broker.sendAll(producer, partition, values);
            Expect.equal("the last record's offset", 499L, stored.get(499).offset());
        }
        Expect.equal("what is read", Arrays.asList(values), broker.read(partition, "read_uncommitted"));
    }

    private void topicCodec(String codec) throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic("kept-" + codec, 1, "compression.type",
            codec.equals("none") ? "uncompressed" : codec), 0);
        List<String> sent = new ArrayList<>();
        for (String other : CODECS) {
            String[] values = Broker.values(other, 20);
            sent.addAll(Arrays.asList(values));
            try (KafkaProducer<String, String> producer = broker.producer("compression.type", other)) {
                Broker.sendAll(producer, partition, values);
            }
        }
        Expect.equal("what is read", sent, broker.read(partition, "read_uncommitted"));
    }

    private void acks(String acks) throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic("acks", 1), 0);
        String[] values = Broker.values("v", 100);
        try (KafkaProducer<String, String> producer = broker.producer("acks", acks, "enable.idempotence", acks.equals("all"))) {
            List<RecordMetadata> stored = Broker.sendAll(producer, partition, values);
            Expect.equal("the producer learns offsets", !acks.equals("0"), stored.get(99).hasOffset());
        }
        try (Consumer<String, String> consumer = broker.consumer()) {
            consumer.assign(List.of(partition));
            Expect.equal("what is read", Arrays.asList(values), Broker.values(Broker.poll(consumer, 100)));
        }
    }

    private void linger() throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic("linger", 1), 0);
        String[] values = Broker.values("v", 2000);
        try (KafkaProducer<String, String> producer = broker.producer("linger.ms", 50, "batch.size", 4000)) {
            Broker.sendAll(producer, partition, values);
            double batches = metric(producer, "request-total");
            Expect.that("many records share a request", batches < 500, batches);
        }
        Expect.equal("what is read", Arrays.asList(values), broker.read(partition, "read_uncommitted"));
    }

    private void partitions() throws Exception {
        String topic = broker.topic("partitions", 4);
        try (KafkaProducer<String, String> producer = broker.producer()) {
            Expect.equal("the topic's partitions", 4, producer.partitionsFor(topic).size());
            for (int partition = 0; partition < 4; partition++) {
                RecordMetadata stored = Expect.got(producer.send(new ProducerRecord<>(topic, partition, "same", "named")));
                Expect.equal("the partition of a record", partition, stored.partition());
            }
            Set<Integer> hashed = new HashSet<>();
            for (int i = 0; i < 10; i++) {
                hashed.add(Expect.got(producer.send(new ProducerRecord<>(topic, "key", "hashed"))).partition());
            }
            Expect.equal("partitions that one key goes to", 1, hashed.size());
        }
    }

    private void manyPartitions() throws Exception {
        String topic = broker.topic("many", 50);
        List<TopicPartition> partitions = new ArrayList<>();
        try (KafkaProducer<String, String> producer = broker.producer(); Consumer<String, String> consumer = broker.consumer()) {
            for (int round = 0; round < 3; round++) {
                for (int partition = 0; partition < 50; partition++) {
                    producer.send(new ProducerRecord<>(topic, partition, null, "v"));
                }
            }
            producer.flush();
            for (int partition = 0; partition < 50; partition++) {
                partitions.add(new TopicPartition(topic, partition));
            }
            Expect.equal("the partitions' ends", Set.of(3L), new HashSet<>(consumer.endOffsets(partitions).values()));
            consumer.assign(partitions);
            Expect.equal("records read", 150, Broker.poll(consumer, 150).size());
        }
    }

    private void autoCreate() throws Exception {
        String topic = broker.name("auto");
        broker.fill(new TopicPartition(topic, 0), "first");
        Expect.equal("what is read", List.of("first"), broker.read(new TopicPartition(topic, 0), "read_uncommitted"));
    }

    private void invalidTopic() {
        try (KafkaProducer<String, String> producer = broker.producer()) {
            Expect.failure("the send", InvalidTopicException.class, () -> producer.send(new ProducerRecord<>("a/b", "v")));
        }
    }

    private void idempotent() throws Exception {
        String topic = broker.topic("idempotent", 3);
        try (KafkaProducer<String, String> producer = broker.producer("enable.idempotence", true, "batch.size", 200,
                "max.in.flight.requests.per.connection", 5)) {
            for (int i = 0; i < 900; i++) {
                producer.send(new ProducerRecord<>(topic, i % 3, null, "v-" + i));
            }
            producer.flush();
        }
        for (int partition = 0; partition < 3; partition++) {
            List<String> expected = new ArrayList<>();
            for (int i = partition; i < 900; i += 3) {
                expected.add("v-" + i);
            }
            Expect.equal("partition " + partition, expected, broker.read(new TopicPartition(topic, partition), "read_uncommitted"));
        }
    }

    private void producerIds() throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic("ids", 1), 0);
        for (int i = 0; i < 3; i++) {
            broker.fill(partition, "one", "two");
        }
        var states = Expect.got(broker.admin.describeProducers(List.of(partition)).all()).get(partition).activeProducers();
        Expect.equal("different ids", 3L, states.stream().map(ProducerState::producerId).distinct().count());
        Expect.that("epochs start at 0", states.stream().allMatch(state -> state.producerEpoch() == 0), states);
        Expect.that("the last sequence is that of the second record", states.stream().allMatch(s -> s.lastSequence() == 1), states);
    }

    private void headers() throws Exception {
        checkHeaders("none");
    }

    private void headersInCodecs() throws Exception {
        for (String codec : CODECS) {
            checkHeaders(codec);
        }
    }

    private void checkHeaders(String codec) throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic("headers", 1), 0);
        ProducerRecord<String, String> record = new ProducerRecord<>(partition.topic(), 0, "k", "v");
        record.headers().add("twice", bytes("1")).add("none", null).add("twice", bytes("2"));
        record.headers().add("empty", bytes("")).add("ünïcode", bytes("3"));
        try (KafkaProducer<String, String> producer = broker.producer("compression.type", codec)) {
            Expect.got(producer.send(record));
        }
        List<String> seen = new ArrayList<>();
        for (Header header : broker.records(partition, "read_uncommitted").get(0).headers()) {
            String value = header.value() == null ? "null" : "'" + new String(header.value(), StandardCharsets.UTF_8) + "'";
            seen.add(header.key() + "=" + value);
        }
        Expect.equal("headers with " + codec, List.of("twice='1'", "none=null", "twice='2'", "empty=''", "ünïcode='3'"), seen);
    }

    private void nulls() throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic("nulls", 1), 0);
        sendPairs(partition, new String[][] {{null, "v"}, {"k", null}, {null, null}});
        Expect.equal("what is read", List.of("null/v", "k/null", "null/null"), pairs(partition));
    }

    private void empty() throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic("empty", 1), 0);
        sendPairs(partition, new String[][] {{"", "v"}, {"k", ""}, {"", ""}, {null, ""}});
        Expect.equal("what is read", List.of("/v", "k/", "/", "null/"), pairs(partition));
    }

    private void large() throws Exception {
        byte[] random = new byte[MEGABYTE];
        new Random(1).nextBytes(random);
        for (String codec : CODECS) {
            TopicPartition partition = new TopicPartition(broker.topic("large", 1, "max.message.bytes", "2000000"), 0);
            sendLarge(partition, codec, random, new byte[MEGABYTE]);
            List<byte[]> read = readLarge(partition, 2, 1 << 20);
            Expect.that("random bytes with " + codec, Arrays.equals(random, read.get(0)), read.get(0).length + " bytes");
            Expect.that("zeros with " + codec, Arrays.equals(new byte[MEGABYTE], read.get(1)), read.get(1).length + " bytes");
        }
    }

    private void largeInSmallFetches() throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic("large-slow", 1, "max.message.bytes", "2000000"), 0);
        sendLarge(partition, "none", new byte[MEGABYTE], new byte[MEGABYTE + 1], new byte[MEGABYTE + 2]);
        List<Integer> lengths = readLarge(partition, 3, 1000).stream().map(value -> value.length).toList();
        Expect.equal("lengths", List.of(MEGABYTE, MEGABYTE + 1, MEGABYTE + 2), lengths);
    }

    private void tooLarge() throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic("too-large", 1, "max.message.bytes", "100000"), 0);
        Expect.failure("a record over the topic's limit", RecordTooLargeException.class, () -> {
            sendLarge(partition, "none", new byte[100001]);
            return null;
        });
        TopicPartition usual = new TopicPartition(broker.topic("too-large-too", 1), 0);
        Expect.failure("a record over the broker's limit", RecordTooLargeException.class, () -> {
            sendLarge(usual, "none", new byte[2 * MEGABYTE]);
            return null;
        });
        broker.fill(partition, "small");
        Expect.equal("what is read", List.of("small"), broker.read(partition, "read_uncommitted"));
    }

    private void split() throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic("split", 1, "max.message.bytes", "20000"), 0);
        String[] values = Broker.values("x".repeat(1000), 100);
        try (KafkaProducer<String, String> producer = broker.producer("batch.size", 200000, "linger.ms", 500, "compression.type", "none")) {
            Broker.sendAll(producer, partition, values);
            Expect.that("batches were split", metric(producer, "batch-split-total") > 0, metric(producer, "batch-split-total"));
        }
        Expect.equal("what is read", Arrays.asList(values), broker.read(partition, "read_uncommitted"));
    }

    private void createTime() throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic("create-time", 1), 0);
        long now = System.currentTimeMillis();
        List<Long> times = List.of(0L, 1L, now - 1000, now - 3_600_000L);
        try (KafkaProducer<String, String> producer = broker.producer("linger.ms", 20)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            times.forEach(time -> sent.add(producer.send(new ProducerRecord<>(partition.topic(), 0, time, "k", "v"))));
            Expect.equal("the first record's timestamp, as the producer learns it", 0L, Expect.got(sent.get(0)).timestamp());
            producer.flush();
        }
        List<ConsumerRecord<String, String>> records = broker.records(partition, "read_uncommitted");
        Expect.equal("timestamps", times, records.stream().map(ConsumerRecord::timestamp).toList());
        Expect.equal("their type", TimestampType.CREATE_TIME, records.get(0).timestampType());
    }

    private void logAppendTime() throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic("append-time", 1, "message.timestamp.type", "LogAppendTime"), 0);
        long before = System.currentTimeMillis();
        long told;
        try (KafkaProducer<String, String> producer = broker.producer()) {
            told = Expect.got(producer.send(new ProducerRecord<>(partition.topic(), 0, 1L, "k", "v"))).timestamp();
        }
        ConsumerRecord<String, String> record = broker.records(partition, "read_uncommitted").get(0);
        Expect.equal("the type", TimestampType.LOG_APPEND_TIME, record.timestampType());
        Expect.equal("the timestamp that the producer was told", told, record.timestamp());
        Expect.that("the timestamp is the broker's", record.timestamp() >= before - 1000, record.timestamp());
    }

    private void futureTimestamp() throws Exception {
        String topic = broker.topic("future", 1, "message.timestamp.after.max.ms", "60000");
        long future = System.currentTimeMillis() + 3_600_000L;
        try (KafkaProducer<String, String> producer = broker.producer()) {
            Expect.failure("the send", InvalidTimestampException.class,
                () -> producer.send(new ProducerRecord<>(topic, 0, future, "k", "v")));
        }
    }

    private void sendPairs(TopicPartition partition, String[][] pairs) throws Exception {
        try (KafkaProducer<String, String> producer = broker.producer()) {
            for (String[] pair : pairs) {
                Expect.got(producer.send(new ProducerRecord<>(partition.topic(), 0, pair[0], pair[1])));
            }
        }
    }

    private List<String> pairs(TopicPartition partition) throws Exception {
        return broker.records(partition, "read_uncommitted").stream().map(record -> record.key() + "/" + record.value()).toList();
    }

    private void sendLarge(TopicPartition partition, String codec, byte[]... values) throws Exception {
        var settings = broker.settings(Map.of("max.request.size", 4 * MEGABYTE, "compression.type", codec));
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (byte[] value : values) {
                Expect.got(producer.send(new ProducerRecord<>(partition.topic(), 0, null, value)));
            }
        }
    }

    private List<byte[]> readLarge(TopicPartition partition, int count, int fetchBytes) throws Exception {
        var settings = broker.settings(Map.of("max.partition.fetch.bytes", fetchBytes, "fetch.max.bytes", fetchBytes));
        var bytes = new ByteArrayDeserializer();
        List<byte[]> values = new ArrayList<>();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings, bytes, bytes)) {
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            Expect.until(count + " records come", () -> {
                consumer.poll(Broker.BRIEF).forEach(record -> values.add(record.value()));
                return values.size() >= count;
            }, values::size);
        }
        return values;
    }

    /** A metric of the producer itself. */
    static double metric(KafkaProducer<String, String> producer, String name) {
        return producer.metrics().values().stream()
            .filter(metric -> metric.metricName().name().equals(name) && metric.metricName().group().equals("producer-metrics"))
            .mapToDouble(metric -> (Double) metric.metricValue()).sum();
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
