import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Collectors;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.DescribeConsumerGroupsOptions;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.ListConsumerGroupOffsetsSpec;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.ListStreamsGroupOffsetsSpec;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.ClassicGroupState;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.GroupSubscribedToTopicException;
import org.apache.kafka.common.errors.UnknownMemberIdException;

/** The admin client's methods on consumer groups and streams groups, and on their offsets. */
final class AdminGroups {
    private static final OffsetAndMetadata FIVE = new OffsetAndMetadata(5, "by an admin");

    private final Broker broker;
    private final Admin admin;

    private AdminGroups(Broker broker) {
        this.broker = broker;
        this.admin = broker.admin;
    }

    static void add(Checks checks, Broker broker) {
        AdminGroups groups = new AdminGroups(broker);
        for (String protocol : List.of("classic", "consumer")) {
            String who = " (group.protocol=" + protocol + ")";
            checks.add("admin", "describeConsumerGroups tells members, assignment and coordinator" + who, () -> groups.describe(protocol));
            checks.add("admin", "listGroups filters by type, state and protocol" + who, () -> groups.list(protocol));
            checks.add("admin", "offsets are altered and deleted only without members on them" + who, () -> groups.offsets(protocol));
            checks.add("admin", "deleteConsumerGroups deletes an empty group only" + who, () -> groups.delete(protocol));
            checks.add("admin", "removeMembersFromConsumerGroup removes a static member, and all" + who, () -> groups.remove(protocol));
        }
        checks.add("admin", "describeClassicGroups tells protocol, state and members", groups::describeClassic);
        checks.add("admin", "a group that is not there is described as dead or not found", groups::unknown);
        checks.add("admin", "streams groups: describing, and offsets as of any group", groups::streams);
    }

    /** A group with one member, which has both partitions of a topic. */
    private final class Group implements AutoCloseable {
        final String id = broker.name("group");
        final TopicPartition partition;
        final KafkaConsumer<String, String> member;

        Group(String protocol) throws Exception {
            partition = new TopicPartition(broker.topic("of-group", 2), 0);
            broker.fill(partition, Broker.values("v", 10));
            member = broker.member(id, "group.protocol", protocol, "group.instance.id", "static", "client.id", "somebody");
            member.subscribe(List.of(partition.topic()));
            Broker.settle("it has both", List.of(member), () -> member.assignment().size() == 2);
        }

        @Override
        public void close() {
            member.close();
        }
    }

    private ConsumerGroupDescription describeGroup(String group) throws Exception {
        var options = new DescribeConsumerGroupsOptions().includeAuthorizedOperations(true);
        return Expect.got(admin.describeConsumerGroups(List.of(group), options).all()).get(group);
    }

    private Map<TopicPartition, OffsetAndMetadata> offsetsOf(String group) throws Exception {
        return Expect.got(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata());
    }

    private void describe(String protocol) throws Exception {
        try (Group group = new Group(protocol)) {
            Expect.until("it is stable", () -> describeGroup(group.id).groupState() == GroupState.STABLE, () -> describeGroup(group.id));
            ConsumerGroupDescription description = describeGroup(group.id);
            Expect.equal("type", protocol, description.type().toString().toLowerCase());
            Expect.equal("simple", false, description.isSimpleConsumerGroup());
            Expect.equal("assignor", protocol.equals("classic") ? "range" : "uniform", description.partitionAssignor());
            Expect.that("coordinator", Expect.got(admin.describeCluster().nodes()).contains(description.coordinator()), description);
            Expect.equal("what everybody may do", Set.of(AclOperation.READ, AclOperation.DELETE, AclOperation.DESCRIBE,
                AclOperation.DESCRIBE_CONFIGS, AclOperation.ALTER_CONFIGS), description.authorizedOperations());
            Expect.equal("members", 1, description.members().size());
            var member = description.members().iterator().next();
            Expect.equal("client", "somebody static", member.clientId() + " " + member.groupInstanceId().orElseThrow());
            Expect.equal("host", "/127.0.0.1", member.host());
            Expect.equal("assignment", group.member.assignment(), member.assignment().topicPartitions());
        }
    }

