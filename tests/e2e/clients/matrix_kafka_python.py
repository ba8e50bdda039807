#!/usr/bin/env python3
"""What kafka-python can do with a cluster, a client that shares no code with librdkafka; its administrative half is in
matrix_kafka_python_admin.py, and matrix.py says how both are run."""

import logging
import secrets
import threading
import time

from matrix import need

need("kafka", "kafka-python")

import kafka
from kafka import TopicPartition
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

import matrix_kafka_python_admin  # noqa: F401 (registers its checks)
from kafka_python_poll import poll
from matrix import CODECS, check, equal, holds, lacks, main, shapes, until
from matrix_kafka_python_kit import consumer, create, producer, read, record, round_trip, send, send_values, take

ASSIGNORS = {"range": RangePartitionAssignor, "roundrobin": RoundRobinPartitionAssignor, "sticky": StickyPartitionAssignor}

lacks("KIP-848", "kafka-python 3.0 speaks the classic group protocol only")
lacks("share groups", "kafka-python 3.0 has no share consumer")


def codec_check(codec):
    @check(codec, f"200 records produced with compression_type={codec} come back as they were")
    def codec_round_trip(run):
        round_trip(run, shapes(), compression_type=None if codec == "none" else codec)


for name in CODECS:
    codec_check(name)


@check("headers", "repeated names, empty, binary and large header values come back in order")
def headers(run):
    values = [("a", b"1"), ("a", b"2"), ("empty", b""), ("é", bytes(range(256))), ("long", b"x" * 5000)]
    round_trip(run, [(b"k", b"v", values), (b"k", b"v", [])])


@check("nulls", "a null key and a null value stay null")
def nulls(run):
    round_trip(run, [(None, b"v", []), (b"k", None, []), (b"", None, [("h", b"1")])])


@check("empty values", "empty keys and values are not turned into nulls")
def empty_values(run):
    round_trip(run, [(b"", b"", []), (b"k", b"", []), (b"", b"v", []), (b"", None, [])])


@check("1 MB", "a record of 1,000,000 random bytes comes back as it was")
def one_megabyte(run):
    round_trip(run, [(b"big", secrets.token_bytes(1_000_000), [])])


@check("1 MB", "a record above the topic's max.message.bytes is refused as too large")
def too_large(run):
    topic, client = create(run, "topic", max_message_bytes="100000"), producer(run)
    try:
        client.send(topic, secrets.token_bytes(200_000)).get(20)
        holds(False, "it was accepted")
    except KafkaError as error:
        equal(type(error).__name__, "MessageSizeTooLargeError")
    client.close()


@check("timestamps", "the producer's times come back, and offsets are found by time")
def create_times(run):
    topic, start, client = create(run, "topic"), 1_700_000_000_000, producer(run, batch_size=200)
    for i in range(100):
        client.send(topic, str(i).encode(), timestamp_ms=start + i * 1000)
    client.close()
    equal([(r.timestamp, r.timestamp_type) for r in read(run, topic, 100)], [(start + i * 1000, 0) for i in range(100)])
    reader, partition = consumer(run, "reader"), TopicPartition(topic, 0)
    for wanted, time_ms in ((42, start + 42_000), (43, start + 42_001), (0, start - 1)):
        equal((reader.offsets_for_times({partition: time_ms})[partition].offset, time_ms), (wanted, time_ms))
    equal(reader.offsets_for_times({partition: start + 99_001})[partition], None)
    equal((reader.beginning_offsets([partition]), reader.end_offsets([partition])), ({partition: 0}, {partition: 100}))
    reader.close()


@check("timestamps", "a topic with message.timestamp.type=LogAppendTime replaces the producer's times")
def append_time(run):
    topic, before = create(run, "topic", message_timestamp_type="LogAppendTime"), time.time() * 1000 - 1000
    send_values(run, topic, [b"v"], timestamp_ms=1_000_000)
    [found] = read(run, topic, 1)
    holds(found.timestamp_type == 1 and before < found.timestamp < time.time() * 1000 + 1000, found)


@check("group", "a member that comes later goes on where the committed offsets are")
def resume(run):
    topic = create(run, "topic", 2)
    for partition in (0, 1):
        send_values(run, topic, [f"{partition}-{i}".encode() for i in range(50)], partition=partition)
    first = consumer(run, "group", topic)
    before = take(first, 30)
    first.commit()
    equal(sum(first.committed(TopicPartition(topic, partition)) or 0 for partition in (0, 1)), 30)
    first.close()
    second = consumer(run, "group", topic)
    after = take(second, 70)
    second.close()
    equal(len({found.value for found in before + after}), 100)


@check("group", "offsets are committed by themselves when a member closes, and metadata is kept with an offset")
def auto_commit(run):
    topic = create(run, "topic")
    send_values(run, topic, [b"v"] * 20)
    client = consumer(run, "group", topic, enable_auto_commit=True)
    take(client, 20)
    client.close()
    reader, partition = consumer(run, "group"), TopicPartition(topic, 0)
    equal(reader.committed(partition), 20)
    reader.commit({partition: OffsetAndMetadata(7, "a note", -1)})
    found = reader.committed(partition, metadata=True)
    equal((found.offset, found.metadata), (7, "a note"))
    reader.close()


