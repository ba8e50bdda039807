#!/usr/bin/env python3
"""What stock clients see of plugins: refusals, dead letters, views. See scenario.py for how it is called."""

import json
import socket
import struct
import time

from kafka_python_poll import poll
from scenario import check, main, scenario, skip, until

try:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition
    from confluent_kafka.admin import AdminClient, OffsetSpec
except ImportError as error:
    skip(f"confluent-kafka: {error}")


def produce(bootstrap, topic, values, **config):
    """Produces the values as JSON in one batch; returns each one's error (None, or KafkaError)."""
    client = Producer({"bootstrap.servers": bootstrap, "linger.ms": 200, "enable.idempotence": True, **config})
    outcome = {}

    def delivered(error, message):
        outcome[int(message.key()[1:])] = error  # Delivery reports carry no headers.

    for number, value in enumerate(values):
        headers = [("n", f"{number}".encode())]
        client.produce(topic, json.dumps(value).encode(), f"k{number}", partition=0, headers=headers, on_delivery=delivered)
    check("every record has an outcome", client.flush(40) == 0 and len(outcome) == len(values), len(outcome))
    return [outcome[number] for number in range(len(values))]


def reader(bootstrap, topic, group=None):
    """A consumer at the beginning of a topic: with a group by subscription, else by assignment."""
    client = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group or "plain",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 100,
            "session.timeout.ms": 6000,
        }
    )
    if group:
        client.subscribe([topic])
    else:
        partitions = client.list_topics(topic, timeout=20).topics[topic].partitions
        client.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
    return client


def take(client, count, deadline_s=40):
    messages, end = [], time.monotonic() + deadline_s
    while len(messages) < count and time.monotonic() < end:
        message = client.poll(0.2)
        if message is not None:
            check("no consumer error", False, str(message.error())) if message.error() else messages.append(message)
    check(f"{count} messages arrive", len(messages) == count, len(messages), [m.value() for m in messages[:3]])
    return messages


@scenario
def invalid_records_are_refused(bootstrap, topic):
    """The topic takes objects with an integer `n`; the culprits of a batch are named, their companions are told why they failed too.

    Two culprits, as librdkafka tells records apart only when a response names more than one."""
    errors = produce(bootstrap, topic, [{"n": 1}, {"n": "two"}, {"n": 3}, {"n": "four"}])
    check("both culprits are named", "validate" in errors[3].str(), errors[3])
    check("the culprit is refused as an invalid record", errors[1] is not None and errors[1].code() == KafkaError.INVALID_RECORD, errors[1])
    check("with the plugin's reason", "validate" in errors[1].str(), errors[1].str())
    check("its companions fail with it", all(error is not None for error in (errors[0], errors[2])), errors)
    check("and are told that they are not the cause", "validate" not in errors[0].str(), errors[0].str())
    check("a batch of good records passes", produce(bootstrap, topic, [{"n": 4}, {"n": 5}]) == [None, None])
    messages = take(reader(bootstrap, topic), 2)
    check("only those are stored", [json.loads(m.value())["n"] for m in messages] == [4, 5])


@scenario
def redacted_and_diverted(bootstrap, topic, dead_letter_topic):
    """The topic has validate (divert unless `dep_time` is an integer) and redact (hash `/tailnum`)."""
    records = [{"id": i, "dep_time": None if i % 3 == 0 else 500 + i, "tailnum": f"N{1000 + i}"} for i in range(30)]
    check("every record is acknowledged", produce(bootstrap, topic, records, **{"compression.type": "lz4"}) == [None] * 30)
    kept = take(reader(bootstrap, topic), 20)
    check("the valid ones are stored, in order", [json.loads(m.value())["id"] for m in kept] == [i for i in range(30) if i % 3])
    check("at the offsets the producer was told", [m.offset() for m in kept] == [i for i in range(30) if i % 3], [m.offset() for m in kept])
    check("keys and headers stay", all(m.key() == b"k" + m.headers()[0][1] for m in kept))
    tails = [json.loads(m.value())["tailnum"] for m in kept]
    check("no raw tail number is left", not any(f"N{1000 + i}" in str(tails) for i in range(30)), tails)
    check("different numbers have different hashes", len(set(tails)) == 20)
    letters = take(reader(bootstrap, dead_letter_topic), 10)
    originals = [record for record in records if record["dep_time"] is None]
    check("the others are dead letters, unchanged", [json.loads(m.value()) for m in letters] == originals)
    headers = dict(letters[0].headers())
    check("that kept their own header", headers["n"] == b"0", headers)
    check("and say where they come from", headers["millstream.dlq.topic"] == topic.encode(), headers)
    check("and which plugin", (headers["millstream.dlq.plugin"], headers["millstream.dlq.hook"]) == (b"validate", b"produce"), headers)
    check("and why", b"dep_time" in headers["millstream.dlq.error"], headers)
    for name in ("partition", "timestamp", "version", "kind"):
        check(f"and their {name}", bool(headers.get(f"millstream.dlq.{name}")), headers)


