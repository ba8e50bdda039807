#!/usr/bin/env python3
"""What Apache Kafka's own command-line tools can do with a cluster, an action a check.

usage: tools.py --bootstrap HOST:PORT --jars DIR [--only TEXT] [--prefix NAME]

The jars are Apache Kafka's. A result's feature is the tool, by the name of its script without kafka- and .sh. The tools that produce,
consume and look at groups are in tools_data.py; matrix.py says how checks are run.
"""

import json
import re
import shutil
import tempfile

import matrix
import tools_data  # noqa: F401 (registers its checks)
from matrix import check, equal, holds, until
from tools_kit import add_arguments, console, create, offsets, produce, row, tool, version


@check("topics", "--create makes a topic with configs that --describe and --list show")
def create_topic(run):
    topic = create(run, "topic", 3, "retention.ms=3600000")
    described = tool(run, "topics", "--describe", "--topic", topic)
    holds("PartitionCount: 3" in described and "retention.ms=3600000" in described, described)
    equal(len(re.findall(r"Partition: \d+\s+Leader: \d+", described)), 3)
    holds(topic in tool(run, "topics", "--list").split(), "it is not listed")


@check("topics", "--create says that a topic exists, and does nothing with --if-not-exists")
def create_again(run):
    topic = create(run, "topic")
    holds("already exists" in tool(run, "topics", "--create", "--topic", topic, fails=True), "another error")
    tool(run, "topics", "--create", "--if-not-exists", "--topic", topic)


@check("topics", "--alter adds partitions")
def alter_topic(run):
    topic = create(run, "topic")
    tool(run, "topics", "--alter", "--topic", topic, "--partitions", "4")
    until("four partitions are seen", lambda: "PartitionCount: 4" in tool(run, "topics", "--describe", "--topic", topic))


@check("topics", "--delete deletes")
def delete_topic(run):
    topic = create(run, "topic")
    tool(run, "topics", "--delete", "--topic", topic)
    until("the topic is gone", lambda: topic not in tool(run, "topics", "--list").split())


def entity_configs(run, *entity):
    return tool(run, "configs", "--describe", *entity)


@check("configs", "--alter sets and deletes a topic's configs, and --describe shows them, all with --all")
def topic_configs(run):
    entity = ("--entity-type", "topics", "--entity-name", create(run, "topic"))
    tool(run, "configs", "--alter", *entity, "--add-config", "retention.ms=7200000,cleanup.policy=[compact,delete]")
    until("the changes are seen", lambda: "retention.ms=7200000" in entity_configs(run, *entity))
    holds("cleanup.policy=compact,delete" in entity_configs(run, *entity), entity_configs(run, *entity))
    tool(run, "configs", "--alter", *entity, "--delete-config", "retention.ms")
    until("retention.ms is gone", lambda: "retention.ms" not in entity_configs(run, *entity))
    everything = entity_configs(run, *entity, "--all")
    holds("segment.bytes=1073741824" in everything and "min.insync.replicas=1" in everything, everything)


@check("configs", "--describe shows a broker's configs")
def broker_configs(run):
    node = re.search(r"\(id: (\d+) rack", tool(run, "broker-api-versions")).group(1)
    described = entity_configs(run, "--entity-type", "brokers", "--entity-name", node, "--all")
    holds("message.max.bytes=" in described and f"node.id={node}" in described, described)


@check("configs", "a group's configs are set, described and deleted")
def group_configs(run):
    entity = ("--entity-type", "groups", "--entity-name", run.name("group"))
    tool(run, "configs", "--alter", *entity, "--add-config", "share.auto.offset.reset=earliest")
    until("the change is seen", lambda: "share.auto.offset.reset=earliest" in entity_configs(run, *entity))
    tool(run, "configs", "--alter", *entity, "--delete-config", "share.auto.offset.reset")
    until("it is gone", lambda: "share.auto.offset.reset=earliest" not in entity_configs(run, *entity))


