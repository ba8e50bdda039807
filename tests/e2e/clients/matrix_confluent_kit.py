"""Producers, consumers and topics for the checks of confluent-kafka (librdkafka)."""

import time

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from matrix import equal, holds, until


def create(run, suffix, partitions=1, **configs):
    """The name of a new topic, once brokers know it."""
    topic = run.name(suffix)
    client = AdminClient({"bootstrap.servers": run.bootstrap})
    client.create_topics([NewTopic(topic, partitions, 1, config={k.replace("_", "."): v for k, v in configs.items()})])[topic].result(20)
    until(f"{topic} has its partitions", lambda: len(client.list_topics(topic, timeout=20).topics[topic].partitions) == partitions)
    return topic


def producer(run, **config):
    return Producer({"bootstrap.servers": run.bootstrap, "linger.ms": 5, **{k.replace("_", "."): v for k, v in config.items()}})


def consumer(run, group, **config):
    """A member of the classic protocol, which starts at the beginning and commits only when asked."""
    return Consumer(
        {
            "bootstrap.servers": run.bootstrap,
            "group.id": run.name(group),
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 500,
            "fetch.wait.max.ms": 100,
            **{k.replace("_", "."): v for k, v in config.items()},
        }
    )


def member(run, group, **config):
    """A member of the KIP-848 protocol, whose timeouts the broker decides."""
    return Consumer(
        {
            "bootstrap.servers": run.bootstrap,
            "group.id": run.name(group),
            "group.protocol": "consumer",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 100,
            **{k.replace("_", "."): v for k, v in config.items()},
        }
    )


def send(client, topic, records, **extra):
    """Produces (key, value, headers) and waits until each is acknowledged."""
    failures = []
    for key, value, headers in records:
        client.produce(topic, value, key, headers=headers, on_delivery=lambda error, _: error and failures.append(str(error)), **extra)
    equal((client.flush(20), failures), (0, []))


def send_values(run, topic, values, **extra):
    send(producer(run), topic, [(None, value, []) for value in values], **extra)


def take(client, count, deadline_s=25):
    """The next `count` messages of a consumer."""
    messages, end = [], time.monotonic() + deadline_s
    while len(messages) < count and time.monotonic() < end:
        for message in client.consume(min(500, count - len(messages)), 0.2):
            holds(message.error() is None, str(message.error()))
            messages.append(message)
    holds(len(messages) == count, f"{len(messages)} of {count} messages arrive")
    return messages


def read(run, topic, count, **config):
    """The first `count` messages of partition 0, without a group."""
    client = consumer(run, "reader", **config)
    client.assign([TopicPartition(topic, 0, 0)])
    messages = take(client, count)
    client.close()
    return messages


def record(message):
    return message.key(), message.value(), message.headers() or []


def round_trip(run, records, **config):
    """Produces the records to a new topic and checks that they come back the same."""
    topic = create(run, "topic")
    send(producer(run, **config), topic, records)
    equal([record(message) for message in read(run, topic, len(records))], records)
