#!/usr/bin/env python3
"""gpu-probe.py CIFAR10.tar: do rotations and VAT + EntMin help a network that has room, and steps?

On CIFAR-10 as a tar of JPEG files, train/CLASS/NAME.jpg and test/CLASS/NAME.jpg, with 10% and 1% of the labels:
supervised training, VAT + EntMin and S4L-Rotation, each by the recipe of pipelines/fashion, over three widths and two
numbers of steps. The network and the losses are those of tests/golden, in PyTorch. A probe for the choice of recipes,
not a result of this project: images are drawn with replacement, convolutions are in bfloat16, and there is one seed.

On a GPU each step is one CUDA graph, and several runs go side by side on streams of their own. What is not ready after
--seconds is left out of the table. On a CPU, for a rehearsal: --steps 2 --widths 1 --images 400 --test 100.

Needs Python, PyTorch, NumPy, and Pillow or torchvision to decode.
"""

import argparse
import io
import math
import os
import sys
import tarfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/golden"))
import methods  # noqa: E402
import resnet  # noqa: E402

# The recipes of pipelines/fashion, with weight decay, eps and EntMin's weight of docs/RESULTS.md, "CIFAR-10 (JPEG)".
UNITS, STEM = [1, 1, 1], "small_stride2"
BATCH, RATE, MOMENTUM, DECAY = 64, 0.1, 0.9, 5e-4
METHODS = {
    "supervised": {"unlabelled": 0},
    "vat_entmin": {"unlabelled": 64, "vat": 0.5, "entmin": 0.3, "eps": 32, "ramp": 20 / 60},
    "s4l_rotation": {"unlabelled": 16, "rotation": 0.5},
}
# Ends of the warm-up, of each rate and of training, as shares of all steps: schedule = [2, 90, 110, 120, 124].
SCHEDULE = [share / 124 for share in (2, 90, 110, 120)]
SIZE, RESIZED = 32, 36
# Length of the step along VAT's direction, in float32.
XI = 1e-4


def decode(jpeg):
    try:
        from PIL import Image
        return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
    except ImportError:
        from torchvision.io import decode_jpeg
        return decode_jpeg(torch.frombuffer(bytearray(jpeg), dtype=torch.uint8)).permute(1, 2, 0).numpy()


