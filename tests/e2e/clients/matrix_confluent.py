#!/usr/bin/env python3
"""What confluent-kafka (librdkafka) can do with a cluster: producing, consuming, groups, transactions, KIP-848 and share groups.

The administrative half is in matrix_confluent_admin.py; matrix.py says how both are run.
"""

import secrets
import time

from matrix import need

need("confluent_kafka", "confluent-kafka")

import confluent_kafka
from confluent_kafka import AcknowledgeType, KafkaError, KafkaException, ShareConsumer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

import matrix_confluent_admin  # noqa: F401 (registers its checks)
from matrix import CODECS, check, equal, holds, main, shapes, until
from matrix_confluent_kit import consumer, create, member, producer, read, round_trip, send, send_values, take

SECOND_HALF = [f"second {i}".encode() for i in range(50)]


def codec_check(codec):
    @check(codec, f"200 records produced with compression.type={codec} come back as they were")
    def codec_round_trip(run):
        round_trip(run, shapes(), compression_type=codec)


def compression_check(codec):
    @check(codec, f"with compression.type={codec} a topic takes more than max.message.bytes only if it shrinks")
    def compression_is_on(run):
        topic, failures = create(run, "small", max_message_bytes=40_000), []
        client = producer(run, compression_type=codec)
        client.produce(topic, bytes(500_000), on_delivery=lambda error, _: failures.append(error and error.code()))
        client.flush(20)
        equal(failures, [KafkaError.MSG_SIZE_TOO_LARGE if codec == "none" else None])


for name in CODECS:
    codec_check(name)
    compression_check(name)


@check("headers", "repeated names, null, empty, binary and large header values come back in order")
def headers(run):
    values = [("a", b"1"), ("a", b"2"), ("null", None), ("empty", b""), ("é", bytes(range(256))), ("long", b"x" * 5000)]
    round_trip(run, [(b"k", b"v", values), (b"k", b"v", [])])


@check("nulls", "a null key, a null value and both stay null")
def nulls(run):
    round_trip(run, [(None, b"v", []), (b"k", None, []), (None, None, []), (None, None, [("h", None)])])


@check("empty values", "empty keys and values are not turned into nulls")
def empty_values(run):
    round_trip(run, [(b"", b"", []), (b"k", b"", []), (b"", b"v", []), (b"", None, [])])


@check("1 MB", "a record of 1,000,000 random bytes comes back as it was")
def one_megabyte(run):
    round_trip(run, [(b"big", secrets.token_bytes(1_000_000), [])], message_max_bytes=1_048_588)


@check("1 MB", "a record above the topic's max.message.bytes is refused with MSG_SIZE_TOO_LARGE")
def too_large(run):
    topic, codes = create(run, "topic", max_message_bytes="100000"), []
    client = producer(run)
    client.produce(topic, secrets.token_bytes(200_000), on_delivery=lambda error, _: codes.append(error and error.code()))
    equal((client.flush(20), codes), (0, [KafkaError.MSG_SIZE_TOO_LARGE]))


@check("timestamps", "the producer's times come back, and offsets are found by time")
def create_times(run):
    topic, start, client = create(run, "topic"), 1_700_000_000_000, producer(run, batch_num_messages=10)
    for i in range(100):
        client.produce(topic, str(i), timestamp=start + i * 1000)
    equal(client.flush(20), 0)
    messages = read(run, topic, 100)
    equal([message.timestamp() for message in messages], [(confluent_kafka.TIMESTAMP_CREATE_TIME, start + i * 1000) for i in range(100)])
    reader = consumer(run, "reader")
    for wanted, time_ms in ((42, start + 42_000), (43, start + 42_001), (0, start - 1), (-1, start + 99_001)):
        equal((reader.offsets_for_times([TopicPartition(topic, 0, time_ms)], timeout=20)[0].offset, time_ms), (wanted, time_ms))
    reader.close()


