"""Runs Apache Kafka's command-line tools for tools.py in a few JVMs that are kept, since a start costs more than most tools' work."""

import base64
import pathlib
import queue
import select
import subprocess
import threading

from matrix import holds

DEADLINE_S = 40
SOURCE = pathlib.Path(__file__).with_name("ToolHost.java")


def java(jars, *arguments):
    return ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*", *arguments]


class Host:
    """One JVM, which runs one tool at a time."""

    def __init__(self, jars):
        command = java(jars, str(SOURCE))
        self.jvm = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def run(self, main, arguments, data):
        """The exit status, standard output and standard error of a tool; None if it is not done at the deadline."""
        request = "\x1f".join([base64.b64encode(data).decode(), main, *arguments])
        self.jvm.stdin.write(request.encode() + b"\n")
        self.jvm.stdin.flush()
        if not select.select([self.jvm.stdout], [], [], DEADLINE_S)[0]:
            return None
        fields = self.jvm.stdout.readline().split(b" ")
        holds(len(fields) == 3, "the JVM of the tools ended")
        return int(fields[0]), *(base64.b64decode(field).decode() for field in fields[1:])

    def stop(self):
        self.jvm.kill()
        self.jvm.wait()


class Hosts:
    """JVMs that are started as they are needed, up to a limit."""

    def __init__(self, jars, limit):
        self.jars, self.idle, self.room = jars, queue.SimpleQueue(), threading.Semaphore(limit)

    def run(self, main, arguments, data=b""):
        """What `Host.run` returns, from a JVM that is free. One whose tool hangs is given up."""
        with self.room:
            try:
                host = self.idle.get_nowait()
            except queue.Empty:
                host = Host(self.jars)
            try:
                answer = host.run(main, arguments, data)
                holds(answer is not None, f"{main} {' '.join(arguments)} does not end within {DEADLINE_S} s")
            except BaseException:
                host.stop()
                raise
            self.idle.put(host)
            return answer

    def run_alone(self, main, arguments):
        """What `run` returns, for a tool that needs the end of its process, such as for what it prints at its end."""
        with self.room:
            done = subprocess.run(java(self.jars, main, *arguments), capture_output=True, text=True, timeout=DEADLINE_S)
        return done.returncode, done.stdout, done.stderr
