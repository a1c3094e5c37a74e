#!/usr/bin/env python3
"""Compares models of s4l with their exports as timm, transformers and ONNX Runtime load them.

    pip install torch==2.15.0 timm==1.0.31 transformers==5.24.0 onnx==1.23.2 onnxruntime==1.32.0 pillow pyarrow
    cargo build --release && tools/check-export.py [PHOTOS]

Trains a small network of every stem and kind of preparation for some steps, exports it, and compares logits with
those of s4l-eval, and prepared pixels with the formulas of TensorFlow 1 as they stand below. PHOTOS: a folder of
JPEG files (of any sizes) instead of drawn images, to measure the difference of timm's resizing from ours.

One line per case: the largest difference of ONNX's pixels and logits; of the logits of timm and of transformers for
the same pixels; and of pixels (-1..1, largest and mean) and logits for timm's own preparation. Exits with 1 where a
difference is above 1e-4 that must not be: all but the last where timm resizes, which rounds to whole levels.
"""

import json
import pathlib
import struct
import subprocess
import sys
import tempfile

import huggingface_hub
import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as parquet
import timm
import torch
import transformers
from PIL import Image

PROGRAMS = pathlib.Path(__file__).parents[1] / "target/release"
TOLERANCE = 1e-4
IMAGES = 24
# Heights and widths of images; each case adds images of the model's size.
SIZES = [(80, 96), (192, 64), (61, 77), (300, 211), (64, 64)]

# Stem, units, width factor, channels, size, augment_eval, and what timm does: "same" pixels if possible,
# "near" pixels if it resizes, None if it cannot express the pipe.
CASES = [
    ("imagenet", [1, 1], 1, 3, (64, 64), "resize(64)|-1_to_1", "near"),
    ("imagenet", [1, 1], 1, 3, (64, 48), "resize(70,50)|crop(64,48)|-1_to_1", None),
    ("imagenet", [1, 1], 1, 3, (64, 48), "resize(64,48)|0_to_1", "near"),
    ("imagenet", [2, 1], 2, 3, (56, 56), "resize(64)|crop(56)|-1_to_1|rotate", "near"),
    ("imagenet", [1, 1], 1, 3, (56, 56), "resize_small(64)|crop(56)|-1_to_1|rotate", "near"),
    ("imagenet", [1, 1], 1, 3, (60, 60), "resize_small(61)|multi_crop(60)|value_range(-2,1)", "near"),
    ("imagenet", [1, 1], 1, 3, (56, 48), "resize_small(64)|crop(56,48)|-1_to_1", None),
    ("imagenet", [1, 1], 1, 3, (56, 56), "central_crop(56)|-1_to_1", "same"),
    ("imagenet", [1, 1], 1, 3, (56, 56), "inception_preprocess(56)", "near"),
    ("imagenet", [1, 1], 1, 3, (56, 56), "crop(40)|resize(56)|-1_to_1", None),
    ("imagenet", [1, 1], 1, 3, (56, 56), "resize(56)|standardize", None),
    ("imagenet", [1, 1], 1, 3, (56, 56), "resize(56)|to_gray|-1_to_1", None),
    ("imagenet", [1, 1], 1, 3, (64, 64), "resize(64,64,dct_scaling)|-1_to_1", "near"),
    ("imagenet", [1, 1], 1, 1, (64, 64), "resize(64)|-1_to_1", "near"),
    ("imagenet", [1, 1, 1, 1, 1], 1, 3, (64, 64), "resize(64)|-1_to_1", "near"),
    ("imagenet", [3, 4, 6, 3], 4, 3, (64, 64), "resize_small(64)|crop(64)|-1_to_1", "near"),
    ("small", [1, 1], 1, 3, (32, 32), "resize(32)|-1_to_1", None),
    ("small", [2, 1, 1], 2, 1, (28, 28), "resize(32)|crop(28)|-1_to_1", None),
    ("small_stride2", [1], 3, 3, (32, 32), "resize_small(33)|central_crop(32)|standardize", None),
]


