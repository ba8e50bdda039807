"""The methods of kafka-python's admin client, for matrix_kafka_python.py."""

from kafka import OffsetSpec, TopicPartition
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ConfigResource,
    ConfigResourceType,
    ResourcePattern,
    ResourceType,
    ScramMechanism,
    TransactionState,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from kafka.errors import KafkaError, NoError, SecurityDisabledError
from kafka.structs import OffsetAndMetadata

from matrix import check, equal, holds, until
from matrix_kafka_python_kit import admin, consumer, create, producer, send_values, take


def error_name(call):
    """The name of the error a call raises, None if it succeeds."""
    try:
        call()
        return None
    except KafkaError as error:
        return type(error).__name__


def admin_check(claim):
    """Registers a check that is given an admin client as well."""

    def register(function):
        def body(run):
            client = admin(run)
            try:
                function(run, client)
            finally:
                client.close()

        return check("admin", claim)(body)

    return register


def new_topic(name, partitions=1, replicas=1, configs=None):
    return {name: {"num_partitions": partitions, "replication_factor": replicas, "configs": configs or {}}}


def config(client, topic, name):
    found = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
    return found["topic"][topic][name]


@admin_check("create_topics creates with configs, and refuses existing and bad names and bad numbers")
def create_topics(run, client):
    topic = create(run, "topic", 2, retention_ms="3600000")
    equal(config(client, topic, "retention.ms")["value"], "3600000")
    for wanted, new in (
        ("TopicAlreadyExistsError", new_topic(topic)),
        ("InvalidTopicError", new_topic("bad/name")),
        ("InvalidPartitionsError", new_topic(run.name("none"), partitions=0)),
        ("InvalidReplicationFactorError", new_topic(run.name("many"), replicas=100)),
        ("InvalidConfigurationError", new_topic(run.name("config"), configs={"no.such.config": "1"})),
    ):
        equal((list(new), error_name(lambda: client.create_topics(new))), (list(new), wanted))
    equal(error_name(lambda: client.create_topics(new_topic(run.name("checked")), validate_only=True)), None)
    holds(run.name("checked") not in client.list_topics(), "a validated topic exists")


@admin_check("describe_topics and describe_topic_partitions tell partitions, leaders and ids")
def describe_topics(run, client):
    topic = create(run, "topic", 3)
    [found] = client.describe_topics([topic])
    equal(sorted(partition["partition_index"] for partition in found["partitions"]), [0, 1, 2])
    [paged] = client.describe_topic_partitions([topic])["topics"]
    equal((paged["name"], len(paged["partitions"]), str(paged["topic_id"])), (topic, 3, str(found["topic_id"])))


@admin_check("describe_topic_partitions goes on after a limit at its cursor")
def paged_partitions(run, client):
    topic = create(run, "topic", 5)
    page = client.describe_topic_partitions([topic], response_partition_limit=2)
    equal([partition["partition_index"] for partition in page["topics"][0]["partitions"]], [0, 1])
    cursor = page["next_cursor"]
    equal((cursor["topic_name"], cursor["partition_index"]), (topic, 2))
    rest = client.describe_topic_partitions([topic], cursor=cursor)
    equal([partition["partition_index"] for partition in rest["topics"][0]["partitions"]], [2, 3, 4])


@admin_check("create_partitions adds partitions and refuses to take some away")
def create_partitions(run, client):
    topic = create(run, "topic", 2)
    client.create_partitions({topic: 4})
    until("four partitions are seen", lambda: len(client.describe_topics([topic])[0]["partitions"]) == 4)
    equal(error_name(lambda: client.create_partitions({topic: 1})), "InvalidPartitionsError")


@admin_check("delete_topics deletes, and then names the topic unknown")
def delete_topics(run, client):
    topic = create(run, "topic")
    client.delete_topics([topic])
    until("the topic is gone", lambda: topic not in client.list_topics())
    equal(error_name(lambda: client.delete_topics([topic])), "UnknownTopicOrPartitionError")


@admin_check("alter_configs changes and reset_configs resets a topic's configs")
def alter_configs(run, client):
    topic = create(run, "topic")
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": "7200000"})
    equal(client.alter_configs([resource]), {"topic": {topic: "OK"}})
    until("the change is seen", lambda: config(client, topic, "retention.ms")["value"] == "7200000")
    client.reset_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": None})])
    until("the default is back", lambda: config(client, topic, "retention.ms")["config_source"] == "DEFAULT_CONFIG")


@admin_check("list_config_resources lists topics and brokers")
def list_config_resources(run, client):
    topic = create(run, "topic")
    found = client.list_config_resources()
    holds(topic in found["topic"] and len(found["broker"]) == 1, sorted(found))


@admin_check("describe_cluster, describe_features, api_versions and describe_metadata_quorum describe the cluster")
def describe_cluster(run, client):
    cluster = client.describe_cluster()
    equal((len(cluster["brokers"]), str(cluster["brokers"][0]["port"])), (1, run.bootstrap.rsplit(":", 1)[1]))
    holds("metadata.version" in client.describe_features(), client.describe_features())
    holds(len(list(client.api_versions())) > 40, list(client.api_versions()))
    [topic] = client.describe_metadata_quorum()["topics"]
    equal((topic["topic_name"], len(topic["partitions"][0]["current_voters"])), ("__cluster_metadata", 1))


