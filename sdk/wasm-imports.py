#!/usr/bin/env python3
"""Lists the imports and exports of core WebAssembly modules, and fails if one imports more than brokers offer.

usage: wasm-imports.py MODULE.wasm…
"""
import sys

ALLOWED = {"millstream:plugin/host@1.0.0"}
IMPORT_SECTION, EXPORT_SECTION = 2, 7


class Bytes:
    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def byte(self):
        self.at += 1
        return self.data[self.at - 1]

    def number(self):
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def take(self, count):
        self.at += count
        return self.data[self.at - count : self.at]

    def name(self):
        return self.take(self.number()).decode()


def sections(module):
    assert module[:8] == b"\0asm\1\0\0\0", "not a core module"
    bytes_ = Bytes(module, 8)
    while bytes_.at < len(module):
        kind = bytes_.byte()
        yield kind, Bytes(bytes_.take(bytes_.number()))


def skip_limits(body):
    has_maximum = body.byte() & 1
    for _ in range(1 + has_maximum):
        body.number()


def imports(body):
    for _ in range(body.number()):
        module, name, kind = body.name(), body.name(), body.byte()
        if kind == 0:
            body.number()
        elif kind == 1:
            body.byte()
            skip_limits(body)
        elif kind == 2:
            skip_limits(body)
        else:
            body.take(2)
        yield module, name


def exports(body):
    for _ in range(body.number()):
        name, _kind, _index = body.name(), body.byte(), body.number()
        yield name


def main():
    refused = False
    for path in sys.argv[1:]:
        with open(path, "rb") as file:
            module = file.read()
        print(f"{path}: {len(module)} bytes")
        for kind, body in sections(module):
            if kind == IMPORT_SECTION:
                for origin, name in imports(body):
                    verdict = "" if origin in ALLOWED else "   NOT OFFERED BY BROKERS"
                    refused |= bool(verdict)
                    print(f"  import {origin} {name}{verdict}")
            elif kind == EXPORT_SECTION:
                print("  export " + ", ".join(exports(body)))
            elif kind == 0:
                print(f"  custom {body.name()}")
    return refused


if __name__ == "__main__":
    sys.exit(main())
