#!/usr/bin/env python3
"""One node of Apache Kafka itself (KRaft, broker and controller in one process), to check the tests' claims on: what it does is right.

usage: apache_kafka.py --libs target/kafka/libs --dir DIR [--set NAME=VALUE]… [--feature NAME=LEVEL]…

Formats DIR/data unless that is done, starts the node on free ports of loopback, prints `kafka HOST:PORT` when it answers requests, and
runs until its standard input closes or it gets SIGTERM. Its log is DIR/server.log. Exits with 77 where Java or the jars are missing.
"""

import argparse
import base64
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid

SKIPPED = 77
START_S = 60
API_VERSIONS_REQUEST = struct.pack(">hhih", 18, 0, 1, -1)

# As near to `millstream dev` as Apache Kafka's names allow: every feature, one replica of the internal topics, and no waiting.
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "5",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "5",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "5",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "500",
    "group.share.min.session.timeout.ms": "1000",
    "group.share.min.heartbeat.interval.ms": "500",
    "group.share.heartbeat.interval.ms": "500",
    "group.streams.min.session.timeout.ms": "1000",
    "group.streams.min.heartbeat.interval.ms": "500",
    "group.streams.heartbeat.interval.ms": "500",
    "group.streams.initial.rebalance.delay.ms": "0",
    "group.share.min.record.lock.duration.ms": "1000",
    "log.initial.task.delay.ms": "500",
}
LOG4J = """status = error
appender.file.type = File
appender.file.name = file
appender.file.fileName = {log}
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{HH:mm:ss.SSS}} %p %c{{1}}: %m%n
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
"""


def free_ports(count):
    """Ports that nobody listens on now."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in held]
    for server in held:
        server.close()
    return ports


def answers(port):
    """Whether a request for the supported versions is answered, which a broker does once it is unfenced and serves."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(struct.pack(">i", len(API_VERSIONS_REQUEST)) + API_VERSIONS_REQUEST)
            return len(connection.recv(4)) == 4
    except OSError:
        return False


def java(libs, home, log4j, heap, *arguments):
    """The command line of a program of Apache Kafka."""
    machine = [f"-Xmx{heap}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    logging = [f"-Dlog4j2.configurationFile={log4j}", f"-Dkafka.logs.dir={home}"]
    return ["java", *machine, *logging, "-cp", f"{libs}/*", *arguments]


def configure(home, overrides):
    """Writes the node's properties with free ports and returns their file and the clients' port."""
    port, controller = free_ports(2)
    settings = {
        **SETTINGS,
        "log.dirs": str(home / "data"),
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
        **overrides,
    }
    properties = home / "server.properties"
    properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    return properties, port


def watch(node, stopping):
    """Ends the program when the node ends by itself."""
    node.wait()
    if not stopping.is_set():
        os.kill(os.getpid(), signal.SIGTERM)


def fail(reason, log):
    """Ends with what the node's log says last."""
    tail = log.read_text(errors="replace").splitlines()[-30:] if log.exists() else []
    print(reason, *tail, sep="\n", file=sys.stderr, flush=True)
    sys.exit(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--libs", required=True, type=pathlib.Path, help="the directory of Apache Kafka's jars")
    parser.add_argument("--dir", required=True, type=pathlib.Path, help="where the node keeps its data, its settings and its log")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a broker setting; may be repeated")
    parser.add_argument("--feature", action="append", default=[], metavar="NAME=LEVEL", help="not its newest level; may be repeated")
    parser.add_argument("--heap", type=int, default=512, metavar="MB", help="the node's heap")
    options = parser.parse_args()
    libs, home = options.libs.resolve(), options.dir.resolve()
    if not shutil.which("java"):
        print("java is not installed")
        sys.exit(SKIPPED)
    if not list(libs.glob("kafka_*.jar")):
        print(f"the jars of Apache Kafka are not in {options.libs}")
        sys.exit(SKIPPED)
    home.mkdir(parents=True, exist_ok=True)
    log = home / "server.log"
    log4j = home / "log4j2.properties"
    log4j.write_text(LOG4J.format(log=log))
    properties, port = configure(home, dict(setting.split("=", 1) for setting in options.set))
    if not (home / "data" / "meta.properties").exists():
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        features = [argument for feature in options.feature for argument in ("--feature", feature)]
        format_storage = ["kafka.tools.StorageTool", "format", "--standalone", "-t", cluster, "-c", str(properties), *features]
        done = subprocess.run(java(libs, home, log4j, 128, *format_storage), capture_output=True, text=True)
        if done.returncode:
            fail(f"the storage cannot be formatted: {done.stdout}{done.stderr}", log)
    with (home / "server.out").open("w") as output:
        command = java(libs, home, log4j, options.heap, "kafka.Kafka", str(properties))
        node = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0 if node.poll() is None else 1))
    try:
        end = time.monotonic() + START_S
        while not answers(port):
            if node.poll() is not None or time.monotonic() > end:
                fail(f"the node does not answer: {(home / 'server.out').read_text()}", log)
            time.sleep(0.1)
        print(f"kafka 127.0.0.1:{port}", flush=True)
        threading.Thread(target=watch, args=(node, stopping), daemon=True).start()
        sys.stdin.read()
    finally:
        stopping.set()
        node.terminate()
        try:
            node.wait(10)
        except subprocess.TimeoutExpired:
            node.kill()


if __name__ == "__main__":
    main()
