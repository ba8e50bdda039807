"""Runs the checks of one client's matrix program and prints one JSON line per check.

A program registers functions with `@check(feature, claim)`, and with `lacks(feature, reason)` what its client cannot do, then calls
`main(client)`. A check fails by raising; several checks run at a time, each in its own thread on topics and groups of its own, and one
that runs past its deadline fails instead of hanging. Exit status 1 if a check failed.
"""

import argparse
import asyncio
import concurrent.futures
import importlib.util
import inspect
import json
import os
import secrets
import sys
import threading
import time
import traceback

FEATURES = [
    "none", "gzip", "snappy", "lz4", "zstd", "headers", "nulls", "empty values", "1 MB", "timestamps", "group", "rebalance",
    "idempotence", "transactions", "KIP-848", "share groups", "admin",
]  # fmt: skip
CODECS = FEATURES[:5]
# How long a check waits for something to become true, and how long it may take in all.
WAIT_S = 25
CHECK_DEADLINE_S = 50

CHECKS = []
LACKS = []
OUTPUT = threading.Lock()


class Skip(Exception):
    """Raised by a check that cannot run here, with the reason."""


class Run:
    """What a check is given: where the cluster is, and names nobody else uses."""

    def __init__(self, options, number):
        self.options, self.bootstrap, self.number = options, options.bootstrap, number

    def name(self, suffix):
        return f"{self.options.prefix}-{self.number}-{suffix}"


def check(feature, claim):
    """Registers a function or coroutine function of a `Run` as one check of a feature."""
    assert feature in FEATURES, feature

    def register(function):
        CHECKS.append((feature, claim, function))
        return function

    return register


def lacks(feature, reason):
    """Notes a feature that the client does not have; it is reported as skipped."""
    assert feature in FEATURES, feature
    LACKS.append((feature, reason))


def holds(condition, *seen):
    """Fails the check, with what was seen, unless the condition is true."""
    if not condition:
        raise AssertionError(", ".join(repr(value)[:600] for value in seen) or "it is not so")


def equal(seen, wanted):
    """Fails the check unless both are equal."""
    if seen != wanted:
        raise AssertionError(f"{repr(seen)[:600]} instead of {repr(wanted)[:600]}")


def until(what, probe, deadline_s=WAIT_S):
    """Calls `probe` until it answers with something true, and returns that."""
    end = time.monotonic() + deadline_s
    while True:
        answer = probe()
        if answer:
            return answer
        holds(time.monotonic() < end, f"not within {deadline_s} s: {what}", answer)
        time.sleep(0.05)


async def until_async(what, probe, deadline_s=WAIT_S):
    """`until` for a coroutine function."""
    end = time.monotonic() + deadline_s
    while True:
        answer = await probe()
        if answer:
            return answer
        holds(time.monotonic() < end, f"not within {deadline_s} s: {what}", answer)
        await asyncio.sleep(0.05)


def shapes():
    """Records as (key, value, headers) that compress well, badly and not at all, enough of them for several batches."""
    noise = secrets.token_bytes(2000)
    return [
        (f"key {i}".encode(), value, [("number", str(i).encode())])
        for i in range(50)
        for value in (b"small", b"compressible " * 300, noise, b"")
    ]


def report(client, feature, claim, result, detail=""):
    line = {"client": client, "feature": feature, "check": claim, "result": result}
    if detail:
        line["detail"] = detail
    with OUTPUT:
        print(json.dumps(line), flush=True)


def skip_all(client, reason):
    """Ends the program of a client that is not installed: everything is skipped."""
    for feature in FEATURES:
        report(client, feature, f"{client} has {feature}", "skip", reason)
    sys.exit(0)


def need(module, client):
    """Skips everything unless the client's module can be imported; called before it is."""
    if importlib.util.find_spec(module) is None:
        skip_all(client, f"{client} is not installed (tests/setup/requirements.txt)")


def attempt(function, run):
    """The result of one check, and why."""
    outcome = []

    def body():
        try:
            asyncio.run(function(run)) if inspect.iscoroutinefunction(function) else function(run)
            outcome.append(("pass", ""))
        except Skip as reason:
            outcome.append(("skip", str(reason)))
        except BaseException as error:
            traceback.print_exc(file=sys.stderr)
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "matrix_" in frame.filename]
            where = f"line {frames[-1].lineno}: " if frames else ""
            outcome.append(("fail", f"{where}{type(error).__name__}: {error}"[:1000]))

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(CHECK_DEADLINE_S)
    return outcome[0] if outcome else ("fail", f"not finished after {CHECK_DEADLINE_S} s")


def main(client, arguments=None, parallel=8):
    """Runs the registered checks as the command line says, and ends the process. A program that takes more arguments gives a function
    that adds them to the parser; they are in a run's `options`."""
    parser = argparse.ArgumentParser(description=f"Checks what {client} can do with a cluster.")
    parser.add_argument("--bootstrap", required=True, help="HOST:PORT of a broker")
    parser.add_argument("--prefix", default=f"m{secrets.token_hex(3)}", help="begins the names of all topics and groups")
    parser.add_argument("--only", default="", help="run only checks whose feature or claim contains this")
    parser.add_argument("--parallel", type=int, default=parallel, help="checks at a time; they mostly wait")
    if arguments:
        arguments(parser)
    options = parser.parse_args()
    for feature, reason in LACKS:
        report(client, feature, f"{client.split()[0]} has {feature}", "skip", reason)

    def one(number, feature, claim, function):
        started = time.monotonic()
        result, detail = attempt(function, Run(options, number))
        print(f"{time.monotonic() - started:5.1f} s  {result}  {feature}: {claim}", file=sys.stderr)
        report(client, feature, claim, result, detail)
        return result

    chosen = [(number, *entry) for number, entry in enumerate(CHECKS) if options.only in entry[0] or options.only in entry[1]]
    with concurrent.futures.ThreadPoolExecutor(options.parallel) as pool:
        results = list(pool.map(lambda entry: one(*entry), chosen))
    sys.stdout.flush()
    os._exit(1 if "fail" in results else 0)  # Threads of a check that hangs are left behind.
