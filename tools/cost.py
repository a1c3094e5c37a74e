#!/usr/bin/env python3
"""Hours, bytes and cost of the rows of pipelines/imagenet, as in docs/SCALE.md: `tools/cost.py` prints
its tables. Only arithmetic: the rates are those of docs/ENGINE.md and docs/LOADER.md, all other numbers
are here."""

# ResNet-50-v2 at 224 on two Zen 5 cores with AVX-512, measured: images a second.
TRAIN, TRAIN_BF16, INFER = 17.3, 23.1, 66.3
DECODE = 4360 / 2  # crops of 224 from JPEGs of 500 x 375, per core, measured
# Assumed, never run: the share that 64 cores reach of 32 times two cores, 16 nodes of 16 times one node, and 8
# GPUs of 8 times one GPU; the speed of an H100; prices in dollars.
NODE, NODES, GPUS, H100 = 0.85, 0.85, 0.9, 2500.0
CORE_HOUR, GPU_HOUR = 0.04, 2.50
WIDE = 15.7  # operations of width factor 16 over those of 4
IMAGES, JPEG, TEST = 1_281_167, 110e3, 50_000

# From `--dry-run`: steps, images of the main pass, of VAT, width, decoded images per step, MB of memory.
ROWS = {
    "supervised_1p": (50_000, 256, 0, 1, 256, 11_333),
    "supervised_10p": (100_000, 256, 0, 1, 256, 11_333),
    "pseudo_labels": (500_400, 256, 0, 1, 256, 11_333),
    "vat": (100_000, 512, 512, 1, 512, 21_647),
    "vat_entmin": (100_000, 512, 512, 1, 512, 21_647),
    "s4l_rotation": (100_000, 2_048, 0, 1, 512, 83_534),
    "s4l_exemplar": (50_000, 8_192, 0, 1, 1_024, 331_160),
    "moam_step1": (200_000, 1_024, 512, WIDE, 256, 172_892),
    "moam_step2": (180_162, 1_024, 512, WIDE, 256, 172_892),
    "moam_step3": (20_000, 1_024, 512, WIDE, 256, 172_892),
}
PARAMETERS = {1: 25_549_352, WIDE: 383_573_228}


def units(main, vat):
    """The cost of a step in training images. A training image is three passes: forward, and the gradients of
    inputs and of weights. VAT's direction takes three passes, the tangent among them, and its loss three."""
    return main + vat * 2


def seconds(main, vat, width, bf16):
    """Seconds of a step on two cores."""
    return units(main, vat) * width / (TRAIN_BF16 if bf16 else TRAIN)


def line(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |")


def number(value):
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def hours():
    line("row", "memory, GB", "2 cores f32", "2 cores bf16", "64 cores bf16", "16 nodes, ranks", "8 H100", "$, 64 cores", "$, 8 H100")
    line(*["---"] + ["---:"] * 8)
    total = [0.0] * 7
    for name, (steps, main, vat, width, _, memory) in ROWS.items():
        f32, bf16 = (steps * seconds(main, vat, width, b) / 3600 for b in (False, True))
        node = bf16 / (32 * NODE)
        gpus = steps * units(main, vat) * width / H100 / 3600 / (8 * GPUS)
        all_ = [f32, bf16, node, node / (16 * NODES), gpus, node * 64 * CORE_HOUR, gpus * 8 * GPU_HOUR]
        total = [a + b for a, b in zip(total, all_)]
        line(f"`{name}`", number(memory / 1000), *map(number, all_))
    line("all", "", *map(number, total))


def labels():
    views = 20
    print(f"\nPseudo labels, {views} views; the table {IMAGES * 4000 / 1e9:.1f} GB, in {-(-IMAGES // 256):,} pieces:\n")
    line("network", "2 cores", "64 cores, an array of 32 parts", "16 nodes, 512 parts", "evaluation of 50,000, 64 cores")
    line(*["---"] + ["---:"] * 4)
    for name, width in (("ResNet-50", 1), ("4 times as wide", WIDE)):
        two = IMAGES * views * width / INFER / 3600
        test = TEST * width / INFER / 3600 / (32 * NODE)
        line(name, f"{number(two)} h", f"{number(two / 32)} h", f"{number(two / 512)} h", f"{test * 60:.0f} min")


def storage():
    print("\nWhat a step of training asks of storage, and ranks would of the network:\n")
    line("row", "64 cores: images/s", "MB/s", "decoding, cores", "16 nodes: MB/s", "gradients, MB a rank", "share of a step at 10 Gb/s", "at 100 Gb/s")
    line(*["---"] + ["---:"] * 7)
    for name, (steps, main, vat, width, decoded, _) in ROWS.items():
        step = seconds(main, vat, width, True) / (32 * NODE)
        rate = decoded / step
        ranks = step / (16 * NODES)
        sent = 2 * 15 / 16 * 4 * PARAMETERS[width]
        share = [sent / speed / (sent / speed + ranks) for speed in (1.1e9, 11e9)]
        line(f"`{name}`", number(rate), number(rate * JPEG / 1e6), f"{rate / DECODE:.2f}", number(decoded / ranks * JPEG / 1e6),
             number(sent / 1e6), *(f"{s:.0%}" for s in share))


def files():
    print("\nBytes:\n")
    line("what", "GB")
    line("---", "---:")
    line("images, and as much again for shards", f"{IMAGES * JPEG / 1e9:.0f}")
    line("sharding in parts: read", f"{2 * IMAGES * JPEG / 1e9:.0f}, once to hash and once to write, however many parts")
    for name, width in (("ResNet-50", 1), ("4 times as wide", WIDE)):
        weights = 4 * PARAMETERS[width] / 1e9
        line(f"model, {name}; its two checkpoints", f"{weights:.1f}; {2 * 3 * weights:.1f}")
    line("`labels.parquet`; while it is joined from its pieces", f"{IMAGES * 4000 / 1e9:.1f}; {2 * IMAGES * 4000 / 1e9:.1f}")
    line("`eval.parquet`", f"{TEST * 4000 / 1e9:.1f}")


hours()
labels()
storage()
files()