@scenario
def sequences_count_what_was_diverted(bootstrap, topic):
    """A batch that loses its last record to a plugin counts in full: the producer's next batch must not look like a gap."""
    client = Producer({"bootstrap.servers": bootstrap, "linger.ms": 100, "enable.idempotence": True})
    errors = []
    for dep_times in ([1, None], [2], [None, None], [3]):
        for dep_time in dep_times:
            value = json.dumps({"dep_time": dep_time, "tailnum": "N1"}).encode()
            client.produce(topic, value, partition=0, on_delivery=lambda error, _: errors.append(error))
        check("a batch is sent", client.flush(30) == 0)
    check("every record is acknowledged", errors == [None] * 6, errors)
    kept = take(reader(bootstrap, topic), 3)
    found = [(m.offset(), json.loads(m.value())["dep_time"]) for m in kept]
    check("what is kept is where it was", found == [(0, 1), (2, 2), (5, 3)], found)


def text(value):
    return struct.pack(">h", len(value)) + value.encode()


def call(bootstrap, api_key, version, body):
    """One request on a connection of its own; the answer behind its header."""
    host, port = bootstrap.split(":")
    frame = struct.pack(">hhi", api_key, version, 7) + text("raw") + body
    with socket.create_connection((host, int(port)), 20) as connection:
        connection.sendall(struct.pack(">i", len(frame)) + frame)
        stream = connection.makefile("rb")
        answer = stream.read(struct.unpack(">i", stream.read(4))[0])
    check("the answer is to the request", answer[:4] == struct.pack(">i", 7), answer)
    return answer[4:]


@scenario
def resent_batches_are_not_diverted_again(bootstrap, topic, dead_letter_topic):
    """A producer that missed the answer sends the same batch again: it is told the same, and nobody gets two dead letters."""
    try:
        from kafka.record.default_records import DefaultRecordBatchBuilder
    except ImportError as error:
        skip(f"kafka-python: {error}")
    # InitProducerId 0 without a transactional id; Produce 3 with one batch.
    error, producer_id, epoch = struct.unpack(">hqh", call(bootstrap, 22, 0, struct.pack(">hi", -1, 60_000))[4:])
    check("a producer id is given", error == 0, error)

    def send(base_sequence, dep_times):
        batch = DefaultRecordBatchBuilder(2, 0, 0, producer_id, epoch, base_sequence, 1 << 16)
        for index, dep_time in enumerate(dep_times):
            value = json.dumps({"dep_time": dep_time, "tailnum": "N1"}).encode()
            batch.append(index, 1_700_000_000_000, None, value, [])
        batch = bytes(batch.build())
        body = struct.pack(">hhii", -1, -1, 20_000, 1) + text(topic) + struct.pack(">iii", 1, 0, len(batch)) + batch
        return struct.unpack(">hqqi", call(bootstrap, 0, 3, body)[4 + 2 + len(topic) + 4 + 4 :])

    answers = [send(0, [None, 1, None]) for _ in range(3)] + [send(3, [2]), send(0, [None, 1, None])]
    check("resent, it is where it was", [answer[:2] for answer in answers] == [(0, 0)] * 3 + [(0, 3), (0, 0)], answers)
    check("the last ones are sent", send(4, [3, None])[:2] == (0, 4))
    kept = [(message.offset(), json.loads(message.value())["dep_time"]) for message in take(reader(bootstrap, topic), 3)]
    check("what is kept is there once", kept == [(1, 1), (3, 2), (4, 3)], kept)
    letters = [message.offset() for message in take(reader(bootstrap, dead_letter_topic), 3)]
    check("and so is what was diverted", letters == [0, 1, 2], letters)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    end = admin.list_offsets({TopicPartition(dead_letter_topic, 0): OffsetSpec.latest()})[TopicPartition(dead_letter_topic, 0)].result().offset
    check("without any more", end == 3, end)