    private boolean lists(ListGroupsOptions options, String group) throws Exception {
        return Expect.got(admin.listGroups(options).all()).stream().anyMatch(listing -> listing.groupId().equals(group));
    }

    private void list(String protocol) throws Exception {
        try (Group group = new Group(protocol)) {
            GroupType type = GroupType.parse(protocol);
            GroupType other = type == GroupType.CLASSIC ? GroupType.CONSUMER : GroupType.CLASSIC;
            Expect.until("it is stable", () -> describeGroup(group.id).groupState() == GroupState.STABLE, () -> describeGroup(group.id));
            Map<String, GroupListing> all = Expect.got(admin.listGroups().all()).stream()
                .collect(Collectors.toMap(GroupListing::groupId, listing -> listing));
            GroupListing listing = all.get(group.id);
            var expected = new GroupListing(group.id, Optional.of(type), "consumer", Optional.of(GroupState.STABLE));
            Expect.equal("its listing", expected, listing);
            Expect.that("by its type", lists(new ListGroupsOptions().withTypes(Set.of(type)), group.id), false);
            Expect.that("not by another", !lists(new ListGroupsOptions().withTypes(Set.of(other)), group.id), true);
            Expect.that("by its state", lists(new ListGroupsOptions().inGroupStates(Set.of(GroupState.STABLE)), group.id), false);
            Expect.that("not by another", !lists(new ListGroupsOptions().inGroupStates(Set.of(GroupState.EMPTY)), group.id), true);
            Expect.that("by its protocol", lists(new ListGroupsOptions().withProtocolTypes(Set.of("consumer")), group.id), false);
            Expect.that("not among share groups", !lists(ListGroupsOptions.forShareGroups(), group.id), true);
            Expect.that("by listConsumerGroups", consumerGroups().contains(group.id), consumerGroups());
        }
    }

    @SuppressWarnings({"deprecation", "removal"})
    private List<String> consumerGroups() throws Exception {
        return Expect.got(admin.listConsumerGroups().all()).stream().map(listing -> listing.groupId()).toList();
    }

    private void offsets(String protocol) throws Exception {
        Group closed;
        try (Group group = new Group(protocol)) {
            closed = group;
            group.member.commitSync(Map.of(group.partition, new OffsetAndMetadata(3)));
            Expect.equal("listed", 3L, offsetsOf(group.id).get(group.partition).offset());
            var spec = Map.of(group.id, new ListConsumerGroupOffsetsSpec().topicPartitions(List.of(group.partition)));
            var listed = Expect.got(admin.listConsumerGroupOffsets(spec).all()).get(group.id);
            Expect.equal("listed by partition", 3L, listed.get(group.partition).offset());
            Expect.failure("altering with a member", UnknownMemberIdException.class,
                () -> admin.alterConsumerGroupOffsets(group.id, Map.of(group.partition, FIVE)).all());
            Expect.failure("deleting with a member", GroupSubscribedToTopicException.class,
                () -> admin.deleteConsumerGroupOffsets(group.id, Set.of(group.partition)).partitionResult(group.partition));
        }
        removeAll(closed.id);
        Expect.got(admin.alterConsumerGroupOffsets(closed.id, Map.of(closed.partition, FIVE)).all());
        Expect.equal("altered", FIVE, offsetsOf(closed.id).get(closed.partition));
        Expect.got(admin.deleteConsumerGroupOffsets(closed.id, Set.of(closed.partition)).all());
        Expect.equal("deleted", null, offsetsOf(closed.id).get(closed.partition));
    }

    /** Static members stay when they are closed; removed before, one of the new protocol joins again by itself. */
    private void removeAll(String group) throws Exception {
        Expect.got(admin.removeMembersFromConsumerGroup(group, new RemoveMembersFromConsumerGroupOptions()).all());
    }

    private void delete(String protocol) throws Exception {
        Group closed;
        try (Group group = new Group(protocol)) {
            closed = group;
            Expect.failure("with a member", GroupNotEmptyException.class, () -> admin.deleteConsumerGroups(List.of(group.id)).all());
        }
        removeAll(closed.id);
        Expect.got(admin.deleteConsumerGroups(List.of(closed.id)).all());
        Expect.failure("again", GroupIdNotFoundException.class, () -> admin.deleteConsumerGroups(List.of(closed.id)).all());
        Expect.that("it is not listed", !lists(new ListGroupsOptions(), closed.id), "it is");
    }

