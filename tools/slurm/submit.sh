#!/bin/bash
# submit.sh PIPELINE OUT "SEEDS" [PARTS]: a table as jobs of Slurm. The shards are an array of PARTS (4) and
# their merge; then one job per row and seed; pseudo labels of moam_step1 are an array too; the report comes
# last. The number of its job is printed. Wait for it with `srun -d afterany:JOB true`. Run this in the
# folder of the Makefile.
#   DATA=FOLDER       images, if the pipeline has none
#   BIN=FOLDER        the stage programs [target/release]
#   CPUS=N            per stage [1]
#   SHARD_OPTIONS=..  more options of s4l-shard
#   SBATCH_OPTIONS=.. more options of every job, as "--time=12:00:00 --mem=32G"
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
pipeline=$1 out=$2 seeds=$3 parts=${4:-4}
here=$(dirname "$(realpath "$0")") cpus=${CPUS:-1} bin=${BIN:-target/release}
case $pipeline in */*) folder=$pipeline ;; *) folder=pipelines/$pipeline ;; esac
data=${DATA:-$folder/data}
mkdir -p "$out/logs"

# srun does not take -c from sbatch.
run="srun -N1 -n1 -c$cpus --exact --"
# The shards exist when make runs, so make uses them unchanged.
make=(make PIPELINE="$pipeline" OUT="$out" BIN="$bin" DATA= SEEDS="$seeds" RUN="$run")

# job NAME AFTER OPTION...: submits a job that begins when those of AFTER (a:b) have succeeded.
job() {
  sbatch --parsable --kill-on-invalid-dep=yes --requeue --open-mode=append -n1 -c "$cpus" -J "$1" \
    --output="$out/logs/%x-%j.log" ${2:+-d "afterok:$2"} ${SBATCH_OPTIONS:-} "${@:3}"
}
# chain NAME AFTER TARGET...: a make of targets.
chain() { job "$1" "$2" "$here/make.sbatch" "${make[@]}" "${@:3}"; }
# stage NAME AFTER OPTIONS COMMAND: one stage, without make.
stage() { job "$1" "$2" $3 "$here/stage.sbatch" bash -c "exec $run $4"; }

shard=$(stage shard "" "--array=1-$parts" \
  "$bin/s4l-shard --in '$data' --out '$out/shards' --part auto ${SHARD_OPTIONS:-}")
shards=$(stage merge "$shard" "" "$bin/s4l-shard --merge --out '$out/shards'")
rows=()
for seed in $seeds; do
  at=$out/seed$seed
  # row NAME AFTER [TARGET...]: its model and evaluation.
  row() { chain "$1-$seed" "$2" "$at/$1/eval.parquet" "${@:3}"; }
  subset=$(chain "subset-$seed" "$shards" "$at/labelled_10p.parquet")
  # block 10p "", block 1p _1p: the chains of the rows with as many labels.
  block() {
    labelled=$at/labelled_$1.parquet first=$at/moam_step1$2
    supervised=$(row "supervised_$1" "$subset" "$at/supervised_$1/labels.parquet")
    rows+=("$supervised" "$(row "pseudo_labels$2" "$supervised")")
    # make moam_step1 makes the supervised row too, to compare with or to start from.
    step1=$(row "moam_step1$2" "$supervised")
    label="$bin/s4l-pseudolabel --in '$out/shards' --model '$first/model' \
      --labelled '$labelled' --out '$first/labels.parquet' --seed $seed --part auto"
    labels=$(stage "labels$2-$seed" "$step1" "--array=1-$parts" "$label")
    labels=$(stage "join$2-$seed" "$labels" "" "$bin/s4l-pseudolabel --merge --out '$first/labels.parquet'")
    step2=$(row "moam_step2$2" "$labels")
    step3=$(row "moam_step3$2" "$step2")
    rows+=("$step2" "$step3")
    [ ! -e "$folder/distill$2.toml" ] || rows+=("$(row "distill$2" "$step3")")
  }
  block 10p ""
  [ ! -e "$folder/moam_step3_1p.toml" ] || block 1p _1p
  for recipe in "$folder"/*.toml; do
    name=$(basename "$recipe" .toml)
    case $name in supervised_10p | pseudo_labels | moam_step[123] | distill) ;;
    supervised_1p | pseudo_labels_1p | moam_step[123]_1p | distill_1p)
      # Without that chain supervised_1p is a row like any other.
      [ "$name" != supervised_1p ] || [ -e "$folder/moam_step3_1p.toml" ] || rows+=("$(row "$name" "$subset")") ;;
    *) rows+=("$(row "$name" "$subset")") ;;
    esac
  done
done
all=$(IFS=:; echo "${rows[*]}")
chain report "$all" report
