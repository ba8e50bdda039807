import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Pattern;

import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.RoundRobinAssignor;
import org.apache.kafka.clients.consumer.StickyAssignor;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.FencedInstanceIdException;
import org.apache.kafka.common.errors.InconsistentGroupProtocolException;

/** Groups whose members agree on the assignment themselves (group.protocol=classic). */
final class ClassicGroups {
    private final Broker broker;

    private ClassicGroups(Broker broker) {
        this.broker = broker;
    }

    static void add(Checks checks, Broker broker) {
        ClassicGroups groups = new ClassicGroups(broker);
        var assignors = List.of(RangeAssignor.class, RoundRobinAssignor.class, StickyAssignor.class, CooperativeStickyAssignor.class);
        for (Class<?> assignor : assignors) {
            String who = assignor.getSimpleName();
            checks.add("rebalance", who + ": members share the partitions as they join and leave, and each record is read once",
                () -> groups.joinAndLeave(assignor.getName()));
        }
        checks.add("rebalance", "a cooperative rebalance takes from a member only what it gives up", groups::cooperative);
        checks.add("rebalance", "a member that vanishes loses its partitions when its session times out", groups::sessionTimeout);
        checks.add("rebalance", "a member that stops polling is out, and its commit is refused", groups::maxPollInterval);
        checks.add("rebalance", "enforceRebalance runs a rebalance", groups::enforced);
        checks.add("rebalance", "partitions that are added later are assigned", groups::addedPartitions);
        checks.add("group", "a group goes on where it committed", groups::goesOn);
        checks.add("group", "a member commits by itself as it polls and closes", groups::autoCommit);
        checks.add("group", "a member that subscribes to a pattern gets a topic created later", groups::pattern);
        checks.add("group", "a static member that comes back in time keeps its partitions, without a rebalance", groups::staticMember);
        checks.add("group", "a static member is fenced by the next with its instance id", groups::fencedInstance);
        checks.add("group", "a member with other assignors than the group's is refused", groups::inconsistent);
    }

    private static final class Events implements ConsumerRebalanceListener {
        final List<TopicPartition> assigned = new ArrayList<>();
        final List<TopicPartition> revoked = new ArrayList<>();
        final List<TopicPartition> lost = new ArrayList<>();
        int assignments;

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            assignments++;
            assigned.addAll(partitions);
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            revoked.addAll(partitions);
        }

