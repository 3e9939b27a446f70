# SPDX-License-Identifier: Apache-2.0
"""
Faiss ResidualQuantizer as a competitor: a row cut into sub-vectors, each coded by RQ.

A setting is what a Faiss user could choose; nothing here is done that its Python interface does not
offer. Counted in its favour: codes are not padded to bytes, codebooks and the mean row take 16 bits
a value and nothing else is stored. The codebooks are rounded to half before anything is measured.

Faiss trains stage by stage; then its own least-squares refinement (retrain_AQ_codebook) runs with
the look-up-table beam, which gives the codes of the plain beam and is several times faster.
"""

import dataclasses
import time

import faiss
import numpy as np


@dataclasses.dataclass(frozen=True)
class Setting:
    """
    d dimensions a sub-vector, m stages of k bits, the first `longer` of them of k + 1; `sets` sets
    of codebooks, each for neighbouring sub-vectors of a row (1: shared by all; n / d: one each).
    """

    d: int
    k: int
    m: int
    longer: int = 0
    sets: int = 1
    mean: bool = False  # subtract the mean row
    scale: bool = False  # divide by the row's norm; 16 bits a row

    def stage_bits(self):
        return [self.k + 1] * self.longer + [self.k] * (self.m - self.longer)

    def name(self):
        stages = [f"{self.longer}x{self.k + 1}"] * (self.longer > 0)
        stages += [f"{self.m - self.longer}x{self.k}"] * (self.longer < self.m)
        extra = [f"{self.sets} sets" if self.sets > 1 else "shared"]
        extra += ["mean"] * self.mean + ["scale"] * self.scale
        return f"d={self.d} {'+'.join(stages)} bits, " + ", ".join(extra)

    def bits(self, n_rows, n_dims):
        """Bits a parameter, all included."""
        codes = sum(self.stage_bits()) / self.d
        codebooks = 16 * self.sets * self.d * sum(2**k for k in self.stage_bits())
        return (
            codes
            + (codebooks + 16 * n_dims * self.mean) / (n_rows * n_dims)
            + 16 * self.scale / n_dims
        )


@dataclasses.dataclass(frozen=True)
class Effort:
    """How hard Faiss tries. Time only: no bit depends on it."""

    n_train: int  # sub-vectors for each codebook set
    passes: int  # of the least-squares refinement
    beam_train: int
    beam_encode: int


COARSE = Effort(n_train=20000, passes=3, beam_train=16, beam_encode=16)
MEDIUM = Effort(n_train=40000, passes=4, beam_train=16, beam_encode=64)
FINE = Effort(n_train=100000, passes=10, beam_train=32, beam_encode=64)


def fitting(budget, n_rows, n_dims, d, k, sets, **options):
    """The most stages within `budget` bits a parameter, then as many longer ones; or None."""

    def fits(m, longer):
        return Setting(d, k, m, longer, sets, **options).bits(n_rows, n_dims) <= budget

    m = longer = 0
    while fits(m + 1, 0):
        m += 1
    while longer < m and fits(m, longer + 1):
        longer += 1
    return Setting(d, k, m, longer, sets, **options) if m else None


