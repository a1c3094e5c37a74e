#!/usr/bin/env bash
# check-cuda.sh [DIR]: what NVIDIA's compiler and cuDNN make of the GPU engine, on a machine without a GPU: every
# kernel is compiled for three generations of GPUs, and every convolution of four networks gets its plan for an H100
# that a file describes. Prints CHECK lines, and exits with 3 if a kernel spills registers, or if a plan is missing or
# needs much memory. DIR (default target/cuda) keeps the libraries, 1.7 GB from PyPI. $BIN is the program, if it is
# built already. Takes a minute, without the build and the download.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${1:-target/cuda}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
if [ ! -x "$dir/venv/bin/pip" ]; then
  python3 -m venv "$dir/venv"
fi
"$dir/venv/bin/pip" install -q --no-deps 'nvidia-cuda-nvrtc==13.0.*' 'nvidia-cublas==13.0.*' nvidia-cudnn-cu13
packages=$(echo "$dir"/venv/lib/python3*/site-packages/nvidia)

# There is no libcuda without a driver, and cuDNN wants one to load: a library with all its names, each of which says
# that there is no device. The names are those that cudarc has, and the same without their number.
if [ ! -e "$dir/stub/libcuda.so.1" ]; then
  mkdir -p "$dir/stub"
  cudarc=$(cargo metadata --locked --format-version 1 | grep -o '[^"]*/cudarc-[^"/]*/Cargo.toml' | head -n1)
  grep -oE 'pub unsafe fn cu[A-Z][A-Za-z0-9_]*' "$(dirname "$cudarc")/src/driver/sys/mod.rs" | cut -d' ' -f4 |
    sed 'p; s/_v[0-9]*$//' | sort -u | sed 's/.*/int &(void) { return 100; }/' |
    cc -shared -fPIC -x c -Wl,-soname,libcuda.so.1 -o "$dir/stub/libcuda.so.1" -
fi

if [ -z "${BIN:-}" ]; then
  BIN=$(cargo build --release --locked --bench cuda --message-format=json-render-diagnostics |
    sed -n 's/.*"executable":"\([^"]*\/cuda-[^"]*\)".*/\1/p')
fi
export LD_LIBRARY_PATH=$packages/cu13/lib:$packages/cudnn/lib:$dir/stub
status=0
"$BIN" kernels || status=3
"$BIN" plans benches/h100.json || status=3
exit $status
