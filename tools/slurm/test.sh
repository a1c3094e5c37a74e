#!/usr/bin/env bash
# test.sh [DIR]: the smoke pipeline on a temporary Slurm of two nodes (cluster.sh says what to install):
# side by side, by submit.sh, by the README's pipeline.mk, killed, requeued, preempted, out of time, and by
# Snakemake if $SNAKEMAKE names it. The files of each run are compared with those of a run without Slurm.
#
# Prints a line per run and "CHECK slurm runs=N equal=N", and exits with 3 if a run differs or was not
# disturbed as intended. $BIN is a folder of programs to use instead of building them. DIR keeps all files;
# without DIR, a folder in /tmp keeps them until all runs are equal. Takes 10 minutes or more on two cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
slurm=tools/slurm
dir=${1:-$(mktemp -d /tmp/s4l-slurm-XXXXXX)}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
if [ -z "${BIN:-}" ]; then
  nice cargo build --release --locked --bins
  BIN=${CARGO_TARGET_DIR:-$PWD/target}/release
fi
export BIN
$slurm/cluster.sh up "$dir/cluster" 2
trap '$slurm/cluster.sh down "$dir/cluster"' EXIT
. "$dir/cluster/env.sh"

cuts="-s file_bytes=40000" # 12 files of shards
steps="srun -N1 -n1 -c1 --exact --"
runs=0 equal=0
moam="supervised_10p moam_step1 moam_step2 moam_step3"

make_local() { make PIPELINE="${pipeline:-smoke}" BIN="$BIN" "$@"; }
# batch NAME OPTIONS MAKE...: submits a make of the folder NAME.
batch() {
  sbatch --parsable $2 --output="$dir/$1.log" $slurm/make.sbatch make PIPELINE="${pipeline:-smoke}" \
    BIN="$BIN" OUT="$dir/$1" "${@:3}"
}
# Waits until a job is over, and prints how it ended.
ended() {
  for _ in $(seq 1 900); do
    state=$(squeue -h -t all -j "$1" -o %T)
    case $state in
    COMPLETED | FAILED | CANCELLED | TIMEOUT | NODE_FAIL | OUT_OF_MEMORY | DEADLINE) break ;;
    esac
    sleep 1
  done
  echo "$state"
}
restarts() { scontrol show job "$1" | sed -n 's/.*Restarts=\([0-9]*\).*/\1/p'; }
# Waits until a row of a run has a checkpoint.
training() {
  for _ in $(seq 1 3000); do
    [ -e "$dir/$1/seed0/$2/model/checkpoint/state.safetensors" ] && return
    sleep 0.1
  done
  echo "$1: no checkpoint of $2" >&2
}
# check NAME "ROWS" DISTURBED [LIKE]: compares the rows of a run with those of the local run LIKE.
check() {
  runs=$((runs + 1)) why=
  [ "$3" = yes ] || why="not disturbed as it was to be ($3);"
  for row in $2; do
    # MOAM does not use the pseudo labels of supervised_10p.
    found=$(diff -r -x '*.prov.json' "$dir/${4:-local}/seed0/$row" "$dir/$1/seed0/$row" 2>&1 || true)
    [ -z "$(grep -v ': labels.parquet$' <<<"$found" | head -c1)" ] || why+=" $found;"
  done
  left=$(find "$dir/$1" -name '*.lock' -o -name '*.partial' -o -name '*.part-*' -o -name '.s4l-*.tmp' || true)
  [ -z "$left" ] || why+=" left behind: $(echo $left);"
  if [ -z "$why" ]; then equal=$((equal + 1)); fi
  echo "$1: ${why:-equal} ($SECONDS s)"
}
is() { [ "$1" = "$2" ] && echo yes || echo "$1, not $2"; }

echo "without Slurm"
"$BIN/s4l-shard" --in pipelines/smoke/data --out "$dir/local/shards" $cuts -q
make_local OUT="$dir/local" DATA= table >"$dir/local.log" 2>&1
all=$(cd "$dir/local/seed0" && echo */)

# Four stages at once on two nodes.
job=$(batch side-by-side "-N2 -n4" -j4 RUN="$steps" table)
check side-by-side "$all" "$(is "$(ended "$job")" COMPLETED)"