# ---- The formulas, in float64.

def positions(n, m):
    return np.arange(m) * (n / m)


def linear(image, axis, m):
    n = image.shape[axis]
    at = positions(n, m)
    low = np.minimum(np.floor(at).astype(int), n - 1)
    share = np.expand_dims(at - np.floor(at), tuple(range(1, image.ndim - axis)))
    high = np.minimum(low + 1, n - 1)
    return np.take(image, low, axis) * (1 - share) + np.take(image, high, axis) * share


def area(image, axis, m):
    n = image.shape[axis]
    start, end = positions(n, m)[:, None], (positions(n, m) + n / m)[:, None]
    covered = np.clip(np.minimum(end, np.arange(1, n + 1)) - np.maximum(start, np.arange(n)), 0, None)
    return np.moveaxis(np.tensordot(covered / (n / m), image, (1, axis)), 0, axis)


def resize_small(image, side):
    ratio = np.float32(side) / np.float32(min(image.shape[:2]))
    height, width = (int(np.round(np.float32(length) * ratio)) for length in image.shape[:2])
    return area(area(image, 0, height), 1, width)


def crop(image, height, width):
    y, x = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[y:y + height, x:x + width]


def prepared(image, pipe):
    """The first view, [channels, height, width]."""
    image = image.astype(np.float64)
    for step in pipe.split("|"):
        name, _, arguments = step.rstrip(")").partition("(")
        numbers = [float(a) for a in arguments.split(",") if a and a != "dct_scaling"]
        sides = [int(n) for n in numbers] * (1 if len(numbers) > 1 else 2)
        if name == "resize":
            image = linear(linear(image, 0, sides[0]), 1, sides[1])
        elif name == "resize_small":
            image = resize_small(image, sides[0])
        elif name in ("crop", "central_crop", "multi_crop"):
            image = crop(image, *sides)
        elif name == "inception_preprocess":
            y, x = image.shape[0] // 16, image.shape[1] // 16
            image = image[y:image.shape[0] - y, x:image.shape[1] - x]
            image = linear(linear(image, 0, sides[0]), 1, sides[1]) / 255 * 2 - 1
        elif name == "-1_to_1":
            image = image / 255 * 2 - 1
        elif name == "0_to_1":
            image = image / 255
        elif name == "value_range":
            image = numbers[0] + image / 255 * (numbers[1] - numbers[0])
        elif name == "to_gray":
            image = np.repeat(image.mean(2, keepdims=True), 3, 2)
        elif name == "standardize":
            image = (image - image.mean()) / max(image.std(), image.size ** -0.5)
        elif name != "rotate":
            sys.exit(f"{step}: no formula here")
    return image.transpose(2, 0, 1).astype(np.float32)


# ---- Images.

