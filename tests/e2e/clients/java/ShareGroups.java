import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;

import org.apache.kafka.clients.admin.ListShareGroupOffsetsSpec;
import org.apache.kafka.clients.admin.ShareGroupDescription;
import org.apache.kafka.clients.admin.SharePartitionOffsetInfo;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;

/** Share groups (KIP-932): members that take single records of the same partitions, and give them back or not. */
final class ShareGroups {
    /** The shortest lock that a group may set unless the broker allows others. */
    private static final int LOCK_MS = 15000;

    private final Broker broker;

    private ShareGroups(Broker broker) {
        this.broker = broker;
    }

    static void add(Checks checks, Broker broker) {
        ShareGroups groups = new ShareGroups(broker);
        checks.add("share groups", "a record that nobody acknowledges is delivered again when its lock times out", groups::lockTimeout);
        checks.add("share groups", "a renewed lock outlives its first time", groups::renew);
        checks.add("share groups", "implicit acknowledgement: what a poll returned is done at the next poll or commit", groups::implicit);
        checks.add("share groups", "explicit acknowledgement: released comes again, accepted and rejected do not", groups::explicit);
        checks.add("share groups", "the delivery count rises until the limit of 5, then the record is given up", groups::deliveryCount);
        checks.add("share groups", "two members share one partition, and each record goes to one of them", groups::twoMembers);
        checks.add("share groups", "two groups get every record each", groups::twoGroups);
        checks.add("share groups", "what a closing member did not acknowledge goes to the next", groups::closing);
        checks.add("share groups", "share.auto.offset.reset: latest by default, earliest and by_duration if set", groups::offsetReset);
        checks.add("share groups", "only committed records are delivered with share.isolation.level=read_committed", groups::isolation);
        checks.add("share groups", "acknowledgements are confirmed to commitSync and to the callback", groups::confirmed);
        checks.add("share groups", "a share group is described with its members and their assignment", groups::described);
        checks.add("share groups", "its offsets are listed, altered and deleted", groups::offsets);
        checks.add("share groups", "it is deleted when it is empty", groups::deleted);
    }

    /** A group that starts at the beginning. */
    private String group(String what) throws Exception {
        String group = broker.name(what);
        set(group, "share.auto.offset.reset", "earliest");
        return group;
    }

    private void set(String group, String key, String value) throws Exception {
        broker.configure(ConfigResource.Type.GROUP, group, key, value);
    }