# One job per row, shards and pseudo labels by arrays of four.
job=$(BIN=$BIN SHARD_OPTIONS=$cuts $slurm/submit.sh smoke "$dir/submit" 0 4)
check submit "$all" "$(is "$(ended "$job")" COMPLETED)"
for part in shards report/table.parquet report/table.csv; do
  diff -r "$dir/local/$part" "$dir/submit/$part" >/dev/null || { equal=$((equal - 1)); echo "submit: $part differs"; }
done

# The README's pipeline.mk, unchanged: each training is a step with the name of its row.
pipeline=$dir/named-pipeline
cp -r pipelines/smoke "$pipeline"
sed -n '/^```make$/,/^```$/{//!p}' $slurm/README.md >>"$pipeline/pipeline.mk"
job=$(batch named "-n2" -j2 TRAINING=-c1 supervised_10p s4l_rotation)
training named s4l_rotation
names=$(squeue -h -s -j "$job" -o %j)
check named "supervised_10p s4l_rotation" "$(is "$(ended "$job") $(grep -x seed0.s4l_rotation.model <<<"$names")" "COMPLETED seed0.s4l_rotation.model")"
unset pipeline

# SIGKILL to the stage in the middle of MOAM, then a job that is cancelled there, then the same once more.
job=$(batch killed "" RUN="$steps" moam_step3)
training killed moam_step1
scancel --signal=KILL "$(squeue -h -s -j "$job" -o %i | grep -v batch)"
first=$(ended "$job")
job=$(batch killed "" RUN="$steps" moam_step3)
training killed moam_step2
scancel "$job"
first+=" $(ended "$job")"
job=$(batch killed "" RUN="$steps" moam_step3)
check killed "$moam" "$(is "$first $(ended "$job")" "FAILED CANCELLED COMPLETED")"

# Requeued by hand, twice.
job=$(batch requeued "" RUN="$steps" moam_step3)
for row in moam_step1 moam_step2; do
  training requeued $row
  scontrol requeue "$job"
done
check requeued "$moam" "$(is "$(ended "$job") $(restarts "$job")" "COMPLETED 2")"

# Asked to stop with an empty RUN: make passes it on.
job=$(batch stopped "" moam_step3)
training stopped moam_step1
scancel --batch --signal=USR1 "$job"
check stopped "$moam" "$(is "$(ended "$job") $(restarts "$job")" "COMPLETED 1")"

# Preempted by a job that goes first and wants both nodes.
job=$(batch preempted "" RUN="$steps" moam_step3)
training preempted moam_step1
srun -p urgent -N2 --exclusive true
check preempted "$moam" "$(is "$(ended "$job") $(restarts "$job")" "COMPLETED 1")"

# Out of time. Slurm checks only every half minute, so this training has to be longer.
pipeline=$dir/long
cp -r pipelines/smoke "$pipeline"
sed -i 's/^schedule.*/schedule = [0.5, 1, 40]/' "$pipeline/moam_step1.toml"
out=seed0/moam_step1/eval.parquet
make_local OUT="$dir/local-long" "$dir/local-long/$out" >"$dir/local-long.log" 2>&1
job=$(batch out-of-time "--time=1 --signal=B:USR1@20" RUN="$steps" "$dir/out-of-time/$out")
for _ in $(seq 1 120); do
  [ "$(restarts "$job")" = 0 ] || break
  sleep 1
done
scontrol update JobId="$job" TimeLimit=60 # once is enough
state=$(ended "$job")
again=$(restarts "$job")
check out-of-time "supervised_10p moam_step1" "$([ "$state" = COMPLETED ] && [ "$again" -ge 1 ] && echo yes || echo "$state, $again restarts")" local-long
unset pipeline

if [ -n "${SNAKEMAKE:-}" ]; then
  done=$("$SNAKEMAKE" -s $slurm/Snakefile --cores 2 --directory "$dir" --config pipeline="$PWD/pipelines/smoke" \
    out="$dir/snakemake" bin="$BIN" >"$dir/snakemake.log" 2>&1 && echo yes || echo "it failed")
  check snakemake "$all" "$done"
fi

echo "CHECK slurm runs=$runs equal=$equal"
[ "$runs" = "$equal" ] || { echo "see $dir" >&2; exit 3; }
[ -n "${1:-}" ] || { $slurm/cluster.sh down "$dir/cluster"; sleep 1; rm -rf "$dir"; }