@check("timestamps", "a topic with message.timestamp.type=LogAppendTime replaces the producer's times")
def append_time(run):
    topic, before = create(run, "topic", message_timestamp_type="LogAppendTime"), time.time() * 1000 - 1000
    send_values(run, topic, [b"v"], timestamp=1_000_000)
    kind, time_ms = read(run, topic, 1)[0].timestamp()
    holds(kind == confluent_kafka.TIMESTAMP_LOG_APPEND_TIME and before < time_ms < time.time() * 1000 + 1000, kind, time_ms)


@check("group", "a member that comes later goes on where the committed offsets are")
def resume(run):
    commit_and_resume(run, consumer)


def commit_and_resume(run, make):
    topic = create(run, "topic", 2)
    for partition in (0, 1):
        send_values(run, topic, [f"{partition}-{i}".encode() for i in range(50)], partition=partition)
    first = make(run, "group")
    first.subscribe([topic])
    before = take(first, 30)
    first.commit(asynchronous=False)
    committed = first.committed([TopicPartition(topic, partition) for partition in (0, 1)], timeout=20)
    equal(sum(max(partition.offset, 0) for partition in committed), 30)
    first.close()
    second = make(run, "group")
    second.subscribe([topic])
    after = take(second, 70)
    second.close()
    equal(len({message.value() for message in before + after}), 100)


@check("group", "offsets are committed by themselves when a member closes")
def auto_commit(run):
    topic = create(run, "topic")
    send_values(run, topic, [b"v"] * 20)
    client = consumer(run, "group", enable_auto_commit=True)
    client.subscribe([topic])
    take(client, 20)
    client.close()
    reader = consumer(run, "group")
    equal(reader.committed([TopicPartition(topic, 0)], timeout=20)[0].offset, 20)
    reader.close()


@check("group", "a subscription by pattern finds topics")
def pattern(run):
    topic = create(run, "pattern-a")
    send_values(run, topic, [b"found"])
    client = consumer(run, "group")
    client.subscribe([f"^{run.name('pattern-')}.*"])
    equal(take(client, 1)[0].topic(), topic)
    client.close()


def shares(members):
    """Polls the members and returns the partitions that each has."""
    for client in members:
        message = client.poll(0.05)
        holds(message is None or message.error() is None, message and str(message.error()))
    return [{partition.partition for partition in client.assignment()} for client in members]


def rebalances(run, make):
    """Two members share four partitions, and the one that stays takes over when the other leaves."""
    topic, everything = create(run, "topic", 4), {0, 1, 2, 3}
    members = [make() for _ in range(2)]
    members[0].subscribe([topic])
    until("a lone member has everything", lambda: shares(members[:1]) == [everything])
    members[1].subscribe([topic])

    def halves():
        first, second = shares(members)
        return len(first) == len(second) == 2 and first | second == everything

    until("two members have half each", halves)
    members[0].close()
    until("the one that stays takes over", lambda: shares(members[1:]) == [everything])
    members[1].close()


def strategy_check(strategy):
    @check("rebalance", f"{strategy}: members that come and go share four partitions")
    def rebalance(run):
        rebalances(run, lambda: consumer(run, "group", partition_assignment_strategy=strategy))


for name in ("range", "roundrobin", "cooperative-sticky"):
    strategy_check(name)


@check("rebalance", "a static member that restarts gets its partitions back, and the others notice nothing")
def static_member(run):
    topic, events = create(run, "topic", 4), []

    def make(instance, **callbacks):
        client = consumer(run, "group", group_instance_id=instance, session_timeout_ms=20000)
        client.subscribe([topic], **callbacks)
        return client

    other = make("two", on_assign=lambda *_: events.append("assign"), on_revoke=lambda *_: events.append("revoke"))
    client = make("one")

    def half(mine):
        first, second = shares([mine, other])
        return first if len(first) == len(second) == 2 else None

    before = until("both have half", lambda: half(client))
    events.clear()
    client.close()
    client = make("one")
    equal(until("the returning member has half", lambda: half(client)), before)
    equal(events, [])
    client.close(), other.close()