@check("configs", "a user's and client's quotas are set, described and deleted")
def quotas(run):
    entity = ("--entity-type", "users", "--entity-name", run.name("user"), "--entity-type", "clients", "--entity-name", run.name("client"))
    tool(run, "configs", "--alter", *entity, "--add-config", "producer_byte_rate=1000000,consumer_byte_rate=2000000")
    until("the quotas are seen", lambda: "producer_byte_rate=1000000" in entity_configs(run, *entity))
    holds("consumer_byte_rate=2000000" in entity_configs(run, *entity), entity_configs(run, *entity))
    tool(run, "configs", "--alter", *entity, "--delete-config", "producer_byte_rate,consumer_byte_rate")
    until("they are gone", lambda: "byte_rate" not in entity_configs(run, *entity))


@check("configs", "a user's SCRAM credentials are added, described and deleted")
def scram(run):
    entity = ("--entity-type", "users", "--entity-name", run.name("user"))
    tool(run, "configs", "--alter", *entity, "--add-config", "SCRAM-SHA-256=[iterations=8192,password=secret]")
    until("the credentials are seen", lambda: "SCRAM-SHA-256=iterations=8192" in entity_configs(run, *entity))
    tool(run, "configs", "--alter", *entity, "--delete-config", "SCRAM-SHA-256")
    until("they are gone", lambda: "SCRAM" not in entity_configs(run, *entity))


@check("client-metrics", "a subscription is made, listed, described and deleted")
def client_metrics(run):
    name = run.name("metrics")
    tool(run, "client-metrics", "--alter", "--name", name, "--metrics", "org.apache.kafka.producer.", "--interval", "30000")
    until("it is listed", lambda: name in tool(run, "client-metrics", "--list").split())
    described = tool(run, "client-metrics", "--describe", "--name", name)
    holds("interval.ms=30000" in described and "metrics=org.apache.kafka.producer." in described, described)
    tool(run, "client-metrics", "--delete", "--name", name)
    until("it is gone", lambda: name not in tool(run, "client-metrics", "--list").split())


@check("get-offsets", "the earliest, latest and largest-timestamp offsets and one found by time are told")
def get_offsets(run):
    topic = create(run, "topic", 2)
    produce(run, topic, "a\nb\nc\n")
    for time, wanted in (("-1", 3), ("earliest", 0), ("max-timestamp", None), ("0", 0)):
        found = offsets(run, topic, "--time", time)
        holds(sum(found.values()) == wanted if wanted is not None else max(found.values()) >= 0, time, found)


@check("log-dirs", "--describe tells the size of a topic's partitions")
def log_dirs(run):
    topic = create(run, "topic", 2)
    produce(run, topic, "x" * 1000 + "\n")
    output = tool(run, "log-dirs", "--describe", "--topic-list", topic)
    [broker] = json.loads(output.splitlines()[-1])["brokers"]
    sizes = {partition["partition"]: partition["size"] for entry in broker["logDirs"] for partition in entry["partitions"]}
    holds(sorted(sizes) == [f"{topic}-0", f"{topic}-1"] and max(sizes.values()) > 1000, output)


def json_file(content):
    """A file for an option that wants one; the caller holds on to it."""
    file = tempfile.NamedTemporaryFile("w", suffix=".json")
    json.dump(content, file)
    file.flush()
    return file


@check("delete-records", "records before an offset are deleted")
def delete_records(run):
    topic = create(run, "topic")
    produce(run, topic, "".join(f"{i}\n" for i in range(10)))
    with json_file({"partitions": [{"topic": topic, "partition": 0, "offset": 6}], "version": 1}) as file:
        output = tool(run, "delete-records", "--offset-json-file", file.name)
    holds("low_watermark: 6" in output, output)
    equal(offsets(run, topic, "--time", "earliest"), {0: 6})
    equal(console(run, topic, 4), ["6", "7", "8", "9"])


