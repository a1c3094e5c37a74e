"""The losses and their gradients in TensorFlow, float64, for losses.rs.

    python tests/golden/losses.py [FOLDER]
"""

import numpy as np
import tensorflow as tf

import keyed
import store

random = np.random.default_rng(4)


def normal(*shape, scale=1.0):
    return random.normal(0, scale, shape)


def cross_entropy(logits, labels):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


def soft_cross_entropy(logits, targets):
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))


def of_parts(loss, rows, unlabelled):
    parts = [part for part in (rows[:unlabelled], rows[unlabelled:]) if len(part)]
    return tf.add_n([loss(part) for part in parts]) / len(parts)


def rotation(logits, unlabelled):
    return of_parts(lambda part: cross_entropy(part, np.arange(len(part)) % 4), logits, unlabelled)


def exemplar(embeddings, unlabelled, patches):
    def batch_hard(e):
        e = tf.nn.l2_normalize(e, axis=1)
        squared = tf.reduce_sum(tf.math.squared_difference(e[:, None], e[None]), axis=2)
        distance = tf.sqrt(tf.maximum(squared, 1e-12))
        image = np.arange(len(e)) // patches
        same = image[:, None] == image[None]
        farthest = tf.reduce_max(tf.where(same, distance, 0.0), axis=1)
        nearest = tf.reduce_min(tf.where(same, np.inf, distance), axis=1)
        return tf.reduce_mean(tf.nn.softplus(farthest - nearest))

    return of_parts(batch_hard, embeddings, unlabelled)


def entropy(logits):
    p_log_p = tf.nn.softmax(logits) * tf.nn.log_softmax(logits)
    return -tf.reduce_mean(tf.reduce_sum(p_log_p, axis=1))


def divergence(adversarial, clean):
    p = tf.nn.softmax(adversarial)
    difference = tf.nn.log_softmax(adversarial) - tf.nn.log_softmax(tf.stop_gradient(clean))
    return tf.reduce_mean(tf.reduce_sum(p * difference, axis=1))


def case(loss, inputs, **arguments):
    inputs = tf.constant(inputs, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = loss(inputs, **arguments)
    return {"loss": loss.__name__, "inputs": inputs, **arguments, "value": value,
            "gradient": tape.gradient(value, inputs)}


def perturbation(seed, step, radius, images):
    """r = radius * l2_normalize(d) per image: VAT without a power iteration."""
    noise = [keyed.Keyed(seed, keyed.VAT_DIRECTION, step, i).normals(images[0].size)
             for i in range(len(images))]
    moved = images + radius * tf.nn.l2_normalize(np.float64(noise), axis=1)
    return {"loss": "perturbation", "seed": seed, "step": step, "radius": radius,
            "inputs": images, "moved": moved}


def main():
    embeddings = normal(15, 7) * np.exp(normal(15, 1))
    embeddings[4] *= 1e-8  # shorter than the smallest divisor
    soft = np.abs(normal(6, 5))
    soft[0] = [0, 1, 0, 0, 0]
    store.write("losses.json", [
        case(cross_entropy, normal(6, 5, scale=3), labels=[4, 1, 0, 1, 2, 2]),
        case(soft_cross_entropy, normal(6, 5, scale=3),
             targets=soft / soft.sum(1, keepdims=True)),
        case(rotation, normal(20, 4), unlabelled=12),
        case(rotation, normal(8, 4), unlabelled=0),
        case(rotation, normal(8, 4), unlabelled=8),
        case(exemplar, embeddings, unlabelled=9, patches=3),
        case(exemplar, normal(8, 5), unlabelled=0, patches=2),
        case(entropy, normal(6, 5, scale=3)),
        case(divergence, normal(6, 5, scale=2), clean=normal(6, 5, scale=2)),
        perturbation(7, 3, 0.5, np.float64(np.float32(normal(3, 30)))),
    ])


if __name__ == "__main__":
    main()
