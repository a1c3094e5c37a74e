#!/usr/bin/env bash
# check-mpi.sh [DIR]: trainings whose ranks mpirun starts, undisturbed, killed, hung, stopped, on a full disk, on
# another number of ranks, and under a temporary Slurm, which requeues one in its middle. Prints a line per case and "CHECK mpi cases=N ok=N", and exits with 3 if a case is not.
# Without DIR, a folder in /tmp keeps all files until every case is ok. $BIN is a folder of programs that were built
# with --features mpi, to use instead of building them. Takes 6 minutes on two cores, without the build.
#
# Needs root, for a file system that is full, and on Debian:
#   apt-get install -y --no-install-recommends openmpi-bin libopenmpi-dev pkg-config slurm-wlm \
#     slurm-wlm-basic-plugins munge libpmix2
set -uo pipefail
cd "$(dirname "$0")/.."
dir=${1:-$(mktemp -d /tmp/s4l-mpi-XXXXXX)}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
if [ -z "${BIN:-}" ]; then
  export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/mpi
  cargo build --release --locked --features mpi --bins || exit 1
  BIN=$CARGO_TARGET_DIR/release
fi
# More ranks than cores are fine here, and so is root.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
cases=0 ok=0
# case_is NAME STATUS: counts a case, which holds if STATUS is 0.
case_is() {
  cases=$((cases + 1))
  if [ "$2" = 0 ]; then ok=$((ok + 1)) word=ok; else word="NOT OK"; fi
  echo "$1: $word"
}
all() { for status in "$@"; do [ "$status" = 0 ] || return 1; done; }
weights() { sha256sum <"$1/model.safetensors"; }
# train RANKS OUT MORE...: 300 steps of fashion's vat_1p, with a checkpoint every 20.
train() {
  mpirun -n "$1" "$BIN/s4l-pretrain" --in "$dir/shards" --labelled "$dir/labelled.parquet" --val "$dir/val.parquet" \
    --recipe pipelines/fashion/vat_1p.toml -s 'schedule=[2,60,80,90,100]' -s checkpoint_every=20 \
    --out "$2" "${@:3}"
}
# distill RANKS OUT MORE...: as `train`, 398 steps of s4l-moam.
distill() {
  mpirun -n "$1" "$BIN/s4l-moam" --step distill --in "$dir/shards" --labels "$dir/labels.parquet" --val "$dir/val.parquet" \
    --recipe pipelines/fashion/distill_1p.toml -s 'schedule=[0.1,1,1.2,1.4,1.5]' -s checkpoint_every=20 \
    --out "$2" "${@:3}"
}
# Waits until a training has a checkpoint.
training() {
  for _ in $(seq 1 600); do
    [ -e "$1/checkpoint/state.safetensors" ] && return
    sleep 0.1
  done
  return 1
}
# The process of a rank of a training.
process() { pgrep -f "^$BIN/s4l-(pretrain|moam) .*--out $1( |$)" | sed -n "$(($2 + 1))p"; }
gone() { for _ in $(seq 1 100); do pgrep -f "^$BIN/s4l-(pretrain|moam) .*--out $1( |$)" >/dev/null || return 0; sleep 0.1; done; return 1; }

make -s PIPELINE=fashion BIN="$BIN" OUT="$dir" "$dir/seed0/labelled_1p.parquet" >/dev/null || exit 1
ln -sf "$dir/seed0/labelled_1p.parquet" "$dir/labelled.parquet"
ln -sf "$dir/seed0/val.parquet" "$dir/val.parquet"

make -s moam_step3 s4l_rotation s4l_exemplar fixmatch PIPELINE=smoke BIN="$BIN" OUT="$dir/smoke" MPI_RUN="mpirun -n 2" \
  >"$dir/smoke.log" 2>&1
case_is "a chain of stages, each of two ranks" $?

train 2 "$dir/two" >"$dir/two.log" 2>&1
one=$?
train 2 "$dir/again" >"$dir/again.log" 2>&1
all $one $? && [ "$(weights "$dir/two")" = "$(weights "$dir/again")" ]
case_is "two ranks give the same bytes twice" $?

train 3 "$dir/three" >"$dir/three.log" 2>&1
[ $? = 2 ] && grep -q 'batch 64 does not divide among 3 ranks; the nearest that do: -s batch=63 or 66' "$dir/three.log"
case_is "a batch that does not divide" $?

mpirun -n 2 "$BIN/s4l-pretrain" --unlikely >"$dir/usage.log" 2>&1
[ $? = 2 ] && [ "$(grep -c "unexpected argument '--unlikely'" "$dir/usage.log")" = 1 ]
usage=$?
train 2 "$dir/plan" --dry-run >"$dir/plan.log" 2>&1
all $usage $? && [ "$(grep -c '^parameters' "$dir/plan.log")" = 1 ]
case_is "a wrong option and a plan are told once" $?

