"""The methods of confluent-kafka's AdminClient, for matrix_confluent.py."""

from confluent_kafka import ConsumerGroupState, ConsumerGroupTopicPartitions, ConsumerGroupType, ElectionType, IsolationLevel
from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

from matrix import check, equal, holds, until
from matrix_confluent_kit import consumer, create, read, send_values, take


def admin(run):
    return AdminClient({"bootstrap.servers": run.bootstrap})


def error_code(future):
    """The error code that a request ended with, None if it succeeded."""
    try:
        future.result(20)
        return None
    except KafkaException as error:
        return error.args[0].code()


def configs(client, resource):
    return client.describe_configs([resource])[resource].result(20)


def altered(resource, *changes):
    """A resource with the changes (name, value, operation) for incremental_alter_configs."""
    resource = ConfigResource(resource.restype, resource.name)
    for name, value, operation in changes:
        resource.add_incremental_config(ConfigEntry(name, value, incremental_operation=operation))
    return resource


def committed_group(run, topic, count):
    """A group without members that committed `count` as the offset of the topic's partition 0."""
    send_values(run, topic, [b"v"] * count)
    client = consumer(run, "group")
    client.subscribe([topic])
    take(client, count)
    client.commit(asynchronous=False)
    client.close()
    return run.name("group")


@check("admin", "create_topics creates with configs, validates without creating, and refuses bad names, counts and configs")
def create_topics(run):
    client, topic = admin(run), create(run, "topic", 2, retention_ms="3600000")
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    equal(configs(client, resource)["retention.ms"].value, "3600000")
    checked = run.name("checked")
    equal(error_code(client.create_topics([NewTopic(checked, 1, 1)], validate_only=True)[checked]), None)
    holds(checked not in client.list_topics(timeout=20).topics, "a validated topic exists")
    for wanted, new in (
        (KafkaError.TOPIC_ALREADY_EXISTS, NewTopic(topic, 1, 1)),
        (KafkaError.TOPIC_EXCEPTION, NewTopic("bad/name", 1, 1)),
        (KafkaError.INVALID_PARTITIONS, NewTopic(run.name("none"), 0, 1)),
        (KafkaError.INVALID_REPLICATION_FACTOR, NewTopic(run.name("many"), 1, 100)),
        (KafkaError.INVALID_CONFIG, NewTopic(run.name("config"), 1, 1, config={"no.such.config": "1"})),
    ):
        equal((new.topic, error_code(client.create_topics([new])[new.topic])), (new.topic, wanted))


@check("admin", "describe_topics and list_topics tell partitions, leaders and ids")
def describe_topics(run):
    client, topic = admin(run), create(run, "topic", 3)
    described = client.describe_topics(TopicCollection([topic]))[topic].result(20)
    equal((described.name, [partition.id for partition in described.partitions], described.is_internal), (topic, [0, 1, 2], False))
    holds(all(partition.leader is not None and len(partition.isr) == 1 for partition in described.partitions), described)
    holds(str(described.topic_id) not in ("", "AAAAAAAAAAAAAAAAAAAAAA"), str(described.topic_id))
    equal(error_code(client.describe_topics(TopicCollection([run.name("no")]))[run.name("no")]), KafkaError.UNKNOWN_TOPIC_OR_PART)


@check("admin", "create_partitions adds partitions and refuses to take some away")
def create_partitions(run):
    client, topic = admin(run), create(run, "topic", 2)
    client.create_partitions([NewPartitions(topic, 5)])[topic].result(20)
    until("five partitions are seen", lambda: len(client.list_topics(topic, timeout=20).topics[topic].partitions) == 5)
    equal(error_code(client.create_partitions([NewPartitions(topic, 3)])[topic]), KafkaError.INVALID_PARTITIONS)


@check("admin", "delete_topics deletes, and then names the topic unknown")
def delete_topics(run):
    client, topic = admin(run), create(run, "topic")
    client.delete_topics([topic])[topic].result(20)
    until("the topic is gone", lambda: topic not in client.list_topics(timeout=20).topics)
    equal(error_code(client.delete_topics([topic])[topic]), KafkaError.UNKNOWN_TOPIC_OR_PART)


