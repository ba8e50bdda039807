"""Runs one named scenario of a client script: SCRIPT.py SCENARIO BOOTSTRAP [ARGUMENT…]

Exit status 0: every check held; 1: a check failed (the last line says which); 77: the client is not installed, the last line says
why, and the test is reported as skipped. Importing the client happens inside `library()`, so that its absence is a skip.
"""

import sys
import time
import traceback

SKIPPED = 77
DEADLINE_S = 40
SCENARIOS = {}


def scenario(function):
    """Makes a function callable by its name from the command line."""
    SCENARIOS[function.__name__] = function
    return function


def skip(reason):
    """Ends the script: this client cannot run here."""
    print(reason, flush=True)
    sys.exit(SKIPPED)


def check(claim, holds, *seen):
    """Prints a claim that holds; ends the script with one that does not, and what was seen instead."""
    if not holds:
        print("FAIL", claim, *(repr(value)[:2000] for value in seen), flush=True)
        sys.exit(1)
    print("ok  ", claim, flush=True)


def until(claim, probe, deadline_s=DEADLINE_S):
    """Calls `probe` until it answers with something true, and returns that; fails the claim at the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > end:
            check(f"{claim} within {deadline_s} s", False, answer)
        time.sleep(0.02)


def main():
    """Runs the scenario that the command line names."""
    name, arguments = sys.argv[1], sys.argv[2:]
    try:
        SCENARIOS[name](*arguments)
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        print("FAIL", name, "raised an exception", flush=True)
        sys.exit(1)
