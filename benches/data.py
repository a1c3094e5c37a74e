"""The other loaders of data.sh, and the rounds in which all loaders take turns.

data.py OURS PHOTOS [CASE ...]   the comparison; OURS is the program built from data.rs
data.py --peer CASE VARIANT      one loader: seconds on stdin, a line of JSON on stdout
"""

import glob
import importlib.metadata
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time

ROUNDS = int(os.environ.get("ROUNDS", 5))
SECONDS = float(os.environ.get("SECONDS_EACH", 2))
DATA = "target/bench-data"
THREADS = 2
# Photographs of each size: number, width, height, JPEG quality.
PHOTOS = {"photos500": (12000, 500, 375, 97), "photos1600": (1500, 1600, 1200, 92)}

# Case: our program's case, threads and images; the other loaders.
CASES = {
    "rows28": ("rows", 1, "rows28", ["huggingface-datasets", "huggingface-datasets-arrow", "numpy-in-memory"]),
    "blobs": ("blobs", 1, "photos500", ["mosaicml-streaming", "huggingface-datasets", "huggingface-datasets-arrow"]),
    "cold": ("cold", 1, "photos500", ["mmap", "pread"]),
    "jpeg500": ("jpeg", THREADS, "photos500", ["torchvision", "torchvision-DataLoader", "ffcv"]),
    "jpeg1600": ("jpeg", THREADS, "photos1600", ["torchvision", "torchvision-DataLoader", "ffcv"]),
}


def photographs(job):
    """Photographs made from one wallpaper: parts of it, scaled down."""
    from PIL import Image

    path, folder, numbers, width, height, quality = job
    with Image.open(path) as wallpaper:
        wallpaper = wallpaper.convert("RGB")
    largest = min(wallpaper.width / width, wallpaper.height / height)
    for number in numbers:
        draw = random.Random(number)
        scale = draw.uniform(0.3, 1.0) * largest
        w, h = int(width * scale), int(height * scale)
        x, y = draw.randint(0, wallpaper.width - w), draw.randint(0, wallpaper.height - h)
        image = wallpaper.resize((width, height), Image.BICUBIC, (x, y, x + w, y + h))
        image.save(f"{folder}/train/{number % 10}/{number:05}.jpg", quality=quality)


def make_photos(name, wallpapers):
    import concurrent.futures
    from PIL import Image

    count, width, height, quality = PHOTOS[name]
    folder = f"{DATA}/{name}"
    if os.path.exists(folder):
        return
    paths = []
    for path in sorted(glob.glob(f"{wallpapers}/**/*.jp*g", recursive=True)):
        with Image.open(path) as image:
            if not os.path.islink(path) and image.width >= 1600 and image.height >= 1200:
                paths.append(path)
    assert paths, f"no large JPEG files below {wallpapers}"
    shutil.rmtree(f"{folder}.part", ignore_errors=True)
    for c in range(10):
        os.makedirs(f"{folder}.part/train/{c}")
    jobs = [
        (path, f"{folder}.part", range(i, count, len(paths)), width, height, quality)
        for i, path in enumerate(paths)
    ]
    with concurrent.futures.ProcessPoolExecutor(THREADS) as pool:
        list(pool.map(photographs, jobs))
    os.rename(f"{folder}.part", folder)


