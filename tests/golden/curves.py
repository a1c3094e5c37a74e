"""Training by PyTorch in float64, for curves.rs: the same images, initial weights, batches and noise as
`s4l-pretrain --recipe curve_<method>.toml`, which must give the same loss at every step.

The images are the embedded photographs with noise of up to 64 grey levels. Over their flat background
all pixels cross a ReLU's kink at once, so that rounding decides the curve: without the noise PyTorch
in float32 is up to 5 % away from itself in float64 within these steps.

    python tests/golden/curves.py [FOLDER]
"""

import io
import math
import pathlib
import tomllib

import numpy as np
import torch
import zstandard

import keyed
import methods
import resnet
import store

HERE = pathlib.Path(__file__).parent
DATA = HERE.parents[1] / "pipelines/smoke/data"
DEFAULTS = {"unlabelled_batch": 0, "learning_rate_batch": 0, "momentum": 0.9, "decay_factor": 0.1,
            "weight_supervised": 1.0, "vat_power_iterations": 1, "upright_classes": False}
LABELLED, SEED = 100, 0


def idx(name, header):
    with open(DATA / f"{name}.zst", "rb") as file:
        data = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(file.read())).read()
    return np.frombuffer(data[header:], np.uint8)


def rough(pixels):
    """With noise of -64 to 64, mirrored at 0 and 255."""
    noise = np.zeros(pixels.shape, int)
    for row, image in enumerate(noise.reshape(len(noise), -1)):
        generator = keyed.Keyed(SEED, keyed.INIT, 1, row)
        image[:] = [generator.below(129) - 64 for _ in image]
    moved = np.abs(pixels + noise)
    return np.where(moved > 255, 510 - moved, moved).astype(np.uint8)


def draws(order, n, batch, step):
    """The rows of a step, from permutations of one epoch after the other."""
    at = range(step * batch, (step + 1) * batch)
    epochs = {i // n: None for i in at}
    epochs = {e: keyed.Keyed(SEED, order, e).permutation(n) for e in epochs}
    return [epochs[i // n][i % n] for i in at]


def learning_rate(s, step, steps_per_epoch):
    base = s["learning_rate"]
    if s["learning_rate_batch"]:
        base *= s["batch"] / s["learning_rate_batch"]
    warm_up, *decays, _ = [epoch * steps_per_epoch for epoch in s["schedule"]]
    if step < warm_up:
        return base * step / warm_up
    return base * s["decay_factor"] ** sum(step > decay for decay in decays)


def curve(name):
    s = DEFAULTS | tomllib.loads((HERE / f"curve_{name}.toml").read_text())
    pixels = rough(idx("train-images-idx3-ubyte", 16).reshape(-1, 28, 28, 1))
    labels = idx("train-labels-idx1-ubyte", 8)[:LABELLED]
    turns = 4 if "rotate" in s["augment_labelled"] else 1

    def images(rows):
        x = pixels[rows].astype(np.float32) / np.float32(255) * np.float32(2) - np.float32(1)
        views = np.stack([np.rot90(x, k, axes=(1, 2)) for k in range(turns)], axis=1)
        return torch.tensor(views.reshape(-1, 28, 28, 1), dtype=torch.float64)

    heads = {"classes": 10, "rotations": 4}
    heads = {head: heads[head] for head in methods.HEADS[s["method"]]}
    weights, _ = resnet.initial(SEED, 1, s["units"], s["width_factor"], s["stem"], heads)
    weights = resnet.double(weights)
    kernels = [w.requires_grad_() for name, w in weights.items() if name.endswith("kernel")]
    others = [w.requires_grad_() for name, w in weights.items() if not name.endswith("kernel")]
    groups = [{"params": kernels, "weight_decay": s["weight_decay"]}, {"params": others}]
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=s["momentum"])

    steps_per_epoch = LABELLED // s["batch"]
    rows = []
    for step in range(math.ceil(s["schedule"][-1] * steps_per_epoch)):
        labelled = draws(keyed.LABELLED_ORDER, LABELLED, s["batch"], step)
        unlabelled = draws(keyed.UNLABELLED_ORDER, len(pixels), s["unlabelled_batch"], step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(s, step, steps_per_epoch)
        optimizer.zero_grad()
        terms = methods.step(s["method"], s, weights, None, images(unlabelled + labelled),
                             torch.tensor(labels[labelled].astype(np.int64)), turns,
                             len(unlabelled) * turns, SEED, step)
        terms["loss"].backward()
        optimizer.step()
        rows.append({name: term.item() for name, term in terms.items()})
    return {"recipe": f"curve_{name}.toml", **{k: [row[k] for row in rows] for k in rows[0]}}


if __name__ == "__main__":
    store.write("curves.json", [curve(name) for name in ("supervised", "vat", "moam")])
