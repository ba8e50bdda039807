"""Apache Kafka's command-line tools that produce, consume and look at groups and transactions, for tools.py."""

import json

from matrix import check, equal, holds, until
from tools_kit import console, create, offsets, produce, row, tool

SEPARATED = ("--reader-property", "parse.key=true", "--reader-property", "key.separator=:")
SHOW_ALL = [part for name in ("key", "offset", "partition", "headers") for part in ("--formatter-property", f"print.{name}=true")]


@check("console-producer", "keys, headers and null values are produced as the line says")
def console_producer(run):
    topic = create(run, "topic")
    more = ("--reader-property", "parse.headers=true", "--reader-property", "null.marker=NULL")
    produce(run, topic, "a:1,b:2\tkey:value\nNULL\tk2:NULL\n", *SEPARATED, *more)
    lines = console(run, topic, 2, *SHOW_ALL)
    equal(lines, ["Partition:0\tOffset:0\ta:1,b:2\tkey\tvalue", "Partition:0\tOffset:1\tNO_HEADERS\tk2\tnull"])


@check("console-producer", "every codec of --compression-codec")
def console_codecs(run):
    topic = create(run, "topic")
    codecs = ("none", "gzip", "snappy", "lz4", "zstd")
    for codec in codecs:
        produce(run, topic, f"{codec} {'compressible ' * 50}\n", "--compression-codec", codec)
    equal([line.split()[0] for line in console(run, topic, 5)], list(codecs))


@check("console-consumer", "a group goes on where it stopped, and --partition with --offset starts there")
def console_consumer(run):
    topic, group = create(run, "topic"), ("--group", run.name("group"))
    produce(run, topic, "".join(f"{i}\n" for i in range(10)))
    equal(console(run, topic, 4, *group), ["0", "1", "2", "3"])
    equal(console(run, topic, 3, *group), ["4", "5", "6"])
    limits = ("--max-messages", "2", "--timeout-ms", "20000")
    equal(tool(run, "console-consumer", "--topic", topic, "--partition", "0", "--offset", "8", *limits).split(), ["8", "9"])


@check("verifiable-producer", "every record is acknowledged")
def verifiable_producer(run):
    topic = create(run, "topic")
    output = tool(run, "verifiable-producer", "--topic", topic, "--max-messages", "100", "--acks", "-1")
    summary = json.loads(output.splitlines()[-1])
    equal((summary["name"], summary["sent"], summary["acked"]), ("tool_data", 100, 100))
    equal(offsets(run, topic), {0: 100})


def verified(run, *arguments):
    """What a verifiable consumer of 50 records says, by event."""
    topic = create(run, "topic")
    tool(run, "verifiable-producer", "--topic", topic, "--max-messages", "50")
    options = ("--topic", topic, "--group-id", run.name("group"), "--max-messages", "50", *arguments)
    events = [json.loads(line) for line in tool(run, "verifiable-consumer", *options).splitlines() if line.startswith("{")]
    consumed = sum(event["count"] for event in events if event["name"] == "records_consumed")
    committed = [event for event in events if event["name"] == "offsets_committed"]
    equal((consumed, committed[-1]["success"], committed[-1]["offsets"][0]["offset"]), (50, True, 50))


@check("verifiable-consumer", "a member of the classic protocol consumes and commits")
def verifiable_consumer(run):
    verified(run, "--group-protocol", "classic", "--reset-policy", "earliest", "--session-timeout", "6000")


@check("verifiable-consumer", "a member of the KIP-848 protocol consumes and commits")
def verifiable_consumer_848(run):
    verified(run, "--group-protocol", "consumer", "--reset-policy", "earliest", "--group-remote-assignor", "uniform")


def perf(run, topic, count, *arguments):
    options = ("--topic", topic, "--num-records", str(count), "--record-size", "100", "--throughput", "-1")
    return tool(run, "producer-perf-test", *options, *arguments)


@check("producer-perf-test", "5000 records are sent and their speed is told")
def producer_perf(run):
    topic = create(run, "topic")
    output = perf(run, topic, 5000)
    holds("5000 records sent" in output.splitlines()[-1] and "records/sec" in output, output)
    equal(offsets(run, topic), {0: 5000})