def make_rows28():
    """70,000 images of 28x28: the project's part of Fashion-MNIST, repeated."""
    import gzip
    import struct

    folder = f"{DATA}/rows28"
    if os.path.exists(folder):
        return
    pixels = b""
    for split in ["train", "t10k"]:
        path = f"pipelines/fashion/data/{split}-images-idx3-ubyte.zst"
        pixels += subprocess.run(["zstd", "-dcq", path], check=True, capture_output=True).stdout[16:]
    rows = 70000
    pixels = (pixels * (rows * 784 // len(pixels) + 1))[: rows * 784]
    os.makedirs(f"{folder}.part", exist_ok=True)
    with gzip.open(f"{folder}.part/train-images-idx3-ubyte.gz", "wb", compresslevel=1) as file:
        file.write(struct.pack(">4i", 2051, rows, 28, 28) + pixels)
    with gzip.open(f"{folder}.part/train-labels-idx1-ubyte.gz", "wb") as file:
        file.write(struct.pack(">2i", 2049, rows) + bytes(i % 10 for i in range(rows)))
    os.rename(f"{folder}.part", folder)


def shards(name):
    return sorted(glob.glob(f"{DATA}/{name}.shards/train-*.parquet"))


def answer(step, size):
    """Answers each line of stdin with the rate of `step`, which reads `size` images."""
    for line in sys.stdin:
        seconds, images = float(line), 0
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            step()
            images += size
        print(json.dumps({"rate": images / (time.perf_counter() - start)}), flush=True)


def permutations(n, size):
    """Batches of indices, shuffled again in each epoch."""
    import numpy

    epoch = 0
    while True:
        order = numpy.random.default_rng(epoch).permutation(n)
        yield from (order[i : i + size] for i in range(0, n - size + 1, size))
        epoch += 1


def hf_dataset(files):
    import datasets

    datasets.disable_progress_bars()
    return datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=f"{DATA}/cache"
    )


def rows28(variant):
    import numpy

    import pyarrow
    import pyarrow.parquet

    # Their library has no fixed-size binary type: rows of any length are the nearest one.
    path = f"{DATA}/rows28.parquet"
    if not os.path.exists(path):
        table = pyarrow.parquet.read_table(shards("rows28"), columns=["pixels"])
        table = table.cast(pyarrow.schema([pyarrow.field("pixels", pyarrow.binary())]))
        pyarrow.parquet.write_table(table, path)
    data = hf_dataset([path])
    batches = permutations(len(data), 256)
    if variant == "numpy-in-memory":
        rows = data.with_format("arrow")[:]["pixels"].to_pylist()
        pixels = numpy.frombuffer(b"".join(rows), numpy.uint8).reshape(-1, 784)

        def step():
            return pixels[next(batches)]  # only the bytes

    elif variant == "huggingface-datasets":

        def step():
            rows = data[next(batches)]["pixels"]
            pixels = numpy.frombuffer(b"".join(rows), numpy.uint8)
            return pixels.reshape(256, 784).astype(numpy.float32) / 127.5 - 1

    else:
        # Not by their manual: straight from Arrow's buffers.
        arrow = data.with_format("arrow")

        def step():
            column = arrow[next(batches)]["pixels"].combine_chunks()
            pixels = numpy.frombuffer(column.buffers()[2], numpy.uint8)[-256 * 784 :]
            return pixels.reshape(256, 784).astype(numpy.float32) / 127.5 - 1

    answer(step, 256)


def blobs(variant):
    if variant == "mosaicml-streaming":
        import streaming

        folder = f"{DATA}/photos500.mds"
        if not os.path.exists(folder):
            with streaming.MDSWriter(
                out=f"{folder}.part", columns={"image": "bytes"}, size_limit=1 << 28
            ) as out:
                for path in sorted(glob.glob(f"{DATA}/photos500/train/*/*.jpg")):
                    with open(path, "rb") as file:
                        out.write({"image": file.read()})
            os.rename(f"{folder}.part", folder)
        data = streaming.StreamingDataset(local=folder, shuffle=False, batch_size=32)
        batches = permutations(len(data), 32)
        answer(lambda: [data[int(i)]["image"] for i in next(batches)], 32)
    else:
        import datasets

        data = hf_dataset(shards("photos500")).select_columns(["image"])
        batches = permutations(len(data), 32)
        if variant == "huggingface-datasets":
            data = data.cast_column("image", datasets.Image(decode=False))
            answer(lambda: [image["bytes"] for image in data[next(batches)]["image"]], 32)
            return
        # Not by their manual: straight from Arrow's buffers.
        data = data.with_format("arrow")
        answer(lambda: data[next(batches)]["image"].combine_chunks(), 32)


def jpeg(variant, name):
    import numpy
    import torch

    torch.set_num_threads(1)
    folder = f"{DATA}/{name}/train"
    if variant == "ffcv":
        return ffcv(name)
    import torchvision
    from torchvision.transforms import v2

    if variant == "torchvision-DataLoader":
        transforms = torchvision.transforms
        data = torchvision.datasets.ImageFolder(
            folder,
            transforms.Compose(
                [
                    transforms.RandomResizedCrop(224),
                    transforms.RandomHorizontalFlip(),
                    transforms.ToTensor(),
                    transforms.Normalize([0.5] * 3, [0.5] * 3),
                ]
            ),
        )
        loader = torch.utils.data.DataLoader(
            data, batch_size=64, shuffle=True, num_workers=THREADS, drop_last=True,
            persistent_workers=True,
        )

        def batches():
            while True:
                yield from loader

        endless = batches()
        return answer(lambda: next(endless), 64)

    # Its decoder and crop in two threads, on files in memory, without a loader.
    from concurrent.futures import ThreadPoolExecutor

    files = []
    for path in sorted(glob.glob(f"{folder}/*/*.jpg"))[:1000]:
        files.append(torch.from_numpy(numpy.fromfile(path, numpy.uint8)))
    crop = v2.Compose(
        [v2.RandomResizedCrop(224, antialias=False), v2.RandomHorizontalFlip()]
    )
    rgb = torchvision.io.ImageReadMode.RGB
    work = lambda i: crop(torchvision.io.decode_jpeg(files[i], mode=rgb))
    pool = ThreadPoolExecutor(THREADS)
    chunks = permutations(len(files), 64)

    def step():
        chunk = next(chunks)
        halves = [chunk[t::THREADS] for t in range(THREADS)]
        list(pool.map(lambda half: [work(i) for i in half], halves))

    answer(step, 64)


def ffcv(name):
    import torch
    import torchvision
    from ffcv.fields import IntField, RGBImageField
    from ffcv.fields.decoders import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, ToTensor
    from ffcv.writer import DatasetWriter

    path = f"{DATA}/{name}.beton"
    if not os.path.exists(path):
        data = torchvision.datasets.ImageFolder(f"{DATA}/{name}/train")
        # It writes all images again.
        quality = PHOTOS[name][3]
        fields = {"image": RGBImageField(write_mode="jpg", jpeg_quality=quality), "label": IntField()}
        DatasetWriter(path, fields, num_workers=THREADS).from_indexed_dataset(data)
    pipeline = [RandomResizedCropRGBImageDecoder((224, 224)), RandomHorizontalFlip(), ToTensor()]
    loader = Loader(
        path, batch_size=64, num_workers=THREADS, order=OrderOption.RANDOM,
        pipelines={"image": pipeline, "label": None}, drop_last=True,
    )

    def batches():
        while True:
            yield from loader

    endless = batches()
    answer(lambda: next(endless), 64)


def peer(case, variant):
    if case == "rows28":
        rows28(variant)
    elif case == "blobs":
        blobs(variant)
    else:
        jpeg(variant, CASES[case][2])


PACKAGES = {
    "huggingface-datasets": "datasets",
    "huggingface-datasets-arrow": "datasets",
    "mosaicml-streaming": "mosaicml-streaming",
    "numpy-in-memory": "numpy",
    "torchvision": "torchvision",
    "torchvision-DataLoader": "torchvision",
    "ffcv": "ffcv",
}


def version(variant):
    """The version of a variant's package; empty for our own program, None if it is absent."""
    if variant not in PACKAGES:
        return ""
    try:
        return "-" + ".".join(importlib.metadata.version(PACKAGES[variant]).split(".")[:2])
    except importlib.metadata.PackageNotFoundError:
        return None


class Side:
    """A loader, stopped while the others have their turns: some would read ahead meanwhile."""

    def __init__(self, command):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )
        self.rates = []

    def round(self, seconds, keep=True):
        os.killpg(self.process.pid, signal.SIGCONT)
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("{"):
                break
        else:
            sys.exit(f"data.py: {self.process.args} ended early")
        os.killpg(self.process.pid, signal.SIGSTOP)
        if keep:
            self.rates.append(json.loads(line)["rate"])

    def end(self):
        os.killpg(self.process.pid, signal.SIGCONT)
        self.process.stdin.close()
        self.process.wait()


