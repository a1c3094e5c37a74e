"""The project's keyed random numbers (lib/rng.rs) in NumPy, so that other frameworks can train with
the same initial weights, batches and noise.

A generator is ChaCha with 8 rounds (Bernstein 2008), keyed with the little-endian 64-bit words
(seed, stream, epoch, sample). Draws follow the algorithms that crate `rand` documents: Canon's
multiplication for integers, 24 of 32 bits for float32, and the ziggurat of Doornik (2005) with 256
layers for normal numbers.
"""

import math

import numpy as np

INIT, LABELLED_ORDER, UNLABELLED_ORDER, VAT_DIRECTION = 0, 3, 4, 7


class Keyed:
    def __init__(self, seed, stream, epoch=0, sample=0):
        self.key = np.array([seed, stream, epoch, sample], "<u8").view("<u4")
        self.words, self.at, self.blocks = [], 0, 0

    def _more(self, count=64):
        """Appends the key stream of the next `count` blocks of 16 words."""
        counter = np.arange(self.blocks, self.blocks + count, dtype=np.uint64)
        state = np.zeros((16, count), np.uint32)
        state[:4] = np.frombuffer(b"expand 32-byte k", "<u4")[:, None]
        state[4:12] = self.key[:, None]
        state[12], state[13] = counter & 0xFFFFFFFF, counter >> 32
        x = state.copy()

        def quarter(a, b, c, d):
            for at, by, into, turn in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)]:
                x[at] += x[by]
                mixed = x[into] ^ x[at]
                x[into] = mixed << np.uint32(turn) | mixed >> np.uint32(32 - turn)

        for _ in range(4):
            for i in range(4):
                quarter(i, 4 + i, 8 + i, 12 + i)
            for i in range(4):
                quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
        self.words = self.words[self.at:] + (x + state).T.ravel().tolist()
        self.at, self.blocks = 0, self.blocks + count

    def u32(self):
        if self.at == len(self.words):
            self._more()
        self.at += 1
        return self.words[self.at - 1]

    def u64(self):
        low = self.u32()
        return low | self.u32() << 32

    def floats(self, n):
        """n of float32 in [0, 1)."""
        if len(self.words) - self.at < n:
            self._more(n // 16 + 1)
        self.at += n
        words = np.array(self.words[self.at - n:self.at], np.uint32)
        return (words >> 8).astype(np.float32) * np.float32(2.0**-24)

    def f64(self):
        return (self.u64() >> 11) * 2.0**-53

    def below(self, n):
        """An integer of 0..n."""
        product = self.u32() * n
        high, low = product >> 32, product & 0xFFFFFFFF
        if low > 2**32 - n:
            high += low + (self.u32() * n >> 32) >= 2**32
        return high

    def normal(self):
        while True:
            bits = self.u64()
            layer, u = bits & 0xFF, (bits >> 12) * 2.0**-51 - 1
            x = u * EDGE[layer]
            if abs(x) < EDGE[layer + 1]:
                return x
            if layer == 0:
                return self._tail() * (1 if u >= 0 else -1)
            height = HEIGHT[layer + 1] + (HEIGHT[layer] - HEIGHT[layer + 1]) * self.f64()
            if height < math.exp(-x * x / 2):
                return x

    def _tail(self):
        while True:
            # Open at both ends: 52 bits and a half.
            x, y = (math.log(((self.u64() >> 12) + 0.5) * 2.0**-52) for _ in range(2))
            x /= R
            if -2 * y >= x * x:
                return R - x

    def normals(self, n):
        return np.array([self.normal() for _ in range(n)]).astype(np.float32)

    def permutation(self, n):
        order = list(range(n))
        for i in range(n - 1, 0, -1):
            j = self.below(i + 1)
            order[i], order[j] = order[j], order[i]
        return order


# The ziggurat: 256 layers of the same area under exp(-x^2 / 2); the lowest reaches to R.
R = 3.654152885361008796
AREA = 0.00492867323399


def _edges():
    edges = [AREA / math.exp(-R * R / 2), R]
    while len(edges) < 256:
        x = edges[-1]
        edges.append(math.sqrt(-2 * math.log(AREA / x + math.exp(-x * x / 2))))
    return [*edges, 0.0]


EDGE = _edges()
HEIGHT = [math.exp(-x * x / 2) for x in EDGE]


def main():
    import store

    keys = [(0, INIT, 0, 0), (5, VAT_DIRECTION, 3, 1), (2**63 + 9, LABELLED_ORDER, 7, 2**40)]
    rows = []
    for key in keys:
        normals = Keyed(*key).normals(20_000)
        rows.append({"key": key, "floats": Keyed(*key).floats(300),
                     "below": [Keyed(*key).below(n) for n in (1, 2, 10, 1000, 2**31 + 7)],
                     "permutation": Keyed(*key).permutation(100),
                     "normals": normals[:300], "largest": np.abs(normals).max(),
                     # The position after all draws shows that as many draws were rejected.
                     "sum": normals.astype(np.float64).sum()})
    store.write("keyed.json", rows)


if __name__ == "__main__":
    main()
