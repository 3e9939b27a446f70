# SPDX-License-Identifier: Apache-2.0
"""
Where replacement rows come from. Each source has a name, its size in bits a parameter, and two
questions it answers: rows(ids) and all_rows(first, end), f32. Sizes are those of a file of its own
that holds nothing else: bytes x 8 / parameters.
"""

import pathlib
import shlex
import subprocess

import numpy as np

CHUNK_ROWS = 8192


class Array:
    """Rows that are there already: the original, or a decoded table."""

    def __init__(self, name, bits, table):
        self.name, self.bits, self.table = name, bits, table

    def rows(self, ids):
        return np.asarray(self.table[ids], np.float32)

    def all_rows(self, first, end):
        return np.asarray(self.table[first:end], np.float32)

    def close(self):
        pass


class RoundToNearest:
    """
    b-bit integers times a half-float scale of each row, the best of 32 scales. Four and three bits
    are two's complement, scale of either sign: the level that only one side has goes to the side
    with the largest value. Two bits are -1.5, -0.5, 0.5, 1.5. On Gemma's rows these are closer than
    the other way round (0.0526, 0.1068, 0.2090 against 0.0560, 0.1112, 0.2226).
    Size: b + 16 / n_dims.
    """

    # The best steps for Gaussian values, in standard deviations (Max 1960, table II); tails heavier
    # than theirs want wider ones.
    GAUSSIAN_STEP = {2: 0.9957, 3: 0.5860, 4: 0.3352}
    TRIALS = np.geomspace(0.6, 3.5, 16, dtype=np.float32)

    def __init__(self, bits, table):
        self.name, self.table, self.n_bits = f"int{bits}", table, bits
        self.bits = bits + 16 / table.shape[1]

    def levels(self, values, scale):
        half = 2 ** (self.n_bits - 1)
        if self.n_bits == 2:
            return np.clip(np.floor(values / scale) + np.float32(0.5), 0.5 - half, half - 0.5)
        return np.clip(np.rint(values / scale), -half, half - 1)

    def quantize(self, values):
        deviation = np.sqrt(np.mean(values ** 2, axis=1, keepdims=True))
        step = deviation * np.float32(self.GAUSSIAN_STEP[self.n_bits])
        best_error = np.full((len(values), 1), np.inf, np.float32)
        best = np.ones_like(best_error)
        for trial in np.concatenate((self.TRIALS, -self.TRIALS)):
            scale = (step * trial).astype(np.float16).astype(np.float32)
            scale[scale == 0] = 1
            decoded = scale * self.levels(values, scale)
            error = np.sum((values - decoded) ** 2, axis=1, keepdims=True)
            best = np.where(error < best_error, scale, best)
            best_error = np.minimum(error, best_error)
        return best * self.levels(values, best)

    def rows(self, ids):
        return self.quantize(self.table[ids])

    def all_rows(self, first, end):
        return self.quantize(self.table[first:end])

    def close(self):
        pass


class Packed(Array):
    """A .carvq file, decoded by `carvq unpack` to an f32 .npy that lives until close()."""

    def __init__(self, name, carvq, path, work):
        self.decoded = pathlib.Path(work) / f"{name}.npy"
        run([carvq, "unpack", str(path), "-o", str(self.decoded), "--quiet"])
        table = np.load(self.decoded, mmap_mode="r")
        super().__init__(name, pathlib.Path(path).stat().st_size * 8 / table.size, table)

    def close(self):
        self.decoded.unlink()


def pack(name, carvq, model, args, work, n_threads):
    """`carvq pack` of the model's token embeddings with these arguments."""
    path = pathlib.Path(work) / f"{name}.carvq"
    run([carvq, "pack", str(model), "-o", str(path), "--quiet", "--threads", str(n_threads), *args])
    return Packed(name, carvq, path, work)


def from_file(name, path, carvq, work):
    """Rows from a .carvq file, or from an .npy whose size is that of its f32 values."""
    if pathlib.Path(path).suffix == ".carvq":
        return Packed(name, carvq, path, work)
    table = np.load(path, mmap_mode="r")
    return Array(name, table.dtype.itemsize * 8, table)


def run(command):
    try:
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    except OSError as e:
        raise SystemExit(f"{command[0]}: {e.strerror}") from e
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)}: exit {done.returncode}\n{done.stderr.strip()}")


def rel_mse(source, table):
    """Squared error of all rows over the sum of their squares."""
    error = energy = 0.0
    for first in range(0, len(table), CHUNK_ROWS):
        end = min(first + CHUNK_ROWS, len(table))
        rows = table[first:end]
        error += float(np.sum((source.all_rows(first, end) - rows) ** 2, dtype=np.float64))
        energy += float(np.sum(rows ** 2, dtype=np.float64))
    return error / energy


def rel_mse_read(source, table, ids):
    """
    The same over the rows that a text reads, each as often as it is read, then the worst row's id
    and relative squared error: one bad row can spoil a text (all positions attend to BOS).
    """
    ids, counts = np.unique(ids, return_counts=True)
    rows = table[ids]
    error = np.sum((source.rows(ids) - rows) ** 2, axis=1, dtype=np.float64)
    energy = np.maximum(np.sum(rows ** 2, axis=1, dtype=np.float64), np.finfo(np.float64).tiny)
    relative = error / energy
    worst = np.argmax(relative)
    return float(error @ counts / (energy @ counts)), int(ids[worst]), float(relative[worst])
