#!/usr/bin/env python3
"""What aiokafka can do with a cluster, an asyncio client with a protocol implementation of its own; matrix.py says how it is run."""

import asyncio
import logging
import secrets
import time
from contextlib import asynccontextmanager

from matrix import need

need("aiokafka", "aiokafka")

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from matrix import CODECS, check, equal, holds, lacks, main, shapes, until_async

ASSIGNORS = {"range": RangePartitionAssignor, "roundrobin": RoundRobinPartitionAssignor, "sticky": StickyPartitionAssignor}

lacks("KIP-848", "aiokafka 0.14 speaks the classic group protocol only")
lacks("share groups", "aiokafka 0.14 has no share consumer")


@asynccontextmanager
async def admin(run):
    """An admin client for the block."""
    client = AIOKafkaAdminClient(bootstrap_servers=run.bootstrap)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def create(run, suffix, partitions=1, **configs):
    """The name of a new topic, once brokers know it."""
    topic = run.name(suffix)
    new = NewTopic(topic, partitions, 1, topic_configs={name.replace("_", "."): value for name, value in configs.items()})
    async with admin(run) as client:
        equal([error[1] for error in (await client.create_topics([new])).topic_errors], [0])

        async def known():
            [found] = await client.describe_topics([topic])
            return found["error_code"] == 0 and len(found["partitions"]) == partitions

        await until_async(f"{topic} is known", known)
    return topic


@asynccontextmanager
async def producer(run, **config):
    """A producer for the block."""
    client = AIOKafkaProducer(bootstrap_servers=run.bootstrap, linger_ms=5, **config)
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


async def member(run, group, *topics, **config):
    """A started consumer, which begins at the beginning and commits only when asked."""
    options = {"enable_auto_commit": False, "heartbeat_interval_ms": 300, "session_timeout_ms": 6000, "fetch_max_wait_ms": 100, **config}
    name = run.name(group) if group else None
    client = AIOKafkaConsumer(*topics, bootstrap_servers=run.bootstrap, group_id=name, auto_offset_reset="earliest", **options)
    await client.start()
    return client


@asynccontextmanager
async def consumer(run, group, *topics, **config):
    """A consumer for the block."""
    client = await member(run, group, *topics, **config)
    try:
        yield client
    finally:
        await client.stop()


async def send(client, topic, records, **extra):
    """Produces (key, value, headers) and waits until each is acknowledged."""
    futures = [await client.send(topic, value, key, headers=headers, **extra) for key, value, headers in records]
    holds(all(found.offset >= 0 for found in await asyncio.gather(*futures)), "an acknowledgement without an offset")


async def send_values(run, topic, values, **extra):
    async with producer(run) as client:
        await send(client, topic, [(None, value, []) for value in values], **extra)


async def take(client, count, deadline_s=25):
    """The next `count` records of a consumer."""
    records, end = [], time.monotonic() + deadline_s
    while len(records) < count and time.monotonic() < end:
        for batch in (await client.getmany(timeout_ms=200, max_records=count - len(records))).values():
            records += batch
    holds(len(records) == count, f"{len(records)} of {count} records arrive")
    return records


async def read(run, topic, count, **config):
    """The first `count` records of a topic, without a group."""
    async with consumer(run, None, topic, **config) as client:
        return await take(client, count)


async def round_trip(run, records, **config):
    """Produces the records to a new topic and checks that they come back the same."""
    topic = await create(run, "topic")
    async with producer(run, **config) as client:
        await send(client, topic, records)
    equal([(found.key, found.value, list(found.headers)) for found in await read(run, topic, len(records))], records)


def codec_check(codec):
    @check(codec, f"200 records produced with compression_type={codec} come back as they were")
    async def codec_round_trip(run):
        await round_trip(run, shapes(), compression_type=None if codec == "none" else codec)


for name in CODECS:
    codec_check(name)


@check("headers", "repeated names, null, empty, binary and large header values come back in order")
async def headers(run):
    values = [("a", b"1"), ("a", b"2"), ("null", None), ("empty", b""), ("é", bytes(range(256))), ("long", b"x" * 5000)]
    await round_trip(run, [(b"k", b"v", values), (b"k", b"v", [])])


@check("nulls", "a null key and a null value stay null")
async def nulls(run):
    await round_trip(run, [(None, b"v", []), (b"k", None, []), (b"", None, [("h", b"1")])])


@check("empty values", "empty keys and values are not turned into nulls")
async def empty_values(run):
    await round_trip(run, [(b"", b"", []), (b"k", b"", []), (b"", b"v", [])])


@check("1 MB", "a record of 1,000,000 random bytes comes back as it was")
async def one_megabyte(run):
    await round_trip(run, [(b"big", secrets.token_bytes(1_000_000), [])])


