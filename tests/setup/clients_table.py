#!/usr/bin/env python3
"""Makes README's table of clients and features from the checks of a test run.

usage: clients_table.py clients.jsonl README.md

Each line of the input is one check. A cell is the number of checks that passed; `-` means that the client has no such feature, and a number
after a slash counts checks that do not hold (see `GAPS` in tests/e2e/tests/clients/matrix.rs). The table lies between two comments.
"""

import collections
import json
import re
import sys

FEATURES = [
    "none", "gzip", "snappy", "lz4", "zstd", "headers", "nulls", "empty values", "1 MB", "timestamps",
    "group", "rebalance", "idempotence", "transactions", "KIP-848", "share groups", "streams", "admin",
]
BEGIN, END = "<!-- clients: begin, made by `make clients-table` -->", "<!-- clients: end -->"


def table(lines):
    counts = collections.defaultdict(collections.Counter)
    for line in lines:
        check = json.loads(line)
        feature = check["feature"] if check["feature"] in FEATURES else "tools"
        counts[check["client"]][feature, check["result"]] += 1

    def cell(client, feature):
        count = counts[client]
        passed, failed = count[feature, "pass"], count[feature, "fail"] + count[feature, "gap"]
        if not passed and not failed:
            return "-"
        return str(passed) if not failed else f"{passed}/{failed}"

    features = [feature for feature in FEATURES + ["tools"] if any(cell(client, feature) != "-" for client in counts)]
    yield "| client | " + " | ".join(features) + " |"
    yield "|---" * (len(features) + 1) + "|"
    for client in sorted(counts):
        yield f"| {client} | " + " | ".join(cell(client, feature) for feature in features) + " |"


def main():
    checks, readme = sys.argv[1:]
    with open(checks, encoding="utf-8") as file:
        text = "\n".join(table(file))
    with open(readme, encoding="utf-8") as file:
        page = file.read()
    new = re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: f"{BEGIN}\n{text}\n{END}", page, flags=re.DOTALL)
    if BEGIN not in page:
        sys.exit(f"error: {readme} has no line {BEGIN!r}")
    with open(readme, "w", encoding="utf-8") as file:
        file.write(new)


if __name__ == "__main__":
    main()
