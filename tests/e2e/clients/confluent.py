#!/usr/bin/env python3
"""librdkafka through confluent-kafka: the clients that most of the world runs. See scenario.py for how it is called."""

import time

from scenario import check, main, scenario, skip, until

try:
    from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
    from confluent_kafka.admin import (
        AdminClient,
        AlterConfigOpType,
        ConfigEntry,
        ConfigResource,
        NewPartitions,
        NewTopic,
        OffsetSpec,
    )
    from confluent_kafka import ConsumerGroupTopicPartitions
except ImportError as error:
    skip(f"confluent-kafka: {error}")

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
# Every shape a record can have: key and value present, empty or null; no header, repeated names, empty and null header values.
SHAPES = [
    (b"key", b"value", [("h", b"1")]),
    (b"key", b"value", []),
    (None, b"value without key", [("h", b"1"), ("h", b"2"), ("null", None), ("empty", b"")]),
    (b"key", None, [("tombstone", b"yes")]),
    (None, None, []),
    (b"", b"", []),
    (b"k" * 300, b"compressible " * 400, [("long", b"x" * 5000)]),
    ("ключ".encode(), bytes(range(256)), [("é", "ü".encode())]),
]


def admin(bootstrap):
    return AdminClient({"bootstrap.servers": bootstrap})


def create(bootstrap, topic, partitions=1, **config):
    configs = {name.replace("_", "."): value for name, value in config.items()}
    client = admin(bootstrap)  # Held: a client that goes away takes its pending requests with it.
    client.create_topics([NewTopic(topic, partitions, 1, config=configs)])[topic].result(20)


def producer(bootstrap, **config):
    return Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, **config})


def produce_all(client, topic, records, partition=None):
    """Produces (key, value, headers) and waits for every acknowledgement."""
    failures, extra = [], {} if partition is None else {"partition": partition}
    for key, value, headers in records:
        while True:
            try:
                client.produce(topic, value, key, headers=headers, on_delivery=lambda e, _: e and failures.append(str(e)), **extra)
                break
            except BufferError:
                client.poll(0.1)
    check(f"{len(records)} records to {topic} are acknowledged", client.flush(60) == 0 and not failures, failures[:3])


def consumer(bootstrap, group, **config):
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 500,
            "fetch.wait.max.ms": 100,
            **config,
        }
    )


def take(client, count, deadline_s=40):
    """Reads `count` messages; fails when an error or the deadline comes first."""
    messages, end = [], time.monotonic() + deadline_s
    while len(messages) < count and time.monotonic() < end:
        for message in client.consume(min(1000, count - len(messages)), 0.2):
            check("no consumer error", False, str(message.error())) if message.error() else messages.append(message)
    check(f"{count} messages arrive", len(messages) == count, len(messages))
    return messages


def read_all(bootstrap, topic, count):
    client = consumer(bootstrap, f"reader-{time.time_ns()}")
    client.subscribe([topic])
    messages = take(client, count)
    client.close()
    return messages


def error_code(future):
    """The error code a request ended with, None if it succeeded."""
    try:
        future.result(20)
        return None
    except KafkaException as error:
        return error.args[0].code()


@scenario
def every_codec_and_record_shape(bootstrap):
    create(bootstrap, "shapes")
    records = SHAPES * 40
    for codec in CODECS:
        produce_all(producer(bootstrap, **{"compression.type": codec}), "shapes", records)
    messages = read_all(bootstrap, "shapes", len(records) * len(CODECS))
    seen = [(message.key(), message.value(), message.headers() or []) for message in messages]
    check("keys, values and headers come back in order", seen == records * len(CODECS))
    check("offsets have no holes", [message.offset() for message in messages] == list(range(len(messages))))


@scenario
def every_acks_level(bootstrap):
    create(bootstrap, "acks")
    for acks in ("0", "1", "all"):
        produce_all(producer(bootstrap, acks=acks), "acks", [(None, f"{acks}-{i}".encode(), []) for i in range(100)])
    values = sorted(message.value() for message in read_all(bootstrap, "acks", 300))
    check("nothing is missing", values == sorted(f"{acks}-{i}".encode() for acks in ("0", "1", "all") for i in range(100)))


