import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Set;

import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.TimeoutException;

/** A group's offsets in transactions: they count with the records that were written for them, or not at all. */
final class TransactionOffsets {
    private final Broker broker;

    private TransactionOffsets(Broker broker) {
        this.broker = broker;
    }

    static void add(Checks checks, Broker broker) {
        TransactionOffsets offsets = new TransactionOffsets(broker);
        for (String protocol : List.of("classic", "consumer")) {
            String who = " (group.protocol=" + protocol + ")";
            checks.add("transactions", "offsets in a transaction count when it commits, not when it aborts" + who,
                () -> offsets.offsets(protocol));
            checks.add("transactions", "records copied in transactions arrive exactly once though some abort" + who,
                () -> offsets.copy(protocol));
            checks.add("transactions", "offsets of a member that is out of its group are refused" + who,
                () -> offsets.staleMember(protocol));
        }
        checks.add("transactions", "who asks for stable offsets waits while a transaction holds some", offsets::pendingOffsets);
    }

    private static OffsetAndMetadata committed(Consumer<String, String> member, TopicPartition partition) {
        return member.committed(Set.of(partition)).get(partition);
    }

    private void offsets(String protocol) throws Exception {
        OffsetAndMetadata ten = new OffsetAndMetadata(10, "from a transaction");
        TopicPartition partition = new TopicPartition(broker.topic("tx-offsets", 1), 0);
        broker.fill(partition, Broker.values("v", 10));
        try (var producer = Transactions.ready(broker); var member = broker.member(broker.name("offsets"), "group.protocol", protocol)) {
            member.subscribe(List.of(partition.topic()));
            Broker.poll(member, 10);
            for (boolean commit : new boolean[] {false, true}) {
                producer.beginTransaction();
                producer.sendOffsetsToTransaction(Map.of(partition, ten), member.groupMetadata());
                Transactions.end(producer, commit);
                OffsetAndMetadata expected = commit ? ten : null;
                Expect.equal(commit ? "after the commit" : "after the abort", expected, committed(member, partition));
            }
        }
    }

    private void copy(String protocol) throws Exception {
        TopicPartition from = new TopicPartition(broker.topic("tx-from", 1), 0);
        TopicPartition to = new TopicPartition(broker.topic("tx-to", 1), 0);
        String[] values = Broker.values("v", 100);
        broker.fill(from, values);
        String group = broker.name("copy");
        try (var producer = Transactions.ready(broker);
                var member = broker.member(group, "group.protocol", protocol, "max.poll.records", 10)) {
            member.subscribe(List.of(from.topic()));
            int[] round = {0};
            Expect.until("everything is copied", () -> {
                List<ConsumerRecord<String, String>> records = new ArrayList<>();
                member.poll(Broker.BRIEF).forEach(records::add);
                if (!records.isEmpty()) {
                    boolean commit = round[0]++ % 3 != 1;
                    long next = records.get(records.size() - 1).offset() + 1;
                    producer.beginTransaction();
                    Broker.sendAll(producer, to, Broker.values(records).toArray(String[]::new));
                    producer.sendOffsetsToTransaction(Map.of(from, new OffsetAndMetadata(next)), member.groupMetadata());
                    Transactions.end(producer, commit);
                    if (!commit) {
                        OffsetAndMetadata before = committed(member, from);
                        member.seek(from, before == null ? 0 : before.offset());
                    }
                }
                OffsetAndMetadata done = committed(member, from);
                return done != null && done.offset() == 100;
            }, () -> committed(member, from));
        }
        Expect.equal("the copy", Arrays.asList(values), broker.committed(to));
    }

    private void staleMember(String protocol) throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic("tx-stale", 1), 0);
        broker.fill(partition, "v");
        String group = broker.name("stale");
        ConsumerGroupMetadata stale;
        try (var member = broker.member(group, "group.protocol", protocol)) {
            member.subscribe(List.of(partition.topic()));
            Broker.poll(member, 1);
            stale = member.groupMetadata();
        }
        try (var producer = Transactions.ready(broker); var member = broker.member(group, "group.protocol", protocol)) {
            member.subscribe(List.of(partition.topic()));
            Broker.poll(member, 1);
            producer.beginTransaction();
            Expect.failure("the stale member's offsets", CommitFailedException.class, () -> {
                producer.sendOffsetsToTransaction(Map.of(partition, new OffsetAndMetadata(1)), stale);
                return null;
            });
            producer.abortTransaction();
            Expect.equal("what is committed", null, committed(member, partition));
        }
    }

    private void pendingOffsets() throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic("tx-pending", 1), 0);
        String group = broker.name("pending");
        try (var producer = Transactions.ready(broker);
                var reader = broker.consumer("group.id", group, "isolation.level", "read_committed")) {
            producer.beginTransaction();
            producer.sendOffsetsToTransaction(Map.of(partition, new OffsetAndMetadata(7)), reader.groupMetadata());
            Expect.failure("reading them in the transaction", TimeoutException.class,
                () -> reader.committed(Set.of(partition), Duration.ofMillis(700)));
            var unstable = Expect.got(broker.admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata());
            Expect.equal("who does not ask for stable ones", null, unstable.get(partition));
            producer.commitTransaction();
            Expect.equal("after the commit", 7L, committed(reader, partition).offset());
        }
    }
}
