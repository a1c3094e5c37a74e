"""Where the scripts of this folder write their numbers: beside the scripts, or in the folder given on the
command line."""

import json
import pathlib
import sys

import numpy as np
from safetensors.numpy import save_file

FOLDER = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else __file__)
FOLDER = FOLDER if FOLDER.is_dir() else FOLDER.parent


def plain(value):
    """Arrays as lists, floats with 12 digits: further digits depend on the machine."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if hasattr(value, "numpy"):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.12g}")
    return value


def write(name, rows):
    """A JSON list with one row per line."""
    body = ",\n".join(json.dumps(plain(row), separators=(",", ":")) for row in rows)
    (FOLDER / name).write_text(f"[\n{body}\n]\n")


def write_tensors(name, tensors):
    """Arrays by name, unchanged: float32, integers and float64 scalars."""
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, FOLDER / name)
