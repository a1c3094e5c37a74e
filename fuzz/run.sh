#!/bin/sh
# Runs fuzz targets one after the other and ends with the first that finds something:
#
#   fuzz/run.sh [SECONDS [TARGET...]]     each target for 1800 seconds
#
# Needs `cargo install cargo-fuzz`. New inputs go to target/fuzz/corpus, so that a later run goes on
# from them; what a target finds goes to fuzz/artifacts.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-1800}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- $(cargo fuzz list)
# The targets that read files write them into memory.
TMPDIR=$(mktemp -d /dev/shm/s4l-fuzz-XXXXXX)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
for target; do
    corpus=target/fuzz/corpus/$target
    mkdir -p "$corpus"
    cargo fuzz run --debug-assertions --sanitizer none "$target" "$corpus" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -rss_limit_mb=1024 -timeout=10 -print_final_stats=1
done
