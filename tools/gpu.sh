#!/usr/bin/env bash
# gpu.sh: all that only a machine with an NVIDIA GPU can say about the GPU engine, in one run of less than 8 minutes and
# without a network. Each part prints PASS or FAIL with its seconds; one that fails or hangs does not stop the others.
# The last line is "CHECK gpu parts=N passed=N", and the exit code 3 if a part failed.
#
#   tools/gpu.sh build          builds the programs and packs them, for a machine without Rust: target/gpu.tar.xz
#   tools/gpu.sh [PART ...]     runs all parts or these: machine card start tests train pipeline speed share
#
# The repository and target/gpu.tar.xz are all that the machine needs beside the driver (CUDA 13 or newer), Python with
# a PyTorch for CUDA, whose packages bring cuDNN, cuBLASLt and NVRTC, and make. $OUT (default target/gpu-out) gets the
# logs. Without a GPU every part says what is missing.
set -uo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = build ]; then
  set -e
  cargo build --release --locked --bins
  program() { # the file of a test or bench
    cargo build --release --locked "$@" --message-format=json-render-diagnostics |
      sed -n 's/.*"executable":"\([^"]*release\/deps\/\(training\|engine\|cuda\)-[^"]*\)".*/\1/p'
  }
  rm -rf target/gpu && mkdir -p target/gpu
  for program in shard subset pretrain moam pseudolabel eval report; do cp target/release/s4l-$program target/gpu; done
  cp "$(program --test training)" target/gpu/training
  cp "$(program --bench engine)" target/gpu/engine
  strip target/gpu/*
  # The programs are much alike: a window of 64 MiB finds what they share.
  tar c -C target gpu | xz -T0 --lzma2=preset=6,dict=256MiB >target/gpu.tar.xz
  ls -l target/gpu.tar.xz
  exit
fi

out=${OUT:-target/gpu-out}
mkdir -p "$out"
out=$(cd "$out" && pwd)
[ -e target/gpu ] || tar xf target/gpu.tar.xz -C target || exit 66
bin=$PWD/target/gpu
libraries=$(python3 - <<'P'
import glob, os, sys
found = [d for p in sys.path for d in glob.glob(os.path.join(p, "nvidia", "*", "lib"))]
print(":".join(found))
P
)
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export XDG_CACHE_HOME=$out/cache PYTHONDONTWRITEBYTECODE=1

machine() {
  nvidia-smi
  ldd --version | head -n1
  nproc
  python3 -c 'import sys, torch; print(sys.version, torch.__version__, torch.version.cuda, torch.backends.cudnn.version())'
  echo "$LD_LIBRARY_PATH" | tr : '\n'
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
}

# Rates that all others are measured by, and cuDNN's description of the card, for tools/check-cuda.sh.
card() {
  python3 tools/gpu-speed.py card "$out/card.json"
}

# Needs no GPU: the programs start here, and a GPU's absence is one line.
start() {
  for program in "$bin"/s4l-*; do "$program" --version || return; done
  "$bin/s4l-shard" --in pipelines/smoke/data --out "$out/smoke/shards" --update -q &&
    "$bin/s4l-shard" --in pipelines/fashion/data --out "$out/fashion/shards" --update -q &&
    "$bin/s4l-subset" --in "$out/fashion/shards" --fraction 0.01 --out "$out/fashion/labelled.parquet" \
      --val-per-class 300 --val-out "$out/fashion/val.parquet" --update -q
}

# Every kernel against float64, and the engine against the CPU's, on the card.
tests() {
  S4L_GPU=0 "$bin/training" gpu:: gpu_kernels:: gpu_products:: --test-threads 1
}

# pretrain ROW MODEL MORE...: 600 steps of fashion's recipe, and the test's top-1 in a file.
pretrain() {
  "$bin/s4l-pretrain" --in "$out/fashion/shards" --labelled "$out/fashion/labelled.parquet" \
    --val "$out/fashion/val.parquet" --recipe "pipelines/fashion/$1.toml" --out "$2" -s 'schedule=[2,100,150,175,200]' \
    -s validate_every=50 -s checkpoint_every=100 "${@:3}" &&
    "$bin/s4l-eval" --in "$out/fashion/shards" --split test --model "$2" --out "$2.parquet" --force -q >"$2.json"
}
top1() { grep -o '"top1":[0-9.]*' "$1.json" | head -n1 | cut -d: -f2; }
weights() { sha256sum <"$1/model.safetensors"; }

# Same bytes twice, and after a stop; about the accuracy of the CPU.
train() {
  local row good=0 at=$out/trained
  rm -rf "$at" && mkdir -p "$at"
  for row in supervised_1p vat_entmin_1p s4l_rotation_1p; do
    pretrain $row "$at/$row-cpu" --device cpu --threads 4 >/dev/null 2>&1 &
  done
  for row in supervised_1p vat_entmin_1p s4l_rotation_1p; do
    for precision in f32 bf16; do
      local one=$at/$row-$precision
      pretrain $row "$one" --device cuda --precision $precision -q || return
      pretrain $row "$one-again" --device cuda --precision $precision --max-seconds 1 -q
      [ $? = 75 ] || echo "$row $precision was not stopped in time"
      pretrain $row "$one-again" --device cuda --precision $precision -q || return
      [ "$(weights "$one")" = "$(weights "$one-again")" ] || { echo "$row $precision: other bytes"; good=1; }
    done
  done
  wait
  for row in supervised_1p vat_entmin_1p s4l_rotation_1p; do
    echo "$row top-1: cpu $(top1 "$at/$row-cpu"), f32 $(top1 "$at/$row-f32"), bf16 $(top1 "$at/$row-bf16")"
  done
  return $good
}

# Every stage, chained by make.
pipeline() {
  make -s table PIPELINE=smoke BIN="$bin" OUT="$out/smoke" DEVICE=cuda
}

# Ours and PyTorch's images a second, in turns.
speed() {
  python3 tools/gpu-speed.py compare "$bin/engine"
}

# Where the time of a step of ours goes, if NVIDIA's profiler is there.
share() {
  command -v nsys >/dev/null || { echo "no nsys"; return 0; }
  echo 3 | DEVICE=cuda BATCH=256 nsys profile -o "$out/step" --force-overwrite true "$bin/engine" r50_224 train bf16 &&
    nsys stats --report cuda_gpu_kern_sum "$out/step.nsys-rep" | head -n 40
}

seconds() {
  case $1 in machine | start) echo 20 ;; tests | train) echo 90 ;; pipeline) echo 40 ;; speed) echo 150 ;; *) echo 30 ;; esac
}

parts=(${@:-machine card start tests train pipeline speed share})
passed=0
export -f machine card start tests train pipeline speed share pretrain top1 weights
export out bin
for part in "${parts[@]}"; do
  begun=$SECONDS
  timeout -k 5 "$(seconds "$part")" bash -c "$part" >"$out/$part.log" 2>&1
  status=$?
  case $status in 0) word=PASS passed=$((passed + 1)) ;; 124 | 137) word="FAIL (out of time)" ;; *) word="FAIL ($status)" ;; esac
  echo "$part: $word $((SECONDS - begun)) s"
  tail -n 25 "$out/$part.log" | sed 's/^/    /'
done
echo "CHECK gpu parts=${#parts[@]} passed=$passed"
[ "$passed" = "${#parts[@]}" ] || exit 3
