#!/usr/bin/env bash
# Runs every test of the workspace: unit and documentation tests, then the end-to-end tests against the dev-profile binary.
# Prints the tests as they run and ends with the skipped ones (with the reason) and one line `N passed, N failed`.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root" || exit 1
report=$root/target/test-report
rm -rf "$report"
mkdir -p "$report"
export MILLSTREAM_BIN=${MILLSTREAM_BIN:-$root/target/debug/millstream}
export MILLSTREAM_PYTHON=${MILLSTREAM_PYTHON:-$root/target/venv/bin/python}
export MILLSTREAM_PLUGINS=${MILLSTREAM_PLUGINS:-$root/target/plugins}
export MILLSTREAM_TEST_REPORT=$report

broken=0
# Runs one cargo step with its output in the log too; a step that fails without a failed test (it did not build) counts as one.
step() {
    local log=$report/$1.log
    shift
    "$@" 2>&1 | tee "$log"
    local status=${PIPESTATUS[0]}
    if [ "$status" != 0 ] && ! grep -q '^test result: FAILED' "$log"; then
        broken=$((broken + 1))
        echo "FAILED: $*"
    fi
}

# The same package selection and dependency features in each step, so that nothing is compiled twice. The end-to-end tests mostly
# wait (for rebalances, uploads, restarts), so more of them than cores run at a time.
step build cargo build --workspace --bins --tests
if [ "$broken" = 0 ]; then
    step unit cargo test --workspace --no-fail-fast
    step e2e cargo test --workspace --no-fail-fast --test e2e -- --test-threads "$((2 * $(nproc)))"
fi

# A skipped test ends without a failure, so cargo counts it among the passed; here it is neither.
skipped=$(sed 's/: .*//' "$report/skipped.txt" 2>/dev/null | sort -u | wc -l)
totals=$(awk -v broken="$broken" -v skipped="$skipped" '/^test result: / { for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) p += $(i - 1); if ($i ~ /^failed/) f += $(i - 1) } }
    END { printf "%d passed, %d failed", p - skipped, f + broken }' "$report"/*.log)
if [ -s "$report/skipped.txt" ]; then
    echo "skipped:"
    sort -u "$report/skipped.txt" | sed 's/^/  /'
fi
echo "$totals" | tee "$report/totals"
[ "${totals##*, }" = "0 failed" ]
