#!/usr/bin/env bash
# Sets up Apache Kafka for the tests: its Java clients and tools are run against the broker, and a node of it answers first.
#
#   target/kafka/libs      the jars of kafka-jars.txt, from Maven Central or what MAVEN_REPOSITORY says
#   target/kafka/classes   the Java programs below tests/e2e/clients/java, compiled, and their .properties
#
# A JDK is installed if there is none. When all is done a stamp is left, target/setup/kafka; what is missing is said, and the tests
# that need it report themselves as skipped, so that no network is no failure here. A program that doesn't compile is one.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
lock=$root/tests/setup/kafka-jars.txt
programs=$root/tests/e2e/clients/java
kafka=$root/target/kafka
libs=$kafka/libs
stamps=$root/target/setup
repository=${MAVEN_REPOSITORY:-https://repo1.maven.org/maven2}
mkdir -p "$libs" "$stamps"
rm -f "$stamps/kafka"

say() { printf 'setup: %s\n' "$*"; }
skip() {
    say "$*; the tests that need it are reported as skipped"
    exit 0
}

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

jdk() {
    command -v javac >/dev/null && return
    say "installing the Debian package default-jdk-headless"
    command -v apt-get >/dev/null || skip "no apt-get here to install a JDK (17 or newer) with"
    { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq default-jdk-headless; } ||
        skip "apt-get could not install default-jdk-headless"
}

jars() {
    local incoming name path sum urls
    incoming=$(mktemp -d "$kafka/incoming.XXXXXX")
    # shellcheck disable=SC2064
    trap "rm -rf '$incoming'" EXIT
    # A jar that left the list would shadow its successor on the class path.
    for name in "$libs"/*.jar; do
        grep -q "/${name##*/}\$" "$lock" || rm -f "$name"
    done
    urls=$incoming/urls
    while read -r sum path; do
        name=${path##*/}
        if [ ! -f "$libs/$name" ] || [ "$(sha256sum <"$libs/$name")" != "$sum  -" ]; then
            printf 'url = "%s/%s"\noutput = "%s/%s"\n' "$repository" "$path" "$incoming" "$name"
            printf '%s  %s\n' "$sum" "$name" >>"$incoming/sums"
        fi
    done < <(grep -v '^#' "$lock") >"$urls"
    [ -s "$urls" ] || return 0
    say "fetching $(grep -c '^url' "$urls") jars of Apache Kafka from $repository"
    command -v curl >/dev/null || skip "curl is missing (Debian: curl)"
    curl --parallel --parallel-max 8 --no-progress-meter --fail --location --retry 3 --connect-timeout 20 --config "$urls" ||
        skip "not every jar could be fetched"
    # Moved only after its sum was found right, so that a damaged jar never gets onto the class path.
    (cd "$incoming" && sha256sum --check --quiet sums) || skip "a fetched jar is not the one of kafka-jars.txt"
    mv "$incoming"/*.jar "$libs"
}

classes() {
    local sources=() source fresh=$kafka/classes.new
    while IFS= read -r source; do sources+=("$source"); done < <(find "$programs" -name '*.java' 2>/dev/null | sort)
    rm -rf "$fresh"
    mkdir -p "$fresh"
    if [ ${#sources[@]} -gt 0 ]; then
        say "compiling ${#sources[@]} Java files"
        javac -encoding UTF-8 -Xlint:all,-processing,-classfile,-serial,-try -proc:none -cp "$libs/*" -d "$fresh" "${sources[@]}" || {
            printf 'error: the Java programs below tests/e2e/clients/java do not compile\n' >&2
            exit 1
        }
    fi
    find "$programs" -name '*.properties' -exec cp {} "$fresh" \; 2>/dev/null || true
    rm -rf "$kafka/classes"
    mv "$fresh" "$kafka/classes"
}

jdk
jars
classes
say "Apache Kafka's jars and the Java programs are ready"
touch "$stamps/kafka"
