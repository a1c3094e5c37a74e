#!/usr/bin/env python3
"""gpu-speed.py card FILE: rates of the card, and cuDNN's description of it into FILE.
gpu-speed.py compare ENGINE: images a second of training by ENGINE (benches/engine.rs) and by PyTorch, channels-last in
bfloat16, eager and compiled, in turns. tools/gpu.sh runs both."""

import ctypes
import json
import os
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../benches"))
import engine  # noqa: E402

# Network, images a step, and what PyTorch is asked for: compiling takes it a minute.
CASES = [("a32", 128, ["eager", "compiled"]), ("r50_224", 256, ["eager", "compiled"]), ("wide_224", 64, ["eager"])]
engine.NETS["wide_224"] = ([3, 4, 6, 3], 256, True, 224, 64, 64)
ROUNDS, SECONDS = 3, 2


def rate(work, step, seconds=2.0):
    """Work a second, of steps that only the end waits for."""
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    begun, steps = time.perf_counter(), 0
    while steps < 3 or time.perf_counter() - begun < seconds:
        for _ in range(5):
            step()
        torch.cuda.synchronize()
        steps += 5
    return work * steps / (time.perf_counter() - begun)


def description():
    """cuDNN's description of card 0, in the JSON that benches/cuda.rs takes."""
    cudnn = ctypes.CDLL("libcudnn.so.9")
    properties, card, count = ctypes.c_void_p(), ctypes.c_int32(0), ctypes.c_int64()

    def checked(status):
        if status:
            raise OSError(f"cuDNN: {status}")

    # A DEVICEPROP descriptor, with the attributes DEVICE_ID (INT32) and JSON_REPRESENTATION (CHAR).
    checked(cudnn.cudnnBackendCreateDescriptor(38, ctypes.byref(properties)))
    checked(cudnn.cudnnBackendSetAttribute(properties, 2700, 23, ctypes.c_int64(1), ctypes.byref(card)))
    checked(cudnn.cudnnBackendFinalize(properties))
    checked(cudnn.cudnnBackendGetAttribute(properties, 2702, 24, ctypes.c_int64(0), ctypes.byref(count), None))
    text = ctypes.create_string_buffer(count.value)
    checked(cudnn.cudnnBackendGetAttribute(properties, 2702, 24, count, ctypes.byref(count), text))
    return text.value.decode()


def card(path):
    print(torch.cuda.get_device_name(), torch.cuda.get_device_properties(0))
    x = torch.empty(1 << 29, dtype=torch.float32, device="cuda")
    y = torch.empty_like(x)
    print(f"copy: {rate(2 * x.numel() * 4 / 1e9, lambda: y.copy_(x)):.0f} GB/s")
    host = torch.empty(1 << 26, dtype=torch.float32).pin_memory()
    print(f"from pinned memory: {rate(host.numel() * 4 / 1e9, lambda: x[:1 << 26].copy_(host)):.1f} GB/s")
    a = torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda")
    print(f"product in bfloat16: {rate(2 * 8192**3 / 1e12, lambda: a @ a):.0f} TFLOP/s")
    text = description()
    with open(path, "w") as file:
        file.write(text)
    print("cuDNN's description:", " ".join(text.split()))


def peer(name, batch, compiled):
    """A step of PyTorch's."""
    net = engine.network(name).cuda().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), 0.01, 0.9, weight_decay=1e-3, fused=True)
    size = engine.NETS[name][3]
    images = torch.randn(batch, 3, size, size, device="cuda").to(memory_format=torch.channels_last)
    labels = torch.randint(0, engine.CLASSES, (batch,), device="cuda")
    forward = torch.compile(net) if compiled else net

    def step():
        with torch.autocast("cuda", torch.bfloat16):
            loss = F.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


class Ours:
    def __init__(self, program, name, batch):
        environment = os.environ | {"DEVICE": "cuda", "BATCH": str(batch)}
        self.process = subprocess.Popen([program, name, "train", "bf16"], env=environment, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.process.stdout.readline()

    def rate(self):
        self.process.stdin.write(f"{SECONDS}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())["rate"]


def used():
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 1e9


def compare(program):
    torch.backends.cudnn.benchmark = True
    for name, batch, variants in CASES:
        before = used()
        ours = Ours(program, name, batch)
        print(f"{name} batch {batch}: ours holds {used() - before:.1f} GB", flush=True)
        sides = {"ours": ours.rate}
        for variant in variants:
            step = peer(name, batch, variant == "compiled")
            sides[variant] = lambda step=step: rate(batch, step, SECONDS)
        found = {side: [] for side in sides}
        for _ in range(ROUNDS):
            for side, run in sides.items():
                found[side].append(run())
                print(f"  {side} {found[side][-1]:.0f} images/s", flush=True)
        middle = {side: statistics.median(rates) for side, rates in found.items()}
        best = max(middle[variant] for variant in variants)
        print(f"RATE {name} batch={batch} " + " ".join(f"{s}={r:.0f}" for s, r in middle.items())
              + f" ratio={middle['ours'] / best:.2f}", flush=True)
        ours.process.kill()
        ours.process.wait()
        del sides, step
        torch.cuda.empty_cache()


if __name__ == "__main__":
    {"card": card, "compare": compare}[sys.argv[1]](sys.argv[2])