@check("admin", "incremental_alter_configs sets, deletes, appends and subtracts, and refuses what is invalid")
def incremental_alter_configs(run):
    client, topic = admin(run), create(run, "topic", cleanup_policy="delete", retention_ms="3600000")
    resource, operation = ConfigResource(ConfigResource.Type.TOPIC, topic), AlterConfigOpType

    def alter(*changes):
        changed = altered(resource, *changes)
        return error_code(client.incremental_alter_configs([changed])[changed])

    def value(name):
        return configs(client, resource)[name].value

    equal(alter(("cleanup.policy", "compact", operation.APPEND), ("max.message.bytes", "50000", operation.SET)), None)
    until("the changes are seen", lambda: value("max.message.bytes") == "50000")
    equal(sorted(value("cleanup.policy").split(",")), ["compact", "delete"])
    equal(alter(("cleanup.policy", "compact", operation.SUBTRACT), ("retention.ms", None, operation.DELETE)), None)
    until("retention.ms is the default", lambda: configs(client, resource)["retention.ms"].is_default)
    equal(value("cleanup.policy"), "delete")
    equal(alter(("segment.bytes", "many", operation.SET)), KafkaError.INVALID_CONFIG)


@check("admin", "alter_configs replaces all of a topic's configs")
def alter_configs(run):
    client, topic = admin(run), create(run, "topic", retention_ms="3600000")
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, set_config={"segment.bytes": "2000000"})
    client.alter_configs([resource])[resource].result(20)
    until("the new config is seen", lambda: configs(client, resource)["segment.bytes"].value == "2000000")
    holds(configs(client, resource)["retention.ms"].is_default, configs(client, resource)["retention.ms"])


@check("admin", "describe_configs describes topics with synonyms, and brokers")
def describe_configs(run):
    client, topic = admin(run), create(run, "topic", retention_ms="3600000")
    entry = configs(client, ConfigResource(ConfigResource.Type.TOPIC, topic))["retention.ms"]
    equal((entry.value, entry.is_default, entry.is_read_only, entry.is_sensitive), ("3600000", False, False, False))
    node = next(iter(client.list_topics(timeout=20).brokers))
    broker = configs(client, ConfigResource(ConfigResource.Type.BROKER, str(node)))
    holds(int(broker["message.max.bytes"].value) > 0 and broker["node.id"].is_read_only, sorted(broker)[:20])
    unknown = ConfigResource(ConfigResource.Type.TOPIC, run.name("no"))
    equal(error_code(client.describe_configs([unknown])[unknown]), KafkaError.UNKNOWN_TOPIC_OR_PART)


@check("admin", "a broker's config is changed while it runs and set back")
def broker_config(run):
    client = admin(run)
    resource = ConfigResource(ConfigResource.Type.BROKER, str(next(iter(client.list_topics(timeout=20).brokers))))
    changed = altered(resource, ("log.cleaner.threads", "2", AlterConfigOpType.SET))
    client.incremental_alter_configs([changed])[changed].result(20)
    until("the change is seen", lambda: configs(client, resource)["log.cleaner.threads"].value == "2")
    restored = altered(resource, ("log.cleaner.threads", None, AlterConfigOpType.DELETE))
    client.incremental_alter_configs([restored])[restored].result(20)
    until("the default is back", lambda: configs(client, resource)["log.cleaner.threads"].value == "1")


@check("admin", "describe_cluster tells id, controller and nodes")
def describe_cluster(run):
    client = admin(run)  # Held: a client that goes away takes its pending requests with it.
    cluster = client.describe_cluster().result(20)
    holds(cluster.cluster_id and len(cluster.nodes) == 1 and cluster.controller is not None, vars(cluster))
    equal(str(cluster.nodes[0].port), run.bootstrap.rsplit(":", 1)[1])


@check("admin", "list_consumer_groups and describe_consumer_groups show a group with its member and state")
def describe_groups(run):
    client, topic, group = admin(run), create(run, "topic"), run.name("group")
    reader = consumer(run, "group")
    reader.subscribe([topic])
    until("the member has its partition", lambda: reader.poll(0.1) is not None or len(reader.assignment()) == 1)

    def described():
        return client.describe_consumer_groups([group])[group].result(20)

    until("the group is stable", lambda: described().state == ConsumerGroupState.STABLE)
    found = described()
    equal((found.group_id, len(found.members), found.partition_assignor), (group, 1, "range"))
    equal([(p.topic, p.partition) for p in found.members[0].assignment.topic_partitions], [(topic, 0)])
    listed = {entry.group_id: entry for entry in client.list_consumer_groups().result(20).valid}
    equal((listed[group].state, listed[group].type), (ConsumerGroupState.STABLE, ConsumerGroupType.CLASSIC))
    empty = client.list_consumer_groups(states={ConsumerGroupState.EMPTY}).result(20).valid
    holds(group not in {entry.group_id for entry in empty}, "the filter by state lets it pass")
    reader.close()


@check("admin", "list_groups, the older request, describes a group as well")
def list_groups(run):
    client, group = admin(run), committed_group(run, create(run, "topic"), 3)
    [found] = client.list_groups(group, timeout=20)
    equal((found.id, found.state, found.protocol_type, found.members), (group, "Empty", "consumer", []))


