import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

import org.apache.kafka.clients.admin.TransactionState;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.InvalidTxnStateException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.errors.RecordTooLargeException;

/** Transactions: what readers see of them, and who may go on with them. */
final class Transactions {
    /** What a producer gets to see whose epoch is over: it depends on the request that finds it out. */
    static final List<Class<? extends Throwable>> FENCED = List.of(ProducerFencedException.class, InvalidProducerEpochException.class);
    private static final String COMMITTED = "read_committed";
    private static final String UNCOMMITTED = "read_uncommitted";

    private final Broker broker;

    private Transactions(Broker broker) {
        this.broker = broker;
    }

    static void add(Checks checks, Broker broker) {
        Transactions all = new Transactions(broker);
        checks.add("transactions", "a transaction that takes longer than its timeout is aborted and its producer fenced", all::timeout);
        checks.add("transactions", "committed records are read, and not before the commit by read_committed", all::commit);
        checks.add("transactions", "aborted records are read by read_uncommitted only", all::abort);
        checks.add("transactions", "a read_committed reader waits for the oldest open transaction", all::lastStableOffset);
        checks.add("transactions", "interleaved transactions: of each only what its end says", all::interleaved);
        checks.add("transactions", "five producers with open transactions in one partition do not mix", all::concurrent);
        checks.add("transactions", "a transaction without records commits and aborts", all::empty);
        checks.add("transactions", "a transaction over 30 partitions commits in all of them", all::manyPartitions);
        checks.add("transactions", "a reader's position moves past the markers to the end", all::markers);
        checks.add("transactions", "sequences go on over 20 transactions of one producer, committed or not", all::oneAfterTheOther);
        checks.add("transactions", "a batch that comes before the markers of the last transaction needs no retry", all::noRetries);
        checks.add("transactions", "a second producer with the same transactional.id fences the first", all::fencing);
        checks.add("transactions", "a new producer with the same transactional.id aborts what the last left open", all::takeOver);
        checks.add("transactions", "a transaction with a failed send cannot commit, but abort and start again", all::failedSend);
        checks.add("transactions", "a longer timeout than the broker allows is refused", all::tooLongTimeout);
        checks.add("transactions", "a transaction's state is described from ongoing to complete", all::described);
    }

    private TopicPartition partition(String what) throws Exception {
        return new TopicPartition(broker.topic(what, 1), 0);
    }

    /** A producer with a transactional.id of its own, ready to begin. */
    static KafkaProducer<String, String> ready(Broker broker, Object... overrides) {
        KafkaProducer<String, String> producer = broker.transactional(broker.name("tx"), overrides);
        producer.initTransactions();
        return producer;
    }

    private KafkaProducer<String, String> producer(Object... overrides) {
        return ready(broker, overrides);
    }

    private static void transaction(KafkaProducer<String, String> producer, boolean commit, TopicPartition partition, String... values)
            throws Exception {
        producer.beginTransaction();
        Broker.sendAll(producer, partition, values);
        end(producer, commit);
    }

    static void end(KafkaProducer<String, String> producer, boolean commit) {
        if (commit) {
            producer.commitTransaction();
        } else {
            producer.abortTransaction();
        }
    }

    private void commit() throws Exception {
        TopicPartition partition = partition("commit");
        try (var producer = producer()) {
            producer.beginTransaction();
            Broker.sendAll(producer, partition, "a", "b");
            Expect.equal("read uncommitted before", List.of("a", "b"), broker.read(partition, UNCOMMITTED));
            Expect.equal("read committed before", List.of(), broker.read(partition, COMMITTED));
            producer.commitTransaction();
            Expect.equal("read committed after", List.of("a", "b"), broker.committed(partition));
        }
    }

    private void abort() throws Exception {
        TopicPartition partition = partition("abort");
        try (var producer = producer()) {
            transaction(producer, false, partition, "a", "b");
            transaction(producer, true, partition, "c");
            Expect.equal("read committed", List.of("c"), broker.committed(partition));
            Expect.equal("read uncommitted", List.of("a", "b", "c"), broker.read(partition, UNCOMMITTED));
        }
    }

    private void lastStableOffset() throws Exception {
        TopicPartition partition = partition("stable");
        broker.fill(partition, "before");
        try (var producer = producer()) {
            producer.beginTransaction();
            Broker.sendAll(producer, partition, "open");
            broker.fill(partition, "after");
            Expect.equal("the last stable offset", 1L, broker.end(partition, IsolationLevel.READ_COMMITTED));
            Expect.equal("the end", 3L, broker.end(partition, IsolationLevel.READ_UNCOMMITTED));
            Expect.equal("read committed", List.of("before"), broker.read(partition, COMMITTED));
            producer.commitTransaction();
        }
        Expect.equal("read committed at last", List.of("before", "open", "after"), broker.committed(partition));
    }

