"""Samples of every input format, written by the libraries that people use for them.

    python tests/golden/inputs.py        (pillow, webdataset, tensorflow, datasets, scipy, zstandard)

The images are the first ones of pipelines/smoke/data. tests/data/input.rs reads the samples.
"""

import io
import json
import pathlib
import subprocess
import tarfile

import datasets
import numpy as np
import scipy.io
import tensorflow as tf
import webdataset
from PIL import Image, ImageOps

ROOT = pathlib.Path(__file__).parent
OUT = ROOT / "inputs"
DATA = ROOT.parent.parent / "pipelines/smoke/data"
CLASSES = (DATA / "classes.txt").read_text().splitlines()


def idx(name):
    return subprocess.run(["zstd", "-dc", DATA / f"{name}.zst"], capture_output=True, check=True).stdout


images = np.frombuffer(idx("train-images-idx3-ubyte")[16:], np.uint8).reshape(-1, 28, 28)
labels = np.frombuffer(idx("train-labels-idx1-ubyte")[8:], np.uint8)


def encoded(row, **kind):
    buffer = io.BytesIO()
    Image.fromarray(images[row]).save(buffer, **(kind or {"format": "JPEG", "quality": 90}))
    return buffer.getvalue()


def add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


# ILSVRC-2012: the training tar of tars, the validation tar, its ground truth and the devkit's meta.mat.
# As in the devkit, the numbers of the classes are not in the order of their names.
SYNSETS = ["n02119789", "n02100735", "n01440764"]
folder = OUT / "ilsvrc"
folder.mkdir(parents=True, exist_ok=True)
with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w", format=tarfile.USTAR_FORMAT) as outer:
    for s, synset in enumerate(SYNSETS):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as inner:
            for i in range(4):
                add(inner, f"{synset}_{i + 1}.JPEG", encoded(4 * s + i))
        add(outer, f"{synset}.tar", buffer.getvalue())
with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
    for i in range(6):
        add(tar, f"ILSVRC2012_val_{i + 1:08}.JPEG", encoded(12 + i))
(folder / "ILSVRC2012_validation_ground_truth.txt").write_text("3\n1\n2\n1\n1\n3\n")
fields = [
    ("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O"),
    ("children", "O"), ("wordnet_height", "O"), ("num_train_images", "O"),
]
rows = [(float(i + 1), s, "words, of it", "gloss", 0.0, np.zeros((0, 0)), 0.0, 1300.0) for i, s in enumerate(SYNSETS)]
rows.append((4.0, "n00001740", "entity", "that which exists", 3.0, np.array([1.0, 2.0, 3.0]), 1.0, 0.0))
synsets = np.array(rows, dtype=fields).reshape(-1, 1)
scipy.io.savemat(folder / "meta.mat", {"synsets": synsets}, do_compression=True)

# WebDataset: .cls with a number, then .json with a number.
folder = OUT / "webdataset"
folder.mkdir(exist_ok=True)
for shard in range(2):
    with webdataset.TarWriter(str(folder / f"train-{shard:06}.tar"), mtime=0, user="", group="") as sink:
        for row in range(6 * shard, 6 * shard + 6):
            sample = {"__key__": f"{row:06}", "jpg": encoded(row)}
            label = int(labels[row])
            sample.update({"cls": label} if shard == 0 else {"json": {"label": label, "from": "smoke"}})
            sink.write(sample)

# TFRecord in the layout of slim and tensor2tensor, labels from 1.
folder = OUT / "tfrecord"
folder.mkdir(exist_ok=True)


def feature(value):
    if isinstance(value, int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


for name, rows in [("train-00000-of-00002", range(6)), ("train-00001-of-00002", range(6, 12)),
                   ("dev-00000-of-00001", range(12, 16))]:
    with tf.io.TFRecordWriter(str(folder / f"image_imagenet-{name}")) as writer:
        for row in rows:
            fields = {
                "image/encoded": encoded(row),
                "image/class/label": int(labels[row]) + 1,
                "image/class/text": CLASSES[labels[row]].encode(),
                "image/filename": f"{row:06}.JPEG".encode(),
                "image/height": 28,
                "image/width": 28,
                "image/colorspace": b"RGB",
            }
            example = tf.train.Example(features=tf.train.Features(feature={k: feature(v) for k, v in fields.items()}))
            writer.write(example.SerializeToString(deterministic=True))

# Parquet of Hugging Face datasets.
folder = OUT / "huggingface"
folder.mkdir(exist_ok=True)
features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
for name, rows in [("train", range(12)), ("validation", range(12, 16))]:
    table = {
        "image": [{"bytes": encoded(r, format="PNG"), "path": f"{r:06}.png"} for r in rows],
        "label": [int(labels[r]) for r in rows],
    }
    datasets.Dataset.from_dict(table, features=features).to_parquet(folder / f"{name}-00000-of-00001.parquet")

# Kinds of images, and Pillow's result for each: height, width, and the mean of red, green and blue.
folder = OUT / "kinds"
folder.mkdir(exist_ok=True)
colour = Image.fromarray(np.stack([images[1], images[5], images[8]], axis=2)[:, 4:24])
grey = Image.fromarray(images[1][:, 4:24])
alpha = colour.convert("RGBA")
alpha.putalpha(Image.fromarray(images[2][:, 4:24]))
jpeg = {"format": "JPEG", "quality": 95, "subsampling": 0}
kinds = {
    "baseline.jpg": (colour, jpeg),
    "progressive.jpg": (colour, {**jpeg, "progressive": True}),
    "subsampled.jpg": (colour, {**jpeg, "subsampling": 2}),
    "restarts.jpg": (colour, {**jpeg, "restart_marker_rows": 1}),
    "grey.jpg": (grey, {"format": "JPEG", "quality": 95}),
    "cmyk.jpg": (colour.convert("CMYK"), jpeg),
    "rgb.png": (colour, {"format": "PNG"}),
    "alpha.png": (alpha, {"format": "PNG"}),
    "palette.png": (colour.quantize(16), {"format": "PNG"}),
    "bits16.png": (Image.fromarray(images[1][:, 4:24].astype(np.uint16) * 257), {"format": "PNG"}),
    "lossy.webp": (colour, {"format": "WEBP", "quality": 95}),
    "lossless.webp": (colour, {"format": "WEBP", "lossless": True}),
    "one.png": (colour.crop((9, 9, 10, 10)), {"format": "PNG"}),
}
for orientation in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = orientation
    kinds[f"exif{orientation}.jpg"] = (colour, {**jpeg, "exif": exif})
exif = Image.Exif()
exif[0x0112] = 6
kinds["exif6.png"] = (colour, {"format": "PNG", "exif": exif})
kinds["exif6.webp"] = (colour, {"format": "WEBP", "lossless": True, "exif": exif})
expected = {}
for name, (image, how) in kinds.items():
    image.save(folder / name, **how)
    shown = ImageOps.exif_transpose(Image.open(folder / name))
    if shown.mode == "I;16":
        shown = Image.fromarray((np.asarray(shown) / 257).round().astype(np.uint8))
    shown = np.asarray(shown.convert("RGB"), np.float64)
    corner = shown[: shown.shape[0] // 2, : shown.shape[1] // 2] if min(shown.shape[:2]) > 1 else shown
    expected[name] = {
        "height": shown.shape[0],
        "width": shown.shape[1],
        "mean": shown.mean(axis=(0, 1)).round(3).tolist(),
        "corner": corner.mean(axis=(0, 1)).round(3).tolist(),
    }
(OUT / "kinds.json").write_text(json.dumps(expected, indent=1) + "\n")
