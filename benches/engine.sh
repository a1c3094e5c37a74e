#!/usr/bin/env bash
# Speed and memory of training and inference compared with PyTorch and ONNX Runtime on this machine's CPU:
# benches/engine.sh [a16|a32|r50_64|r50_224 ...]. Nothing else should run meanwhile.
# ISA=AVX2, AVX-512, AVX512-BF16 or any: both sides use these instructions (any: none of those), except ONNX
# Runtime, which can only use the machine's best.
# PyTorch is installed into target/bench-venv (some gigabytes); $PYTHON names a Python that has it.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ -z ${PYTHON:-} ]]; then
    PYTHON=target/bench-venv/bin/python
    if [[ ! -x $PYTHON ]]; then
        python3 -m venv target/bench-venv
        target/bench-venv/bin/pip install --quiet torch==2.15.0 onnx==1.23.2 onnxruntime==1.32.0 numpy
    fi
fi
ours=$(cargo bench --bench engine --no-run --message-format=json-render-diagnostics |
    sed -n 's/.*"executable":"\([^"]*engine-[^"]*\)".*/\1/p')
# Otherwise glibc returns PyTorch's large buffers to the system after each step, which costs PyTorch up to
# 40%.
export MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=17179869184
exec "$PYTHON" -W ignore benches/engine.py "$ours" "$@"
