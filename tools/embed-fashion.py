#!/usr/bin/env python3
"""Makes the embedded data sets from the IDX files of Fashion-MNIST.

    tools/embed-fashion.py SOURCE OUT --train 2000
    tools/embed-fashion.py /usr/share/datasets/fashion-mnist pipelines/fashion/data --train 2000
    tools/embed-fashion.py /usr/share/datasets/fashion-mnist pipelines/smoke/data --train 40 --test 20

Takes the first N images of each class in file order and keeps file order. Needs Python 3 and the
zstd command; prints the sha256 of everything read and written.
"""

import argparse
import gzip
import hashlib
import pathlib
import struct
import subprocess

CLASSES = [
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
]


def read(path):
    raw = path.read_bytes()
    print(f"{hashlib.sha256(raw).hexdigest()}  source/{path.name}")
    return gzip.decompress(raw)


def write(path, data):
    path.write_bytes(data)
    # A file argument, not a pipe: zstd then records the size and fits its window to it.
    subprocess.run(
        ["zstd", "--ultra", "-22", "-q", "-f", "--rm", "--no-progress", str(path)], check=True
    )
    packed = path.with_name(path.name + ".zst")
    print(f"{hashlib.sha256(packed.read_bytes()).hexdigest()}  {packed.name}")


def embed(source, out, prefix, per_class):
    images = read(source / f"{prefix}-images-idx3-ubyte.gz")
    labels = read(source / f"{prefix}-labels-idx1-ubyte.gz")
    magic, count, height, width = struct.unpack(">4I", images[:16])
    label_magic, label_count = struct.unpack(">2I", labels[:8])
    assert (magic, label_magic, label_count) == (0x803, 0x801, count), "not MNIST-like IDX files"
    size = height * width
    pixels, labels = images[16:], labels[8:]
    assert len(pixels) == count * size and len(labels) == count, "truncated IDX files"

    seen = [0] * len(CLASSES)
    chosen = []
    for i, label in enumerate(labels):
        if per_class is None or seen[label] < per_class:
            seen[label] += 1
            chosen.append(i)
    assert len(set(seen)) == 1, f"unbalanced: {seen}"

    header = struct.pack(">4I", magic, len(chosen), height, width)
    picked = b"".join(pixels[i * size : (i + 1) * size] for i in chosen)
    write(out / f"{prefix}-images-idx3-ubyte", header + picked)
    header = struct.pack(">2I", label_magic, len(chosen))
    write(out / f"{prefix}-labels-idx1-ubyte", header + bytes(labels[i] for i in chosen))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=pathlib.Path, help="folder of the four .gz files")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--train", type=int, help="training images per class [default: all]")
    parser.add_argument("--test", type=int, help="test images per class [default: all]")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    embed(args.source, args.out, "train", args.train)
    embed(args.source, args.out, "t10k", args.test)
    (args.out / "classes.txt").write_text("\n".join(CLASSES) + "\n")


if __name__ == "__main__":
    main()
