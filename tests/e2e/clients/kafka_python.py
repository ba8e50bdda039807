#!/usr/bin/env python3
"""kafka-python: a client that shares no code with librdkafka. See scenario.py for how it is called."""

import time

from kafka_python_poll import poll
from scenario import check, main, scenario, skip, until

try:
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
    from kafka.admin import ConfigResource, ConfigResourceType
    from kafka.errors import KafkaError
except ImportError as error:
    skip(f"kafka-python: {error}")

CODECS = [None, "gzip", "snappy", "lz4", "zstd"]
SHAPES = [
    (b"key", b"value", [("h", b"1")]),
    (None, b"value without key", [("h", b"1"), ("h", b"2"), ("empty", b"")]),
    (b"key", None, []),
    (b"", b"", []),
    (b"k" * 300, b"compressible " * 400, [("long", b"x" * 5000)]),
]


def admin(bootstrap):
    return KafkaAdminClient(bootstrap_servers=bootstrap)


def create(bootstrap, topic, partitions=1):
    client = admin(bootstrap)
    client.create_topics({topic: {"num_partitions": partitions, "replication_factor": 1}})
    client.close()


def consumer(bootstrap, group, *topics, **config):
    return KafkaConsumer(
        *topics,
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_wait_ms=100,
        **{"heartbeat_interval_ms": 500, "session_timeout_ms": 6000, **config},
    )


def produce_all(bootstrap, topic, records, **config):
    client = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, **config)
    futures = [client.send(topic, value, key, headers=headers) for key, value, headers in records]
    client.flush(60)
    check(f"{len(records)} records to {topic} are acknowledged", all(future.get(20).offset >= 0 for future in futures))
    client.close()


def take(client, count, deadline_s=40):
    records, end = [], time.monotonic() + deadline_s
    while len(records) < count and time.monotonic() < end:
        for batch in poll(client, 200, max_records=count - len(records)).values():
            records += batch
    check(f"{count} records arrive", len(records) == count, len(records))
    return records


@scenario
def every_codec_and_record_shape(bootstrap):
    create(bootstrap, "shapes")
    records = SHAPES * 40
    for codec in CODECS:
        produce_all(bootstrap, "shapes", records, compression_type=codec)
    client = consumer(bootstrap, "shapes", "shapes")
    seen = [(record.key, record.value, list(record.headers)) for record in take(client, len(records) * len(CODECS))]
    client.close()
    check("keys, values and headers come back in order", seen == records * len(CODECS))


@scenario
def every_acks_level(bootstrap):
    create(bootstrap, "acks")
    for acks in (0, 1, "all"):
        client = KafkaProducer(bootstrap_servers=bootstrap, acks=acks, enable_idempotence=False)
        for i in range(100):
            client.send("acks", f"{acks}-{i}".encode())
        client.flush(30)
        client.close()
    client = consumer(bootstrap, "acks", "acks")
    values = sorted(record.value for record in take(client, 300))
    client.close()
    check("nothing is missing", values == sorted(f"{acks}-{i}".encode() for acks in (0, 1, "all") for i in range(100)))


@scenario
def idempotent_producer(bootstrap):
    create(bootstrap, "idempotent")
    produce_all(bootstrap, "idempotent", [(None, f"{i}".encode(), []) for i in range(2000)], enable_idempotence=True, batch_size=1000)
    client = consumer(bootstrap, "idempotent", "idempotent")
    check("in order, once each", [int(record.value) for record in take(client, 2000)] == list(range(2000)))
    client.close()