@check("admin", "list_consumer_group_offsets and alter_consumer_group_offsets read and change committed offsets")
def group_offsets(run):
    client, topic = admin(run), create(run, "topic")
    group = committed_group(run, topic, 10)

    def offset():
        listed = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(20)
        return [(p.topic, p.partition, p.offset) for p in listed.topic_partitions]

    equal(offset(), [(topic, 0, 10)])
    moved = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 4)])
    client.alter_consumer_group_offsets([moved])[group].result(20)
    equal(offset(), [(topic, 0, 4)])


@check("admin", "delete_consumer_groups deletes an empty group and refuses one with members")
def delete_groups(run):
    client, topic = admin(run), create(run, "topic")
    group = committed_group(run, topic, 2)
    client.delete_consumer_groups([group])[group].result(20)
    equal(error_code(client.delete_consumer_groups([group])[group]), KafkaError.GROUP_ID_NOT_FOUND)
    reader = consumer(run, "group")
    reader.subscribe([topic])
    take(reader, 2)
    equal(error_code(client.delete_consumer_groups([group])[group]), KafkaError.NON_EMPTY_GROUP)
    reader.close()


@check("admin", "delete_records moves the start of a partition, and refuses an offset past its end")
def delete_records(run):
    client, topic = admin(run), create(run, "topic")
    send_values(run, topic, [str(i).encode() for i in range(100)])
    [future] = client.delete_records([TopicPartition(topic, 0, 60)]).values()
    equal(future.result(20).low_watermark, 60)
    equal([message.offset() for message in read(run, topic, 40)], list(range(60, 100)))
    [future] = client.delete_records([TopicPartition(topic, 0, 1000)]).values()
    equal(error_code(future), KafkaError.OFFSET_OUT_OF_RANGE)


@check("admin", "list_offsets finds earliest, latest, by time and the largest timestamp")
def list_offsets(run):
    client, topic = admin(run), create(run, "topic")
    for i, time_ms in enumerate((1000, 5000, 3000)):
        send_values(run, topic, [str(i).encode()], timestamp=1_700_000_000_000 + time_ms)
    partition = TopicPartition(topic, 0)
    for wanted, spec in (
        (0, OffsetSpec.earliest()),
        (3, OffsetSpec.latest()),
        (1, OffsetSpec.max_timestamp()),
        (1, OffsetSpec.for_timestamp(1_700_000_002_000)),
    ):
        result = client.list_offsets({partition: spec}, isolation_level=IsolationLevel.READ_COMMITTED)[partition].result(20)
        equal((spec, result.offset), (spec, wanted))


@check("admin", "elect_leaders says that the preferred leader leads already")
def elect_leaders(run):
    client, topic = admin(run), create(run, "topic")
    [error] = client.elect_leaders(ElectionType.PREFERRED, [TopicPartition(topic, 0)]).result(20).values()
    equal(error.code(), KafkaError.ELECTION_NOT_NEEDED)


@check("admin", "without an authorizer, create_acls and delete_acls answer SECURITY_DISABLED and describe_acls finds nothing")
def acls(run):
    client, pattern = admin(run), (ResourceType.TOPIC, run.name("acl"), ResourcePatternType.LITERAL)
    rights = ("User:alice", "*", AclOperation.READ, AclPermissionType.ALLOW)
    binding, everything = AclBinding(*pattern, *rights), AclBindingFilter(*pattern, *rights)
    equal(error_code(client.create_acls([binding])[binding]), KafkaError.SECURITY_DISABLED)
    equal(client.describe_acls(everything).result(20), [])
    equal(error_code(client.delete_acls([everything])[everything]), KafkaError.SECURITY_DISABLED)


@check("admin", "alter_user_scram_credentials and describe_user_scram_credentials add, show and delete a user's credentials")
def scram_credentials(run):
    client, user = admin(run), run.name("user")
    added = UserScramCredentialUpsertion(user, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 8192), b"secret", b"salty")
    equal(error_code(client.alter_user_scram_credentials([added])[user]), None)

    def infos():
        found = client.describe_user_scram_credentials([user])[user].result(20).scram_credential_infos
        return [(info.mechanism, info.iterations) for info in found]

    until("the user is known", lambda: error_code(client.describe_user_scram_credentials([user])[user]) is None)
    equal(infos(), [(ScramMechanism.SCRAM_SHA_256, 8192)])
    deleted = UserScramCredentialDeletion(user, ScramMechanism.SCRAM_SHA_256)
    equal(error_code(client.alter_user_scram_credentials([deleted])[user]), None)
    until("the user is gone", lambda: error_code(client.describe_user_scram_credentials([user])[user]) is not None)