def grid(budget, n_rows, n_dims, widths, bits, **options):
    """Every combination that fits, shared codebooks and one set per sub-vector."""
    for d in widths:
        for k in bits:
            for sets in sorted({1, n_dims // d}):
                setting = fitting(budget, n_rows, n_dims, d, k, sets, **options)
                if setting:
                    yield setting


def _train(rows, setting, effort, seed):
    faiss.omp_set_num_threads(1)
    stage_bits = faiss.UInt64Vector()
    for k in setting.stage_bits():
        stage_bits.push_back(k)
    rq = faiss.ResidualQuantizer(setting.d, stage_bits)
    rq.train_type = rq.Train_default
    rq.max_beam_size = 5
    rq.cp.max_points_per_centroid = 4096
    rq.cp.seed = seed
    rq.train(rows)

    rq.use_beam_LUT = 1
    rq.max_beam_size = effort.beam_train
    rq.niter_codebook_refine = 1
    for _ in range(effort.passes):
        rq.compute_codebook_tables()
        rq.retrain_AQ_codebook(len(rows), faiss.swig_ptr(rows))

    halves = faiss.vector_to_array(rq.codebooks).astype(np.float16).astype(np.float32)
    faiss.copy_array_to_vector(halves, rq.codebooks)
    rq.compute_codebook_tables()
    rq.max_beam_size = effort.beam_encode
    return rq


def _best_us(function, n_rows, budget_s=0.5):
    best, deadline = np.inf, time.perf_counter() + budget_s
    while True:
        start = time.perf_counter()
        function()
        end = time.perf_counter()
        best = min(best, end - start)
        if end > deadline:
            return best / n_rows * 1e6


class Coder:
    """Trained on the table: rows -> rows as decoded."""

    def __init__(self, table, setting, effort, seed):
        self.setting = setting
        self.n_dims = table.shape[1]
        if self.n_dims % (setting.d * setting.sets):
            raise ValueError(f"{self.n_dims} dimensions: no {setting.sets} sets of {setting.d}")
        self.mean = np.zeros(self.n_dims, np.float32)
        if setting.mean:
            self.mean = table.mean(axis=0, dtype=np.float64).astype(np.float16).astype(np.float32)
        self.effort = effort
        rng = np.random.default_rng(seed)
        per_row = self.n_dims // (setting.d * setting.sets)
        # Sub-vectors of one row resemble each other: draw them from four times the rows it takes.
        n = min(len(table), -(-effort.n_train // per_row) * (1 if per_row == 1 else 4))
        rows, _ = self._normalize(table[np.sort(rng.choice(len(table), n, replace=False))])
        self.quantizers = []
        for part in self._parts(rows):
            if len(part) > effort.n_train:
                part = part[rng.choice(len(part), effort.n_train, replace=False)]
            self.quantizers.append(_train(np.ascontiguousarray(part), setting, effort, seed))

    def _normalize(self, rows):
        rows = rows - self.mean
        if not self.setting.scale:
            return rows, None
        norms = np.sqrt(np.square(rows).mean(axis=1, keepdims=True))
        return rows / np.maximum(norms, 1e-30), norms

    def _parts(self, rows):
        """Sub-vectors by codebook set."""
        return [
            np.ascontiguousarray(p).reshape(-1, self.setting.d)
            for p in np.split(rows, self.setting.sets, axis=1)
        ]

    def round_trip(self, rows):
        """Rows as they come back, and the best time to decode one (Faiss's decode() alone)."""
        normal, norms = self._normalize(rows)
        codes = [q.compute_codes(p) for q, p in zip(self.quantizers, self._parts(normal))]
        parts = [q.decode(c).reshape(len(rows), -1) for q, c in zip(self.quantizers, codes)]
        back = np.concatenate(parts, axis=1)
        if norms is not None:
            # The scale that suits what was decoded, instead of the norm: free at decoding time.
            fit = (normal * back).sum(1, keepdims=True) / np.maximum(
                np.square(back).sum(1, keepdims=True), 1e-30
            )
            back *= (fit * norms).astype(np.float16).astype(np.float32)

        n = min(len(rows), 256)
        per_row = [len(c) // len(rows) for c in codes]
        heads = [np.ascontiguousarray(c[: n * p]) for c, p in zip(codes, per_row)]

        def decode():
            for quantizer, head in zip(self.quantizers, heads):
                quantizer.decode(head)

        return back + self.mean, _best_us(decode, n)


def closeness(rows, back):
    """rel_mse, mean and worst cosine, as `carvq eval` defines them."""
    rows, back = rows.astype(np.float64), back.astype(np.float64)
    dots = (rows * back).sum(axis=1)
    norms = np.sqrt(np.square(rows).sum(axis=1) * np.square(back).sum(axis=1))
    cosines = dots[norms > 0] / norms[norms > 0]
    return {
        "rel_mse": float(np.square(rows - back).sum() / np.square(rows).sum()),
        "cosine_mean": float(cosines.mean()),
        "cosine_min": float(cosines.min()),
    }


def measure(table, rows, setting, effort, seed=1):
    start = time.perf_counter()
    back, us = Coder(table, setting, effort, seed).round_trip(rows)
    return {
        "bits": setting.bits(*table.shape),
        **closeness(rows, back),
        "decode_us": us,
        "seconds": time.perf_counter() - start,
    }