def draw(random, height, width, channels):
    """Waves of some lengths, and noise."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.zeros((height, width, channels))
    for _ in range(6):
        a, b, phase = random.normal(0, 0.15), random.normal(0, 0.15), random.uniform(0, 6.3, channels)
        image += np.sin(a * x + b * y)[..., None] * np.sin(phase) * 30
    return np.clip(image + 128 + random.normal(0, 8, image.shape), 0, 255).astype(np.uint8)


def write_images(folder, photos, channels, sizes):
    """Images by key, or in the order of the keys."""
    random = np.random.default_rng(1905)
    folder.mkdir()
    if channels == 1:
        # Image files are coloured; IDX images are grey and of one size.
        images = [draw(random, *sizes[0], 1) for _ in range(IMAGES)]
        labels = np.arange(IMAGES, dtype=np.uint8) % 2
        for name, array in (("images-idx3", np.stack(images)[..., 0]), ("labels-idx1", labels)):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (folder / f"train-{name}-ubyte").write_bytes(head + array.tobytes())
        (folder / "classes.txt").write_text("a\nb\n")
        return images
    images = []
    for n in range(IMAGES):
        path = folder / "train" / "ab"[n % 2] / f"{n:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if photos:
            image = np.array(Image.open(photos[n % len(photos)]).convert("RGB"))
        else:
            image = draw(random, *sizes[n % len(sizes)], channels)
        Image.fromarray(image).save(path)
        images.append((path.name, image))
    return dict(images)


# ---- Programs.

def run(program, *arguments, code=0):
    done = subprocess.run([PROGRAMS / program, *map(str, arguments), "-q"], capture_output=True, text=True)
    if done.returncode != code:
        sys.exit(f"{program} {' '.join(map(str, arguments))}: {done.returncode} for {code}\n{done.stderr}")


def evaluated(folder, model):
    run("s4l-eval", "--in", folder / "shards", "--split", "train", "--model", model, "--out",
        folder / "eval.parquet", "--force")
    table = parquet.read_table(folder / "eval.parquet")
    return table["key"].to_pylist(), np.array(table["logits"].to_pylist())


def train(folder, stem, units, width, size, pipe):
    image = f"resize({size[0]},{size[1]})|-1_to_1"
    settings = {
        "stem": stem, "units": units, "width_factor": width, "batch": 8, "schedule": [0.5, 2],
        "learning_rate": 0.01, "batch_norm_batches": 3, "augment_labelled": image, "augment_eval": pipe,
    }
    sets = [word for key, value in settings.items() for word in ("-s", f"{key}={value}")]
    run("s4l-shard", "--in", folder / "images", "--out", folder / "shards")
    run("s4l-subset", "--in", folder / "shards", "--all", "--out", folder / "labelled.parquet")
    run("s4l-pretrain", "--in", folder / "shards", "--labelled", folder / "labelled.parquet", "--out",
        folder / "model", *sets)


def furthest(a, b):
    return float(max(np.abs(x - y).max() for x, y in zip(a, b, strict=True)))


def by_onnx(folder, images, pixels, logits, classes):
    """Largest differences of pixels and of logits."""
    for name in ("onnx", "again"):
        run("s4l-export", "--model", folder / "model", "--to", "onnx", "--out", folder / name)
    path = folder / "onnx/model.onnx"
    if path.read_bytes() != (folder / "again/model.onnx").read_bytes():
        sys.exit("two exports of a model differ")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    if json.loads({p.key: p.value for p in model.metadata_props}["s4l.classes"]) != classes:
        sys.exit("other classes in the metadata")
    model.graph.output.append(onnx.ValueInfoProto(name="prepared"))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    # A batch of two gives the same as two batches of one.
    found = [session.run(["prepared", "classes", "representation"], {"images": np.stack([i, i[::-1]])})
             for i in images]
    kernel, bias = (onnx.numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name))
                    for name in ("heads.classes.kernel", "heads.classes.bias"))
    by_head = [r @ kernel + bias for _, _, r in found]
    return (furthest([p[0] for p, _, _ in found], pixels),
            max(furthest([c[0] for _, c, _ in found], logits), furthest(by_head, [c for _, c, _ in found])))


@torch.no_grad()
def by_timm(folder, images, pixels, logits, classes):
    """Largest differences of logits for the same pixels, and of pixels and logits by timm's preparation."""
    out = folder / "huggingface"
    batch = torch.tensor(np.stack(pixels))
    model = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    wrapped = transformers.AutoModelForImageClassification.from_pretrained(out).eval()
    if [wrapped.config.id2label[n] for n in range(len(classes))] != classes:
        sys.exit(f"{wrapped.config.id2label}: other classes for transformers")
    card = huggingface_hub.ModelCard.load(out / "README.md")
    top1 = parquet.read_table(folder / "eval.parquet")
    top1 = np.mean(top1["label"].to_numpy() == top1["prediction"].to_numpy())
    if abs(card.data.eval_results[0].metric_value - top1) > 1e-9:
        sys.exit("another accuracy in the card")
    same = [furthest(found.numpy(), logits) for found in (model(batch), wrapped(pixel_values=batch).logits)]
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    processor = transformers.AutoImageProcessor.from_pretrained(out)
    pictures = [Image.fromarray(image.squeeze()) for image in images]
    own = torch.stack([prepare(picture) for picture in pictures])
    theirs = torch.cat([processor(picture, return_tensors="pt")["pixel_values"] for picture in pictures])
    if not torch.equal(own, theirs):
        sys.exit("transformers prepares otherwise than timm")
    difference = np.abs(own.numpy() - batch.numpy())
    return max(same), float(difference.max()), float(difference.mean()), furthest(model(own).numpy(), logits)


