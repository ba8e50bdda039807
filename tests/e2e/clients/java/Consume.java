import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.NoOffsetForPartitionException;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;

/** Consumers that choose their partitions themselves: where they read from, what they commit. Both of the client's implementations. */
final class Consume {
    private final Broker broker;
    private final String protocol;

    private Consume(Broker broker, String protocol) {
        this.broker = broker;
        this.protocol = protocol;
    }

    static void add(Checks checks, Broker broker) {
        for (String protocol : List.of("classic", "consumer")) {
            Consume consume = new Consume(broker, protocol);
            String who = " (group.protocol=" + protocol + ")";
            String feature = protocol.equals("classic") ? "none" : "KIP-848";
            String group = protocol.equals("classic") ? "group" : "KIP-848";
            checks.add(feature, "seek moves to an offset, to the beginning and to the end" + who, consume::seek);
            checks.add("timestamps", "offsetsForTimes finds the first record at or after a time" + who, consume::offsetsForTimes);
            checks.add("timestamps", "auto.offset.reset=by_duration starts that long ago" + who, consume::byDuration);
            checks.add(feature, "auto.offset.reset=latest starts at the end, none fails" + who, consume::resets);
            checks.add(feature, "a paused partition gives nothing until it is resumed" + who, consume::pause);
            checks.add(feature, "max.poll.records bounds a poll and nothing is lost" + who, consume::maxPollRecords);
            checks.add(feature, "a poll at the end waits and gets what comes then" + who, consume::longPoll);
            checks.add(feature, "deleted records are skipped and move the beginning" + who, consume::deletedRecords);
            checks.add(feature, "an offset out of range fails, or resets if it may" + who, consume::outOfRange);
            checks.add(feature, "topics and their partitions are listed" + who, consume::listTopics);
            checks.add(group, "committed offsets come back with metadata and leader epoch" + who, consume::commitSync);
            checks.add(group, "commitAsync calls back with what it committed" + who, consume::commitAsync);
            checks.add(group, "a group that commits with assign only, starts again where it committed" + who, consume::restart);
        }
    }

    private Consumer<String, String> consumer(Object... overrides) {
        List<Object> all = new ArrayList<>(List.of("group.protocol", protocol));
        all.addAll(List.of(overrides));
        return broker.consumer(all.toArray());
    }