    private void remove(String protocol) throws Exception {
        try (Group group = new Group(protocol)) {
            MemberToRemove stranger = new MemberToRemove("stranger");
            var strangers = new RemoveMembersFromConsumerGroupOptions(List.of(stranger));
            Expect.failure("a member that is not there", UnknownMemberIdException.class,
                () -> admin.removeMembersFromConsumerGroup(group.id, strangers).memberResult(stranger));
            MemberToRemove member = new MemberToRemove("static");
            var options = new RemoveMembersFromConsumerGroupOptions(List.of(member));
            options.reason("a check wants it");
            int epoch = epochOf(group.id);
            Expect.got(admin.removeMembersFromConsumerGroup(group.id, options).memberResult(member));
            expectRemoved(group.id, epoch);
        }
        try (Group group = new Group(protocol)) {
            int epoch = epochOf(group.id);
            removeAll(group.id);
            expectRemoved(group.id, epoch);
        }
    }

    /** The epoch of a group's only member, 0 if it is of the classic protocol. */
    private int epochOf(String group) throws Exception {
        return describeGroup(group).members().iterator().next().memberEpoch().orElse(0);
    }

    /** Nobody is left; but a member of the new protocol joins again by itself, with a later epoch, when it hears of it. */
    private void expectRemoved(String group, int epoch) throws Exception {
        var members = describeGroup(group).members();
        Expect.that("nobody is left", members.stream().allMatch(member -> member.memberEpoch().orElse(0) > epoch), members);
    }

    private void describeClassic() throws Exception {
        try (Group group = new Group("classic")) {
            var description = Expect.got(admin.describeClassicGroups(List.of(group.id)).all()).get(group.id);
            Expect.equal("protocol", "consumer range", description.protocol() + " " + description.protocolData());
            Expect.equal("state", ClassicGroupState.STABLE, description.state());
            Expect.equal("members", 1, description.members().size());
        }
    }

    private void unknown() throws Exception {
        String group = broker.name("unknown");
        var notFound = GroupIdNotFoundException.class;
        Expect.failure("by describeConsumerGroups", notFound, () -> admin.describeConsumerGroups(List.of(group)).all());
        Expect.failure("by describeClassicGroups", notFound, () -> admin.describeClassicGroups(List.of(group)).all());
        Expect.equal("its offsets", Map.of(), offsetsOf(group));
    }

    private void streams() throws Exception {
        var features = Expect.got(admin.describeFeatures().featureMetadata()).finalizedFeatures();
        Expect.that("streams.version is on", features.containsKey("streams.version"), features);
        String unknown = broker.name("unknown");
        Expect.failure("describing one that is not there", GroupIdNotFoundException.class,
            () -> admin.describeStreamsGroups(List.of(unknown)).all());
        Expect.failure("deleting one that is not there", GroupIdNotFoundException.class,
            () -> admin.deleteStreamsGroups(List.of(unknown)).all());
        String group = broker.name("streams");
        TopicPartition partition = new TopicPartition(broker.topic("streams", 1), 0);
        Expect.got(admin.alterStreamsGroupOffsets(group, Map.of(partition, FIVE)).all());
        var spec = Map.of(group, new ListStreamsGroupOffsetsSpec().topicPartitions(List.of(partition)));
        Expect.equal("altered", FIVE, Expect.got(admin.listStreamsGroupOffsets(spec).all()).get(group).get(partition));
        Expect.got(admin.deleteStreamsGroupOffsets(group, Set.of(partition)).all());
        Expect.equal("deleted", null, Expect.got(admin.listStreamsGroupOffsets(spec).all()).get(group).get(partition));
        Expect.got(admin.alterStreamsGroupOffsets(group, Map.of(partition, FIVE)).all());
        Expect.got(admin.deleteStreamsGroups(List.of(group)).all());
        Expect.equal("deleted with its group", null, Expect.got(admin.listStreamsGroupOffsets(spec).all()).get(group).get(partition));
    }
}
