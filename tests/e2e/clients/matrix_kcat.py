#!/usr/bin/env python3
"""What kcat can do with a cluster, the command line of librdkafka; matrix.py says how it is run. kcat has no admin requests and no way
to consume and produce in one transaction, so those columns are not its."""

import re
import secrets
import shutil
import subprocess
import tempfile
import threading
import time

from matrix import CODECS, check, equal, holds, lacks, main, skip_all, until

DEADLINE_S = 30
SEPARATORS = ["-K", "\\t", "-D", "\\n"]

lacks("KIP-848", "kcat 1.7 is built with librdkafka 2.0, which came before KIP-848")
lacks("share groups", "kcat 1.7 is built with librdkafka 2.0, which has no share consumer")


def kcat(run, *arguments, data=b""):
    """Runs kcat to its end and returns what it prints."""
    command = ["kcat", "-b", run.bootstrap, *arguments]
    done = subprocess.run(command, input=data, capture_output=True, timeout=DEADLINE_S)
    holds(done.returncode == 0, " ".join(command), done.stderr.decode(errors="replace"))
    return done.stdout


def produce(run, topic, data, *arguments):
    kcat(run, "-P", "-t", topic, *arguments, data=data)


def consume(run, topic, form):
    """What a topic holds, from its beginning to its end, a line a record. The form shows lengths too, -1 for null."""
    return kcat(run, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", form).decode().splitlines()


def codec_check(codec):
    @check(codec, f"1000 records produced with -z {codec} come back as they were")
    def codec_round_trip(run):
        topic, lines = run.name("topic"), [f"key{i}\t{i} {'compressible ' * 20}" for i in range(1000)]
        produce(run, topic, "\n".join(lines).encode(), "-z", codec, *SEPARATORS)
        equal(consume(run, topic, "%k\\t%s\\n"), lines)


for name in CODECS:
    codec_check(name)


@check("headers", "repeated names and empty values come back in order")
def headers(run):
    topic = run.name("topic")
    produce(run, topic, b"v\n", "-H", "a=1", "-H", "a=2", "-H", "empty=", "-H", "é=ü")
    equal(consume(run, topic, "%h\\n"), ["a=1,a=2,empty=,é=ü"])


@check("nulls", "-Z produces null keys and values, whose length is -1")
def nulls(run):
    topic = run.name("topic")
    produce(run, topic, b"\tvalue\nkey\t\n", "-Z", *SEPARATORS)
    equal(consume(run, topic, "%K %S\\n"), ["-1 5", "3 -1"])


@check("empty values", "empty keys and values have the length 0 and are not turned into nulls")
def empty_values(run):
    topic = run.name("topic")
    produce(run, topic, b"\tvalue\nkey\t\n", *SEPARATORS)
    equal(consume(run, topic, "%K %S\\n"), ["0 5", "3 0"])


@check("1 MB", "a file of 1,000,000 bytes produced as one record comes back as it was")
def one_megabyte(run):
    topic, content = run.name("topic"), secrets.token_hex(500_000)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(content)
        file.flush()
        produce(run, topic, b"", "-X", "message.max.bytes=1048588", file.name)
    equal(consume(run, topic, "%S\\n"), ["1000000"])
    holds(consume(run, topic, "%s\\n") == [content], "the bytes differ")


@check("timestamps", "-Q finds offsets by time, and reading from a time starts there")
def timestamps(run):
    topic = run.name("topic")
    produce(run, topic, b"first\n")
    [first] = [int(line) for line in consume(run, topic, "%T\\n")]
    holds(abs(first - time.time() * 1000) < 60_000, first)
    until("the clock has moved on", lambda: time.time() * 1000 > first + 5)
    produce(run, topic, b"second\n")
    answer = kcat(run, "-Q", "-t", f"{topic}:0:{first + 1}").decode()
    equal(re.search(r"offset (\d+)", answer).group(1), "1")
    equal(kcat(run, "-C", "-t", topic, "-o", f"s@{first + 1}", "-e", "-q", "-f", "%s\\n"), b"second\n")


class Member:
    """A kcat in a group that runs until it is stopped. The records it reads and what it says of rebalances are collected."""

    def __init__(self, run, topic):
        options = ["-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=6000", "-X", "heartbeat.interval.ms=500", "-u"]
        command = ["kcat", "-b", run.bootstrap, *options, "-f", "%s\\n", "-G", run.name("group"), topic]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines, self.notes = [], []
        for stream, into in ((self.process.stdout, self.lines), (self.process.stderr, self.notes)):
            threading.Thread(target=collect, args=(stream, into), daemon=True).start()

    def partitions(self):
        """How many partitions the latest rebalance gave it, -1 before the first."""
        rebalances = [note for note in self.notes if "assigned:" in note or "revoked:" in note]
        assigned = rebalances and "assigned:" in rebalances[-1]
        return len(re.findall(r"\[\d+\]", rebalances[-1])) if assigned else 0 if rebalances else -1

    def stop(self):
        """Leaves the group."""
        self.process.terminate()
        self.process.wait(DEADLINE_S)


def collect(stream, lines):
    """Moves a stream's lines into a list as they come."""
    for line in stream:
        lines.append(line.rstrip("\n"))


@check("group", "-G reads a topic to its end, and a member that comes later goes on after it")
def group(run):
    topic = run.name("topic")
    produce(run, topic, b"first\n")
    first = Member(run, topic)
    until("the first member reads", lambda: first.lines == ["first"])
    first.stop()
    produce(run, topic, b"second\n")
    second = Member(run, topic)
    until("the second member goes on", lambda: second.lines == ["second"])
    second.stop()


@check("rebalance", "the member that waits takes over the partition when the one that has it leaves")
def rebalance(run):
    topic = run.name("topic")
    produce(run, topic, b"v\n")
    members = [Member(run, topic) for _ in range(2)]
    until("one of two has the only partition", lambda: sorted(member.partitions() for member in members) == [0, 1])
    members.sort(key=Member.partitions)
    members[1].stop()
    until("the other takes over", lambda: members[0].partitions() == 1)
    members[0].stop()


@check("idempotence", "1000 records of an idempotent producer are there once, in order")
def idempotence(run):
    topic, lines = run.name("topic"), [str(i) for i in range(1000)]
    produce(run, topic, "\n".join(lines).encode(), "-X", "enable.idempotence=true", "-X", "batch.num.messages=20")
    equal(consume(run, topic, "%s\\n"), lines)


if __name__ == "__main__":
    if not shutil.which("kcat"):
        skip_all("kcat", "kcat is not installed (Debian: kcat)")
    version = subprocess.run(["kcat", "-V"], capture_output=True, text=True).stdout
    main(f"kcat {re.search(r'Version ([0-9.]+)', version).group(1)}")