def back(folder, model_logits, classes):
    """Largest difference of logits between the export and the copy that timm saves, both read by s4l-eval."""
    out = folder / "huggingface"
    _, read = evaluated(folder, out)
    model = timm.create_model(f"local-dir:{out}", pretrained=True)
    timm.models.save_for_hf(model, folder / "saved", safe_serialization=True,
                            model_config={"label_names": classes})
    _, saved = evaluated(folder, folder / "saved")
    return furthest(read, model_logits), furthest(saved, model_logits)


def check(folder, photos, stem, units, width, channels, size, pipe, timms):
    exact = timms == "same"
    sizes = [size] if exact else [*[s for s in SIZES if min(s) >= max(size)], size]
    images = write_images(folder / "images", None if exact else photos, channels, sizes)
    train(folder, stem, units, width, size, pipe)
    keys, logits = evaluated(folder, folder / "model")
    images = [images[key] for key in keys] if channels == 3 else images
    pixels = [prepared(image, pipe) for image in images]
    classes = ["a", "b"]
    onnx_pixels, onnx_logits = by_onnx(folder, images, pixels, logits, classes)
    line = f"onnx_pixels={onnx_pixels:.1e} onnx_logits={onnx_logits:.1e}"
    must = [onnx_pixels, onnx_logits]
    code = 78 if timms is None else 0
    run("s4l-export", "--model", folder / "model", "--to", "huggingface", "--out", folder / "huggingface", "--eval",
        folder / "eval.parquet", code=code)
    if timms is None:
        line += " timm=78"
    else:
        same, largest, mean, own = by_timm(folder, images, pixels, logits, classes)
        read, saved = back(folder, logits, classes)
        line += (f" timm_logits={same:.1e} back={read:.1e} saved={saved:.1e} own_pixels={largest:.1e} "
                 f"mean={mean:.1e} own_logits={own:.1e}")
        must += [same, read] + ([largest, own, saved] if exact else [])
        # timm cannot express a crop before the resize, so another pipe is read back.
        must += [saved] if "inception" not in pipe else []
    return max(must) <= TOLERANCE, f"{line} largest_logit={np.abs(logits).max():.1f}"


def main():
    photos = sorted(pathlib.Path(sys.argv[1]).rglob("*.[jJ][pP]*[gG]")) if len(sys.argv) > 1 else []
    if len(sys.argv) > 1 and not photos:
        sys.exit(f"{sys.argv[1]}: no JPEG files")
    cases = [(c, photos) for c in CASES]
    # If every image has the size of the network, all are equal.
    cases += [((*c[:6], "same"), []) for c in CASES if c[6] == "near" and c[5].startswith(f"resize({c[4][0]}")
              and "crop" not in c[5]]
    equal = 0
    for case, photos in cases:
        with tempfile.TemporaryDirectory() as name:
            good, line = check(pathlib.Path(name), photos, *case)
        equal += good
        stem, units, width, channels, size, pipe, timms = case
        network = f"{stem} {'-'.join(map(str, units))}x{width} {size[0]}x{size[1]}x{channels}"
        print(f"CHECK export {network} {pipe} {timms or 'onnx'} {line} {'equal' if good else 'DIFFERENT'}", flush=True)
    print(f"CHECK export cases={len(cases)} equal={equal}")
    sys.exit(equal != len(cases))


if __name__ == "__main__":
    main()
