# SPDX-License-Identifier: Apache-2.0
"""
What the halves of the fidelity bench share: the tables of the two real models as f32 arrays, and
Markdown output. Trusts the model files: they are what tools/fetch-models has checked.
"""

import numpy as np


def load_minilm(path):
    """Word embeddings of all-MiniLM-L6-v2, 30,522 x 384, from its safetensors file."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as f:
        return f.get_tensor("embeddings.word_embeddings.weight").astype(np.float32, copy=False)


def load_gemma(path):
    """Token embeddings of Gemma 3 270M, 262,144 x 640, dequantized from its GGUF file."""
    import gguf

    tensor = gguf_tensor(path, "token_embd.weight")
    # Dequantized in parts: the whole at once needs several times the table's memory.
    out = np.empty(tuple(int(n) for n in reversed(tensor.shape)), np.float32)
    for first in range(0, len(out), 16384):
        part = slice(first, first + 16384)
        out[part] = gguf.dequantize(tensor.data[part], tensor.tensor_type)
    return out


def gguf_tensors(path):
    """The tensors of a GGUF file, mapped: name, shape, tensor_type, n_bytes, data."""
    import gguf

    return gguf.GGUFReader(path).tensors


def gguf_tensor(path, name):
    for tensor in gguf_tensors(path):
        if tensor.name == name:
            return tensor
    raise SystemExit(f"{path}: no tensor {name}")


def markdown_table(header, rows):
    """A Markdown table of cells that are text already; all columns but the first to the right."""
    cells = [list(header)] + [list(row) for row in rows]
    width = [max(3, *(len(row[i]) for row in cells)) for i in range(len(header))]
    rule = ["-" * width[0]] + ["-" * (w - 1) + ":" for w in width[1:]]

    def line(row):
        return "| " + " | ".join(
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, width))
        ) + " |"

    return "\n".join([line(cells[0]), line(rule)] + [line(row) for row in cells[1:]])
