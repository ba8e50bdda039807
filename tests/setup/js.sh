#!/usr/bin/env bash
# Installs the JavaScript clients that the end-to-end tests run, as tests/e2e/clients/js/package-lock.json says, into target/js.
#
# target/js/node is the Node.js that runs them: a pinned one from npm where there is one for this platform, else the installed one.
# @confluentinc/kafka-javascript has a native module. A ready-made one is taken where it can be downloaded; else it is built, with the
# Debian packages that this needs. Without it the other clients still run, and its checks are reported as skipped.
#
# A finished set-up leaves the stamp target/setup/js; an incomplete one says what is missing and is tried again.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
source=$root/tests/e2e/clients/js
target=$root/target/js
stamps=$root/target/setup
confluent=$target/node_modules/@confluentinc/kafka-javascript
mkdir -p "$stamps" "$target"

say() { printf 'setup: %s\n' "$*"; }
give_up() {
    say "$*; the tests that need it are reported as skipped"
    exit 0
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        return 1
    fi
}

# The dynamically linked build takes these from the system.
build_packages() {
    local package missing=()
    command -v dpkg-query >/dev/null || return 0
    for package in build-essential python3 libcurl4-openssl-dev libsasl2-dev libssl-dev libzstd-dev zlib1g-dev; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing Debian packages: ${missing[*]}"
    as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}"
}

# Runs node-pre-gyp in the client's package, through npm so that it finds npm's node-gyp, with the Node.js that the tests use.
pre_gyp() {
    local pinned
    pinned=$(dirname "$(dirname "$(readlink -f "$target/node")")")
    [ -d "$pinned/include/node" ] && export npm_config_nodedir=$pinned
    (cd "$confluent" && PATH="$target:$PATH" npx --no-install node-pre-gyp "$@") >"$target/confluent.log" 2>&1
}

native_module() {
    "$target/node" -e 'require(process.argv[1])' "$confluent" 2>/dev/null && return 0
    say "fetching the native module of @confluentinc/kafka-javascript"
    pre_gyp install && return 0
    say "there is none ready-made to be had; building it, which takes minutes"
    build_packages || return 1
    CKJS_LINKING=dynamic pre_gyp install --fallback-to-build || return 1
    "$target/node" -e 'require(process.argv[1])' "$confluent" 2>/dev/null
}

command -v npm >/dev/null || give_up "npm is not installed (Debian: npm)"
say "installing the JavaScript clients into target/js"
cp "$source/package.json" "$source/package-lock.json" "$target/"
# Build scripts run below, where their failure is not everyone's.
npm ci --prefix "$target" --ignore-scripts --no-audit --no-fund --loglevel error || give_up "npm could not install the clients"
node=$(find "$target"/node_modules/node-linux-*/bin/node 2>/dev/null | head -1 || true)
ln -sf "${node:-$(command -v node)}" "$target/node"
native_module || give_up "@confluentinc/kafka-javascript could not be built (target/js/confluent.log)"
say "JavaScript clients are ready, run by Node.js $("$target/node" --version)"
touch "$stamps/js"
