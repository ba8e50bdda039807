import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;

import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.MemberDescription;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidRegularExpression;
import org.apache.kafka.common.errors.UnreleasedInstanceIdException;
import org.apache.kafka.common.errors.UnsupportedAssignorException;

/** Groups that the broker assigns (KIP-848, group.protocol=consumer), and the way from the classic protocol to it and back. */
final class NewGroups {
    private final Broker broker;

    private NewGroups(Broker broker) {
        this.broker = broker;
    }

    static void add(Checks checks, Broker broker) {
        NewGroups groups = new NewGroups(broker);
        for (String assignor : List.of("uniform", "range")) {
            checks.add("KIP-848", "group.remote.assignor=" + assignor + ": members share the partitions as they join and leave",
                () -> groups.joinAndLeave(assignor));
        }
        checks.add("KIP-848", "the range assignor gives the same partitions of two topics to a member", groups::range);
        checks.add("KIP-848", "an assignor that the broker does not have is refused", groups::unknownAssignor);
        checks.add("KIP-848", "a group goes on where it committed", groups::goesOn);
        checks.add("KIP-848", "the broker matches a SubscriptionPattern, with topics created later", groups::pattern);
        checks.add("KIP-848", "a SubscriptionPattern that is no regular expression is refused", groups::badPattern);
        checks.add("KIP-848", "a static member that comes back gets its partitions", groups::staticMember);
        checks.add("KIP-848", "an instance id in use is not given to a second member", groups::unreleased);
        checks.add("KIP-848", "changing the subscription changes the assignment", groups::resubscribe);
        checks.add("KIP-848", "a group is described with its type, epochs and members' assignments", groups::described);
        checks.add("KIP-848", "a classic group moves to the new protocol member by member, and its offsets with it", groups::upgrade);
        checks.add("KIP-848", "a group moves back to the classic protocol when its last new member leaves", groups::downgrade);
        checks.add("KIP-848", "an empty classic group becomes a new one", groups::emptyUpgrade);
    }

    private KafkaConsumer<String, String> member(String group, Object... overrides) {
        List<Object> all = new ArrayList<>(List.of("group.protocol", "consumer"));
        all.addAll(List.of(overrides));
        return broker.member(group, all.toArray());
    }

    private static boolean has(KafkaConsumer<String, String> member, int partitions) {
        return member.assignment().size() == partitions;
    }

    private ConsumerGroupDescription describe(String group) throws Exception {
        return Expect.got(broker.admin.describeConsumerGroups(List.of(group)).all()).get(group);
    }

