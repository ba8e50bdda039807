#!/usr/bin/env python3
"""Load that remembers what the broker acknowledged, for tests that kill it. See scenario.py for how it is called."""

import random
import signal
import time

from scenario import check, main, scenario, skip

try:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
except ImportError as error:
    skip(f"confluent-kafka: {error}")


@scenario
def produce_until_told(bootstrap, topic, acked_path):
    """Produces numbered records until SIGTERM; writes `partition offset number` for each one acknowledged by acks=all."""
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    client = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "linger.ms": 2,
            "compression.type": "lz4",
            "message.timeout.ms": 120_000,
            "reconnect.backoff.max.ms": 200,
            "retry.backoff.max.ms": 200,
        }
    )
    with open(acked_path, "w", buffering=1) as acked:

        def delivered(error, message):
            if error is None:
                acked.write(f"{message.partition()} {message.offset()} {message.key().decode()}\n")

        number = 0
        while not stop:
            try:
                client.produce(topic, f"record {number} ".encode() * 20, f"{number}", on_delivery=delivered)
                number += 1
            except BufferError:
                client.poll(0.05)
            client.poll(0)
            if number % 50 == 0:
                time.sleep(0.005)
        check("what was under way is acknowledged at the end", client.flush(60) == 0)


@scenario
def verify_acked(bootstrap, topic, acked_path):
    """Every acknowledged record is at its offset, and no record is there twice."""
    acked = {}
    with open(acked_path) as lines:
        for line in lines:
            if line.endswith("\n"):
                partition, offset, number = line.split()
                acked[(int(partition), int(offset))] = int(number)
    check("records were acknowledged", len(acked) > 0)
    seen = read_everything(bootstrap, topic)
    lost = [place for place, number in acked.items() if seen.get(place) != number]
    check(f"each of the {len(acked)} acknowledged records is at its offset", not lost, len(lost), sorted(lost)[:5])
    check("no record is there twice", len(set(seen.values())) == len(seen), len(seen) - len(set(seen.values())))


@scenario
def fill_until_refused(bootstrap, topic, acked_path):
    """Produces until the broker refuses a record (its disk is full), noting what it acknowledged."""
    config = {"message.timeout.ms": 4000, "batch.num.messages": 20, "linger.ms": 1, "retries": 2}
    client = Producer({"bootstrap.servers": bootstrap, **config})
    refused = []
    with open(acked_path, "w") as acked:

        def delivered(error, message):
            if error is None:
                acked.write(f"{message.partition()} {message.offset()} {message.key().decode()}\n")
            else:
                refused.append(str(error))

        number, end = 0, time.monotonic() + 60
        while not refused and time.monotonic() < end:
            client.produce(topic, bytes(10_000), f"{number}", on_delivery=delivered)
            number += 1
            client.poll(0)
            if number % 50 == 0:
                client.flush(20)
        client.flush(20)
    check("the broker refuses records once its disk is full", bool(refused))
    print("refused with:", refused[0])


@scenario
def fill(bootstrap, topic, count, size):
    """Produces `count` numbered records of about `size` bytes that do not compress away, quickly."""
    random.seed(7)
    client = Producer({"bootstrap.servers": bootstrap, "linger.ms": 50, "compression.type": "lz4"})
    failures = []
    for number in range(int(count)):
        client.produce(topic, random.randbytes(int(size)), f"{number}", on_delivery=lambda e, _: e and failures.append(str(e)))
        client.poll(0)
    check(f"{count} records are acknowledged", client.flush(60) == 0 and not failures, failures[:3])


@scenario
def read_numbered(bootstrap, topic, count):
    """The records of one or more `fill` runs are all there from the beginning, each partition in order."""
    seen = read_everything(bootstrap, topic)
    check(f"{count} records are there", len(seen) == int(count), len(seen))
    numbers = {}
    for (partition, _), number in sorted(seen.items()):
        numbers.setdefault(partition, []).append(number)
    check("every partition is in order", all(run == sorted(run) for run in numbers.values()))
    check("no number is missing", sorted(seen.values()) == list(range(int(count))))


@scenario
def find_by_time(bootstrap, topic, partition):
    """The offset for a time is that of the first record from then on, to the record."""
    place = TopicPartition(topic, int(partition), OFFSET_BEGINNING)
    client = Consumer({"bootstrap.servers": bootstrap, "group.id": "by-time", "enable.auto.commit": False, "enable.partition.eof": True})
    client.assign([place])
    records, end = [], time.monotonic() + 60
    while not records or records[-1] is not None:
        check("the partition is read in time", time.monotonic() < end, len(records))
        for message in client.consume(2000, 0.2):
            records.append(None if message.error() else (message.timestamp()[1], message.offset()))
    records.pop()
    for index in range(0, len(records), max(1, len(records) // 40)):
        timestamp = records[index][0]
        expected = next(offset for at, offset in records if at >= timestamp)
        found = client.offsets_for_times([TopicPartition(topic, int(partition), timestamp)], 20)[0].offset
        check(f"the first record from {timestamp} on is found", found == expected, found, expected)


@scenario
def delete_below(bootstrap, topic, partition, offset):
    """Deletes the records of a partition below an offset; readers then begin there."""
    from confluent_kafka.admin import AdminClient

    client, place = AdminClient({"bootstrap.servers": bootstrap}), TopicPartition(topic, int(partition), int(offset))
    low_watermark = client.delete_records([place])[place].result(30).low_watermark
    check("the low watermark moves", low_watermark == int(offset), low_watermark)
    begins_at(bootstrap, topic, partition, offset)


@scenario
def begins_at(bootstrap, topic, partition, offset):
    """Reads everything: the first record of a partition has this offset."""
    first = min(seen for number, seen in read_everything(bootstrap, topic) if number == int(partition))
    check("readers begin there", first == int(offset), first)


def read_everything(bootstrap, topic, deadline_s=90):
    """All of a topic's keys as numbers, by (partition, offset)."""
    client = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reader",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 100,
        }
    )
    partitions = list(client.list_topics(topic, timeout=20).topics[topic].partitions)
    client.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
    seen, open_partitions, end = {}, set(partitions), time.monotonic() + deadline_s
    while open_partitions and time.monotonic() < end:
        for message in client.consume(2000, 0.2):
            if message.error():
                if message.error().name() == "_PARTITION_EOF":
                    open_partitions.discard(message.partition())
                else:
                    check("no consumer error", False, str(message.error()))
            else:
                seen[(message.partition(), message.offset())] = int(message.key())
    client.close()
    check("every partition is read to its end", not open_partitions, open_partitions)
    return seen


if __name__ == "__main__":
    main()
