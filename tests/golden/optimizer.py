"""Momentum SGD with weight decay, Polyak averaging and the learning-rate schedule by TensorFlow's
version-1 ops, for optimizer.rs.

    python tests/golden/optimizer.py [FOLDER]
"""

import numpy as np
import tensorflow as tf

import store

v1 = tf.compat.v1.train
random = np.random.default_rng(8)


def momentum():
    """The first weight is decayed, the second is not; 6 steps."""
    weights = [tf.Variable(random.normal(size=5)) for _ in range(2)]
    start = np.stack([w.numpy() for w in weights])
    rate = tf.Variable(0.0, dtype=tf.float64)
    optimizer = v1.MomentumOptimizer(rate, momentum=0.9, use_nesterov=False)
    weight_decay = 0.03
    steps = []
    for learning_rate in [0.0, 0.05, 0.1, 0.1, 0.01, 0.01]:
        rate.assign(learning_rate)
        gradients = random.normal(size=(2, 5))
        with tf.GradientTape() as tape:
            loss = tf.add_n([tf.reduce_sum(g * w) for g, w in zip(gradients, weights)])
            loss += weight_decay * tf.nn.l2_loss(weights[0])
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        velocity = [optimizer.get_slot(w, "momentum").numpy() for w in weights]
        steps.append({"learning_rate": learning_rate, "gradients": gradients,
                      "weights": np.stack([w.numpy() for w in weights]),
                      "velocity": np.stack(velocity)})
    return {"kind": "momentum", "weight_decay": weight_decay, "momentum": 0.9, "weights": start,
            "steps": steps}


def polyak():
    """Weights that jump; the average after each of 7 steps, with a half-life of 5 steps."""
    weights = tf.Variable(random.normal(size=4))
    average = v1.ExponentialMovingAverage(0.5 ** (1 / 5))
    average.apply([weights])
    start = average.average(weights).numpy()
    steps = []
    for _ in range(7):
        weights.assign(random.normal(size=4))
        average.apply([weights])
        steps.append({"weights": weights.numpy(), "average": average.average(weights).numpy()})
    return {"kind": "polyak", "half_life": 5, "start": start, "steps": steps}


def schedule(learning_rate, scale_batch, batch, images, epochs):
    """Rates of the steps around every change, and a few between. The last step has no rate."""
    steps_per_epoch = images // batch
    base = learning_rate * batch / scale_batch if scale_batch else learning_rate
    warm_up, *decays, end = [epoch * steps_per_epoch for epoch in epochs]
    rates = [base * 0.1**i for i in range(len(decays) + 1)]
    total = int(np.ceil(end))
    boundaries = [float(d) for d in decays]
    steps = {0, 1, total // 3, total - 1}
    for change in (warm_up, *decays):
        steps |= {int(change) + d for d in (-1, 0, 1, 2)}

    def rate(step):
        if step < warm_up:
            return base * step / warm_up
        if not decays:
            return base
        return float(v1.piecewise_constant(float(step), boundaries, rates)())

    steps = sorted(s for s in steps if 0 <= s < total)
    return {"kind": "schedule", "learning_rate": learning_rate, "scale_batch": scale_batch,
            "batch": batch, "images": images, "epochs": epochs, "base": base,
            "steps_per_epoch": steps_per_epoch, "total": total, "steps": steps,
            "rates": [rate(s) for s in steps]}


def main():
    store.write("optimizer.json", [
        momentum(),
        polyak(),
        # The reference's configurations.
        schedule(0.01, 256, 256, 13_000, [5, 700, 800, 900, 1000]),
        schedule(0.1, 256, 256, 128_000, [5, 140, 160, 180, 200]),
        schedule(0.03, 0, 256, 128_000, [5, 140, 160, 180, 200]),
        schedule(0.1, 0, 512, 128_000, [10, 140, 160, 180, 200]),
        schedule(0.1, 256, 256, 1_281_167, [5, 30, 60, 90, 100]),
        schedule(0.2, 256, 128, 128_000, [10, 100, 150, 190, 200]),
        # Fractions of epochs, and no decay.
        schedule(0.05, 0, 16, 1000, [0.3, 1.25, 2.7]),
        schedule(0.05, 64, 16, 100, [0, 3.1]),
    ])


if __name__ == "__main__":
    main()
