#!/usr/bin/env python3
"""Compares the logits of models of this project with timm's of the same models, on photographs.

    pip install torch==2.15.0 timm==1.0.31 pillow pyarrow
    cargo build --release && tools/check-timm.py [PHOTOS]

Cuts crops of 224 x 224 from the JPEG files under PHOTOS (default: /usr/share/backgrounds, where Debian's
packages mate-backgrounds and lomiri-wallpapers-16.04 put some 30), trains each network for two steps on
them so that its batch-norm statistics are those of photographs, exports it with s4l-export, and loads
the export into timm. Prints one line a network; exits with 1 where logits differ by more than 1e-4.
"""

import pathlib
import random
import subprocess
import sys
import tempfile

import numpy as np
import pyarrow.parquet as parquet
import timm
import torch
from PIL import Image

PROGRAMS = pathlib.Path(__file__).parents[1] / "target/release"
SIZE = 224
CROPS = 48
TOLERANCE = 1e-4
# Units and width factor. The last has one block more than timm's own networks.
NETWORKS = [([3, 4, 6, 3], 4), ([1, 1, 1], 1), ([2, 1], 3), ([1, 1, 1, 1, 2], 1)]


def cut(photos, folder):
    """PNG crops in two class folders; both sides read the same pixels."""
    draw = random.Random(1905)
    images = [Image.open(p).convert("RGB") for p in sorted(photos.rglob("*.jpg")) if p.is_file()]
    images = [i for i in images if min(i.size) >= SIZE]
    if not images:
        sys.exit(f"{photos}: no JPEG of at least {SIZE} pixels; name a folder of photographs")
    for n in range(CROPS):
        image = images[n % len(images)]
        # A side of 1 to 4 times the crop's, so that crops show more than texture.
        scale = SIZE * draw.uniform(1, 4) / min(image.size)
        small = image.resize([max(SIZE, round(side * scale)) for side in image.size])
        x, y = (draw.randint(0, side - SIZE) for side in small.size)
        path = folder / "train" / "ab"[n % 2] / f"{n:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        small.crop((x, y, x + SIZE, y + SIZE)).save(path)


def run(program, *arguments):
    subprocess.run([PROGRAMS / program, *map(str, arguments), "-q"], check=True, stdout=subprocess.DEVNULL)


def ours(folder, units, width_factor):
    """Keys and logits of all crops by s4l-eval; leaves the export in folder/timm."""
    pipe = f"crop({SIZE})|-1_to_1"
    settings = {
        "units": units, "width_factor": width_factor, "batch": 8, "schedule": [0.1, 0.5],
        "learning_rate": 0.01, "batch_norm_batches": 6, "augment_labelled": pipe, "augment_eval": pipe,
    }
    sets = [word for key, value in settings.items() for word in ("-s", f"{key}={value}")]
    run("s4l-pretrain", "--in", folder / "shards", "--labelled", folder / "labelled.parquet",
        "--out", folder / "model", "--force", *sets)
    run("s4l-export", "--model", folder / "model", "--to", "timm", "--out", folder / "timm", "--force")
    run("s4l-eval", "--in", folder / "shards", "--split", "train", "--model", folder / "model",
        "--out", folder / "eval.parquet", "--force")
    table = parquet.read_table(folder / "eval.parquet")
    return table["key"].to_pylist(), np.array(table["logits"].to_pylist())


@torch.no_grad()
def theirs(folder, keys):
    model = timm.create_model(f"local-dir:{folder / 'timm'}", pretrained=True).eval()
    config = model.pretrained_cfg
    mean, std = (torch.tensor(config[key]).reshape(3, 1, 1) for key in ("mean", "std"))
    paths = {p.name: p for p in folder.rglob("train/*/*.png")}
    images = [np.array(Image.open(paths[key])) for key in keys]
    batch = torch.tensor(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return torch.cat([model(part) for part in ((batch - mean) / std).split(8)]).numpy()


def main():
    photos = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/backgrounds")
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        cut(photos, folder / "photos")
        run("s4l-shard", "--in", folder / "photos", "--out", folder / "shards")
        run("s4l-subset", "--in", folder / "shards", "--fraction", 1, "--out", folder / "labelled.parquet")
        for units, width_factor in NETWORKS:
            keys, logits = ours(folder, units, width_factor)
            furthest = np.abs(logits - theirs(folder, keys)).max()
            failed |= not furthest <= TOLERANCE
            network = f"units={'-'.join(map(str, units))} width_factor={width_factor}"
            print(f"CHECK timm {network} images={len(keys)} largest_logit={np.abs(logits).max():.2f} "
                  f"furthest={furthest:.1e} tolerance={TOLERANCE:.0e}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