@check("idempotence", "5000 records of an idempotent producer in small batches are there once, in order")
def idempotence(run):
    topic, client = create(run, "topic"), producer(run, enable_idempotence=True, batch_num_messages=50, linger_ms=1)
    values = [str(i).encode() for i in range(5000)]
    send(client, topic, [(None, value, []) for value in values])
    equal([message.value() for message in read(run, topic, 5000)], values)


def transactional(run, suffix="transactional"):
    client = producer(run, transactional_id=run.name(suffix), transaction_timeout_ms=20000)
    client.init_transactions(20)
    return client


@check("transactions", "readers of committed data see what was committed and nothing of what was aborted")
def commit_and_abort(run):
    topic, client = create(run, "topic"), transactional(run)
    for number, end in enumerate((client.commit_transaction, client.abort_transaction, client.commit_transaction)):
        client.begin_transaction()
        send(client, topic, [(None, f"{number}-{i}".encode(), []) for i in range(10)])
        end(20)
    committed = [f"{number}-{i}".encode() for number in (0, 2) for i in range(10)]
    equal([message.value() for message in read(run, topic, 20, isolation_level="read_committed")], committed)
    equal(len(read(run, topic, 30, isolation_level="read_uncommitted")), 30)


@check("transactions", "an open transaction holds back readers of committed data until it ends")
def open_transaction(run):
    topic, client = create(run, "topic"), transactional(run)
    send_values(run, topic, [b"before"])
    client.begin_transaction()
    send(client, topic, [(None, b"inside", [])])
    send_values(run, topic, [b"after"])
    reader = consumer(run, "reader", isolation_level="read_committed")
    reader.assign([TopicPartition(topic, 0, 0)])
    equal(take(reader, 1)[0].value(), b"before")
    equal(reader.poll(0.5), None)
    client.commit_transaction(20)
    equal([message.value() for message in take(reader, 2)], [b"inside", b"after"])
    reader.close()


@check("transactions", "consumed offsets are committed with the records made from them, or not at all")
def consume_transform_produce(run):
    source, target, client = create(run, "source"), create(run, "target"), transactional(run)
    send_values(run, source, [str(i).encode() for i in range(20)])
    reader = consumer(run, "group", isolation_level="read_committed")
    reader.subscribe([source])
    messages = take(reader, 20)

    def transform(end, upto):
        client.begin_transaction()
        send(client, target, [(None, b"copy " + message.value(), []) for message in messages[:upto]])
        client.send_offsets_to_transaction([TopicPartition(source, 0, upto)], reader.consumer_group_metadata(), 20)
        end(20)
        return reader.committed([TopicPartition(source, 0)], timeout=20)[0].offset

    equal(transform(client.abort_transaction, 20), -1001)
    equal(transform(client.commit_transaction, 10), 10)
    reader.close()
    copies = [message.value() for message in read(run, target, 10, isolation_level="read_committed")]
    equal(copies, [f"copy {i}".encode() for i in range(10)])


@check("transactions", "a second producer with the same id fences the first")
def fencing(run):
    topic, first = create(run, "topic"), transactional(run)
    first.begin_transaction()
    send(first, topic, [(None, b"lost", [])])
    second = transactional(run)
    try:
        first.commit_transaction(20)
        holds(False, "the fenced producer could commit")
    except KafkaException as error:
        holds(error.args[0].fatal() or error.args[0].code() in (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH), str(error))
    second.begin_transaction()
    send(second, topic, [(None, b"kept", [])])
    second.commit_transaction(20)
    equal([message.value() for message in read(run, topic, 1, isolation_level="read_committed")], [b"kept"])


@check("KIP-848", "a member that comes later goes on where the committed offsets are")
def resume_848(run):
    commit_and_resume(run, member)


