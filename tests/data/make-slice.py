#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Cuts minilm-slice.safetensors out of the model: make-slice.py MODEL.safetensors OUT.safetensors"""

import json
import struct
import sys

import numpy as np

TENSOR = "embeddings.word_embeddings.weight"
FIRST_ROW, N_ROWS = 1996, 5200  # from "the" on: whole words, frequent ones first


def main():
    source, out = sys.argv[1:]
    with open(source, "rb") as f:
        (header_bytes,) = struct.unpack("<Q", f.read(8))
        entry = json.loads(f.read(header_bytes))[TENSOR]
        assert entry["dtype"] == "F32", entry
        n_dims = entry["shape"][1]
        f.seek(8 + header_bytes + entry["data_offsets"][0] + FIRST_ROW * n_dims * 4)
        rows = np.frombuffer(f.read(N_ROWS * n_dims * 4), "<f4").astype("<f2")
    header = {
        "__metadata__": {
            "origin": "sentence-transformers/all-MiniLM-L6-v2, " + TENSOR,
            "rows": f"{FIRST_ROW} to {FIRST_ROW + N_ROWS - 1}, rounded to F16",
            "license": "Apache-2.0",
        },
        TENSOR: {"dtype": "F16", "shape": [N_ROWS, n_dims], "data_offsets": [0, rows.nbytes]},
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(out, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + rows.tobytes())


if __name__ == "__main__":
    main()