    private TopicPartition filled(String what, int count) throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic(what, 1), 0);
        broker.fill(partition, Broker.values("v", count));
        return partition;
    }

    private KafkaShareConsumer<String, String> explicit(String group) {
        return broker.share(group, "share.acknowledgement.mode", "explicit");
    }

    private static List<ConsumerRecord<String, String>> poll(KafkaShareConsumer<String, String> member, int count) throws Exception {
        List<ConsumerRecord<String, String>> records = new ArrayList<>();
        Expect.until(count + " records come", () -> {
            member.poll(Broker.BRIEF).forEach(records::add);
            return records.size() >= count;
        }, records::size);
        return records;
    }

    private static void acknowledge(KafkaShareConsumer<String, String> member, Iterable<ConsumerRecord<String, String>> records,
            AcknowledgeType type) {
        records.forEach(record -> member.acknowledge(record, type));
        member.commitSync().forEach((partition, problem) -> Expect.equal("acknowledging " + partition, Optional.empty(), problem));
    }

    private static List<String> counts(List<ConsumerRecord<String, String>> records) {
        return records.stream().map(record -> record.value() + " " + record.deliveryCount().orElseThrow()).toList();
    }

    private void lockTimeout() throws Exception {
        TopicPartition partition = filled("locks", 2);
        String group = group("locks");
        set(group, "share.record.lock.duration.ms", String.valueOf(LOCK_MS));
        try (var holds = explicit(group); var waits = explicit(group)) {
            holds.subscribe(List.of(partition.topic()));
            Expect.equal("delivered", List.of("v-0 1", "v-1 1"), counts(poll(holds, 2)));
            Expect.equal("the lock that the member is told of", Optional.of(LOCK_MS), holds.acquisitionLockTimeoutMs());
            long start = System.nanoTime();
            waits.subscribe(List.of(partition.topic()));
            List<ConsumerRecord<String, String>> again = poll(waits, 2);
            Expect.equal("delivered again", List.of("v-0", "v-1"), again.stream().map(ConsumerRecord::value).toList());
            // The first member's client may fetch ahead, and so hold them in vain a second time; it does with Apache Kafka too.
            Expect.that("as a later delivery", again.stream().allMatch(record -> record.deliveryCount().orElseThrow() >= 2), counts(again));
            long took = (System.nanoTime() - start) / 1_000_000;
            Expect.that("not before the lock timed out, ms", took > LOCK_MS - 5000, took);
            acknowledge(waits, again, AcknowledgeType.ACCEPT);
        }
    }

    private void renew() throws Exception {
        TopicPartition partition = filled("renew", 1);
        String group = group("renew");
        set(group, "share.record.lock.duration.ms", String.valueOf(LOCK_MS));
        try (var holds = explicit(group)) {
            holds.subscribe(List.of(partition.topic()));
            ConsumerRecord<String, String> record = poll(holds, 1).get(0);
            long start = System.nanoTime();
            // Renewed at two thirds of its time, it is still held at four thirds.
            Expect.until("two thirds", () -> System.nanoTime() - start > LOCK_MS * 666_000L, () -> "time");
            acknowledge(holds, List.of(record), AcknowledgeType.RENEW);
            Expect.until("four thirds", () -> System.nanoTime() - start > LOCK_MS * 1_333_000L, () -> "time");
            holds.poll(Broker.BRIEF);
            acknowledge(holds, List.of(record), AcknowledgeType.ACCEPT);
        }
    }

    private void implicit() throws Exception {
        TopicPartition partition = filled("implicit", 10);
        String group = group("implicit");
        try (var member = broker.share(group)) {
            member.subscribe(List.of(partition.topic()));
            Expect.equal("read", List.of(Broker.values("v", 10)), Broker.values(poll(member, 10)));
            broker.fill(partition, "next");
            Expect.equal("read then", List.of("next 1"), counts(poll(member, 1)));
            member.commitSync();
        }
        try (var member = broker.share(group)) {
            member.subscribe(List.of(partition.topic()));
            broker.fill(partition, "last");
            Expect.equal("read by the next member", List.of("last 1"), counts(poll(member, 1)));
        }
    }

    private void explicit() throws Exception {
        TopicPartition partition = filled("explicit", 3);
        String group = group("explicit");
        try (var member = explicit(group)) {
            member.subscribe(List.of(partition.topic()));
            List<ConsumerRecord<String, String>> records = poll(member, 3);
            member.acknowledge(records.get(0), AcknowledgeType.ACCEPT);
            member.acknowledge(records.get(1), AcknowledgeType.RELEASE);
            member.acknowledge(records.get(2), AcknowledgeType.REJECT);
            member.commitSync();
            List<ConsumerRecord<String, String>> again = poll(member, 1);
            Expect.equal("delivered again", List.of("v-1 2"), counts(again));
            acknowledge(member, again, AcknowledgeType.ACCEPT);
            broker.fill(partition, "next");
            List<ConsumerRecord<String, String>> next = poll(member, 1);
            Expect.equal("delivered then", List.of("next 1"), counts(next));
            acknowledge(member, next, AcknowledgeType.ACCEPT);
        }
    }

    private void deliveryCount() throws Exception {
        TopicPartition partition = filled("count", 1);
        String group = group("count");
        try (var member = explicit(group)) {
            member.subscribe(List.of(partition.topic()));
            for (int delivery = 1; delivery <= 5; delivery++) {
                List<ConsumerRecord<String, String>> records = poll(member, 1);
                Expect.equal("delivered", List.of("v-0 " + delivery), counts(records));
                acknowledge(member, records, AcknowledgeType.RELEASE);
            }
            broker.fill(partition, "next");
            List<ConsumerRecord<String, String>> next = poll(member, 1);
            Expect.equal("delivered then", List.of("next 1"), counts(next));
            acknowledge(member, next, AcknowledgeType.ACCEPT);
        }
    }

    private void twoMembers() throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic("two", 1), 0);
        String group = group("two");
        try (var one = broker.share(group, "max.poll.records", 10, "share.acquire.mode", "record_limit");
                var two = broker.share(group, "max.poll.records", 10, "share.acquire.mode", "record_limit")) {
            one.subscribe(List.of(partition.topic()));
            two.subscribe(List.of(partition.topic()));
            Expect.until("both are assigned the partition", () -> {
                one.poll(Broker.BRIEF);
                two.poll(Broker.BRIEF);
                return describe(group).members().stream().filter(m -> m.assignment().topicPartitions().contains(partition)).count() == 2;
            }, () -> describe(group));
            List<String> byOne = new ArrayList<>();
            List<String> byTwo = new ArrayList<>();
            broker.fill(partition, Broker.values("v", 200));
            Expect.until("200 records come", () -> {
                one.poll(Broker.BRIEF).forEach(record -> byOne.add(record.value()));
                two.poll(Broker.BRIEF).forEach(record -> byTwo.add(record.value()));
                return byOne.size() + byTwo.size() >= 200;
            }, () -> byOne.size() + " and " + byTwo.size());
            Set<String> all = new TreeSet<>(byOne);
            all.addAll(byTwo);
            Expect.equal("each record once", 200, all.size());
            Expect.that("both got some", !byOne.isEmpty() && !byTwo.isEmpty(), byOne.size() + " and " + byTwo.size());
        }
    }

    private void twoGroups() throws Exception {
        TopicPartition partition = filled("groups", 20);
        try (var one = broker.share(group("one")); var two = broker.share(group("other"))) {
            one.subscribe(List.of(partition.topic()));
            two.subscribe(List.of(partition.topic()));
            Expect.equal("the one's", 20, poll(one, 20).size());
            Expect.equal("the other's", 20, poll(two, 20).size());
        }
    }

    private void closing() throws Exception {
        TopicPartition partition = filled("closing", 2);
        String group = group("closing");
        try (var first = explicit(group)) {
            first.subscribe(List.of(partition.topic()));
            first.acknowledge(poll(first, 2).get(0), AcknowledgeType.ACCEPT);
        }
        try (var second = explicit(group)) {
            second.subscribe(List.of(partition.topic()));
            List<ConsumerRecord<String, String>> records = poll(second, 1);
            Expect.equal("left for the next", List.of("v-1"), Broker.values(records));
            acknowledge(second, records, AcknowledgeType.ACCEPT);
        }
    }

    private void offsetReset() throws Exception {
        TopicPartition partition = filled("reset", 1);
        String hour = broker.name("hour");
        set(hour, "share.auto.offset.reset", "by_duration:PT1H");
        String latest = broker.name("latest");
        try (var atEnd = broker.share(latest); var fromHour = broker.share(hour); var atStart = broker.share(group("start"))) {
            for (var member : List.of(atEnd, fromHour, atStart)) {
                member.subscribe(List.of(partition.topic()));
            }
            Expect.equal("from the beginning", List.of("v-0"), Broker.values(poll(atStart, 1)));
            Expect.equal("from an hour ago", List.of("v-0"), Broker.values(poll(fromHour, 1)));
            // Where the end is for a group shows only in what it gets: records are sent until one arrives, and none from before may.
            List<String> seen = new ArrayList<>();
            Expect.until("the group at the end gets what comes", () -> {
                broker.fill(partition, "new");
                atEnd.poll(Broker.BRIEF).forEach(record -> seen.add(record.value()));
                return !seen.isEmpty();
            }, () -> seen);
            Expect.equal("from the end", Set.of("new"), Set.copyOf(seen));
        }
    }

    private void isolation() throws Exception {
        TopicPartition partition = new TopicPartition(broker.topic("isolation", 1), 0);
        String group = group("isolation");
        set(group, "share.isolation.level", "read_committed");
        try (var producer = broker.transactional(broker.name("share-tx")); var member = broker.share(group)) {
            producer.initTransactions();
            producer.beginTransaction();
            Broker.sendAll(producer, partition, "aborted");
            producer.abortTransaction();
            producer.beginTransaction();
            Broker.sendAll(producer, partition, "committed");
            producer.commitTransaction();
            member.subscribe(List.of(partition.topic()));
            Expect.equal("delivered", List.of("committed"), Broker.values(poll(member, 1)));
        }
    }

    private void confirmed() throws Exception {
        TopicPartition partition = filled("confirmed", 2);
        try (var member = explicit(group("confirmed"))) {
            List<Object> confirmed = new ArrayList<>();
            member.setAcknowledgementCommitCallback((offsets, problem) -> {
                offsets.values().forEach(confirmedOffsets -> confirmed.addAll(confirmedOffsets));
                if (problem != null) {
                    confirmed.add(problem);
                }
            });
            member.subscribe(List.of(partition.topic()));
            List<ConsumerRecord<String, String>> records = poll(member, 2);
            records.forEach(member::acknowledge);
            var answers = member.commitSync();
            Expect.equal("partitions confirmed", 1, answers.size());
            Expect.equal("problems", Set.of(Optional.empty()), Set.copyOf(answers.values()));
            Expect.until("the callback", () -> {
                member.poll(Broker.BRIEF);
                return confirmed.size() >= 2;
            }, () -> confirmed);
            Expect.equal("what it says", Set.of(0L, 1L), Set.copyOf(confirmed));
        }
    }

    private ShareGroupDescription describe(String group) throws Exception {
        return Expect.got(broker.admin.describeShareGroups(List.of(group)).all()).get(group);
    }

    private void described() throws Exception {
        TopicPartition partition = filled("described", 1);
        String group = group("described");
        try (var member = broker.share(group, "client.id", "sharer")) {
            member.subscribe(List.of(partition.topic()));
            poll(member, 1);
            ShareGroupDescription description = describe(group);
            Expect.equal("state", GroupState.STABLE, description.groupState());
            Expect.equal("members", 1, description.members().size());
            var seen = description.members().iterator().next();
            Expect.equal("client id", "sharer", seen.clientId());
            Expect.equal("assignment", Set.of(partition), seen.assignment().topicPartitions());
            Expect.that("epoch", seen.memberEpoch() > 0 && seen.memberEpoch() <= description.groupEpoch(), seen.memberEpoch());
        }
        Expect.equal("state without members", GroupState.EMPTY, describe(group).groupState());
        String unknown = broker.name("unknown");
        Expect.failure("one that is not there", GroupIdNotFoundException.class,
            () -> broker.admin.describeShareGroups(List.of(unknown)).describedGroups().get(unknown));
    }

    private Optional<Long> startOffset(String group, TopicPartition partition) throws Exception {
        var listed = broker.admin.listShareGroupOffsets(Map.of(group, new ListShareGroupOffsetsSpec())).partitionsToOffsetInfo(group);
        SharePartitionOffsetInfo info = Expect.got(listed).get(partition);
        return Optional.ofNullable(info).map(SharePartitionOffsetInfo::startOffset);
    }

    private void readAll(String group, TopicPartition partition, String... values) throws Exception {
        try (var member = explicit(group)) {
            member.subscribe(List.of(partition.topic()));
            List<ConsumerRecord<String, String>> records = poll(member, values.length);
            Expect.equal("delivered", List.of(values), Broker.values(records));
            acknowledge(member, records, AcknowledgeType.ACCEPT);
        }
    }

    private void offsets() throws Exception {
        TopicPartition partition = filled("offsets", 3);
        String group = group("offsets");
        readAll(group, partition, "v-0", "v-1", "v-2");
        Expect.that("a start offset", startOffset(group, partition).filter(offset -> offset >= 0 && offset <= 3).isPresent(),
            startOffset(group, partition));
        Expect.got(broker.admin.alterShareGroupOffsets(group, Map.of(partition, 1L)).partitionResult(partition));
        Expect.equal("the altered one", Optional.of(1L), startOffset(group, partition));
        readAll(group, partition, "v-1", "v-2");
        try (var member = broker.share(group)) {
            member.subscribe(List.of(partition.topic()));
            Expect.until("it has a member", () -> {
                member.poll(Broker.BRIEF);
                return describe(group).members().size() == 1;
            }, () -> describe(group));
            Expect.failure("altering a group with members", GroupNotEmptyException.class,
                () -> broker.admin.alterShareGroupOffsets(group, Map.of(partition, 0L)).all());
        }
        Expect.got(broker.admin.deleteShareGroupOffsets(group, Set.of(partition.topic())).topicResult(partition.topic()));
        Expect.equal("after they were deleted", Optional.empty(), startOffset(group, partition));
    }

    private void deleted() throws Exception {
        TopicPartition partition = filled("deleted", 1);
        String group = group("deleted");
        try (var member = broker.share(group)) {
            member.subscribe(List.of(partition.topic()));
            poll(member, 1);
            Expect.failure("deleting it with members", GroupNotEmptyException.class,
                () -> broker.admin.deleteShareGroups(List.of(group)).all());
        }
        Expect.got(broker.admin.deleteShareGroups(List.of(group)).all());
        Expect.failure("describing it then", GroupIdNotFoundException.class, () -> broker.admin.describeShareGroups(List.of(group)).all());
    }
}