@scenario
def idempotent_producer(bootstrap):
    create(bootstrap, "idempotent", 3)
    client = producer(bootstrap, **{"enable.idempotence": True, "batch.num.messages": 50, "linger.ms": 1})
    produce_all(client, "idempotent", [(f"{i % 20}".encode(), f"{i}".encode(), []) for i in range(5000)])
    last = {}
    for message in read_all(bootstrap, "idempotent", 5000):
        key, number = message.key(), int(message.value())
        check(f"key {key} is in order", number > last.get(key, -1), number, last) if number <= last.get(key, -1) else None
        last[key] = number
    check("every record is there once, in order by key", len(last) == 20)


@scenario
def automatic_topic_creation(bootstrap):
    produce_all(producer(bootstrap), "made-on-the-way", [(None, b"first", [])])
    check("the record is there", read_all(bootstrap, "made-on-the-way", 1)[0].value() == b"first")


@scenario
def groups_rebalance(bootstrap):
    for number, strategy in enumerate(("range", "roundrobin", "cooperative-sticky")):
        topic, group = f"shared-{number}", f"group-{number}"
        create(bootstrap, topic, 4)
        produce_all(producer(bootstrap), topic, [(f"{i}".encode(), b"v", []) for i in range(400)])
        members = [consumer(bootstrap, group, **{"partition.assignment.strategy": strategy}) for _ in range(2)]

        def assigned(clients):
            for client in clients:
                client.poll(0.05)
            return [{partition.partition for partition in client.assignment()} for client in clients]

        members[0].subscribe([topic])
        until(f"{strategy}: a lone member gets all partitions", lambda: assigned(members[:1]) == [{0, 1, 2, 3}])
        members[1].subscribe([topic])

        def is_split():
            first, second = assigned(members)
            return len(first) == len(second) == 2 and first | second == {0, 1, 2, 3}

        until(f"{strategy}: two members share them evenly", is_split)
        members[0].close()
        until(f"{strategy}: the one that stays takes over", lambda: assigned(members[1:]) == [{0, 1, 2, 3}])
        members[1].close()
        check(f"{strategy} rebalances as members come and go", True)


# What two members are told (+ given, - taken, how many partitions) as the second one comes and goes: as often as by Apache Kafka 4.2.
TOLD = {
    "range": (["+4", "-4", "+2", "-2", "+4", "-4"], ["+2", "-2"]),
    "cooperative-sticky": (["+4", "-2", "+0", "+0", "+2", "-4"], ["+0", "+2", "-2"]),
    "consumer": (["+4", "-2", "+2", "-4"], ["+2", "-2"]),
}


@scenario
def rebalances_are_counted(bootstrap, kind):
    topic = f"counted-{kind}"
    create(bootstrap, topic, 4)
    clients, told = [], ([], [])

    def join(events):
        settings = {"bootstrap.servers": bootstrap, "group.id": topic}
        if kind == "consumer":
            clients.append(Consumer({**settings, "group.protocol": "consumer"}))
        else:
            settings |= {"session.timeout.ms": 6000, "heartbeat.interval.ms": 300}
            clients.append(Consumer({**settings, "partition.assignment.strategy": kind}))

        def on_assign(_, partitions):
            # How often a member of the new protocol is told that it keeps what it has is a matter of time.
            if partitions or kind != "consumer":
                events.append(f"+{len(partitions)}")

        clients[-1].subscribe(
            [topic],
            on_assign=on_assign,
            on_revoke=lambda _, partitions: events.append(f"-{len(partitions)}"),
            on_lost=lambda _, partitions: events.append(f"lost {len(partitions)}"),
        )

    def owned():
        for client in clients:
            client.poll(0.05)
        return [len(client.assignment()) for client in clients]

    def settle(wanted):
        until(f"they own {wanted}", lambda: owned() == wanted)
        end, before = time.monotonic() + 1, [list(events) for events in told]
        while time.monotonic() < end:
            owned()
        check("some heartbeats later nobody was told anything more", before == list(told), before, told)

    join(told[0])
    settle([4])
    join(told[1])
    settle([2, 2])
    clients.pop().close()
    settle([4])
    clients.pop().close()
    check(f"{kind}: they were told as often as by Apache Kafka", told == TOLD[kind], told)