    private void interleaved() throws Exception {
        TopicPartition partition = partition("interleaved");
        try (var commits = producer(); var aborts = producer()) {
            for (int round = 0; round < 3; round++) {
                commits.beginTransaction();
                aborts.beginTransaction();
                for (int i = 0; i < 3; i++) {
                    Broker.sendAll(commits, partition, "good " + round + i);
                    Broker.sendAll(aborts, partition, "bad " + round + i);
                }
                broker.fill(partition, "plain " + round);
                end(round == 1 ? aborts : commits, round != 1);
                end(round == 1 ? commits : aborts, round == 1);
            }
        }
        List<String> expected = new ArrayList<>();
        for (int round = 0; round < 3; round++) {
            expected.addAll(List.of("good " + round + "0", "good " + round + "1", "good " + round + "2", "plain " + round));
        }
        Expect.equal("read committed", expected, broker.committed(partition));
    }

    private void concurrent() throws Exception {
        TopicPartition partition = partition("concurrent");
        List<KafkaProducer<String, String>> producers = new ArrayList<>();
        List<String> expected = new ArrayList<>();
        try {
            for (int i = 0; i < 5; i++) {
                producers.add(producer());
                producers.get(i).beginTransaction();
            }
            for (int i = 0; i < 50; i++) {
                Broker.sendAll(producers.get(i % 5), partition, "v-" + i);
                if (i % 5 % 2 == 0) {
                    expected.add("v-" + i);
                }
            }
            for (int i = 4; i >= 0; i--) {
                end(producers.get(i), i % 2 == 0);
            }
            Expect.equal("read committed", expected, broker.committed(partition));
        } finally {
            producers.forEach(KafkaProducer::close);
        }
    }

    private void empty() throws Exception {
        TopicPartition partition = partition("empty");
        try (var producer = producer()) {
            for (boolean commit : new boolean[] {true, false, true}) {
                producer.beginTransaction();
                end(producer, commit);
            }
            transaction(producer, true, partition, "v");
        }
        Expect.equal("read committed", List.of("v"), broker.committed(partition));
    }

    private void manyPartitions() throws Exception {
        String topic = broker.topic("wide", 30);
        Set<TopicPartition> partitions = new HashSet<>();
        try (var producer = producer("compression.type", "zstd"); var reader = broker.consumer("isolation.level", COMMITTED)) {
            for (boolean commit : new boolean[] {false, true}) {
                producer.beginTransaction();
                for (int i = 0; i < 30; i++) {
                    partitions.add(new TopicPartition(topic, i));
                    producer.send(new ProducerRecord<>(topic, i, null, commit + " " + i));
                }
                end(producer, commit);
            }
            reader.assign(partitions);
            List<String> read = Broker.values(Broker.poll(reader, 30));
            Expect.that("only what was committed", read.stream().allMatch(value -> value.startsWith("true")), read);
            Expect.equal("each once", 30, new TreeSet<>(read).size());
        }
    }

    private void markers() throws Exception {
        TopicPartition partition = partition("markers");
        try (var producer = producer(); var reader = broker.consumer("isolation.level", COMMITTED)) {
            transaction(producer, true, partition, "a");
            transaction(producer, false, partition, "b");
            broker.awaitTransactions(partition);
            Expect.equal("the end, with a marker for each", 4L, broker.end(partition, IsolationLevel.READ_COMMITTED));
            reader.assign(List.of(partition));
            List<Long> offsets = new ArrayList<>();
            Expect.until("the position gets to the end", () -> {
                reader.poll(Broker.BRIEF).forEach(record -> offsets.add(record.offset()));
                return reader.position(partition) == 4;
            }, () -> reader.position(partition));
            Expect.equal("offsets of records", List.of(0L), offsets);
            transaction(producer, true, partition, "c");
            Expect.equal("the next record's offset", 4L, Broker.poll(reader, 1).get(0).offset());
        }
    }

    private void oneAfterTheOther() throws Exception {
        TopicPartition partition = partition("sequence");
        List<String> expected = new ArrayList<>();
        try (var producer = producer()) {
            for (int i = 0; i < 20; i++) {
                boolean commit = i % 3 != 1;
                String[] values = Broker.values("tx-" + i, i % 4 + 1);
                transaction(producer, commit, partition, values);
                if (commit) {
                    expected.addAll(Arrays.asList(values));
                }
            }
        }
        Expect.equal("read committed", expected, broker.committed(partition));
    }