@check("consumer-perf-test", "5000 records are read and their speed is told")
def consumer_perf(run):
    topic = create(run, "topic")
    perf(run, topic, 5000)
    output = tool(run, "consumer-perf-test", "--topic", topic, "--num-records", "5000", "--timeout", "20000", "--hide-header")
    equal(int(output.splitlines()[-1].split(",")[4]), 5000)


@check("e2e-latency", "20 records go through one after another, and percentiles are told")
def end_to_end(run):
    topic = create(run, "topic")
    output = tool(run, "e2e-latency", "--topic", topic, "--num-records", "20", "--producer-acks", "1", "--record-size", "20")
    holds("Avg latency" in output and "Percentiles" in output, output)


def consumed_group(run, *arguments):
    """A group that consumed 6 of 10 records, and its topic."""
    topic, group = create(run, "topic"), run.name("group")
    produce(run, topic, "".join(f"{i}\n" for i in range(10)))
    console(run, topic, 6, "--group", group, *arguments)
    return topic, group


def group_offset(run, topic, group):
    return row(tool(run, "consumer-groups", "--describe", "--group", group), topic)[3]


@check("consumer-groups", "--list, --describe and --state show a group with its offsets and lag")
def describe_group(run):
    topic, group = consumed_group(run)
    holds(group in tool(run, "consumer-groups", "--list").split(), "it is not listed")
    equal(row(tool(run, "consumer-groups", "--describe", "--group", group), topic)[:6], [group, topic, "0", "6", "10", "4"])
    holds("Empty" in row(tool(run, "consumer-groups", "--describe", "--state", "--group", group), group), "its state is not Empty")
    holds(row(tool(run, "consumer-groups", "--list", "--state", "Empty"), group)[-1] == "Empty", "it is not listed as Empty")


@check("consumer-groups", "--describe shows the offsets and lag of a KIP-848 group, and --list --type finds it")
def describe_group_848(run):
    topic, group = consumed_group(run, "--consumer-property", "group.protocol=consumer")
    equal(row(tool(run, "consumer-groups", "--describe", "--group", group), topic)[:6], [group, topic, "0", "6", "10", "4"])
    equal(row(tool(run, "consumer-groups", "--list", "--type", "consumer"), group)[-1], "Consumer")


@check("consumer-groups", "--reset-offsets shows with --dry-run and moves with --execute")
def reset_offsets(run):
    topic, group = consumed_group(run)
    reset = ("--reset-offsets", "--group", group, "--topic", topic)
    equal(row(tool(run, "consumer-groups", *reset, "--to-earliest", "--dry-run"), topic)[3], "0")
    equal(group_offset(run, topic, group), "6")
    tool(run, "consumer-groups", *reset, "--shift-by", "-4", "--execute")
    equal(group_offset(run, topic, group), "2")


@check("consumer-groups", "--delete-offsets and --delete forget a group's offsets and the group")
def delete_group(run):
    topic, group = consumed_group(run)
    tool(run, "consumer-groups", "--delete-offsets", "--group", group, "--topic", topic)
    produce(run, topic, "more\n")
    equal(console(run, topic, 1, "--group", group), ["0"])
    output = tool(run, "consumer-groups", "--delete", "--group", group)
    holds("was successful" in output, output)
    holds(group not in tool(run, "consumer-groups", "--list").split(), "it is still listed")


@check("groups", "--list shows groups of every kind with their types")
def groups(run):
    _, group = consumed_group(run)
    equal(row(tool(run, "groups", "--list"), group), [group, "Classic", "consumer"])


@check("streams-groups", "--list answers where there are no streams groups")
def streams_groups(run):
    equal(tool(run, "streams-groups", "--list").split(), [])


def share_from_start(run):
    """Makes the share group of the check begin with the oldest record."""
    entity = ("--entity-type", "groups", "--entity-name", run.name("share"))
    tool(run, "configs", "--alter", *entity, "--add-config", "share.auto.offset.reset=earliest")
    return run.name("share")