@scenario
def commit_and_resume(bootstrap):
    create(bootstrap, "resumed", 2)
    for partition in (0, 1):
        produce_all(producer(bootstrap), "resumed", [(None, f"{partition}-{i}".encode(), []) for i in range(100)], partition)
    first = consumer(bootstrap, "resuming")
    first.subscribe(["resumed"])
    before = take(first, 70)
    first.commit(asynchronous=False)
    committed = first.committed([TopicPartition("resumed", p) for p in (0, 1)], timeout=20)
    check("the committed offsets add up", sum(max(p.offset, 0) for p in committed) == 70, committed)
    first.close()
    second = consumer(bootstrap, "resuming")
    second.subscribe(["resumed"])
    after = take(second, 130)
    second.close()
    values = [message.value() for message in before + after]
    check("the next member goes on where the first one committed", len(set(values)) == 200)


@scenario
def commit_survives(bootstrap, step):
    """Called twice, around a restart of the broker."""
    client = consumer(bootstrap, "survivor")
    if step == "before":
        create(bootstrap, "survived")
        produce_all(producer(bootstrap), "survived", [(None, f"{i}".encode(), []) for i in range(20)])
        client.subscribe(["survived"])
        take(client, 8)
        client.commit(offsets=[TopicPartition("survived", 0, 8)], asynchronous=False)
    else:
        client.subscribe(["survived"])
        check("the group goes on at offset 8", [m.offset() for m in take(client, 12)] == list(range(8, 20)))
    client.close()


@scenario
def static_membership(bootstrap):
    create(bootstrap, "static", 4)
    events = []
    config = {"group.instance.id": "instance-1", "session.timeout.ms": 20000}
    other = consumer(bootstrap, "static", **{"group.instance.id": "instance-2", "session.timeout.ms": 20000})
    other.subscribe(["static"], on_assign=lambda _, p: events.append("assign"), on_revoke=lambda _, p: events.append("revoke"))
    client = consumer(bootstrap, "static", **config)
    client.subscribe(["static"])

    def shares():
        other.poll(0.05), client.poll(0.05)
        mine = {p.partition for p in client.assignment()}
        return mine if len(mine) == 2 and len(other.assignment()) == 2 else None

    before = until("both members have half", shares)
    events.clear()
    client.close()
    client = consumer(bootstrap, "static", **config)
    client.subscribe(["static"])
    after = until("the returning member has its half", shares)
    check("a restarted static member gets its partitions back", before == after, before, after)
    check("the other member noticed nothing", events == [], events)
    client.close(), other.close()


@scenario
def offsets_for_times(bootstrap):
    create(bootstrap, "timed")
    client, start = producer(bootstrap, **{"batch.num.messages": 10}), 1_700_000_000_000
    for i in range(100):
        client.produce("timed", f"{i}", timestamp=start + i * 1000)
    check("flushed", client.flush(30) == 0)
    reader = consumer(bootstrap, "timed")

    def offset_at(time_ms):
        return reader.offsets_for_times([TopicPartition("timed", 0, time_ms)], timeout=20)[0].offset

    check("an exact time finds its record", offset_at(start + 42_000) == 42, offset_at(start + 42_000))
    check("a time between two finds the later one", offset_at(start + 41_001) == 42)
    check("a time before all finds the first", offset_at(start - 1) == 0)
    check("a time after all finds the end", offset_at(start + 1_000_000) in (-1, 100), offset_at(start + 1_000_000))
    check("watermarks", reader.get_watermark_offsets(TopicPartition("timed", 0), timeout=20) == (0, 100))
    partition = TopicPartition("timed", 0)
    client = admin(bootstrap)
    listed = client.list_offsets({partition: OffsetSpec.max_timestamp()})[partition].result(20)
    check("the largest timestamp is found", (listed.offset, listed.timestamp) == (99, start + 99_000), listed.offset, listed.timestamp)
    check("timestamps come back", read_all(bootstrap, "timed", 100)[42].timestamp()[1] == start + 42_000)
    reader.close()