@scenario
def reserved_headers_are_refused(bootstrap, topic):
    client, failures = Producer({"bootstrap.servers": bootstrap}), []
    client.produce(topic, b'{"n":1}', headers=[("millstream.dlq.topic", b"forged")], on_delivery=lambda e, _: failures.append(e))
    client.flush(30)
    check("a producer cannot forge our headers", failures[0] is not None, failures)


# Which of the records 0 to 999 each view shows: none, a few in the middle, all, and only the first so that the tail is hidden.
SHOWN = {"nothing": [], "sparse": [500, 501], "all": list(range(1000)), "head": list(range(10))}


def viewed_records():
    """Record `n` has a field per view, 1 where that view shows it; record 1000 is shown by all."""
    return [{"n": n, **{view: int(n == 1000 or n in shown) for view, shown in SHOWN.items()}} for n in range(1001)]


@scenario
def views(bootstrap, source):
    """The views of SHOWN over `source` through librdkafka."""
    records = viewed_records()
    for start in range(0, 1000, 50):
        check("produced", produce(bootstrap, source, records[start : start + 50], **{"linger.ms": 5}) == [None] * 50)
    clients = {view: reader(bootstrap, view, f"group-{view}") for view in SHOWN}
    for view, shown in SHOWN.items():
        messages = take(clients[view], len(shown))
        check(f"view {view} shows what matches", [json.loads(m.value())["n"] for m in messages] == shown)
        check(f"view {view} keeps the source's offsets", [m.offset() for m in messages] == shown)
    # The last record must be the next one of every view: nothing else came, and none hangs on what it hides.
    check("the last record is produced", produce(bootstrap, source, records[1000:]) == [None])
    for view, client in clients.items():
        [message] = take(client, 1)
        check(f"view {view} goes on behind what it hides", message.offset() == 1000, message.offset())
        client.commit(message, asynchronous=False)
        committed = client.committed([TopicPartition(view, 0)], timeout=20)[0].offset
        check(f"view {view} has its own committed offsets", committed == 1001, committed)
        client.close()


@scenario
def views_by_kafka_python(bootstrap, source):
    """The same through a client that shares no code with librdkafka."""
    try:
        from kafka import KafkaConsumer, KafkaProducer
    except ImportError as error:
        skip(f"kafka-python: {error}")
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=5, compression_type="gzip")
    for record in viewed_records():
        producer.send(source, json.dumps(record).encode(), partition=0)
    producer.flush(40)
    producer.close()
    for view, shown in SHOWN.items():
        config = {"group_id": f"kp-{view}", "auto_offset_reset": "earliest", "fetch_max_wait_ms": 100}
        client = KafkaConsumer(view, bootstrap_servers=bootstrap, **config)
        seen, offsets = [], [*shown, 1000]

        def caught_up():
            for batch in poll(client, 200).values():
                seen.extend(record.offset for record in batch)
            return len(seen) >= len(offsets)

        until(f"view {view} shows {len(offsets)} records", caught_up)
        client.close()
        check(f"view {view} shows what matches", seen == offsets, seen[:20])


@scenario
def views_take_no_records(bootstrap, view):
    client, failures = Producer({"bootstrap.servers": bootstrap, "message.timeout.ms": 8000}), []
    client.produce(view, b"{}", on_delivery=lambda e, _: failures.append(e))
    client.flush(30)
    refused = len(failures) == 1 and failures[0] is not None and failures[0].code() != KafkaError._MSG_TIMED_OUT
    check("producing to a view is refused", refused, failures)


if __name__ == "__main__":
    main()
