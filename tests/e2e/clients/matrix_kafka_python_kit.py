"""Producers, consumers and topics for the checks of kafka-python."""

import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from kafka_python_poll import poll
from matrix import equal, holds


def admin(run):
    return KafkaAdminClient(bootstrap_servers=run.bootstrap)


def create(run, suffix, partitions=1, **configs):
    """The name of a new topic, once brokers know it."""
    client, topic = admin(run), run.name(suffix)
    settings = {name.replace("_", "."): value for name, value in configs.items()}
    new = {topic: {"num_partitions": partitions, "replication_factor": 1, "configs": settings}}
    client.create_topics(new, wait_for_metadata=True)
    client.close()
    return topic


def producer(run, **config):
    return KafkaProducer(bootstrap_servers=run.bootstrap, linger_ms=5, **config)


def consumer(run, group, *topics, **config):
    """A member that starts at the beginning and commits only when asked."""
    options = {"enable_auto_commit": False, "heartbeat_interval_ms": 500, "session_timeout_ms": 6000, "fetch_max_wait_ms": 100, **config}
    return KafkaConsumer(*topics, bootstrap_servers=run.bootstrap, group_id=run.name(group), auto_offset_reset="earliest", **options)


def send(client, topic, records, **extra):
    """Produces (key, value, headers), waits until each is acknowledged and closes the producer."""
    futures = [client.send(topic, value, key, headers=headers, **extra) for key, value, headers in records]
    client.flush(20)
    holds(all(future.get(20).offset >= 0 for future in futures), "an acknowledgement without an offset")
    client.close()


def send_values(run, topic, values, **extra):
    send(producer(run), topic, [(None, value, []) for value in values], **extra)


def take(client, count, deadline_s=25):
    """The next `count` records of a consumer."""
    records, end = [], time.monotonic() + deadline_s
    while len(records) < count and time.monotonic() < end:
        for batch in poll(client, 200, max_records=count - len(records)).values():
            records += batch
    holds(len(records) == count, f"{len(records)} of {count} records arrive")
    return records


def read(run, topic, count, **config):
    """The first `count` records of partition 0, without joining a group."""
    client = consumer(run, "reader", **config)
    client.assign([TopicPartition(topic, 0)])
    records = take(client, count)
    client.close()
    return records


def record(found):
    return found.key, found.value, list(found.headers)


def round_trip(run, records, **config):
    """Produces the records to a new topic and checks that they come back the same."""
    topic = create(run, "topic")
    send(producer(run, **config), topic, records)
    equal([record(found) for found in read(run, topic, len(records))], records)
