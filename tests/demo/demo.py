#!/usr/bin/env python3
"""The demo: real flights through one node with plugins, tiering, a view and a crash. Run by `make demo`.

INPUT=file.jsonl takes records of one's own; KEEP=1 leaves the node running. Exits with 0 only if every check held.
"""

import json
import os
import sys
import time

from node import BINARY, HOME, WORKSPACE, DemoError, Node
from stock import Input, is_late, produce, read

PARTITIONS = 6
STEPS = 9
TIER_DEADLINE_S = 60
TOPIC, DEAD_LETTERS, VIEW = "flights", "flights.dead-letter", "late-flights"
SCHEMA = {"type": "object", "properties": {"dep_time": {"type": "integer"}}}
VALIDATE = {"schema": SCHEMA, "on_invalid": "divert"}
REDACT = {"fields": [{"pointer": "/tailnum", "action": "hash"}], "salt": "nobody-guesses-this"}
LATE = {"where": {"field": "/arr_delay", "op": "gt", "value": 60}}


class Demo:
    """Prints steps and checks, and remembers whether one failed."""

    def __init__(self):
        self.steps = self.failures = 0

    def step(self, title):
        self.steps += 1
        print(f"\n[{self.steps}/{STEPS}] {title}", flush=True)

    def say(self, text):
        print(f"       {text}", flush=True)

    def check(self, claim, holds, seen=""):
        self.failures += not holds
        print(f"  {'ok  ' if holds else 'FAIL'} {claim}" + ("" if holds else f" (seen: {seen})"), flush=True)


def size(count):
    """Bytes for people."""
    return f"{count / 1e6:,.1f} MB"


def rate(reading):
    per_second = reading.count / reading.seconds
    return f"{reading.count:,} records in {reading.seconds:.1f} s: {per_second:,.0f}/s, {size(reading.bytes / reading.seconds)}/s"


def bind_plugins(demo, node):
    plugins = os.environ.get("MILLSTREAM_PLUGINS", WORKSPACE / "target/plugins")
    for name in ("validate", "redact", "json-filter"):
        node.verb("plugin", "push", f"{plugins}/{name}.wasm")
    bind = ("--topic", TOPIC, "--hook", "produce", "--config")
    node.verb("plugin", "bind", "validate", *bind, json.dumps(VALIDATE), "--order", 10, "--dead-letter-topic", DEAD_LETTERS)
    node.verb("plugin", "bind", "redact", *bind, json.dumps(REDACT), "--order", 20, "--security")
    demo.say(f"validate: dep_time must be an integer, else the record goes to {DEAD_LETTERS}")
    demo.say("redact: /tailnum becomes a salted hash; the dead letters keep the original records, so guard that topic")


def create_topics(node):
    tiering = ["remote.storage.enable=true", "segment.bytes=1048576", "local.retention.bytes=1", "local.retention.ms=1000"]
    configs = [word for config in tiering for word in ("--config", config)]
    node.verb("topic", "create", TOPIC, "--partitions", PARTITIONS, *configs)
    node.verb("topic", "create", DEAD_LETTERS, "--partitions", 1)


def is_settled(partition):
    """Whether every sealed segment is in the bucket and off the local disk. Only one's own input may be too small to seal one."""
    if partition["remote_segments"] == 0:
        return partition["pending_bytes"] == 0 and bool(os.environ.get("INPUT"))
    return partition["pending_bytes"] == 0 and partition["local_start"] == partition["remote_end"]


def wait_for_tier(demo, node):
    end = time.monotonic() + TIER_DEADLINE_S
    while True:
        status = node.verb("tier", "status", "--topic", TOPIC)
        settled = [p for p in status if is_settled(p)]
        if len(settled) == len(status) == PARTITIONS or time.monotonic() > end:
            break
        time.sleep(0.2)
    segments, remote = sum(p["remote_segments"] for p in status), sum(p["remote_bytes"] for p in status)
    demo.check("every sealed segment is in the bucket and trimmed locally", len(settled) == PARTITIONS, status)
    demo.check("some of the topic lives in the bucket only", segments > 0 or bool(os.environ.get("INPUT")), status)
    local, bucket = node.local_and_bucket_bytes()
    demo.say(f"{segments} segments of {size(remote)} in the bucket; on disk: {size(local)} local, {size(bucket)} bucket")
    return sum(max(p["remote_end"] - max(p["remote_start"], 0), 0) for p in status)


def check_reading(demo, reading, records):
    demo.say(rate(reading))
    demo.check(f"all {records.stored:,} valid records are there", reading.count == records.stored, reading.count)
    demo.check("every partition is in the order of the input", reading.out_of_order == 0, reading.out_of_order)
    claim = f"none holds one of the {len(records.tail_numbers):,} raw tail numbers"
    demo.check(claim, reading.raw_tail_numbers == 0, reading.raw_tail_numbers)


def check_dead_letters(demo, node, records):
    reasons = {}

    def inspect(message):
        headers = dict(message.headers() or [])
        reason = (headers.get("millstream.dlq.plugin") or b"?").decode() + ": " + (headers.get("millstream.dlq.error") or b"?").decode()
        reasons[reason] = reasons.get(reason, 0) + 1

    reading = read(node.kafka, DEAD_LETTERS, records.diverted, inspect=inspect)
    demo.check(f"the {records.diverted:,} invalid records are dead letters", reading.count == records.diverted, reading.count)
    demo.check("each says which plugin and why", all("?" not in reason for reason in reasons), list(reasons)[:3])
    for reason, count in sorted(reasons.items(), key=lambda entry: -entry[1])[:3]:
        demo.say(f"{count:,} × {reason[:140]}")


