#!/usr/bin/env bash
# faults.sh N [KIND [STAGE...]]: injects N faults of a kind into the stages of the smoke pipeline, drawn by
# $SEED (0). Each stage must return to the same bytes or report an error. Kinds:
#   fail    calls that fail (disk full and the like), short writes, messages that cannot be written
#   flip    changed bits and cut files in what a stage reads
#   signal  every signal and every pair, early and in the middle
#   race    two runs at once with one output
#   kill    as kill.sh
# Without a kind: N of each of the first four. Prints a line per case that fails and
# "CHECK KIND runs=N equal=N lost=0 silent=0 ..."; exits with 3 if one fails.
# $BIN is a folder of programs to use instead of building them; $TMPDIR holds the files meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:?faults.sh N [KIND [STAGE...]]}

if [[ -z ${BIN:-} ]]; then
    cargo build --release --locked --bins
    BIN=${CARGO_TARGET_DIR:-target}/release
fi
target=${CARGO_TARGET_DIR:-target}/faults
cargo build --release --locked --manifest-path tools/faults/Cargo.toml --target-dir "$target"
faults=$target/release/faults
code=0
for kind in ${2:-fail flip signal race}; do
    "$faults" campaign "$kind" --bin "$BIN" --runs "$runs" --seed "${SEED:-0}" "${@:3}" || code=$?
done
exit "$code"