@check("leader-election", "a preferred leader that leads already needs no election")
def leader_election(run):
    topic = create(run, "topic")
    output = tool(run, "leader-election", "--election-type", "preferred", "--topic", topic, "--partition", "0")
    holds("already elected leader" in output or "Valid replica already elected" in output, output)


@check("reassign-partitions", "--generate, --execute with a throttle, --verify and --list move a partition to where it is")
def reassign(run):
    topic = create(run, "topic")
    node = re.search(r"Leader: (\d+)", tool(run, "topics", "--describe", "--topic", topic)).group(1)
    with json_file({"topics": [{"topic": topic}], "version": 1}) as file:
        options = ("--topics-to-move-json-file", file.name, "--broker-list", node)
        proposal = json.loads(tool(run, "reassign-partitions", "--generate", *options).strip().splitlines()[-1])
    equal([(entry["topic"], entry["replicas"]) for entry in proposal["partitions"]], [(topic, [int(node)])])
    with json_file(proposal) as file:
        done = tool(run, "reassign-partitions", "--execute", "--throttle", "1000000", "--reassignment-json-file", file.name)
        holds("The inter-broker throttle limit was set" in done, done)
        holds("Successfully started partition reassignment" in done, done)
        verified = tool(run, "reassign-partitions", "--verify", "--reassignment-json-file", file.name)
        holds(f"Reassignment of partition {topic}-0 is completed" in verified, verified)
        holds("Clearing broker-level throttles" in verified, verified)
    holds("No partition reassignments found" in tool(run, "reassign-partitions", "--list"), "one is under way")


@check("cluster", "cluster-id tells the id, and list-endpoints the brokers")
def cluster(run):
    holds(re.search(r"Cluster ID: \S{10,}", tool(run, "cluster", "cluster-id")), "no id")
    endpoints = tool(run, "cluster", "list-endpoints")
    holds(run.bootstrap.rsplit(":", 1)[1] in endpoints, endpoints)


@check("broker-api-versions", "requests of every kind have versions that both the tool and the broker speak")
def api_versions(run):
    output = tool(run, "broker-api-versions")
    usable = re.findall(r"(\w+)\(\d+\): .*\[usable: \d+\]", output)
    needed = {"Produce", "Fetch", "JoinGroup", "ConsumerGroupHeartbeat", "ShareFetch", "TxnOffsetCommit", "IncrementalAlterConfigs"}
    holds(needed <= set(usable), sorted(needed - set(usable)), len(usable))


@check("features", "describe shows metadata.version and its finalized level, and the cluster can be upgraded to a release")
def features(run):
    output = tool(run, "features", "describe")
    holds(re.search(r"Feature: metadata.version\s.*FinalizedVersionLevel: \S+", output), output)
    tool(run, "features", "upgrade", "--release-version", "4.2")


@check("metadata-quorum", "describe tells the leader of the metadata and its replicas")
def metadata_quorum(run):
    status = tool(run, "metadata-quorum", "describe", "--status")
    leader = row(status, "LeaderId:")[1]
    replication = tool(run, "metadata-quorum", "describe", "--replication")
    equal([line.split()[0] for line in replication.splitlines() if line.rstrip().endswith("Leader")], [leader])


@check("acls", "--list says that security is disabled where there is no authorizer")
def acls(run):
    output = tool(run, "acls", "--list", fails=True)
    holds("SecurityDisabledException" in output or "No Authorizer is configured" in output, output)


@check("delegation-tokens", "--describe says that tokens are refused on a connection without authentication")
def delegation_tokens(run):
    with tempfile.NamedTemporaryFile("w") as file:
        output = tool(run, "delegation-tokens", "--describe", "--command-config", file.name, fails=True)
    holds("Delegation Token" in output, output)


if __name__ == "__main__":
    if not version() or not shutil.which("java"):
        matrix.skip_all("kafka tools", "java or the jars of Apache Kafka are not there")
    matrix.main(f"kafka tools {version()}", add_arguments, parallel=6)