    private void noRetries() throws Exception {
        TopicPartition partition = partition("at-once");
        try (var producer = producer("retry.backoff.ms", 1000)) {
            for (int i = 0; i < 50; i++) {
                transaction(producer, true, partition, "v" + i);
            }
            Expect.equal("retried records", 0.0, Produce.metric(producer, "record-retry-total"));
        }
    }

    private void fencing() throws Exception {
        TopicPartition partition = partition("fencing");
        String id = broker.name("fencing");
        try (var first = broker.transactional(id); var second = broker.transactional(id)) {
            first.initTransactions();
            transaction(first, true, partition, "first");
            second.initTransactions();
            Expect.failure("the first's next transaction", FENCED, () -> {
                first.beginTransaction();
                first.send(new ProducerRecord<>(partition.topic(), 0, null, "zombie"));
                first.commitTransaction();
                return null;
            });
            transaction(second, true, partition, "second");
        }
        Expect.equal("read committed", List.of("first", "second"), broker.committed(partition));
    }

    private void takeOver() throws Exception {
        TopicPartition partition = partition("take-over");
        String id = broker.name("take-over");
        try (var first = broker.transactional(id); var second = broker.transactional(id)) {
            first.initTransactions();
            first.beginTransaction();
            Broker.sendAll(first, partition, "left open");
            second.initTransactions();
            Expect.equal("the last stable offset, past the abort's marker", 2L, broker.end(partition, IsolationLevel.READ_COMMITTED));
            Expect.failure("the first's commit", FENCED, () -> {
                first.commitTransaction();
                return null;
            });
            transaction(second, true, partition, "second");
            first.close(Duration.ZERO);
        }
        Expect.equal("read committed", List.of("second"), broker.committed(partition));
    }

    private void failedSend() throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic("failed", 1, "max.message.bytes", "1000"), 0);
        try (var producer = producer("compression.type", "none")) {
            producer.beginTransaction();
            Broker.sendAll(producer, partition, "good");
            Expect.failure("the send", RecordTooLargeException.class, () -> Broker.sendAll(producer, partition, "x".repeat(2000)));
            Expect.failure("the commit", RecordTooLargeException.class, () -> {
                producer.commitTransaction();
                return null;
            });
            producer.abortTransaction();
            transaction(producer, true, partition, "again");
        }
        Expect.equal("read committed", List.of("again"), broker.committed(partition));
    }

    private void timeout() throws Exception {
        TopicPartition partition = partition("timeout");
        try (var producer = producer("transaction.timeout.ms", 1000)) {
            producer.beginTransaction();
            Broker.sendAll(producer, partition, "too slow");
            broker.awaitTransactions(partition);
            Expect.failure("the producer's commit", List.of(InvalidTxnStateException.class, InvalidProducerEpochException.class,
                    ProducerFencedException.class), () -> {
                producer.commitTransaction();
                return null;
            });
        }
        Expect.equal("read committed", List.of(), broker.committed(partition));
    }

    private void tooLongTimeout() {
        try (var producer = broker.transactional(broker.name("long"), "transaction.timeout.ms", 2_000_000_000)) {
            // The client has no exception of its own for this answer.
            KafkaException refused = Expect.failure("initTransactions", KafkaException.class, () -> {
                producer.initTransactions();
                return null;
            });
            Expect.that("why", refused.getMessage().contains("transaction.max.timeout.ms"), refused);
        }
    }

    private void described() throws Exception {
        TopicPartition partition = partition("described");
        String id = broker.name("described");
        Map<String, TransactionState> states = new HashMap<>();
        try (var producer = broker.transactional(id, "transaction.timeout.ms", 30000)) {
            producer.initTransactions();
            states.put("at first", state(id));
            producer.beginTransaction();
            Broker.sendAll(producer, partition, "v");
            var ongoing = Expect.got(broker.admin.describeTransactions(List.of(id)).description(id));
            states.put("in a transaction", ongoing.state());
            Expect.equal("its partitions", Set.of(partition), ongoing.topicPartitions());
            Expect.equal("its timeout", 30000L, ongoing.transactionTimeoutMs());
            Expect.that("its start is known", ongoing.transactionStartTimeMs().isPresent(), ongoing);
            producer.commitTransaction();
            Expect.until("it is complete", () -> state(id) == TransactionState.COMPLETE_COMMIT, () -> state(id));
        }
        Expect.equal("states", Map.of("at first", TransactionState.EMPTY, "in a transaction", TransactionState.ONGOING), states);
    }

    private TransactionState state(String id) throws Exception {
        return Expect.got(broker.admin.describeTransactions(List.of(id)).description(id)).state();
    }
}
