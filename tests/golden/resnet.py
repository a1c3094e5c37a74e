"""ResNet-v2 with bottleneck units in PyTorch, written from the S4L reference's formulas.

Weights are a dict of tensors with the names and shapes of `model.safetensors`: kernels are
[height, width, inputs, outputs], images [n, height, width, channels].
"""

import numpy as np
import torch
import torch.nn.functional as F

import keyed

torch.set_num_threads(1)  # sums in one order on every machine

EPSILON = 1e-3
MOMENTUM = 0.99
STEMS = {"imagenet": (7, 2), "small": (3, 1), "small_stride2": (3, 2)}


def layers(channels, units, width_factor, stem, heads):
    """Names and shapes in the order of initialization: kernels first, then norms."""
    kernels, norms = {}, {}
    base = 16 * width_factor
    size, _ = STEMS[stem]
    kernels["stem.conv.kernel"] = (size, size, channels, base)
    inputs = base
    for block, count in enumerate(units):
        middle = base * 2**block
        outputs = 4 * middle
        for unit in range(count):
            name = f"blocks.{block}.{unit}"
            if unit == 0:  # here the channels change, and the stride is 2 after the first block
                kernels[f"{name}.shortcut.kernel"] = (1, 1, inputs, outputs)
            kernels[f"{name}.conv1.kernel"] = (1, 1, inputs, middle)
            kernels[f"{name}.conv2.kernel"] = (3, 3, middle, middle)
            kernels[f"{name}.conv3.kernel"] = (1, 1, middle, outputs)
            norms |= {f"{name}.norm1": inputs, f"{name}.norm2": middle, f"{name}.norm3": middle}
            inputs = outputs
    norms["norm"] = inputs
    for head, outputs in heads.items():
        kernels[f"heads.{head}.kernel"] = (inputs, outputs)
    return kernels, norms


def initial(seed, *architecture):
    """Glorot-uniform kernels in float32, gamma 1, all else 0; moving variance 1."""
    kernels, norms = layers(*architecture)
    weights, moving = {}, {}
    for i, (name, shape) in enumerate(kernels.items()):
        area = int(np.prod(shape[:-2]))
        limit = np.float32(np.sqrt(6 / (area * (shape[-2] + shape[-1]))))
        draws = keyed.Keyed(seed, keyed.INIT, 0, i).floats(int(np.prod(shape)))
        weights[name] = ((draws * np.float32(2) - np.float32(1)) * limit).reshape(shape)
        if name.startswith("heads."):
            weights[name.replace("kernel", "bias")] = np.zeros(shape[-1], np.float32)
    for name, channels in norms.items():
        weights[f"{name}.gamma"] = np.ones(channels, np.float32)
        weights[f"{name}.beta"] = np.zeros(channels, np.float32)
        moving[f"{name}.moving_mean"] = np.zeros(channels, np.float32)
        moving[f"{name}.moving_variance"] = np.ones(channels, np.float32)
    return weights, moving


def double(arrays):
    return {name: torch.tensor(a, dtype=torch.float64) for name, a in arrays.items()}


def forward(weights, images, units, stem, moving=None, training=True, heads=()):
    """Pre-logits [n, features], or with `heads` the outputs of each. In training with the statistics
    of the batch, which also update `moving` if it is given; otherwise with `moving`."""

    def conv(x, name, stride=1):
        kernel = weights[f"{name}.kernel"].permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    def norm_relu(x, name):
        # PyTorch's momentum is the share of the new value; its running variance is the unbiased one.
        mean = variance = None
        if moving is not None:
            mean, variance = moving[f"{name}.moving_mean"], moving[f"{name}.moving_variance"]
        gamma, beta = weights[f"{name}.gamma"], weights[f"{name}.beta"]
        return F.relu(F.batch_norm(x, mean, variance, gamma, beta, training, 1 - MOMENTUM, EPSILON))

    x = conv(images.permute(0, 3, 1, 2), "stem.conv", STEMS[stem][1])
    if stem == "imagenet":
        x = F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2)  # the zeros take part in the maximum
    for block, count in enumerate(units):
        for unit in range(count):
            name = f"blocks.{block}.{unit}"
            stride = 2 if block > 0 and unit == 0 else 1
            h = norm_relu(x, f"{name}.norm1")
            shortcut = conv(h, f"{name}.shortcut", stride) if unit == 0 else x
            h = norm_relu(conv(h, f"{name}.conv1"), f"{name}.norm2")
            h = norm_relu(conv(h, f"{name}.conv2", stride), f"{name}.norm3")
            x = conv(h, f"{name}.conv3") + shortcut
    features = norm_relu(x, "norm").mean((2, 3))
    if not heads:
        return features
    return {h: features @ weights[f"heads.{h}.kernel"] + weights[f"heads.{h}.bias"] for h in heads}
