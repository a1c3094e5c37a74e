"""Batch norm and Glorot initialization by TensorFlow's ops, for layers.rs.

    python tests/golden/layers.py [FOLDER]
"""

import numpy as np
import tensorflow as tf

import store

random = np.random.default_rng(12)


def batch_norm():
    """Three batches through one norm of 16 channels, ReLU and the mean over pixels; the moving
    statistics after each, and the gradients of the last."""
    shape = (4, 5, 6, 16)
    scale = random.uniform(0.01, 3, 16)
    batches = [np.float32(random.normal(1, scale, shape)) for _ in range(3)]
    gamma, beta = np.float32(random.normal(1, 0.5, 16)), np.float32(random.normal(0, 0.5, 16))
    upstream = np.float32(random.normal(0, 1, (4, 16)))
    mean, variance = tf.zeros(16), tf.ones(16)
    rows = []
    for batch in batches:
        inputs = [tf.constant(v) for v in (batch, gamma, beta)]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            # The factor is the share of the new value.
            y, mean, variance = tf.compat.v1.nn.fused_batch_norm(
                *inputs, mean, variance, epsilon=1e-3, exponential_avg_factor=1 - 0.99)
            features = tf.reduce_mean(tf.nn.relu(y), axis=[1, 2])
            loss = tf.reduce_sum(features * upstream)
        gradients = tape.gradient(loss, inputs)
        rows.append({"images": batch, "features": features, "moving_mean": mean,
                     "moving_variance": variance, "gradient_images": gradients[0],
                     "gradient_gamma": gradients[1], "gradient_beta": gradients[2]})
    tensors = {f"{i}.{name}": np.asarray(v) for i, row in enumerate(rows) for name, v in row.items()}
    store.write_tensors("batch_norm.safetensors",
                        tensors | {"gamma": gamma, "beta": beta, "upstream": upstream})


def glorot():
    """Draws for kernels of a ResNet, as counts of floor(1000 w)."""
    rows = []
    for shape in [(7, 7, 3, 64), (3, 3, 64, 64), (1, 1, 64, 256), (256, 10), (3, 3, 1, 16)]:
        draws = tf.keras.initializers.GlorotUniform(seed=1)(shape).numpy()
        values, counts = np.unique(np.floor(draws * 1000).astype(int), return_counts=True)
        rows.append({"shape": shape, "values": values, "counts": counts,
                     "largest": np.abs(draws).max()})
    store.write("glorot.json", rows)


if __name__ == "__main__":
    batch_norm()
    glorot()
