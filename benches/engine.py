"""The peers' side of engine.sh, and the rounds in which both sides take turns.

engine.py OURS NET ...      the comparison; OURS is the program built from engine.rs
engine.py NET MODE VARIANT  one peer: seconds on stdin, a line of JSON on stdout
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

THREADS = 2
ROUNDS = int(os.environ.get("ROUNDS", 5))
SECONDS = float(os.environ.get("SECONDS_EACH", 3))
CLASSES = 10
# units, base width, ImageNet stem, image size, batch of training and of inference
NETS = {
    "a16": ([2, 2, 2, 2], 16, False, 32, 128, 128),
    "a32": ([2, 2, 2, 2], 32, False, 32, 128, 128),
    "r50_64": ([3, 4, 6, 3], 64, True, 64, 32, 128),
    "r50_224": ([3, 4, 6, 3], 64, True, 224, 8, 128),
}
TRAIN = {
    "f32": ["channels_last", "compile"],
    "bf16": ["channels_last-bf16", "compile-bf16"],
}
INFER = ["channels_last", "compile", "onnxruntime"]
# For $ISA: PyTorch's own kernels, and oneDNN's.
FORCED = {
    "AVX512-BF16": ("avx512", "AVX512_CORE_BF16"),
    "AVX-512": ("avx512", "AVX512_CORE"),
    "AVX2": ("avx2", "AVX2"),
    "any": ("default", "SSE41"),
}


def memory(field):
    """A field of this process's status, in MiB."""
    with open("/proc/self/status") as status:
        return next(int(l.split()[1]) / 1024 for l in status if l.startswith(field))


