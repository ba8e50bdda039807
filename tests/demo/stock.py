"""The stock clients of the demo (librdkafka through confluent-kafka) and what they check."""

import hashlib
import json
import re
import sys
import time

try:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
except ImportError as error:
    sys.exit(f"error: the demo needs confluent-kafka ({error}); run: tests/setup/setup.sh python")

READ_DEADLINE_S = 60
# After the last expected record a reader listens this long for one too many.
QUIET_S = 0.5
JSON_STRING = re.compile(rb'"([^"\\]*)"')


def is_integer(value):
    """As JSON Schema means it: 5.0 is one, true is not."""
    return not isinstance(value, bool) and (isinstance(value, int) or isinstance(value, float) and value.is_integer())


class Input:
    """The records, and what must become of them."""

    def __init__(self, path):
        self.lines, self.keys, self.tail_numbers = [], [], set()
        self.diverted = self.late = 0
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                line = line.strip()
                if not line:
                    continue
                try:
                    record = json.loads(line)
                except ValueError as error:
                    raise ValueError(f"{path} line {number} is not JSON: {error}") from error
                self._add(line, record if isinstance(record, dict) else None)

    def _add(self, line, record):
        fields = record or {}
        carrier, flight = fields.get("carrier"), fields.get("flight")
        self.keys.append(f"{carrier}{flight}".encode() if carrier and flight else str(len(self.lines)).encode())
        self.lines.append(line)
        if isinstance(tail_number := fields.get("tailnum"), str):
            self.tail_numbers.add(tail_number.encode())
        if record is None or "dep_time" in fields and not is_integer(fields["dep_time"]):
            self.diverted += 1
        elif is_late(fields):
            self.late += 1

    @property
    def stored(self):
        """Records that the topic holds in the end."""
        return len(self.lines) - self.diverted


def is_late(record):
    """What the view shows: arrived more than an hour late."""
    delay = record.get("arr_delay")
    return isinstance(delay, (int, float)) and not isinstance(delay, bool) and delay > 60


def produce(bootstrap, topic, records):
    """Produces all of the input with lz4 and its place in the input as header `seq`; returns errors (none, if all is well)."""
    client = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": 20,
            "batch.size": 131_072,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    errors = []

    def delivered(error, _):
        if error is not None:
            errors.append(str(error))

    for number, (key, line) in enumerate(zip(records.keys, records.lines)):
        while True:
            try:
                client.produce(topic, line, key, headers=[("seq", b"%d" % number)], on_delivery=delivered)
                break
            except BufferError:
                client.poll(0.1)
        if number % 1000 == 0:
            client.poll(0)
    missing = client.flush(READ_DEADLINE_S)
    return errors + ([f"{missing} records without an answer"] if missing else [])


class Reading:
    """What a reader saw of a topic."""

    def __init__(self):
        self.count = self.bytes = self.out_of_order = self.raw_tail_numbers = 0
        self.last_seq, self.digests, self.by_partition = {}, {}, {}
        self.seconds = 0.0

    def add(self, message, tail_numbers):
        value, partition = message.value() or b"", message.partition()
        seq = int(dict(message.headers() or []).get("seq", b"-1"))
        self.count += 1
        self.bytes += len(value)
        self.out_of_order += seq <= self.last_seq.get(partition, -1)
        self.last_seq[partition] = seq
        if tail_numbers and not tail_numbers.isdisjoint(JSON_STRING.findall(value)):
            self.raw_tail_numbers += 1
        digest = self.digests.setdefault(partition, hashlib.blake2b(digest_size=16))
        digest.update(b"%d %b %b\n" % (message.offset(), message.key() or b"", value))
        self.by_partition[partition] = self.by_partition.get(partition, 0) + 1

    def digest(self):
        """One text for all offsets, keys and values."""
        return " ".join(digest.hexdigest() for _, digest in sorted(self.digests.items()))


def read(bootstrap, topic, expected, tail_numbers=(), group=None, inspect=None):
    """Reads a topic from the beginning: with a group by subscription, else every partition by assignment."""
    client = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group or "demo-reader",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 100,
            "queued.min.messages": 200_000,
        }
    )
    if group:
        client.subscribe([topic])
    else:
        partitions = client.list_topics(topic, timeout=20).topics[topic].partitions
        client.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
    reading, started, tail_numbers = Reading(), time.monotonic(), frozenset(tail_numbers)
    last = started
    while True:
        messages = client.consume(10_000, 0.1)
        now = time.monotonic()
        for message in messages:
            if message.error():
                raise RuntimeError(f"reading {topic}: {message.error()}")
            reading.add(message, tail_numbers)
            if inspect:
                inspect(message)
        if messages:
            last = time.monotonic()
        elif reading.count >= expected and now - last > QUIET_S or now - started > READ_DEADLINE_S:
            break
    reading.seconds = max(last - started, 0.001)
    if group and reading.count:
        client.commit(asynchronous=False)
    client.close()
    return reading
