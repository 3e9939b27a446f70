#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a two-dimensional .npy (or .safetensors) of f32 with a fixed seed, with nothing but the
standard library: make-npy.py OUT ROWS DIMS [KIND]. KIND: normal (default), low-rank, nan, huge,
sparse (zeros, no disk space), outlier (one row of millions), tiny (below half's range), uneven (columns
whose number is no multiple of 7 are ten times larger)."""
import json
import os
import random
import struct
import sys

out, rows, dims = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
kind = sys.argv[4] if len(sys.argv) > 4 else 'normal'
rng = random.Random(f'{rows}x{dims}')

if out.endswith('.npy'):
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dims}), }}"
    text += ' ' * (-(len(text) + 11) % 64) + '\n'
    header = b'\x93NUMPY\x01\x00' + struct.pack('<H', len(text)) + text.encode()
else:
    text = json.dumps({
        'encoder.weight': {'dtype': 'F32', 'shape': [0, 1], 'data_offsets': [0, 0]},
        'model.embed_tokens.weight': {
            'dtype': 'F32', 'shape': [rows, dims], 'data_offsets': [0, rows * dims * 4]}})
    text += ' ' * (-len(text) % 8)
    header = struct.pack('<Q', len(text)) + text.encode()

with open(out, 'wb') as f:
    f.write(header)
    if kind == 'sparse':
        f.truncate(len(header) + rows * dims * 4)
        sys.exit(0)
    axes = [[rng.gauss(0, 1) for _ in range(dims)] for _ in range(3)]
    for row in range(rows):
        values = [rng.gauss(0, 1) for _ in range(dims)]
        if kind == 'low-rank':
            u = [rng.gauss(0, 1) for _ in range(2)]
            values = [2 * axes[0][d] + u[0] * axes[1][d] + u[1] * axes[2][d] + 0.2 * values[d]
                      for d in range(dims)]
        if kind == 'outlier' and row == 3:
            values = [3e6 * v for v in values]
        if kind == 'tiny':
            values = [1e-30 * v for v in values]
        if kind == 'uneven':
            values = [v * (10 if d % 7 else 1) for d, v in enumerate(values)]
        if kind == 'nan' and row == rows // 2:
            values[dims // 2] = float('nan')
        if kind == 'huge' and row == rows // 2:
            values[dims // 2] = 1e6
        f.write(struct.pack(f'<{dims}f', *values))
