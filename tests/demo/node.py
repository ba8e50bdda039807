"""One `millstream dev` of the demo: start, kill, restart, ask."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlparse

WORKSPACE = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("MILLSTREAM_BIN", WORKSPACE / "target/release/millstream"))
HOME = WORKSPACE / "target/demo"
START_DEADLINE_S = 30
STOP_DEADLINE_S = 20


class DemoError(Exception):
    """Something that ends the demo; its text says what."""


def free_port(wanted):
    """The wanted port if nobody has it, else 0 (any free one)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
            return wanted
        except OSError:
            return 0


def directory_bytes(path):
    """Bytes in the files below a path; files that go away meanwhile count nothing."""
    total = 0
    for directory, _, names in os.walk(path):
        for name in names:
            try:
                total += os.stat(os.path.join(directory, name)).st_size
            except FileNotFoundError:
                pass
    return total


class Node:
    """A node on fresh data in target/demo; its log is in target/demo/node.log."""

    def __init__(self):
        shutil.rmtree(HOME / "data", ignore_errors=True)
        HOME.mkdir(parents=True, exist_ok=True)
        self.log = HOME / "node.log"
        self.log.write_bytes(b"")
        self.ports = (free_port(9092), free_port(9644))
        self.process = None

    def start(self):
        """Starts it and waits until it says that it is ready. In a session of its own: with KEEP=1 it stays when the demo ends."""
        command = [BINARY, "dev", "--data", HOME / "data", "--kafka-port", self.ports[0], "--admin-port", self.ports[1]]
        command += ["--set", "log.retention.check.interval.ms=500", "--set", "group.initial.rebalance.delay.ms=0"]
        ready = HOME / "ready"
        with self.log.open("ab") as log, ready.open("wb") as out:
            self.process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=out, stderr=log, cwd=HOME, start_new_session=True
            )
        end = time.monotonic() + START_DEADLINE_S
        while not (line := ready.read_text()).endswith("\n"):
            if self.process.poll() is not None:
                raise DemoError(f"the node ended at its start: {self.log.read_text()[-2000:]}")
            if time.monotonic() > end:
                raise DemoError(f"the node is not ready after {START_DEADLINE_S} s; its log is {self.log}")
            time.sleep(0.01)
        fields = dict(field.split("=", 1) for field in line.split()[1:])
        self.kafka, self.admin, self.bucket = fields["kafka"], fields["admin"], fields["bucket"]
        self.ports = tuple(int(address.rsplit(":", 1)[1]) for address in (self.kafka, self.admin))

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        """SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_DEADLINE_S)

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def verb(self, *arguments):
        """Runs a command-line verb and returns its JSON output."""
        environment = {**os.environ, "MILLSTREAM_BOOTSTRAP": self.kafka, "MILLSTREAM_ADMIN": self.admin}
        command = [str(BINARY), *map(str, arguments), "--output", "json"]
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoError(f"millstream {' '.join(command[1:-2])}: {done.stderr.strip()}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def metrics(self):
        """The lines of /metrics."""
        with urllib.request.urlopen(f"{self.admin}/metrics", timeout=20) as answer:
            return answer.read().decode().splitlines()

    def local_and_bucket_bytes(self):
        """Bytes in the data directory and in the bucket (a directory, which may lie inside)."""
        bucket = Path(unquote(urlparse(self.bucket).path))
        in_bucket, data = directory_bytes(bucket), HOME / "data"
        in_data = directory_bytes(data)
        return in_data - (in_bucket if bucket.resolve().is_relative_to(data.resolve()) else 0), in_bucket