    private void joinAndLeave(String assignor) throws Exception {
        String topic = broker.topic("shared", 4);
        String group = broker.name("new-shared");
        try (var first = member(group, "group.remote.assignor", assignor)) {
            first.subscribe(List.of(topic));
            Broker.settle("the first has all", List.of(first), () -> has(first, 4));
            try (var second = member(group, "group.remote.assignor", assignor)) {
                second.subscribe(List.of(topic));
                Broker.settle("each has half", List.of(first, second), () -> has(first, 2) && has(second, 2));
                List<String> read = new ArrayList<>();
                for (int partition = 0; partition < 4; partition++) {
                    broker.fill(new TopicPartition(topic, partition), Broker.values("p" + partition, 3));
                }
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
            Expect.equal("the group's assignor", assignor, describe(group).partitionAssignor());
        }
    }

    private void range() throws Exception {
        String one = broker.topic("range-one", 2);
        String two = broker.topic("range-two", 2);
        String group = broker.name("new-range");
        try (var first = member(group, "group.remote.assignor", "range"); var second = member(group, "group.remote.assignor", "range")) {
            first.subscribe(List.of(one, two));
            second.subscribe(List.of(one, two));
            Broker.settle("each has half", List.of(first, second), () -> has(first, 2) && has(second, 2));
            for (var member : List.of(first, second)) {
                Set<Integer> numbers = new TreeSet<>();
                member.assignment().forEach(partition -> numbers.add(partition.partition()));
                Expect.equal("partition numbers of a member with " + member.assignment(), 1, numbers.size());
            }
        }
    }

    private void unknownAssignor() throws Exception {
        String topic = broker.topic("no-assignor", 1);
        try (var member = member(broker.name("no-assignor"), "group.remote.assignor", "best")) {
            member.subscribe(List.of(topic));
            Expect.failure("the poll", UnsupportedAssignorException.class, () -> Broker.poll(member, 1));
        }
    }

    private void goesOn() throws Exception {
        String topic = broker.topic("new-on", 1);
        String group = broker.name("new-on");
        for (int round = 0; round < 3; round++) {
            String[] values = Broker.values("round " + round, 10);
            broker.fill(new TopicPartition(topic, 0), values);
            try (var member = member(group)) {
                member.subscribe(List.of(topic));
                Expect.equal("what is read", Arrays.asList(values), Broker.values(Broker.poll(member, 10)));
                member.commitSync();
            }
        }
    }

    private void pattern() throws Exception {
        String name = broker.name("new-pattern");
        String topic = broker.topic(name, 1);
        try (var member = member(broker.name("new-pattern"))) {
            member.subscribe(new SubscriptionPattern(".*" + name + ".*"));
            Broker.settle("it has the one", List.of(member), () -> has(member, 1));
            String later = broker.topic(name, 2);
            Broker.settle("it has both", List.of(member), () -> has(member, 3));
            Set<String> topics = new TreeSet<>();
            member.assignment().forEach(partition -> topics.add(partition.topic()));
            Expect.equal("its topics", new TreeSet<>(Set.of(topic, later)), topics);
        }
    }

    private void badPattern() throws Exception {
        try (var member = member(broker.name("bad-pattern"))) {
            member.subscribe(new SubscriptionPattern("(open"));
            Expect.failure("the poll", InvalidRegularExpression.class, () -> Broker.poll(member, 1));
        }
    }

    private void staticMember() throws Exception {
        String topic = broker.topic("new-static", 2);
        String group = broker.name("new-static");
        try (var stays = member(group, "group.instance.id", "stays")) {
            stays.subscribe(List.of(topic));
            Set<TopicPartition> before;
            try (var leaves = member(group, "group.instance.id", "leaves")) {
                leaves.subscribe(List.of(topic));
                Broker.settle("each has one", List.of(stays, leaves), () -> has(stays, 1) && has(leaves, 1));
                before = leaves.assignment();
            }
            int epoch = describe(group).groupEpoch().orElseThrow();
            try (var back = member(group, "group.instance.id", "leaves")) {
                back.subscribe(List.of(topic));
                Broker.settle("it has one again", List.of(stays, back), () -> has(back, 1));
                Expect.equal("its partitions", before, back.assignment());
                Expect.equal("the group's epoch", epoch, describe(group).groupEpoch().orElseThrow());
            }
        }
    }

    private void unreleased() throws Exception {
        String topic = broker.topic("unreleased", 1);
        String group = broker.name("unreleased");
        try (var first = member(group, "group.instance.id", "same"); var second = member(group, "group.instance.id", "same")) {
            first.subscribe(List.of(topic));
            Broker.settle("the first has it", List.of(first), () -> has(first, 1));
            second.subscribe(List.of(topic));
            Expect.failure("the second's poll", UnreleasedInstanceIdException.class, () -> Broker.poll(second, 1));
            first.poll(Broker.BRIEF);
            Expect.equal("the first still has it", 1, first.assignment().size());
        }
    }

    private void resubscribe() throws Exception {
        String one = broker.topic("sub-one", 1);
        String two = broker.topic("sub-two", 2);
        try (var member = member(broker.name("resubscribe"))) {
            member.subscribe(List.of(one));
            Broker.settle("it has the one", List.of(member), () -> has(member, 1));
            member.subscribe(List.of(one, two));
            Broker.settle("it has both", List.of(member), () -> has(member, 3));
            member.subscribe(List.of(two));
            Broker.settle("it has the other", List.of(member), () -> has(member, 2));
            member.unsubscribe();
            Expect.equal("it has none", Set.of(), member.assignment());
        }
    }

    private void described() throws Exception {
        String topic = broker.topic("new-described", 2);
        String group = broker.name("new-described");
        try (var member = member(group, "client.id", "somebody", "client.rack", "r1")) {
            member.subscribe(List.of(topic));
            Broker.settle("it has both", List.of(member), () -> has(member, 2));
            ConsumerGroupDescription description = describe(group);
            Expect.equal("type", GroupType.CONSUMER, description.type());
            Expect.equal("state", GroupState.STABLE, description.groupState());
            Expect.equal("epochs", description.groupEpoch(), description.targetAssignmentEpoch());
            MemberDescription seen = description.members().iterator().next();
            Expect.equal("client id", "somebody", seen.clientId());
            Expect.equal("member id", member.groupMetadata().memberId(), seen.consumerId());
            Expect.equal("member epoch", member.groupMetadata().generationId(), seen.memberEpoch().orElseThrow());
            Expect.equal("rack", "r1", seen.rackId().orElseThrow());
            Expect.equal("assignment", member.assignment(), seen.assignment().topicPartitions());
            Expect.equal("target assignment", member.assignment(), seen.targetAssignment().orElseThrow().topicPartitions());
            Expect.equal("upgraded", true, seen.upgraded().orElseThrow());
        }
        Expect.equal("state without members", GroupState.EMPTY, describe(group).groupState());
    }

    private void upgrade() throws Exception {
        String topic = broker.topic("upgrade", 4);
        String group = broker.name("upgrade");
        broker.fill(new TopicPartition(topic, 0), "first");
        try (var one = broker.member(group)) {
            one.subscribe(List.of(topic));
            Expect.equal("what the classic member reads", List.of("first"), Broker.values(Broker.poll(one, 1)));
            one.commitSync();
            Expect.equal("type before", GroupType.CLASSIC, describe(group).type());
            try (var two = member(group)) {
                two.subscribe(List.of(topic));
                Broker.settle("each has half", List.of(one, two), () -> has(one, 2) && has(two, 2));
                Expect.equal("type", GroupType.CONSUMER, describe(group).type());
                one.close();
                Broker.settle("the new one has all", List.of(two), () -> has(two, 4));
                broker.fill(new TopicPartition(topic, 0), "second");
                Expect.equal("what the new member reads", List.of("second"), Broker.values(Broker.poll(two, 1)));
            }
        }
    }

    private void downgrade() throws Exception {
        String topic = broker.topic("downgrade", 4);
        String group = broker.name("downgrade");
        try (var first = member(group)) {
            first.subscribe(List.of(topic));
            Broker.settle("the new one has all", List.of(first), () -> has(first, 4));
            try (var classic = broker.member(group)) {
                classic.subscribe(List.of(topic));
                Broker.settle("each has half", List.of(first, classic), () -> has(first, 2) && has(classic, 2));
                first.close();
                Broker.settle("the classic one has all", List.of(classic), () -> has(classic, 4));
                Expect.equal("type", GroupType.CLASSIC, describe(group).type());
            }
        }
    }

    private void emptyUpgrade() throws Exception {
        String topic = broker.topic("empty-upgrade", 1);
        String group = broker.name("empty-upgrade");
        broker.fill(new TopicPartition(topic, 0), "first");
        try (var classic = broker.member(group)) {
            classic.subscribe(List.of(topic));
            Broker.poll(classic, 1);
            classic.commitSync();
        }
        broker.fill(new TopicPartition(topic, 0), "second");
        try (var member = member(group)) {
            member.subscribe(List.of(topic));
            Expect.equal("what the new member reads", List.of("second"), Broker.values(Broker.poll(member, 1)));
            Expect.equal("type", GroupType.CONSUMER, describe(group).type());
            member.close(CloseOptions.groupMembershipOperation(CloseOptions.GroupMembershipOperation.LEAVE_GROUP));
        }
    }
}