def share(run, topic, count, *arguments):
    options = ("--topic", topic, "--group", run.name("share"), "--max-messages", str(count), "--timeout-ms", "20000")
    return tool(run, "console-share-consumer", *options, *arguments).split()


@check("console-share-consumer", "accepted records are not delivered again")
def console_share_consumer(run):
    topic = create(run, "topic")
    share_from_start(run)
    produce(run, topic, "".join(f"{i}\n" for i in range(10)))
    equal(sorted(share(run, topic, 10)), sorted(str(i) for i in range(10)))
    produce(run, topic, "more\n")
    equal(share(run, topic, 1), ["more"])


@check("console-share-consumer", "rejected records are not delivered again, released ones are")
def console_share_reject(run):
    topic = create(run, "topic")
    share_from_start(run)
    produce(run, topic, "first\n")
    equal(share(run, topic, 1, "--release"), ["first"])
    equal(share(run, topic, 1, "--reject"), ["first"])
    produce(run, topic, "second\n")
    equal(share(run, topic, 1), ["second"])


@check("share-groups", "--list, --describe, --reset-offsets and --delete")
def share_groups(run):
    topic, group = create(run, "topic"), share_from_start(run)
    produce(run, topic, "".join(f"{i}\n" for i in range(10)))
    share(run, topic, 10)
    holds(group in tool(run, "share-groups", "--list").split(), "it is not listed")
    described = ("share-groups", "--describe", "--group", group)
    until("the group is empty", lambda: "Empty" in tool(run, *described, "--state"))
    until("nothing is left", lambda: row(tool(run, *described), topic)[-1] == "0")
    tool(run, "share-groups", "--reset-offsets", "--group", group, "--topic", topic, "--to-earliest", "--execute")
    equal(share(run, topic, 10)[0], "0")
    until("the group is empty again", lambda: "Empty" in tool(run, *described, "--state"))
    tool(run, "share-groups", "--delete", "--group", group)
    holds(group not in tool(run, "share-groups", "--list").split(), "it is still listed")


@check("verifiable-share-consumer", "50 records are consumed and acknowledged")
def verifiable_share_consumer(run):
    topic, group = create(run, "topic"), share_from_start(run)
    tool(run, "verifiable-producer", "--topic", topic, "--max-messages", "50")
    options = ("--topic", topic, "--group-id", group, "--max-messages", "50", "--acknowledgement-mode", "sync")
    events = [json.loads(line) for line in tool(run, "verifiable-share-consumer", *options).splitlines() if line.startswith("{")]
    acknowledged = sum(event["count"] for event in events if event["name"] == "offsets_acknowledged" and event["success"])
    equal(acknowledged, 50)


@check("share-consumer-perf-test", "1000 records are read and their speed is told")
def share_consumer_perf(run):
    topic, group = create(run, "topic"), share_from_start(run)
    perf(run, topic, 1000)
    output = tool(run, "share-consumer-perf-test", "--topic", topic, "--group", group, "--num-records", "1000", "--hide-header")
    holds(float(output.splitlines()[-1].split(",")[4]) >= 1000, output)


@check("transactions", "list, describe and describe-producers show a producer's finished transaction, find-hanging none")
def transactions(run):
    topic, name = create(run, "topic"), run.name("transactional")
    perf(run, topic, 100, "--transactional-id", name, "--transaction-duration-ms", "10000")
    until("it is complete", lambda: "CompleteCommit" in row(tool(run, "transactions", "list"), name))
    producer = row(tool(run, "transactions", "list"), name)[2]
    described = row(tool(run, "transactions", "describe", "--transactional-id", name), name)
    equal((described[2], described[4]), (producer, "CompleteCommit"))
    held = row(tool(run, "transactions", "describe-producers", "--topic", topic, "--partition", "0"), producer)
    equal((held[0], held[-1]), (producer, "None"))
    hanging = tool(run, "transactions", "find-hanging", "--topic", topic)
    holds(name not in hanging and producer not in hanging.split(), hanging)