@check("1 MB", "a record above the topic's max.message.bytes is refused as too large")
async def too_large(run):
    topic = await create(run, "topic", max_message_bytes="100000")
    try:
        async with producer(run) as client:
            await client.send_and_wait(topic, secrets.token_bytes(200_000))
        holds(False, "it was accepted")
    except KafkaError as error:
        equal(type(error).__name__, "MessageSizeTooLargeError")


@check("timestamps", "the producer's times come back, and offsets are found by time")
async def create_times(run):
    topic, start = await create(run, "topic"), 1_700_000_000_000
    async with producer(run, max_batch_size=300) as client:
        await asyncio.gather(*[await client.send(topic, str(i).encode(), timestamp_ms=start + i * 1000) for i in range(100)])
    found = [(record.timestamp, record.timestamp_type) for record in await read(run, topic, 100)]
    equal(found, [(start + i * 1000, 0) for i in range(100)])
    partition = TopicPartition(topic, 0)
    async with consumer(run, None, topic) as reader:
        for wanted, time_ms in ((42, start + 42_000), (43, start + 42_001), (0, start - 1)):
            equal(((await reader.offsets_for_times({partition: time_ms}))[partition].offset, time_ms), (wanted, time_ms))
        equal(await reader.offsets_for_times({partition: start + 99_001}), {partition: None})
        equal((await reader.beginning_offsets([partition]), await reader.end_offsets([partition])), ({partition: 0}, {partition: 100}))


@check("timestamps", "a topic with message.timestamp.type=LogAppendTime replaces the producer's times")
async def append_time(run):
    topic, before = await create(run, "topic", message_timestamp_type="LogAppendTime"), time.time() * 1000 - 1000
    await send_values(run, topic, [b"v"], timestamp_ms=1_000_000)
    [found] = await read(run, topic, 1)
    holds(found.timestamp_type == 1 and before < found.timestamp < time.time() * 1000 + 1000, found)


@check("group", "a member that comes later goes on where the committed offsets are")
async def resume(run):
    topic = await create(run, "topic", 2)
    for partition in (0, 1):
        await send_values(run, topic, [f"{partition}-{i}".encode() for i in range(50)], partition=partition)
    async with consumer(run, "group", topic) as first:
        before = await take(first, 30)
        await first.commit()
        committed = [await first.committed(TopicPartition(topic, partition)) for partition in (0, 1)]
        equal(sum(offset or 0 for offset in committed), 30)
    async with consumer(run, "group", topic) as second:
        after = await take(second, 70)
    equal(len({found.value for found in before + after}), 100)


@check("group", "offsets are committed by themselves when a member closes")
async def auto_commit(run):
    topic = await create(run, "topic")
    await send_values(run, topic, [b"v"] * 20)
    async with consumer(run, "group", topic, enable_auto_commit=True) as client:
        await take(client, 20)
    async with consumer(run, "group", topic) as reader:
        equal(await reader.committed(TopicPartition(topic, 0)), 20)


async def shares(members):
    """Polls the members and returns the partitions that each has."""
    for client in members:
        await client.getmany(timeout_ms=50)
    return [{partition.partition for partition in client.assignment()} for client in members]


def strategy_check(strategy):
    @check("rebalance", f"{strategy}: members that come and go share four partitions")
    async def rebalance(run):
        topic, everything = await create(run, "topic", 4), {0, 1, 2, 3}
        options = {"partition_assignment_strategy": [ASSIGNORS[strategy]]}
        first = await member(run, "group", topic, **options)

        async def alone():
            return await shares([first]) == [everything]

        async def halves():
            one, two = await shares([first, second])
            return len(one) == len(two) == 2 and one | two == everything

        async def taken_over():
            return await shares([second]) == [everything]

        await until_async("a lone member has everything", alone)
        second = await member(run, "group", topic, **options)
        await until_async("two members have half each", halves)
        await first.stop()
        await until_async("the one that stays takes over", taken_over)
        await second.stop()


for name in ASSIGNORS:
    strategy_check(name)


@check("idempotence", "2000 records of an idempotent producer in small batches are there once, in order")
async def idempotence(run):
    topic, values = await create(run, "topic"), [str(i).encode() for i in range(2000)]
    async with producer(run, enable_idempotence=True, max_batch_size=1000) as client:
        await send(client, topic, [(None, value, []) for value in values])
    equal([found.value for found in await read(run, topic, 2000)], values)


def transactional(run):
    return producer(run, transactional_id=run.name("transactional"), transaction_timeout_ms=20000)