def shares(members):
    """Polls the members at the same time, each long enough for a rebalance to end within it, and returns the partitions of each."""
    threads = [threading.Thread(target=poll, args=(client, 300)) for client in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [{partition.partition for partition in client.assignment()} for client in members]


def strategy_check(strategy):
    @check("rebalance", f"{strategy}: members that come and go share four partitions")
    def rebalance(run):
        topic, everything = create(run, "topic", 4), {0, 1, 2, 3}
        options = {"partition_assignment_strategy": [ASSIGNORS[strategy]]}
        first = consumer(run, "group", topic, **options)
        until("a lone member has everything", lambda: shares([first]) == [everything])
        second = consumer(run, "group", topic, **options)

        def halves():
            one, two = shares([first, second])
            return len(one) == len(two) == 2 and one | two == everything

        until("two members have half each", halves)
        first.close()
        until("the one that stays takes over", lambda: shares([second]) == [everything])
        second.close()


for name in ASSIGNORS:
    strategy_check(name)


@check("rebalance", "a static member that restarts gets its partitions back")
def static_member(run):
    topic = create(run, "topic", 4)

    def make(instance):
        return consumer(run, "group", topic, group_instance_id=instance, session_timeout_ms=20000)

    other, client = make("two"), make("one")

    def half(mine):
        first, second = shares([mine, other])
        return first if len(first) == len(second) == 2 else None

    before = until("both have half", lambda: half(client))
    client.close()
    client = make("one")
    equal(until("the returning member has half", lambda: half(client)), before)
    client.close(), other.close()


@check("idempotence", "2000 records of an idempotent producer in small batches are there once, in order")
def idempotence(run):
    topic, values = create(run, "topic"), [str(i).encode() for i in range(2000)]
    send(producer(run, enable_idempotence=True, batch_size=1000), topic, [(None, value, []) for value in values])
    equal([found.value for found in read(run, topic, 2000)], values)


def transactional(run):
    client = producer(run, transactional_id=run.name("transactional"), transaction_timeout_ms=20000)
    client.init_transactions()
    return client


@check("transactions", "readers of committed data see what was committed and nothing of what was aborted")
def commit_and_abort(run):
    topic, client = create(run, "topic"), transactional(run)
    for number, end in enumerate((client.commit_transaction, client.abort_transaction, client.commit_transaction)):
        client.begin_transaction()
        for i in range(10):
            client.send(topic, f"{number}-{i}".encode())
        client.flush(20)
        end()
    client.close()
    committed = [f"{number}-{i}".encode() for number in (0, 2) for i in range(10)]
    equal([found.value for found in read(run, topic, 20, isolation_level="read_committed")], committed)
    equal(len(read(run, topic, 30, isolation_level="read_uncommitted")), 30)


@check("transactions", "an open transaction holds back readers of committed data until it ends")
def open_transaction(run):
    topic, client = create(run, "topic"), transactional(run)
    send_values(run, topic, [b"before"])
    client.begin_transaction()
    client.send(topic, b"inside").get(20)
    send_values(run, topic, [b"after"])
    reader, partition = consumer(run, "reader", isolation_level="read_committed"), TopicPartition(topic, 0)
    reader.assign([partition])
    equal([record(found)[1] for found in take(reader, 1)], [b"before"])
    equal((reader.poll(500), reader.end_offsets([partition])), ({}, {partition: 1}))
    client.commit_transaction()
    equal([found.value for found in take(reader, 2)], [b"inside", b"after"])
    reader.close(), client.close()


@check("transactions", "consumed offsets are committed with the records made from them, or not at all")
def consume_transform_produce(run):
    source, target, client = create(run, "source"), create(run, "target"), transactional(run)
    send_values(run, source, [str(i).encode() for i in range(20)])
    reader, partition = consumer(run, "group", source, isolation_level="read_committed"), TopicPartition(source, 0)
    found = take(reader, 20)

    def transform(end, upto):
        client.begin_transaction()
        for message in found[:upto]:
            client.send(target, b"copy " + message.value)
        client.send_offsets_to_transaction({partition: OffsetAndMetadata(upto, "", -1)}, reader.group_metadata())
        end()
        return reader.committed(partition)

    equal(transform(client.abort_transaction, 20), None)
    equal(transform(client.commit_transaction, 10), 10)
    reader.close(), client.close()
    copies = [message.value for message in read(run, target, 10, isolation_level="read_committed")]
    equal(copies, [f"copy {i}".encode() for i in range(10)])


@check("transactions", "a second producer with the same id fences the first")
def fencing(run):
    topic, first = create(run, "topic"), transactional(run)
    first.begin_transaction()
    first.send(topic, b"lost").get(20)
    second = transactional(run)
    try:
        first.commit_transaction()
        holds(False, "the fenced producer could commit")
    except KafkaError as error:
        holds(type(error).__name__ in ("ProducerFencedError", "InvalidProducerEpochError"), error)
    second.begin_transaction()
    second.send(topic, b"kept").get(20)
    second.commit_transaction()
    first.close(timeout=1), second.close()
    equal([found.value for found in read(run, topic, 1, isolation_level="read_committed")], [b"kept"])


if __name__ == "__main__":
    logging.disable()
    main(f"kafka-python {kafka.__version__}")