def assignor_check(assignor):
    @check("KIP-848", f"assignor {assignor} of the broker: members that come and go share four partitions")
    def rebalance(run):
        rebalances(run, lambda: member(run, "group", group_remote_assignor=assignor))


for name in ("uniform", "range"):
    assignor_check(name)


@check("KIP-848", "a static member that restarts gets its partitions back")
def static_member_848(run):
    topic = create(run, "topic", 4)

    def make(instance):
        client = member(run, "group", group_instance_id=instance)
        client.subscribe([topic])
        return client

    other, client = make("two"), make("one")

    def half(mine):
        first, second = shares([mine, other])
        return first if len(first) == len(second) == 2 else None

    before = until("both have half", lambda: half(client))
    client.close()
    client = make("one")
    equal(until("the returning member has half", lambda: half(client)), before)
    client.close(), other.close()


@check("KIP-848", "a subscription by a pattern that the broker resolves finds topics")
def pattern_848(run):
    topic = create(run, "pattern-a")
    send_values(run, topic, [b"found"])
    client = member(run, "group")
    client.subscribe([f"^{run.name('pattern-')}.*"])
    equal(take(client, 1)[0].topic(), topic)
    client.close()


def share_consumer(run, group, topic, **config):
    """A member of a share group that starts at the beginning of its topics."""
    resource = ConfigResource(ConfigResource.Type.GROUP, run.name(group))
    resource.add_incremental_config(ConfigEntry("share.auto.offset.reset", "earliest", incremental_operation=AlterConfigOpType.SET))
    admin = AdminClient({"bootstrap.servers": run.bootstrap})
    admin.incremental_alter_configs([resource])[resource].result(20)
    options = {"bootstrap.servers": run.bootstrap, "group.id": run.name(group), **{k.replace("_", "."): v for k, v in config.items()}}
    client = ShareConsumer(options)
    client.subscribe([topic])
    return client


def acquire(client, count, each=lambda message: None):
    """The next `count` messages of a share consumer; `each` is called for every one before the next poll."""
    messages = []

    def enough():
        for message in client.poll(0.3):
            holds(message.error() is None, str(message.error()))
            messages.append(message)
            each(message)
        return len(messages) >= count

    until(f"{count} messages are acquired", enough)
    return messages


@check("share groups", "records that were accepted are not delivered again")
def share_accept(run):
    topic = create(run, "topic")
    send_values(run, topic, [str(i).encode() for i in range(50)])
    first = share_consumer(run, "group", topic)
    equal(sorted(int(message.value()) for message in acquire(first, 50)), list(range(50)))
    holds(all(error is None for error in first.commit_sync(20).values()), "the acknowledgement fails")
    first.close()
    send_values(run, topic, SECOND_HALF)
    second = share_consumer(run, "group", topic)
    equal(sorted(message.value() for message in acquire(second, 50)), sorted(SECOND_HALF))
    second.close()


@check("share groups", "released records are delivered again and rejected ones are not")
def share_release(run):
    topic = create(run, "topic")
    send_values(run, topic, [b"accept", b"release", b"reject"])
    client, seen = share_consumer(run, "group", topic, share_acknowledgement_mode="explicit"), []

    def answer(message):
        kinds = {b"release": AcknowledgeType.RELEASE, b"reject": AcknowledgeType.REJECT}
        again = message.value() in seen
        seen.append(message.value())
        client.acknowledge(message, AcknowledgeType.ACCEPT if again else kinds.get(message.value(), AcknowledgeType.ACCEPT))

    acquire(client, 4, answer)
    client.commit_sync(20)
    equal(sorted(seen), [b"accept", b"reject", b"release", b"release"])
    equal(len(client.poll(0.5)), 0)
    client.close()


if __name__ == "__main__":
    main(f"confluent-kafka {confluent_kafka.__version__}")
