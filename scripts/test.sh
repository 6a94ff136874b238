#!/usr/bin/env bash
# Everything that must hold before a change lands, in one go. Each step's output is kept under
# target/test/ and shown when the step fails. The last line counts: every test of every runner, and each
# linter as one.
set -uo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
logs=$target/test
rm -rf "$logs"
mkdir -p "$logs"
export GROOVE_TALLY=$(realpath "$logs")/tally
: > "$GROOVE_TALLY"
passed=0
failed=0
failures=()

# step NAME COMMAND...: runs it, and counts it as one when its log holds no test results.
step() {
    local name=$1 log=$logs/$1.log begun=$SECONDS status=0
    shift
    printf '%-14s ' "$name"
    "$@" >"$log" 2>&1 || status=$?
    local yes no
    read -r yes no < <(awk '/^test result:/ { yes += $4; no += $6; seen = 1 }
        END { if (seen) print yes, no; else print "- -" }' "$log")
    if [ "$yes" = - ]; then
        yes=$((status == 0)) no=$((status != 0))
    elif [ "$status" -ne 0 ] && [ "$no" -eq 0 ]; then
        no=1 # it did not build, or a runner died before it could count
    fi
    passed=$((passed + yes)) failed=$((failed + no))
    if [ "$no" -eq 0 ]; then
        printf 'ok    %5d passed  %4d s\n' "$yes" $((SECONDS - begun))
    else
        printf 'FAILED %4d passed, %d failed  %4d s\n' "$yes" "$no" $((SECONDS - begun))
        sed 's/^/    /' "$log"
        failures+=("$log")
    fi
}

# said_last LOG: what each failed test of it said, or its end. A log of CI may be cut to its last lines.
said_last() {
    printf '\nfailed in %s:\n' "$1"
    { awk '/^failures:$/ { inside = !inside } /^test result:/ { inside = 0 } inside' "$1" | grep . ||
        tail -n 20 "$1"; } | cut -c 1-300 | tail -n 60
}

# Fuzz targets were built with everything else; here each gets a taste of random bytes, without feedback.
fuzz_targets() {
    local name status=0
    for name in $(sed -n 's/^name = "\(.*\)"/\1/p' fuzz/Cargo.toml | tail -n +2); do
        if "$target/debug/$name" -runs=20000 -max_len=600 -len_control=0 -artifact_prefix="$logs/"; then
            echo "test result: ok. 1 passed; 0 failed"
        else
            echo "test result: FAILED. 0 passed; 1 failed ($name)"
            status=1
        fi
    done
    return $status
}

# The tests above ran the suites and left their counts.
python_suites() {
    awk '{ passed += $2; failed += $3; printf "%s: %d passed, %d failed\n", $1, $2, $3 }
        END { printf "test result: counted. %d passed; %d failed\n", passed, failed }' "$GROOVE_TALLY"
}

# The same packages and profile for every cargo call, so that no dependency is built twice. The tests run
# without --all-targets: that would start the fuzz targets, which have no end.
all=(--workspace --all-targets)
step format     cargo fmt --all --check
step deny       "$target/tools/bin/cargo-deny" --log-level error check bans licenses sources
step build      cargo build --quiet "${all[@]}"
step clippy     cargo clippy --quiet "${all[@]}" -- -D warnings
step documents  env RUSTDOCFLAGS='-D warnings' cargo doc --quiet --workspace --no-deps
step tests      env GROOVE_BUILT=1 cargo test --workspace --no-fail-fast -- --skip resizes::
# These wait for most of their time, for placeholders to expire: beside each other, however few cores there are.
step resizes    env GROOVE_BUILT=1 cargo test --workspace --no-fail-fast --test memcached resizes:: -- --test-threads 8
step python     python_suites
step fuzz       fuzz_targets

for log in "${failures[@]}"; do
    said_last "$log"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
