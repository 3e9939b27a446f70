# SPDX-License-Identifier: Apache-2.0
"""
What perplexity answers to noise of known strength: rows with Gaussian noise of a given relative
squared error, the rows of the most frequent tokens exact. It shows what any codec of that error can
reach, and how much of it frequency tiers can save.
"""

import numpy as np

LEVELS = (0.18, 0.12, 0.06, 0.03, 0.015)
PROTECTED = (0, 1000, 4000, 16000)


class Noise:
    """
    kind "added": x + e, longer than x. kind "shrunk": (1 - D) x + e, as the rows of an ideal
    quantizer lie: the error is the same D, but orthogonal to what is decoded, which is shorter than
    x. kind "normed": shrunk, then given back the length of x.
    """

    def __init__(self, level, exact_ids, table, kind="added", seed=1):
        self.name = f"{kind} {level:g}" + (f", {len(exact_ids)} exact" if len(exact_ids) else "")
        self.level, self.table, self.kind, self.seed = level, table, kind, seed
        self.exact = np.zeros(len(table), bool)
        self.exact[exact_ids] = True

    def rows(self, ids):
        rows = self.table[ids]
        # Seeded by row, so that a row is the same in every place and at every set of exact rows.
        noise = np.stack([np.random.default_rng((self.seed, int(i))).standard_normal(
            rows.shape[1], np.float32) for i in ids])
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        noise *= length / np.linalg.norm(noise, axis=1, keepdims=True)
        if self.kind == "added":
            out = rows + np.float32(np.sqrt(self.level)) * noise
        else:
            keep = 1 - self.level
            out = np.float32(keep) * rows + np.float32(np.sqrt(self.level * keep)) * noise
        if self.kind == "normed":
            out *= length / np.linalg.norm(out, axis=1, keepdims=True)
        return np.where(self.exact[ids][:, None], rows, out)


def sources(table, counts):
    frequent = np.argsort(counts)[::-1]
    for level in LEVELS:
        for n in PROTECTED:
            yield Noise(level, frequent[:n], table)
    for level in LEVELS[1:3]:
        for kind in ("shrunk", "normed"):
            yield Noise(level, frequent[:0], table, kind)