def read(path, images, test):
    """Pixels and classes of both splits, at most so many images of each, as many of every class."""
    splits = {"train": ([], []), "test": ([], [])}
    most, seen = {"train": images // 10, "test": test // 10}, Counter()
    with tarfile.open(path) as tar:
        for member in tar:
            if member.isfile():
                split, name, _ = member.name.split("/")
                seen[split, name] += 1
                if seen[split, name] <= most[split]:
                    splits[split][0].append(tar.extractfile(member).read())
                    splits[split][1].append(name)
    with ProcessPoolExecutor() as pool:
        for split, (files, names) in splits.items():
            classes = sorted(set(names))
            pixels = np.stack(list(pool.map(decode, files, chunksize=500)))
            yield pixels, np.array([classes.index(name) for name in names])


def labelled(labels, share):
    """The first images of each class of a fixed order, the same share of all."""
    order = np.random.default_rng(0).permutation(len(labels))
    count = max(1, round(len(labels) * share / 10))
    return np.concatenate([order[labels[order] == c][:count] for c in range(10)])


def initial(width, heads):
    """As resnet.initial, with PyTorch's random numbers."""
    kernels, norms = resnet.layers(3, UNITS, width, STEM, heads)
    weights, moving = {}, {}
    for name, shape in kernels.items():
        limit = math.sqrt(6 / (math.prod(shape[:-2]) * (shape[-2] + shape[-1])))
        weights[name] = torch.empty(shape).uniform_(-limit, limit)
        if name.startswith("heads."):
            weights[name.replace("kernel", "bias")] = torch.zeros(shape[-1])
    for name, channels in norms.items():
        weights[f"{name}.gamma"], weights[f"{name}.beta"] = torch.ones(channels), torch.zeros(channels)
        moving[f"{name}.moving_mean"], moving[f"{name}.moving_variance"] = torch.zeros(channels), torch.ones(channels)
    return weights, moving


class Run:
    """One training: weights, and a step that draws its own images."""

    def __init__(self, data, method, width, steps, share, device):
        self.method, self.width, self.steps, self.share, self.device = method, width, steps, share, device
        self.settings = METHODS[method]
        self.pixels, self.labels = data
        self.known = torch.tensor(labelled(self.labels.cpu().numpy(), share), device=device)
        heads = {"classes": 10} | ({"rotations": 4} if "rotation" in self.settings else {})
        self.heads = list(heads)
        weights, self.moving = initial(width, heads)
        self.weights = {name: value.requires_grad_() for name, value in weights.items()}
        self.velocity = [torch.zeros_like(w) for w in self.weights.values()]
        self.kernels = [k.endswith("kernel") for k in self.weights]
        self.rate, self.ramp = torch.zeros((), device=device), torch.zeros((), device=device)
        self.draws = torch.Generator(device).manual_seed(width * 1000 + steps)
        self.done, self.graph, self.stream = 0, None, None

    def crops(self, rows):
        """resize(36) | crop(32) | flip_lr | -1_to_1, NHWC."""
        n = len(rows)
        x = self.pixels[rows].permute(0, 3, 1, 2).float()
        x = F.interpolate(x, RESIZED, mode="bilinear", align_corners=False) / 127.5 - 1
        at = torch.randint(0, RESIZED - SIZE + 1, (2, n, 1), generator=self.draws, device=self.device)
        span = torch.arange(SIZE, device=self.device)
        flip = torch.randint(0, 2, (n, 1), generator=self.draws, device=self.device)
        columns = at[1] + torch.where(flip == 1, SIZE - 1 - span, span)
        image = torch.arange(n, device=self.device)[:, None, None]
        return x.permute(0, 2, 3, 1)[image, (at[0] + span)[:, :, None], columns[:, None, :]]

    def forward(self, images, exact=False, **more):
        with torch.autocast(self.device, torch.bfloat16, enabled=not exact and self.device == "cuda", cache_enabled=False):
            out = resnet.forward(self.weights, images, UNITS, STEM, heads=self.heads, **more)
        return {name: logits.float() for name, logits in out.items()}

    def perturbation(self, images, clean):
        """As methods.perturbation, with the noise of this run."""
        d = torch.randn(images.shape, generator=self.draws, device=self.device)

        def of_norm(d, length):
            return length * d / d.flatten(1).norm(dim=1).clamp(min=1e-30).reshape(-1, 1, 1, 1)

        d = of_norm(d, XI).requires_grad_()
        moved = self.forward(images + d, exact=True)["classes"]
        d, = torch.autograd.grad(methods.divergence(moved, clean), d)
        return of_norm(d, self.settings["eps"] * (d[0].numel() / (224 * 224 * 3)) ** 0.5)

    def loss(self):
        s, unlabelled = self.settings, self.settings["unlabelled"]
        pick = torch.randint(0, len(self.known), (BATCH,), generator=self.draws, device=self.device)
        rows = self.known[pick]
        labels = self.labels[rows]
        if unlabelled:
            others = torch.randint(0, len(self.pixels), (unlabelled,), generator=self.draws, device=self.device)
            rows = torch.cat([others, rows])
        images = self.crops(rows)
        if "rotation" not in s:
            out = self.forward(images, moving=self.moving)
            loss = F.cross_entropy(out["classes"][unlabelled:], labels)
            if "vat" in s:
                # Of unlabelled images alone.
                moved = images[:unlabelled]
                with torch.no_grad():
                    clean = self.forward(moved, exact=True)["classes"]
                r = self.perturbation(moved, clean).detach()
                smooth = methods.divergence(self.forward(moved + r)["classes"], clean)
                loss = loss + self.ramp * (s["vat"] * smooth
                                           + s["entmin"] * methods.entropy(out["classes"][:unlabelled]))
            return loss
        views = torch.stack([torch.rot90(images, turns, (1, 2)) for turns in range(4)], 1).flatten(0, 1)
        out = self.forward(views, moving=self.moving)
        # Labels for the upright view only.
        loss = F.cross_entropy(out["classes"][4 * unlabelled::4], labels)
        return loss + s["rotation"] * methods.of_parts(methods.rotation, out["rotations"], 4 * unlabelled)

    def update(self):
        gradients = torch.autograd.grad(self.loss(), list(self.weights.values()))
        with torch.no_grad():
            weights = list(self.weights.values())
            gradients = [g + DECAY * w if k else g for g, w, k in zip(gradients, weights, self.kernels)]
            torch._foreach_mul_(self.velocity, MOMENTUM)
            torch._foreach_add_(self.velocity, gradients)
            torch._foreach_sub_(weights, torch._foreach_mul(self.velocity, self.rate))

    def capture(self):
        """The step as a CUDA graph, after the few steps that PyTorch wants before one."""
        self.stream = torch.cuda.Stream()
        with torch.cuda.stream(self.stream):
            for _ in range(3):
                self.update()
        self.stream.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(self.draws)
        with torch.cuda.graph(self.graph, stream=self.stream):
            self.update()

    def step(self):
        at = self.done / self.steps
        decays = sum(at >= end for end in SCHEDULE[1:])
        self.rate.fill_(RATE * min(1, (at + 1 / self.steps) / SCHEDULE[0]) * 0.1**decays)
        self.ramp.fill_(min(1, at / self.settings.get("ramp", 1)))
        self.graph.replay() if self.graph else self.update()
        self.done += 1

    @torch.no_grad()
    def accuracy(self, pixels, labels):
        """With the moving statistics, of the centre of the resized image."""
        right, edge = 0, (RESIZED - SIZE) // 2
        for start in range(0, len(labels), 1000):
            x = pixels[start:start + 1000].permute(0, 3, 1, 2).float()
            x = F.interpolate(x, RESIZED, mode="bilinear", align_corners=False) / 127.5 - 1
            x = x[:, :, edge:edge + SIZE, edge:edge + SIZE].permute(0, 2, 3, 1)
            out = self.forward(x, exact=True, moving=self.moving, training=False)["classes"]
            right += (out.argmax(1) == labels[start:start + 1000]).sum().item()
        return 100 * right / len(labels)


def train(runs, test, deadline, together, device):
    """Trains them, some side by side, and yields each with its accuracy."""
    waiting, going = list(runs), []
    while waiting or going:
        while waiting and len(going) < together and time.time() < deadline:
            run = waiting.pop(0)()
            if device == "cuda":
                torch.cuda.synchronize()
                run.capture()
            going.append(run)
        if not going:
            return
        for run in going:
            with torch.cuda.stream(run.stream) if run.stream else nullcontext():
                for _ in range(min(20, run.steps - run.done)):
                    run.step()
        if device == "cuda":
            # The host must not run ahead of the clock.
            for run in going:
                run.stream.synchronize()
        late = time.time() > deadline
        for run in [run for run in going if late or run.done == run.steps]:
            going.remove(run)
            if run.done == run.steps:
                yield run, run.accuracy(*test)
        if late:
            return


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tar")
    parser.add_argument("--steps", type=int, nargs="+", default=[4000, 16000])
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.01])
    parser.add_argument("--images", type=int, default=50000)
    parser.add_argument("--test", type=int, default=10000)
    parser.add_argument("--together", type=int, default=6, help="runs side by side")
    parser.add_argument("--seconds", type=float, default=440)
    a = parser.parse_args()
    begun = time.time()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.set_num_threads(os.cpu_count())
    splits = list(read(a.tar, a.images, a.test))
    torch.set_default_device(device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    data, test = [(torch.tensor(p, device=device), torch.tensor(l, device=device))
                  for p, l in splits]
    print(f"{len(data[0])} and {len(test[0])} images on {device}, {time.time() - begun:.0f} s", flush=True)
    # The shorter runs first, so that the table has whole columns if time runs out.
    plans = [(steps, width, share, method) for steps in a.steps for share in a.shares
             for width in a.widths for method in METHODS]
    runs = [lambda p=p: Run(data, p[3], p[1], p[0], p[2], device) for p in plans]
    found = {}
    for run, top1 in train(runs, test, begun + a.seconds, a.together, device):
        found[run.steps, run.width, run.share, run.method] = top1
        print(f"{run.method} width {run.width} labels {run.share:.0%} steps {run.steps}: {top1:.1f} "
              f"({time.time() - begun:.0f} s)", flush=True)
    print("\n| labels | steps | width | " + " | ".join(METHODS) + " |\n|---:|---:|---:|" + "---:|" * len(METHODS))
    for share in a.shares:
        for steps in a.steps:
            for width in a.widths:
                cells = [found.get((steps, width, share, m), math.nan) for m in METHODS]
                print(f"| {share:.0%} | {steps} | {width} | "
                      + " | ".join("" if math.isnan(c) else f"{c:.1f}" for c in cells) + " |")
    print(f"CHECK probe runs={len(found)} of={len(plans)} seconds={time.time() - begun:.0f}")


if __name__ == "__main__":
    main()
