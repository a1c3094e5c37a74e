"""ResNet-v2 forward and backward in PyTorch, float64, for network.rs.

    python tests/golden/network.py [FOLDER]
"""

import numpy as np
import torch

import resnet
import store

random = np.random.default_rng(50)


def case(name, images, units, stem):
    channels = images[-1]
    weights, moving = resnet.initial(1, channels, units, 1, stem, {})
    # Away from gamma 1 and beta 0, which would hide errors.
    for key, value in weights.items():
        if key.endswith(("gamma", "beta")):
            value += np.float32(random.normal(0, 0.2, value.shape))
    inputs = {"images": np.float32(random.normal(size=images))} | weights
    after = resnet.double(moving)
    x = resnet.double(inputs)
    for tensor in x.values():
        tensor.requires_grad_()
    features = resnet.forward(x, x["images"], units, stem, after)
    upstream = np.float32(random.normal(size=features.shape))
    (features * torch.tensor(upstream)).sum().backward()
    with torch.no_grad():
        inferred = resnet.forward(x, x["images"], units, stem, after, training=False)
    outputs = {"features": features, "inferred": inferred, **after,
               **{f"gradient.{key}": tensor.grad for key, tensor in x.items()}}
    outputs = {key: np.float32(value.detach()) for key, value in outputs.items()}
    store.write_tensors(f"network_{name}.safetensors", inputs | {"upstream": upstream} | outputs)


if __name__ == "__main__":
    case("imagenet", (4, 37, 30, 3), [1, 1], "imagenet")
    case("small", (4, 11, 8, 1), [2], "small")
    case("small_stride2", (3, 13, 12, 2), [1, 1], "small_stride2")