def network(name):
    import torch.nn as nn
    import torch.nn.functional as F

    class Unit(nn.Module):
        def __init__(self, inputs, middle, stride):
            super().__init__()
            outputs = 4 * middle
            self.norm1 = nn.BatchNorm2d(inputs)
            self.conv1 = nn.Conv2d(inputs, middle, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(middle)
            self.conv2 = nn.Conv2d(middle, middle, 3, stride, 1, bias=False)
            self.norm3 = nn.BatchNorm2d(middle)
            self.conv3 = nn.Conv2d(middle, outputs, 1, bias=False)
            project = inputs != outputs or stride > 1
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if project else None

        def forward(self, x):
            p = F.relu(self.norm1(x), inplace=True)
            shortcut = self.shortcut(p) if self.shortcut is not None else x
            y = self.conv2(F.relu(self.norm2(self.conv1(p)), inplace=True))
            return self.conv3(F.relu(self.norm3(y), inplace=True)) + shortcut

    class Net(nn.Module):
        def __init__(self, units, base, imagenet):
            super().__init__()
            self.imagenet = imagenet
            kernel, stride = (7, 2) if imagenet else (3, 1)
            self.stem = nn.Conv2d(3, base, kernel, stride, kernel // 2, bias=False)
            inputs, blocks = base, []
            for block, count in enumerate(units):
                for unit in range(count):
                    stride = 2 if block > 0 and unit == 0 else 1
                    blocks.append(Unit(inputs, base << block, stride))
                    inputs = 4 * (base << block)
            self.blocks = nn.Sequential(*blocks)
            self.norm = nn.BatchNorm2d(inputs)
            self.head = nn.Linear(inputs, CLASSES)

        def forward(self, x):
            x = self.stem(x)
            if self.imagenet:
                x = F.max_pool2d(x, 3, 2, 1)
            x = F.relu(self.norm(self.blocks(x)), inplace=True)
            return self.head(x.mean((2, 3)))

    return Net(*NETS[name][:3])


def operations(name):
    """Floating-point operations of the convolutions in a forward pass of one image."""
    import torch

    net = network(name)
    total = 0

    def count(module, _, output):
        nonlocal total
        if isinstance(module, torch.nn.Conv2d):
            total += 2 * output.numel() * module.in_channels * module.kernel_size[0] ** 2

    for module in net.modules():
        module.register_forward_hook(count)
    size = NETS[name][3]
    with torch.no_grad():
        net(torch.zeros(1, 3, size, size))
    return total


def peer(name, mode, variant):
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    if mode == "gemm":
        n = 2048
        a, b = torch.randn(n, n), torch.randn(n, n)
        rates(2 * n**3 / 1e9, lambda: a @ b)
        return
    size = NETS[name][3]
    batch = NETS[name][4 if mode == "train" else 5]
    if variant == "onnxruntime":
        import numpy
        import onnxruntime

        path = os.path.join(tempfile.mkdtemp(), "net.onnx")
        example = torch.randn(batch, 3, size, size)
        torch.onnx.export(network(name).eval(), example, path, dynamo=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: numpy.array(example)}
        rates(batch, lambda: session.run(None, feed))
        return
    net = network(name).to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (batch,))
    run = torch.compile(net) if "compile" in variant else net
    if mode == "infer":
        net.eval()

        def step():
            with torch.inference_mode():
                run(images)
    else:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)

        def step():
            with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in variant):
                loss = F.cross_entropy(run(images), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    rates(batch, step)


def rates(work, step):
    """Answers each line of stdin: work a second, from the median step, and the process's peak memory."""
    for _ in range(3):
        step()
    print("{}", flush=True)
    for line in sys.stdin:
        times, start = [], time.perf_counter()
        while len(times) < 3 or time.perf_counter() - start < float(line):
            begun = time.perf_counter()
            step()
            times.append(time.perf_counter() - begun)
        rate = work / statistics.median(times)
        print(json.dumps({"rate": rate, "mib": memory("VmHWM:")}), flush=True)


class Side:
    """A process that runs only when told to."""

    def __init__(self, label, command):
        self.label = label
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.rates, self.mib = [], 0.0
        self.alive = self.process.stdout.readline() != ""

    def round(self):
        print(SECONDS, file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        self.rates.append(answer["rate"])
        self.mib = answer["mib"]

    def median(self):
        return statistics.median(self.rates)


def compare(what, ours, peers, unit=1.0):
    """Runs both sides in turn; prints the ratio to the fastest peer."""
    for p in peers:
        if not p.alive:
            print(f"# {what}: {p.label} does not run here", flush=True)
    peers = [p for p in peers if p.alive]
    for _ in range(ROUNDS):
        for side in [ours, *peers]:
            side.round()
    best = max(peers, key=Side.median)
    line(what, ours.median(), best.median(), best.label)
    for side in [ours, *peers]:
        low, high = min(side.rates), max(side.rates)
        print(f"#   {side.label}: {side.median():.1f} a second ({low:.1f} to {high:.1f}), {side.mib:.0f} MiB")
    return best


def line(what, ours, peer, peer_is):
    ratio = ours / peer
    print(f"BENCH {what} ours={ours:.1f} peer={peer:.1f} ratio={ratio:.2f} peer_is={peer_is}", flush=True)


def main(program, names):
    import torch

    def started(name, mode, variants):
        version = f"torch-{torch.__version__.split('+')[0]}"
        for variant in variants:
            label = "onnxruntime" if variant == "onnxruntime" else f"{version}-{variant}"
            yield Side(label, [sys.executable, __file__, name, mode, variant])

    isa = os.environ.get("ISA")
    if isa:
        os.environ["ATEN_CPU_CAPABILITY"], os.environ["ONEDNN_MAX_CPU_ISA"] = FORCED[isa]
    print(f"# {cpu()}, {THREADS} threads, {ROUNDS} rounds of {SECONDS} s; memory is a process's peak")
    print(f"# instructions: {isa + ', onnxruntime the best' if isa else 'the best of this machine'}")
    peaks = [Side("gemm-crate", [program, "gemm", "gemm", "f32"]), *started("a16", "gemm", ["gemm"])]
    for _ in range(ROUNDS):
        for side in peaks:
            side.round()
    peak = max(peaks, key=Side.median)
    for side in peaks:
        print(f"#   {side.label}: {side.median():.0f} GFLOP/s in a product of 2048 x 2048 matrices")
        side.process.kill()
    for name in names:
        for precision, variants in TRAIN.items():
            what = f"engine/{name}/{precision}"
            ours = Side("ours", [program, name, "train", precision])
            peers = list(started(name, "train", variants))
            best = compare(f"{what}/train", ours, peers)
            line(f"{what}/memory", ours.mib, best.mib, best.label)
            if precision == "f32":
                # One forward pass, and two passes of the same size backward.
                achieved = ours.median() * 3 * operations(name) / 1e9
                line(f"{what}/share", achieved, peak.median(), peak.label)
            for side in [ours, *peers]:
                side.process.kill()
        ours = Side("ours", [program, name, "infer", "f32"])
        peers = list(started(name, "infer", INFER))
        compare(f"engine/{name}/f32/infer", ours, peers)
        for side in [ours, *peers]:
            side.process.kill()


def cpu():
    with open("/proc/cpuinfo") as info:
        names = [l.split(":")[1].strip() for l in info if l.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    if sys.argv[1] in NETS:
        peer(*sys.argv[1:])
    else:
        main(sys.argv[1], sys.argv[2:] or list(NETS))