@check("transactions", "readers of committed data see what was committed and nothing of what was aborted")
async def commit_and_abort(run):
    topic = await create(run, "topic")
    async with transactional(run) as client:
        for number, end in enumerate((client.commit_transaction, client.abort_transaction, client.commit_transaction)):
            await client.begin_transaction()
            await send(client, topic, [(None, f"{number}-{i}".encode(), []) for i in range(10)])
            await end()
    committed = [f"{number}-{i}".encode() for number in (0, 2) for i in range(10)]
    equal([found.value for found in await read(run, topic, 20, isolation_level="read_committed")], committed)
    equal(len(await read(run, topic, 30, isolation_level="read_uncommitted")), 30)


@check("transactions", "an open transaction holds back readers of committed data until it ends")
async def open_transaction(run):
    topic = await create(run, "topic")
    await send_values(run, topic, [b"before"])
    async with transactional(run) as client, consumer(run, None, topic, isolation_level="read_committed") as reader:
        await client.begin_transaction()
        await client.send_and_wait(topic, b"inside")
        await send_values(run, topic, [b"after"])
        equal([found.value for found in await take(reader, 1)], [b"before"])
        equal(await reader.getmany(timeout_ms=500), {})
        await client.commit_transaction()
        equal([found.value for found in await take(reader, 2)], [b"inside", b"after"])


@check("transactions", "consumed offsets are committed with the records made from them, or not at all")
async def consume_transform_produce(run):
    source, target = await create(run, "source"), await create(run, "target")
    await send_values(run, source, [str(i).encode() for i in range(20)])
    partition = TopicPartition(source, 0)
    async with transactional(run) as client, consumer(run, "group", source, isolation_level="read_committed") as reader:
        found = await take(reader, 20)

        async def transform(end, upto):
            await client.begin_transaction()
            await send(client, target, [(None, b"copy " + message.value, []) for message in found[:upto]])
            await client.send_offsets_to_transaction({partition: OffsetAndMetadata(upto, "")}, run.name("group"))
            await end()

        async def ten_committed():
            return await reader.committed(partition) == 10

        await transform(client.abort_transaction, 20)
        equal(await reader.committed(partition), None)
        await transform(client.commit_transaction, 10)
        await until_async("the transaction's offset is committed", ten_committed)  # aiokafka asks for unstable offsets too.
    copies = [message.value for message in await read(run, target, 10, isolation_level="read_committed")]
    equal(copies, [f"copy {i}".encode() for i in range(10)])


@check("admin", "topics are created, described, given partitions and deleted")
async def admin_topics(run):
    topic = await create(run, "topic", 2)
    async with admin(run) as client:
        await client.create_partitions({topic: NewPartitions(4)})

        async def four():
            [found] = await client.describe_topics([topic])
            return len(found["partitions"]) == 4

        await until_async("four partitions are seen", four)
        again = await client.create_topics([NewTopic(topic, 1, 1)])
        equal([error[1] for error in again.topic_errors], [36])
        equal([error[1] for error in (await client.delete_topics([topic])).topic_error_codes], [0])

        async def gone():
            return topic not in await client.list_topics()

        await until_async("the topic is gone", gone)


@check("admin", "configs are described and altered")
async def admin_configs(run):
    topic = await create(run, "topic", retention_ms="3600000")
    async with admin(run) as client:

        async def retention():
            [answer] = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
            return {entry[0]: entry[1] for entry in answer.resources[0][4]}["retention.ms"]

        equal(await retention(), "3600000")
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": "7200000"})])

        async def changed():
            return await retention() == "7200000"

        await until_async("the change is seen", changed)


@check("admin", "groups are listed and described, and their offsets read")
async def admin_groups(run):
    topic, group = await create(run, "topic"), run.name("group")
    await send_values(run, topic, [b"v"] * 5)
    async with admin(run) as client, consumer(run, "group", topic) as reader:
        await take(reader, 5)
        await reader.commit()
        holds((group, "consumer") in [entry[:2] for entry in await client.list_consumer_groups()], "the group is not listed")
        [answer] = await client.describe_consumer_groups([group])
        equal((answer.groups[0][1], answer.groups[0][2], len(answer.groups[0][5])), (group, "Stable", 1))
        found = await client.list_consumer_group_offsets(group)
        equal({at: offset.offset for at, offset in found.items()}, {TopicPartition(topic, 0): 5})


@check("admin", "delete_records moves the start of a partition, and the cluster describes itself")
async def admin_records(run):
    topic = await create(run, "topic")
    await send_values(run, topic, [b"v"] * 100)
    async with admin(run) as client:
        partition = TopicPartition(topic, 0)
        equal(await client.delete_records({partition: RecordsToDelete(before_offset=60)}), {partition: 60})
        equal(len((await client.describe_cluster())["brokers"]), 1)
    equal([found.offset for found in await read(run, topic, 40)], list(range(60, 100)))


if __name__ == "__main__":
    logging.disable()
    main(f"aiokafka {aiokafka.__version__}")
