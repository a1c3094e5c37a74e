"""The loss of a training step of each method in PyTorch, written from the S4L reference's formulas.

Images are [images * views, height, width, channels], unlabelled ones first; an image's views are
consecutive. `views`: of a labelled image.
"""

import torch
import torch.nn.functional as F

import keyed
import resnet

HEADS = {"supervised": ["classes"], "distill": ["classes"], "vat": ["classes"],
         "rotation": ["classes", "rotations"], "exemplar": ["classes", "embeddings"],
         "moam": ["classes", "rotations"], "fixmatch": ["classes"]}


def of_parts(loss, rows, unlabelled):
    """The mean of the loss of the unlabelled and of the labelled rows."""
    parts = [part for part in (rows[:unlabelled], rows[unlabelled:]) if len(part)]
    return sum(loss(part) for part in parts) / len(parts)


def rotation(logits):
    return F.cross_entropy(logits, torch.arange(len(logits)) % 4)


def exemplar(embeddings, patches):
    """Batch-hard triplets with a soft margin."""
    e = embeddings / embeddings.square().sum(1, keepdim=True).clamp(min=1e-12).sqrt()
    squared = (e[:, None] - e[None]).square().sum(2)
    distance = squared.clamp(min=1e-12).sqrt()
    image = torch.arange(len(e)) // patches
    same = image[:, None] == image[None]
    farthest = distance.masked_fill(~same, -torch.inf).amax(1)
    nearest = distance.masked_fill(same, torch.inf).amin(1)
    return F.softplus(farthest - nearest, threshold=100).mean()


def divergence(adversarial, clean):
    """KL(adversarial || clean) of logits, mean over rows; the clean ones are constant."""
    log_p, log_q = adversarial.log_softmax(1), clean.detach().log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1).mean()


def entropy(logits):
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1).mean()


def perturbation(network, images, clean, eps, iterations, seed, step):
    """r per image: norm `eps` for 224 x 224 x 3 values, otherwise the same mean square."""
    values = images[0].numel()
    draws = [keyed.Keyed(seed, keyed.VAT_DIRECTION, step, i).normals(values)
             for i in range(len(images))]
    d = torch.tensor(draws, dtype=images.dtype).reshape(images.shape)

    def of_norm(d, length):
        return length * d / d.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)

    for _ in range(iterations):
        d = of_norm(d, 1e-6).requires_grad_()
        d, = torch.autograd.grad(divergence(network(images + d), clean), d)
    return of_norm(d.detach(), eps * (values / (224 * 224 * 3)) ** 0.5)


def step(method, s, weights, moving, images, labels, views, unlabelled, seed, at):
    """Named unweighted terms and "loss" of a step. `s`: the recipe's settings; `labels`: classes, or
    the probabilities of a teacher; `unlabelled`: rows of unlabelled images. `moving` follows the main
    pass only."""
    architecture = {"units": s["units"], "stem": s["stem"], "heads": HEADS[method]}
    out = resnet.forward(weights, images, moving=moving, **architecture)
    logits = out["classes"]
    # With upright classes only the first view of an image has one.
    every = views if s["upright_classes"] else 1
    labels = labels.repeat_interleave(views // every, 0)
    terms = {"supervised": F.cross_entropy(logits[unlabelled::every], labels)}
    if method in ("rotation", "moam"):
        terms["rotation"] = of_parts(rotation, out["rotations"], unlabelled)
    if method == "exemplar":
        terms["exemplar"] = of_parts(lambda e: exemplar(e, views), out["embeddings"], unlabelled)
    if method in ("vat", "moam"):
        # MOAM uses only unlabelled images for its consistency term.
        rows = len(images) if method == "vat" else unlabelled

        def network(x):
            return resnet.forward(weights, x, **architecture)["classes"]

        moved = images[:rows:every]
        # Some of the views alone have batch statistics of their own.
        clean = (logits[:rows] if every == 1 else network(moved)).detach()
        r = perturbation(network, moved, clean, s["vat_eps"], s["vat_power_iterations"], seed, at)
        terms["vat"] = divergence(network(moved + r), clean)
        terms["entmin"] = entropy(logits[:rows:every])
    if method == "fixmatch":
        # Of each unlabelled image a weak and a strong view.
        weak, strong = logits[:unlabelled:2].detach(), logits[1:unlabelled:2]
        confidence, predicted = weak.softmax(1).max(1)
        sure = confidence >= s["fixmatch_threshold"]
        terms["fixmatch"] = (F.cross_entropy(strong, predicted, reduction="none") * sure).mean()
    terms["loss"] = sum(s[f"weight_{name}"] * term for name, term in terms.items())
    return terms
