#!/usr/bin/env bash
# Makes the numbers of tests/golden/ again from their scripts, in target/golden, and compares them with the
# committed ones. Prints "CHECK golden files=N equal=N", and exits with 3 if some differ.
# TensorFlow and PyTorch are installed into target/golden-venv (some gigabytes); $PYTHON names a Python that
# has them. Takes about 5 minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ -z ${PYTHON:-} ]]; then
    PYTHON=target/golden-venv/bin/python
    if [[ ! -x $PYTHON ]]; then
        python3 -m venv target/golden-venv
        target/golden-venv/bin/pip install -q -r tests/golden/requirements.txt
    fi
fi
made=target/golden
rm -rf "$made"
mkdir -p "$made/jpegs" "$made/resnetv2"
export TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES= PYTHONDONTWRITEBYTECODE=1
for script in keyed images randaugment losses layers optimizer network steps curves jpegs resnetv2; do
    "$PYTHON" -W ignore "tests/golden/$script.py" "$made" 2>"$made/$script.log" || {
        cat "$made/$script.log" >&2
        echo "tests/golden/$script.py failed" >&2
        exit 1
    }
done
exec "$PYTHON" tests/golden/compare.py tests/golden "$made"
