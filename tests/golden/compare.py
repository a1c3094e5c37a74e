"""Compares two folders of golden numbers: compare.py COMMITTED REMADE.

Files count as equal if everything except floating-point numbers is equal, and these differ by at most 1e-6
of the largest number beside them: processors round differently, and images are kept to 1e-4 grey levels.
"""

import json
import pathlib
import sys

import numpy as np
from safetensors.numpy import load_file

CLOSE = 1e-6


def equal(a, b):
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        if any(isinstance(v, float) for v in a):
            return equal(np.array(a), np.array(b))
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, np.ndarray) and a.dtype.kind == "f":
        same = a.shape == b.shape and a.dtype == b.dtype
        return same and bool(np.all(np.abs(a - b) <= CLOSE * np.abs(a).max()))
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, float):
        return abs(a - b) <= CLOSE * abs(a)
    return a == b


def load(path):
    if path.suffix == ".jpg":
        return path.read_bytes()
    return json.loads(path.read_text()) if path.suffix == ".json" else load_file(path)


def main():
    committed, remade = map(pathlib.Path, sys.argv[1:3])
    kinds = (".json", ".safetensors", ".jpg")
    files = (p.relative_to(committed) for p in committed.rglob("*") if p.suffix in kinds)
    # Samples of input formats, written by libraries: no numbers to compare.
    files = sorted(f for f in files if f.parts[0] != "inputs")
    same = 0
    for name in files:
        if not (remade / name).exists():
            print(f"{committed / name}: its script made no such file", file=sys.stderr)
        elif equal(load(committed / name), load(remade / name)):
            same += 1
        else:
            print(f"{committed / name}: differs from {remade / name}", file=sys.stderr)
    print(f"CHECK golden files={len(files)} equal={same}")
    return 0 if same == len(files) else 3


if __name__ == "__main__":
    sys.exit(main())