def check_view(demo, node, records):
    wrong = []

    def inspect(message):
        if not is_late(json.loads(message.value())):
            wrong.append(message.offset())

    node.verb("view", "create", VIEW, "--source", TOPIC, "--plugin", "json-filter", "--config", json.dumps(LATE))
    reading = read(node.kafka, VIEW, records.late, records.tail_numbers, group="late-flights-readers", inspect=inspect)
    demo.say(rate(reading))
    demo.check(f"the view shows the {records.late:,} flights that the input has", reading.count == records.late, reading.count)
    demo.check("and only those, redacted", not wrong and reading.raw_tail_numbers == 0, wrong[:5])


def show_metrics(demo, node):
    lines = [line for line in node.metrics() if line.startswith("millstream_plugin_") and "_bucket" not in line]
    demo.check("plugins have metrics", any('plugin="redact"' in line for line in lines), lines[:3])
    for line in lines:
        if not line.endswith((" 0", " 0.0")):
            demo.say(line)
    local, bucket = node.local_and_bucket_bytes()
    demo.say(f"on disk: {size(local)} local, {size(bucket)} bucket")


def run(demo, node, path):
    started = time.monotonic()
    demo.step(f"read the input {path}")
    records = Input(path)
    demo.say(f"{len(records.lines):,} records, {size(sum(map(len, records.lines)))}")
    demo.say(f"{records.diverted:,} of them break the schema, {records.late:,} arrived more than an hour late")

    demo.step("start one node: millstream dev")
    began = time.monotonic()
    node.start()
    demo.check(f"ready in {time.monotonic() - began:.1f} s: Kafka on {node.kafka}, admin on {node.admin}", True)

    demo.step(f"create topic {TOPIC} ({PARTITIONS} partitions, tiered, 1 MiB segments), bind validate and redact")
    create_topics(node)
    bind_plugins(demo, node)

    demo.step("produce everything with librdkafka, lz4, idempotent")
    began = time.monotonic()
    errors = produce(node.kafka, TOPIC, records)
    seconds = time.monotonic() - began
    demo.say(f"{len(records.lines):,} records in {seconds:.1f} s: {len(records.lines) / seconds:,.0f}/s")
    demo.check("every record is acknowledged", not errors, errors[:3])

    demo.step("wait until sealed segments are in the bucket and local copies are trimmed")
    in_bucket = wait_for_tier(demo, node)

    demo.step("read everything from the beginning with librdkafka")
    first = read(node.kafka, TOPIC, records.stored, records.tail_numbers)
    demo.say(f"{100 * in_bucket / max(len(records.lines), 1):.0f} % of the offsets are in the bucket only")
    check_reading(demo, first, records)
    check_dead_letters(demo, node, records)

    demo.step(f"create view {VIEW} (arr_delay > 60) and read it as a consumer group")
    check_view(demo, node, records)

    demo.step("kill -9, restart, read again")
    show_metrics(demo, node)
    node.kill()
    began = time.monotonic()
    node.start()
    demo.say(f"ready again in {time.monotonic() - began:.1f} s")
    again = read(node.kafka, TOPIC, records.stored, records.tail_numbers)
    check_reading(demo, again, records)
    demo.check("offset by offset the same as before", again.digest() == first.digest())
    late = read(node.kafka, VIEW, records.late, records.tail_numbers)
    demo.check("the view shows the same", late.count == records.late, late.count)

    demo.step(f"end, after {time.monotonic() - started:.0f} s")


def leave_running(node):
    print(
        f"""
The node stays up (KEEP=1), process {node.process.pid}, log {node.log}. To play with it:

  export MILLSTREAM_BOOTSTRAP={node.kafka} MILLSTREAM_ADMIN={node.admin} PATH={BINARY.parent}:$PATH
  millstream topic ls
  millstream consume {VIEW} --from earliest --max 3
  millstream tier status --topic {TOPIC}
  millstream plugin ls
  kcat -b {node.kafka} -C -t {TOPIC} -o beginning -c 3
  curl {node.admin}/metrics

Stop it with: kill {node.process.pid}"""
    )


def main():
    demo, keep = Demo(), os.environ.get("KEEP") not in (None, "", "0")
    path = os.environ.get("INPUT") or HOME / "flights.jsonl"
    if not BINARY.exists():
        sys.exit(f"error: {BINARY} is missing; run: make demo")
    node, kept = Node(), False
    try:
        run(demo, node, path)
        if keep and not demo.failures:
            leave_running(node)
            kept = True
        else:
            demo.check("SIGTERM ends the node with status 0", (status := node.stop()) == 0, status)
    except (DemoError, OSError, RuntimeError, ValueError) as error:
        demo.check("the demo runs to its end", False, error)
    finally:
        if node.is_running() and not kept:
            node.kill()
    if demo.failures:
        sys.exit(f"\ndemo: {demo.failures} checks failed; the node's log is {node.log}")
    print("\ndemo: every check held")


if __name__ == "__main__":
    main()