        @Override
        public void onPartitionsLost(Collection<TopicPartition> partitions) {
            lost.addAll(partitions);
        }
    }

    private KafkaConsumer<String, String> member(String group, Object... overrides) {
        return broker.member(group, overrides);
    }

    private static boolean has(KafkaConsumer<String, String> member, int partitions) {
        return member.assignment().size() == partitions;
    }

    private void joinAndLeave(String assignor) throws Exception {
        String topic = broker.topic("shared", 4);
        String group = broker.name("shared");
        Object[] settings = {"partition.assignment.strategy", assignor};
        try (var first = member(group, settings)) {
            first.subscribe(List.of(topic));
            Broker.settle("the first has all", List.of(first), () -> has(first, 4));
            try (var second = member(group, settings)) {
                second.subscribe(List.of(topic));
                Broker.settle("each has half", List.of(first, second), () -> has(first, 2) && has(second, 2));
                Set<TopicPartition> both = new TreeSet<>((a, b) -> a.partition() - b.partition());
                both.addAll(first.assignment());
                both.addAll(second.assignment());
                Expect.equal("different partitions", 4, both.size());
                for (TopicPartition partition : both) {
                    broker.fill(partition, Broker.values("p" + partition.partition(), 3));
                }
                List<String> read = new ArrayList<>();
                Expect.until("12 records come", () -> {
                    first.poll(Broker.BRIEF).forEach(record -> read.add(record.value()));
                    second.poll(Broker.BRIEF).forEach(record -> read.add(record.value()));
                    return read.size() >= 12;
                }, () -> read);
                Expect.equal("each record once", 12, new TreeSet<>(read).size());
                first.commitSync();
                second.commitSync();
            }
            Broker.settle("the first has all again", List.of(first), () -> has(first, 4));
        }
    }

    private void cooperative() throws Exception {
        String topic = broker.topic("cooperative", 4);
        String group = broker.name("cooperative");
        Object[] settings = {"partition.assignment.strategy", CooperativeStickyAssignor.class.getName()};
        Events events = new Events();
        try (var first = member(group, settings); var second = member(group, settings)) {
            first.subscribe(List.of(topic), events);
            Broker.settle("the first has all", List.of(first), () -> has(first, 4));
            second.subscribe(List.of(topic));
            Broker.settle("each has half", List.of(first, second), () -> has(first, 2) && has(second, 2));
            Expect.equal("what was taken", 2, events.revoked.size());
            Expect.equal("what was given", 4, events.assigned.size());
            Expect.equal("what was lost", 0, events.lost.size());
        }
    }

    private void sessionTimeout() throws Exception {
        String topic = broker.topic("vanish", 2);
        String group = broker.name("vanish");
        try (var stays = member(group, "session.timeout.ms", 1500)) {
            var vanishes = member(group, "session.timeout.ms", 1500);
            stays.subscribe(List.of(topic));
            vanishes.subscribe(List.of(topic));
            Broker.settle("each has one", List.of(stays, vanishes), () -> has(stays, 1) && has(vanishes, 1));
            vanishes.close(CloseOptions.groupMembershipOperation(CloseOptions.GroupMembershipOperation.REMAIN_IN_GROUP));
            long start = System.nanoTime();
            Broker.settle("the other has both", List.of(stays), () -> has(stays, 2));
            Duration took = Duration.ofNanos(System.nanoTime() - start);
            Expect.that("not before the session timed out", took.toMillis() > 700, took);
        }
    }

    private void maxPollInterval() throws Exception {
        String topic = broker.topic("slow", 1);
        TopicPartition partition = new TopicPartition(topic, 0);
        broker.fill(partition, "v");
        String group = broker.name("slow");
        try (var slow = member(group, "max.poll.interval.ms", 1000); var other = member(group)) {
            slow.subscribe(List.of(topic));
            Broker.settle("the slow one has it", List.of(slow), () -> has(slow, 1));
            other.subscribe(List.of(topic));
            Broker.settle("the other gets it", List.of(other), () -> has(other, 1));
            Expect.failure("the slow one's commit", CommitFailedException.class, () -> {
                slow.commitSync(Map.of(partition, new OffsetAndMetadata(1)));
                return null;
            });
        }
    }

    private void enforced() throws Exception {
        String topic = broker.topic("enforced", 1);
        Events events = new Events();
        try (var member = member(broker.name("enforced"))) {
            member.subscribe(List.of(topic), events);
            Broker.settle("it is assigned", List.of(member), () -> events.assignments == 1);
            int generation = member.groupMetadata().generationId();
            member.enforceRebalance("a check wants it");
            Broker.settle("it is assigned again", List.of(member), () -> events.assignments == 2 && has(member, 1));
            Expect.that("the generation is later", member.groupMetadata().generationId() > generation, member.groupMetadata());
        }
    }

    private void addedPartitions() throws Exception {
        String topic = broker.topic("grows", 1);
        try (var member = member(broker.name("grows"))) {
            member.subscribe(List.of(topic));
            Broker.settle("it has one", List.of(member), () -> has(member, 1));
            var more = Map.of(topic, NewPartitions.increaseTo(3));
            Expect.got(broker.admin.createPartitions(more).all());
            Broker.settle("it has three", List.of(member), () -> has(member, 3));
        }
    }

    private void goesOn() throws Exception {
        String topic = broker.topic("on", 1);
        TopicPartition partition = new TopicPartition(topic, 0);
        String group = broker.name("on");
        for (int round = 0; round < 3; round++) {
            String[] values = Broker.values("round " + round, 10);
            broker.fill(partition, values);
            try (var member = member(group)) {
                member.subscribe(List.of(topic));
                Expect.equal("what is read", Arrays.asList(values), Broker.values(Broker.poll(member, 10)));
                member.commitSync();
            }
        }
    }

    private void autoCommit() throws Exception {
        String topic = broker.topic("auto-commit", 1);
        TopicPartition partition = new TopicPartition(topic, 0);
        String group = broker.name("auto-commit");
        broker.fill(partition, Broker.values("v", 10));
        try (var member = member(group, "enable.auto.commit", true, "auto.commit.interval.ms", 200)) {
            member.subscribe(List.of(topic));
            Broker.poll(member, 10);
            Broker.settle("it commits as it polls", List.of(member), () -> {
                var committed = member.committed(Set.of(partition)).get(partition);
                return committed != null && committed.offset() == 10;
            });
        }
        broker.fill(partition, "one more");
        try (var member = member(group, "enable.auto.commit", true, "auto.commit.interval.ms", 60000)) {
            member.subscribe(List.of(topic));
            Expect.equal("what is read", List.of("one more"), Broker.values(Broker.poll(member, 1)));
        }
        var committed = Expect.got(broker.admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata());
        Expect.equal("what closing committed", 11L, committed.get(partition).offset());
    }

    private void pattern() throws Exception {
        String name = broker.name("pattern");
        String topic = broker.topic(name, 1);
        try (var member = member(broker.name("pattern"))) {
            member.subscribe(Pattern.compile(".*" + name + ".*"));
            Broker.settle("it has the one", List.of(member), () -> has(member, 1));
            String later = broker.topic(name, 2);
            Broker.settle("it has both", List.of(member), () -> has(member, 3));
            Expect.equal("its topics", Set.of(topic, later), member.subscription());
        }
    }

    private void staticMember() throws Exception {
        String topic = broker.topic("static", 2);
        String group = broker.name("static");
        Events events = new Events();
        try (var stays = member(group, "group.instance.id", "stays", "session.timeout.ms", 20000)) {
            stays.subscribe(List.of(topic), events);
            Set<TopicPartition> before;
            try (var leaves = member(group, "group.instance.id", "leaves", "session.timeout.ms", 20000)) {
                leaves.subscribe(List.of(topic));
                Broker.settle("each has one", List.of(stays, leaves), () -> has(stays, 1) && has(leaves, 1));
                before = leaves.assignment();
            }
            int assignments = events.assignments;
            try (var back = member(group, "group.instance.id", "leaves", "session.timeout.ms", 20000)) {
                back.subscribe(List.of(topic));
                Broker.settle("it has one again", List.of(stays, back), () -> has(back, 1));
                Expect.equal("its partitions", before, back.assignment());
                Expect.equal("rebalances that the other saw", assignments, events.assignments);
            }
        }
    }

    private void fencedInstance() throws Exception {
        String topic = broker.topic("fenced", 1);
        String group = broker.name("fenced");
        try (var first = member(group, "group.instance.id", "same"); var second = member(group, "group.instance.id", "same")) {
            first.subscribe(List.of(topic));
            Broker.settle("the first has it", List.of(first), () -> has(first, 1));
            second.subscribe(List.of(topic));
            Broker.settle("the second has it", List.of(second), () -> has(second, 1));
            Expect.failure("the first's poll", FencedInstanceIdException.class, () -> Broker.poll(first, 1));
        }
    }

    private void inconsistent() throws Exception {
        String topic = broker.topic("inconsistent", 1);
        String group = broker.name("inconsistent");
        try (var first = member(group, "partition.assignment.strategy", RangeAssignor.class.getName());
                var second = member(group, "partition.assignment.strategy", RoundRobinAssignor.class.getName())) {
            first.subscribe(List.of(topic));
            Broker.settle("the first has it", List.of(first), () -> has(first, 1));
            second.subscribe(List.of(topic));
            Expect.failure("the second's poll", InconsistentGroupProtocolException.class, () -> Broker.poll(second, 1));
        }
    }
}