train 2 "$dir/own" -s sync_batch_norm=false >"$dir/own.log" 2>&1
one=$?
train 2 "$dir/own2" -s sync_batch_norm=false >"$dir/own2.log" 2>&1
all $one $? && [ "$(weights "$dir/own")" = "$(weights "$dir/own2")" ] && [ "$(weights "$dir/own")" != "$(weights "$dir/two")" ]
case_is "statistics of each rank alone" $?

train 2 "$dir/stopped" >"$dir/stopped.log" 2>&1 &
# mpirun hands it on to its ranks.
training "$dir/stopped" && kill -USR1 "$(pgrep -f "^mpirun .*--out $dir/stopped$")"
wait $!
[ $? = 75 ] && grep -q 'stopped at step' "$dir/stopped.log"
stopped=$?
train 1 "$dir/stopped" >"$dir/stopped2.log" 2>&1
all $stopped $? && grep -q 'begun with 2 ranks, going on with 1' "$dir/stopped2.log"
case_is "stopped by a signal, and ended by another number of ranks" $?

train 2 "$dir/told" >"$dir/told.log" 2>&1 &
training "$dir/told" && kill -USR1 "$(process "$dir/told" 1)"
wait $!
[ $? = 75 ] && grep -q 'stopped at step' "$dir/told.log"
told=$?
train 2 "$dir/told" >"$dir/told2.log" 2>&1
all $told $? && [ "$(weights "$dir/two")" = "$(weights "$dir/told")" ]
case_is "a signal to one rank stops both, and the same command ends with the same bytes" $?

"$BIN/s4l-pseudolabel" --in "$dir/shards" --model "$dir/two" --out "$dir/labels.parquet" --update -q
distill 2 "$dir/two-distilled" >"$dir/two-distilled.log" 2>&1
# disturbed TRAINING UNDISTURBED KILOBYTES: a rank of it is killed, one hangs, and its disk has too few kilobytes.
disturbed() {
  local at=$dir/$1 like=$2 killed hung begun
  "$1" 2 "$at-killed" >"$at-killed.log" 2>&1 &
  training "$at-killed" && kill -KILL "$(process "$at-killed" 1)"
  wait $!
  [ $? != 0 ] && grep -q 'signal 9' "$at-killed.log" && gone "$at-killed"
  killed=$?
  "$1" 2 "$at-killed" >"$at-killed2.log" 2>&1
  all $killed $? && grep -q 'going on from step' "$at-killed2.log" && [ "$(weights "$like")" = "$(weights "$at-killed")" ]
  case_is "$1: a killed rank ends the other, and the same command ends with the same bytes" $?

  "$1" 2 "$at-hung" --rank-timeout 5 >"$at-hung.log" 2>&1 &
  training "$at-hung" && hung=$(process "$at-hung" 1) && kill -STOP "$hung"
  begun=$SECONDS
  wait $!
  [ $? != 0 ] && [ $((SECONDS - begun)) -lt 30 ] && grep -q 'one of them hangs' "$at-hung.log" && gone "$at-hung"
  case_is "$1: a rank that hangs ends the other" $?
  kill -KILL "$hung" 2>/dev/null

  mkdir -p "$dir/small"
  mount -t tmpfs -o "size=$3k" tmpfs "$dir/small" && trap 'umount "$dir/small"' EXIT
  "$1" 2 "$dir/small/model" >"$at-full.log" 2>&1
  [ $? = 74 ] && grep -q 'rank 0 on .*No space left' "$at-full.log" && gone "$dir/small/model"
  case_is "$1: a full disk ends both" $?
  umount "$dir/small"
  trap - EXIT
}
disturbed train "$dir/two" 1200
disturbed distill "$dir/two-distilled" 300

tools/slurm/cluster.sh up "$dir/cluster" 2 && trap 'tools/slurm/cluster.sh down "$dir/cluster"' EXIT
. "$dir/cluster/env.sh"
mpirun() { srun --mpi=pmix -K "$@"; }
{ echo '#!/usr/bin/env bash'; declare -p BIN dir; declare -f train mpirun; echo 'train 2 "$dir/requeued"'; } >"$dir/job.sh"
job=$(sbatch --parsable --requeue -N2 -n2 -c1 --output="$dir/job.log" --open-mode=append "$dir/job.sh")
training "$dir/requeued" && scontrol requeue "$job"
requeued=$?
for _ in $(seq 300); do
  state=$(squeue -h -t all -j "$job" -o %T)
  case $state in COMPLETED | FAILED | CANCELLED | TIMEOUT | NODE_FAIL) break ;; esac
  sleep 1
done
[ $requeued = 0 ] && [ "$state" = COMPLETED ] && grep -q 'going on from step' "$dir/job.log" &&
  [ "$(weights "$dir/two")" = "$(weights "$dir/requeued")" ]
case_is "two nodes of Slurm, requeued in the middle, end with the same bytes" $?

echo "CHECK mpi cases=$cases ok=$ok"
[ "$cases" = "$ok" ] || exit 3
tools/slurm/cluster.sh down "$dir/cluster"
trap - EXIT
[ $# -gt 0 ] || rm -r "$dir"