@scenario
def administration(bootstrap):
    client = admin(bootstrap)
    create(bootstrap, "admin", 2, retention_ms="3600000")
    resource = ConfigResource(ConfigResource.Type.TOPIC, "admin")

    def configs():
        return client.describe_configs([resource])[resource].result(20)

    check("the config is what was asked for", configs()["retention.ms"].value == "3600000")
    check("defaults are listed too", configs()["segment.bytes"].is_default)
    resource.add_incremental_config(ConfigEntry("cleanup.policy", "delete", incremental_operation=AlterConfigOpType.SET))
    resource.add_incremental_config(ConfigEntry("retention.ms", None, incremental_operation=AlterConfigOpType.DELETE))
    client.incremental_alter_configs([resource])[resource].result(20)
    resource = ConfigResource(ConfigResource.Type.TOPIC, "admin")
    check("a deleted config falls back to its default", configs()["retention.ms"].is_default, configs()["retention.ms"])
    client.create_partitions([NewPartitions("admin", 5)])["admin"].result(20)
    until("five partitions are seen", lambda: len(client.list_topics("admin", timeout=20).topics["admin"].partitions) == 5)
    fewer = error_code(client.create_partitions([NewPartitions("admin", 3)])["admin"])
    check("fewer partitions are refused", fewer == KafkaError.INVALID_PARTITIONS, fewer)
    again = error_code(client.create_topics([NewTopic("admin", 1, 1)])["admin"])
    check("an existing topic is not created again", again == KafkaError.TOPIC_ALREADY_EXISTS, again)
    client.delete_topics(["admin"])["admin"].result(20)
    until("the topic is gone", lambda: "admin" not in client.list_topics(timeout=20).topics)
    gone = error_code(client.delete_topics(["admin"])["admin"])
    check("deleting it again names it unknown", gone == KafkaError.UNKNOWN_TOPIC_OR_PART, gone)
    cluster = client.describe_cluster().result(20)
    check("the cluster describes itself", len(cluster.nodes) == 1 and bool(cluster.cluster_id))


@scenario
def delete_records(bootstrap):
    create(bootstrap, "trimmed")
    produce_all(producer(bootstrap), "trimmed", [(None, f"{i}".encode(), []) for i in range(100)])
    partition = TopicPartition("trimmed", 0, 60)
    client = admin(bootstrap)
    [future] = client.delete_records([partition]).values()
    check("the low watermark moves", future.result(20).low_watermark == 60)
    check("a reader starts there", [m.offset() for m in read_all(bootstrap, "trimmed", 40)] == list(range(60, 100)))


@scenario
def group_administration(bootstrap):
    create(bootstrap, "grouped", 2)
    produce_all(producer(bootstrap), "grouped", [(None, b"v", []) for _ in range(10)])
    client, member = admin(bootstrap), consumer(bootstrap, "described", **{"client.id": "member-client"})
    member.subscribe(["grouped"])
    take(member, 10)
    member.commit(asynchronous=False)
    until("the group is listed", lambda: "described" in [g.group_id for g in client.list_consumer_groups().result(20).valid])
    description = client.describe_consumer_groups(["described"])["described"].result(20)
    check("its member is described", [m.client_id for m in description.members] == ["member-client"], description.members)
    check("with its assignment", len(description.members[0].assignment.topic_partitions) == 2)
    busy = error_code(client.delete_consumer_groups(["described"])["described"])
    check("a group with members is not deleted", busy == KafkaError.NON_EMPTY_GROUP, busy)
    request = ConsumerGroupTopicPartitions("described")
    offsets = client.list_consumer_group_offsets([request])["described"].result(20).topic_partitions
    check("its offsets are listed", sum(max(p.offset, 0) for p in offsets) == 10, offsets)
    member.close()
    client.delete_consumer_groups(["described"])["described"].result(20)
    check("an empty group is deleted", "described" not in [g.group_id for g in client.list_consumer_groups().result(20).valid])


@scenario
def oversized_and_unknown(bootstrap):
    create(bootstrap, "small", 1, max_message_bytes="10000")
    failures = []
    client = producer(bootstrap)
    client.produce("small", b"x" * 50_000, on_delivery=lambda error, _: failures.append(error.code() if error else None))
    client.flush(30)
    check("a record above max.message.bytes is refused", failures == [KafkaError.MSG_SIZE_TOO_LARGE], failures)
    produce_all(client, "small", [(None, b"x" * 5000, [])])
    reader = consumer(bootstrap, "nobody", **{"allow.auto.create.topics": False})
    reader.subscribe(["no-such-topic"])
    codes = []

    def error_arrives():
        message = reader.poll(0.2)
        if message is not None and message.error():
            codes.append(message.error().code())
        return codes

    until("reading an unknown topic is an error", error_arrives)
    check("that says so", codes[0] == KafkaError.UNKNOWN_TOPIC_OR_PART, codes)
    reader.close()


if __name__ == "__main__":
    main()