def compare(ours, case):
    name, threads, images, others = CASES[case]
    others = [other for other in others if version(other) is not None]
    folder = f"{DATA}/{images}.shards"
    sides = {"ours": Side([ours, name, folder, str(threads)])}
    for other in others:
        command = [sys.executable, "-W", "ignore", __file__, "--peer", case, other]
        if version(other) == "":
            command = [ours, other, folder, str(threads)]
        sides[other] = Side(command)
    for side in sides.values():
        side.round(SECONDS / 2, keep=False)
    for _ in range(ROUNDS):
        for side in sides.values():
            side.round(SECONDS)
    for side in sides.values():
        side.end()
    rate = {name: statistics.median(side.rates) for name, side in sides.items()}
    for other in others:
        ratio = rate["ours"] / rate[other]
        print(
            f"BENCH data/{case} ours={rate['ours']:.0f} peer={rate[other]:.0f} "
            f"ratio={ratio:.2f} peer_is={other}{version(other)}",
            flush=True,
        )


def main(ours, photos, cases):
    unknown = [case for case in cases if case not in CASES]
    if unknown:
        sys.exit(f"data.py: no case {unknown[0]}; there are {', '.join(CASES)}")
    for case in cases or CASES:
        images = CASES[case][2]
        if images == "rows28":
            make_rows28()
        else:
            make_photos(images, photos)
        subprocess.run(
            ["target/release/s4l-shard", "--in", f"{DATA}/{images}", "-q",
             "--out", f"{DATA}/{images}.shards"],
            check=True,
        )
        compare(ours, case)


if __name__ == "__main__":
    if sys.argv[1] == "--peer":
        peer(*sys.argv[2:])
    else:
        main(sys.argv[1], sys.argv[2], sys.argv[3:])
