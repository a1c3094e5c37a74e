"""A training step of each method in PyTorch, float64: its terms and gradients, for steps.rs.

    python tests/golden/steps.py [FOLDER]
"""

import numpy as np
import torch

import methods
import resnet
import store

random = np.random.default_rng(21)
SIZE = (10, 9, 1)
SETTINGS = {"units": [1], "stem": "small_stride2", "weight_supervised": 0.7, "weight_rotation": 0.4,
            "weight_exemplar": 0.6, "weight_vat": 0.3, "weight_entmin": 0.2, "vat_eps": 40.0,
            "weight_fixmatch": 0.9, "fixmatch_threshold": 0.42, "upright_classes": False}
OUTPUTS = {"classes": 5, "rotations": 4, "embeddings": 6}
SEED, STEP = 5, 3


def case(name, method, views, unlabelled, labelled, iterations=1):
    of_labelled = 1 if method == "fixmatch" else views
    s = SETTINGS | {"vat_power_iterations": iterations}
    heads = {head: OUTPUTS[head] for head in methods.HEADS[method]}
    weights, moving = resnet.initial(2, SIZE[-1], s["units"], 1, s["stem"], heads)
    for key, value in weights.items():
        value += np.float32(random.normal(0, 0.1, value.shape))
    images = np.float32(random.normal(size=(unlabelled * views + labelled * of_labelled, *SIZE)))
    images[1] = 0.25  # a flat one
    labels = random.integers(0, OUTPUTS["classes"], labelled)
    if method == "distill":
        labels = random.dirichlet(np.ones(OUTPUTS["classes"]), labelled)
    after, x = resnet.double(moving), resnet.double(weights)
    for tensor in x.values():
        tensor.requires_grad_()
    terms = methods.step(method, s, x, after, torch.tensor(images, dtype=torch.float64),
                         torch.tensor(labels), of_labelled, unlabelled * views, SEED, STEP)
    terms["loss"].backward()
    scalars = {f"terms.{key}": np.float64(value.detach()) for key, value in terms.items()}
    arrays = {**after, **{f"gradient.{key}": tensor.grad for key, tensor in x.items()}}
    arrays = {key: np.float32(value.detach()) for key, value in arrays.items()}
    store.write_tensors(f"step_{name}.safetensors",
                        weights | scalars | arrays | {"images": images, "labels": labels})


if __name__ == "__main__":
    case("supervised", "supervised", 1, 0, 6)
    case("rotation", "rotation", 4, 3, 2)
    case("exemplar", "exemplar", 3, 3, 2)
    # Without an iteration the direction is the keyed noise, so only the loss is compared.
    case("vat_noise", "vat", 1, 4, 3, iterations=0)
    case("moam_noise", "moam", 4, 3, 2, iterations=0)
    case("vat", "vat", 1, 4, 3)
    case("moam", "moam", 4, 3, 2)
    case("distill", "distill", 2, 0, 4)
    case("fixmatch", "fixmatch", 2, 8, 3)