@scenario
def groups_rebalance(bootstrap):
    create(bootstrap, "shared", 4)

    first = consumer(bootstrap, "sharing", "shared")

    def assigned(*clients):
        for client in clients:
            # Long enough for a rebalance to end within one poll: a join that a poll gives up starts the next rebalance.
            poll(client, 500)
        return [{partition.partition for partition in client.assignment()} for client in clients]

    until("a lone member gets all partitions", lambda: assigned(first) == [{0, 1, 2, 3}])
    second = consumer(bootstrap, "sharing", "shared")

    def is_split():
        one, two = assigned(first, second)
        return len(one) == len(two) == 2 and one | two == {0, 1, 2, 3}

    until("two members share them evenly", is_split)
    first.close()
    until("the one that stays takes over", lambda: assigned(second) == [{0, 1, 2, 3}])
    second.close()
    check("the group rebalances as members come and go", True)


@scenario
def commit_and_resume(bootstrap):
    create(bootstrap, "resumed")
    produce_all(bootstrap, "resumed", [(None, f"{i}".encode(), []) for i in range(100)])
    first = consumer(bootstrap, "resuming", "resumed")
    take(first, 40)
    first.commit()
    check("the commit is read back", first.committed(TopicPartition("resumed", 0)) == 40)
    first.close()
    second = consumer(bootstrap, "resuming", "resumed")
    check("the next member goes on there", [record.offset for record in take(second, 60)] == list(range(40, 100)))
    second.close()


@scenario
def offsets_for_times(bootstrap):
    create(bootstrap, "timed")
    client, start = KafkaProducer(bootstrap_servers=bootstrap, batch_size=200), 1_700_000_000_000
    for i in range(100):
        client.send("timed", f"{i}".encode(), timestamp_ms=start + i * 1000)
    client.flush(30)
    client.close()
    reader, partition = consumer(bootstrap, "timed"), TopicPartition("timed", 0)
    found = reader.offsets_for_times({partition: start + 41_500})[partition]
    check("a time finds the next record", (found.offset, found.timestamp) == (42, start + 42_000), found)
    check("a time after all finds nothing", reader.offsets_for_times({partition: start + 1_000_000})[partition] is None)
    check("the beginning", reader.beginning_offsets([partition]) == {partition: 0})
    check("the end", reader.end_offsets([partition]) == {partition: 100})
    reader.close()


@scenario
def administration(bootstrap):
    client = admin(bootstrap)
    client.create_topics({"admin": {"num_partitions": 2, "replication_factor": 1, "configs": {"retention.ms": "3600000"}}})
    described = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, "admin")])
    check("the config is what was asked for", described["topic"]["admin"]["retention.ms"]["value"] == "3600000", described)
    client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, "admin", configs={"retention.ms": "7200000"})])
    described = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, "admin")])
    check("a changed config is read back", described["topic"]["admin"]["retention.ms"]["value"] == "7200000", described)
    client.create_partitions({"admin": 4})
    until("four partitions are seen", lambda: len(client.describe_topics(["admin"])[0]["partitions"]) == 4)
    client.delete_topics(["admin"])
    until("the topic is gone", lambda: "admin" not in client.list_topics())
    try:
        client.create_topics({"bad/name": {"num_partitions": 1, "replication_factor": 1}})
        check("a bad name is refused", False)
    except KafkaError as error:
        check("a bad name is refused", "InvalidTopic" in type(error).__name__, error)
    client.close()


@scenario
def group_administration(bootstrap):
    create(bootstrap, "grouped")
    produce_all(bootstrap, "grouped", [(None, b"v", []) for _ in range(10)])
    client, member = admin(bootstrap), consumer(bootstrap, "described", "grouped")
    take(member, 10)
    member.commit()
    check("the group is listed", "described" in str(client.list_groups()))
    check("and described with its member", len(client.describe_groups(["described"])["described"]["members"]) == 1)
    offsets = client.list_group_offsets({"described": None})["described"]
    check("its offsets are listed", offsets[TopicPartition("grouped", 0)].offset == 10, offsets)
    member.close()
    client.delete_groups(["described"])
    check("an empty group is deleted", "described" not in str(client.list_groups()))
    client.close()


if __name__ == "__main__":
    main()