    private TopicPartition filled(String name, int count) throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic(name, 1), 0);
        broker.fill(partition, Broker.values("v", count));
        return partition;
    }

    private void seek() throws Exception {
        TopicPartition partition = filled("seek", 100);
        try (Consumer<String, String> consumer = consumer()) {
            consumer.assign(List.of(partition));
            Expect.equal("the beginning", Map.of(partition, 0L), consumer.beginningOffsets(List.of(partition)));
            Expect.equal("the end", Map.of(partition, 100L), consumer.endOffsets(List.of(partition)));
            consumer.seek(partition, 42);
            ConsumerRecord<String, String> first = Broker.poll(consumer, 1).get(0);
            Expect.equal("the record after seek", "42 v-42", first.offset() + " " + first.value());
            Expect.equal("its leader epoch", Optional.of(0), first.leaderEpoch());
            consumer.seekToBeginning(List.of(partition));
            Expect.equal("the first record", 0L, Broker.poll(consumer, 1).get(0).offset());
            consumer.seekToEnd(List.of(partition));
            Expect.equal("the position at the end", 100L, consumer.position(partition));
            broker.fill(partition, "after");
            Expect.equal("what comes after the end", List.of("after"), Broker.values(Broker.poll(consumer, 1)));
        }
    }

    private TopicPartition timed(String name, long... times) throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic(name, 1), 0);
        try (KafkaProducer<String, String> producer = broker.producer()) {
            for (long time : times) {
                Expect.got(producer.send(new ProducerRecord<>(partition.topic(), 0, time, null, "at " + time)));
            }
        }
        return partition;
    }

    private void offsetsForTimes() throws Exception {
        TopicPartition partition = timed("times", 1000, 2000, 3000);
        try (Consumer<String, String> consumer = consumer()) {
            for (long[] expected : new long[][] {{0, 0, 1000}, {1000, 0, 1000}, {1001, 1, 2000}, {3000, 2, 3000}}) {
                OffsetAndTimestamp found = consumer.offsetsForTimes(Map.of(partition, expected[0])).get(partition);
                Expect.equal("the offset at " + expected[0], expected[1], found.offset());
                Expect.equal("its time", expected[2], found.timestamp());
            }
            Expect.equal("after the last", null, consumer.offsetsForTimes(Map.of(partition, 3001L)).get(partition));
        }
    }

    private void byDuration() throws Exception {
        long now = System.currentTimeMillis();
        TopicPartition partition = timed("duration", now - 7_200_000L, now - 600_000L, now);
        try (Consumer<String, String> consumer = consumer("auto.offset.reset", "by_duration:PT1H")) {
            consumer.assign(List.of(partition));
            Expect.equal("the first record", 1L, Broker.poll(consumer, 1).get(0).offset());
        }
    }

    private void resets() throws Exception {
        TopicPartition partition = filled("resets", 5);
        try (Consumer<String, String> consumer = consumer("auto.offset.reset", "latest")) {
            consumer.assign(List.of(partition));
            Expect.equal("the position", 5L, consumer.position(partition));
        }
        try (Consumer<String, String> consumer = consumer("auto.offset.reset", "none")) {
            consumer.assign(List.of(partition));
            Expect.failure("position without a reset", NoOffsetForPartitionException.class, () -> consumer.position(partition));
        }
    }

    private void pause() throws Exception {
        TopicPartition paused = filled("paused", 5);
        TopicPartition other = filled("other", 5);
        try (Consumer<String, String> consumer = consumer()) {
            consumer.assign(List.of(paused, other));
            consumer.pause(List.of(paused));
            Expect.equal("what is paused", Set.of(paused), consumer.paused());
            List<ConsumerRecord<String, String>> records = Broker.poll(consumer, 5);
            Expect.that("nothing of the paused one", records.stream().allMatch(r -> r.topic().equals(other.topic())), records);
            consumer.resume(List.of(paused));
            Expect.equal("the resumed one's records", 5, Broker.poll(consumer, 5).size());
        }
    }

    private void maxPollRecords() throws Exception {
        TopicPartition partition = filled("few", 50);
        try (Consumer<String, String> consumer = consumer("max.poll.records", 7)) {
            consumer.assign(List.of(partition));
            List<Long> offsets = new ArrayList<>();
            Expect.until("50 records come", () -> {
                var batch = consumer.poll(Broker.BRIEF);
                Expect.that("a poll's size", batch.count() <= 7, batch.count());
                batch.forEach(record -> offsets.add(record.offset()));
                return offsets.size() >= 50;
            }, offsets::size);
            Expect.equal("each once", 50L, offsets.stream().distinct().count());
        }
    }

    private void longPoll() throws Exception {
        TopicPartition partition = filled("long", 1);
        try (Consumer<String, String> consumer = consumer("fetch.max.wait.ms", 20000)) {
            consumer.assign(List.of(partition));
            Broker.poll(consumer, 1);
            Expect.equal("a poll at the end", 0, consumer.poll(Duration.ofMillis(200)).count());
            long start = System.nanoTime();
            broker.fill(partition, "late");
            Broker.poll(consumer, 1);
            Duration took = Duration.ofNanos(System.nanoTime() - start);
            Expect.that("a waiting fetch is answered when data comes, not when its wait ends", took.toSeconds() < 10, took);
        }
    }

    private void deletedRecords() throws Exception {
        TopicPartition partition = filled("deleted", 10);
        var deleted = broker.admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(6)));
        Expect.equal("the low watermark", 6L, Expect.got(deleted.lowWatermarks().get(partition)).lowWatermark());
        try (Consumer<String, String> consumer = consumer()) {
            consumer.assign(List.of(partition));
            Expect.equal("the beginning", Map.of(partition, 6L), consumer.beginningOffsets(List.of(partition)));
            Expect.equal("the first record", 6L, Broker.poll(consumer, 4).get(0).offset());
        }
    }

    private void outOfRange() throws Exception {
        TopicPartition partition = filled("range", 10);
        try (Consumer<String, String> consumer = consumer("auto.offset.reset", "none")) {
            consumer.assign(List.of(partition));
            consumer.seek(partition, 1000);
            Expect.failure("the poll", OffsetOutOfRangeException.class, () -> Broker.poll(consumer, 1));
        }
        try (Consumer<String, String> consumer = consumer()) {
            consumer.assign(List.of(partition));
            consumer.seek(partition, 1000);
            Expect.equal("the first record after the reset", 0L, Broker.poll(consumer, 1).get(0).offset());
        }
    }

    private void listTopics() throws Exception {
        String topic = broker.topic("listed", 3);
        try (Consumer<String, String> consumer = consumer()) {
            Expect.equal("partitions", 3, consumer.listTopics().get(topic).size());
            Expect.equal("partitions of one topic", 3, consumer.partitionsFor(topic).size());
        }
    }

    private void commitSync() throws Exception {
        TopicPartition partition = filled("commit", 10);
        TopicPartition never = filled("never", 1);
        try (Consumer<String, String> consumer = consumer("group.id", broker.name("committer"))) {
            consumer.assign(List.of(partition));
            consumer.commitSync(Map.of(partition, new OffsetAndMetadata(7, Optional.of(0), "what was done")));
            Map<TopicPartition, OffsetAndMetadata> committed = consumer.committed(Set.of(partition, never));
            Expect.equal("what was committed", new OffsetAndMetadata(7, Optional.of(0), "what was done"), committed.get(partition));
            Expect.equal("what never was", null, committed.get(never));
            consumer.commitSync(Map.of(partition, new OffsetAndMetadata(3)));
            Expect.equal("a commit backwards", 3L, consumer.committed(Set.of(partition)).get(partition).offset());
        }
    }

    private void commitAsync() throws Exception {
        TopicPartition partition = filled("async", 10);
        try (Consumer<String, String> consumer = consumer("group.id", broker.name("async"))) {
            consumer.assign(List.of(partition));
            Broker.poll(consumer, 10);
            List<Object> answers = new ArrayList<>();
            consumer.commitAsync((offsets, problem) -> answers.add(problem == null ? offsets.get(partition).offset() : problem));
            Expect.until("the callback", () -> {
                consumer.poll(Broker.BRIEF);
                return !answers.isEmpty();
            }, () -> answers);
            Expect.equal("what it says", List.of(10L), answers);
            Expect.equal("what is committed", 10L, consumer.committed(Set.of(partition)).get(partition).offset());
        }
    }

    private void restart() throws Exception {
        TopicPartition partition = filled("again", 10);
        String group = broker.name("again");
        for (int start = 0; start < 10; start += 5) {
            try (Consumer<String, String> consumer = consumer("group.id", group, "max.poll.records", 5)) {
                consumer.assign(List.of(partition));
                Expect.equal("the first record", (long) start, Broker.poll(consumer, 5).get(0).offset());
                consumer.commitSync();
            }
        }
    }
}