@admin_check("describe_log_dirs tells the size of a partition")
def describe_log_dirs(run, client):
    topic = create(run, "topic")
    send_values(run, topic, [b"x" * 1000])
    [broker] = client.describe_log_dirs()
    [found] = [entry for directory in broker["log_dirs"] for entry in directory["topics"] if entry["name"] == topic]
    holds(found["partitions"][0]["partition_size"] > 1000, found)


@admin_check("list_groups and describe_groups show a group with its member")
def describe_groups(run, client):
    topic, group = create(run, "topic"), run.name("group")
    send_values(run, topic, [b"v"])
    reader = consumer(run, "group", topic)
    take(reader, 1)
    found = client.describe_groups([group])[group]
    equal((found["group_state"], found["protocol_type"], len(found["members"])), ("Stable", "consumer", 1))
    listed = {entry["group_id"]: (entry["group_state"], entry["group_type"]) for entry in client.list_groups()}
    equal(listed.get(group), ("Stable", "classic"))
    reader.close()


@admin_check("group offsets are altered, reset, listed and deleted, and the group is deleted")
def group_offsets(run, client):
    topic, group = create(run, "topic"), run.name("group")
    send_values(run, topic, [b"v"] * 10)
    partition = TopicPartition(topic, 0)

    def offset():
        return {at: found.offset for at, found in client.list_group_offsets({group: None})[group].items()}

    equal(client.alter_group_offsets(group, {partition: OffsetAndMetadata(4, "", -1)}), {partition: NoError})
    equal(offset(), {partition: 4})
    equal(client.reset_group_offsets(group, {partition: OffsetSpec.LATEST})[partition]["offset"], 10)
    equal(offset(), {partition: 10})
    equal(client.delete_group_offsets(group, [partition]), {partition: NoError})
    equal(offset().get(partition, -1), -1)
    client.alter_group_offsets(group, {partition: OffsetAndMetadata(4, "", -1)})
    equal(client.delete_groups([group]), {group: "OK"})
    holds(group not in {entry["group_id"] for entry in client.list_groups()}, "the group is still listed")


@admin_check("delete_records moves the start of a partition, and list_partition_offsets sees it")
def delete_records(run, client):
    topic = create(run, "topic")
    send_values(run, topic, [b"v"] * 100)
    partition = TopicPartition(topic, 0)
    equal(client.delete_records({partition: 60})[partition]["low_watermark"], 60)
    for wanted, spec in ((60, OffsetSpec.EARLIEST), (100, OffsetSpec.LATEST)):
        equal(client.list_partition_offsets({partition: spec})[partition].offset, wanted)


@admin_check("describe_producers, describe_transactions and list_transactions show an open transaction")
def transactions(run, client):
    topic, name = create(run, "topic"), run.name("transactional")
    writer, partition = producer(run, transactional_id=name), TopicPartition(topic, 0)
    writer.init_transactions()
    writer.begin_transaction()
    writer.send(topic, b"v").get(20)
    found = client.describe_transactions([name])[name]
    equal((found.state, found.topic_partitions), (TransactionState.ONGOING, {partition}))
    [active] = client.describe_producers([partition])[partition].active_producers
    equal((active.producer_id, active.current_transaction_start_offset), (found.producer_id, 0))
    [listed] = [entry for entries in client.list_transactions().values() for entry in entries if entry.transactional_id == name]
    equal(listed.state, TransactionState.ONGOING)
    writer.commit_transaction()
    writer.close()
    until("it is complete", lambda: client.describe_transactions([name])[name].state == TransactionState.COMPLETE_COMMIT)


@admin_check("reassignments: to the replicas a partition has is accepted, and none is under way afterwards")
def reassignments(run, client):
    partition = TopicPartition(create(run, "topic"), 0)
    [node] = [broker["broker_id"] for broker in client.describe_cluster()["brokers"]]
    equal(client.alter_partition_reassignments({partition: [node]}), {partition: None})
    equal(client.list_partition_reassignments(), {})


@admin_check("SCRAM credentials are added, described and deleted")
def scram_credentials(run, client):
    user, mechanism = run.name("user"), ScramMechanism.SCRAM_SHA_512
    equal(client.alter_user_scram_credentials([UserScramCredentialUpsertion(user, mechanism, b"secret", 8192)]), {user: None})

    def infos():
        return client.describe_user_scram_credentials([user])[user]["credential_infos"]

    until("the user is known", lambda: infos() == [{"mechanism": mechanism, "iterations": 8192}])
    equal(client.alter_user_scram_credentials([UserScramCredentialDeletion(user, mechanism)]), {user: None})
    until("the user is gone", lambda: not infos())


@admin_check("create_acls, describe_acls and delete_acls answer SECURITY_DISABLED without an authorizer")
def acls(run, client):
    pattern = ResourcePattern(ResourceType.TOPIC, run.name("acl"))
    rights = ("User:alice", "*", ACLOperation.READ, ACLPermissionType.ALLOW, pattern)
    equal(error_name(lambda: client.describe_acls(ACLFilter(*rights))), "SecurityDisabledError")
    equal(client.create_acls([ACL(*rights)]), {"succeeded": [], "failed": [SecurityDisabledError]})
    [(_, matches, error)] = client.delete_acls([ACLFilter(*rights)])
    equal((matches, error), ([], SecurityDisabledError))
