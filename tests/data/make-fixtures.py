#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Model files for tests/unit/test-source.c, made by the formats' own packages.

good/  a file of each kind; beside it, for each tensor that can be read, FILE.TENSOR.f32.npy with the
       values that the package itself decodes (FILE.f32.npy where the tensor has no name).
bad/   one defect each; FILE.expect holds a part of the sentence that must come back.

Needs numpy, safetensors and gguf. Everything follows from one fixed seed.
"""

import json
import struct
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q
from safetensors.numpy import save as safetensors_save

HERE = Path(__file__).resolve().parent
GOOD, BAD = HERE / "good", HERE / "bad"
rng = np.random.default_rng(20250)

F32_EDGES = np.array(
    [0.0, -0.0, 1.0, -1.0, 3.4028235e38, -3.4028235e38, 1.1754944e-38, 1e-45, -1e-45, 2.0**-24],
    np.float32,
)


def normal(rows, dims):
    return rng.standard_normal((rows, dims)).astype(np.float32)


def expect_values(path, name, values):
    suffix = f".{name}.f32.npy" if name else ".f32.npy"
    np.save(path.with_name(path.name + suffix), np.ascontiguousarray(values, np.float32))


def bf16_bits(values):
    bits = values.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


# ---- safetensors ----


def safetensors_bytes(header, data=b"", header_bytes=None):
    """By hand: for BF16, which numpy does not know, and for what no writer would write."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if header_bytes is None else header_bytes) + text + data


def good_safetensors():
    edges = normal(5, 100)
    edges[0, : len(F32_EDGES)] = F32_EDGES
    f16_edges = normal(7, 9).astype(np.float16)
    f16_edges[0, :6] = np.array([0, 0x8000, 1, 0x03FF, 0x0400, 0x7BFF], np.uint16).view(np.float16)
    tensors = {
        "embeddings.word_embeddings.weight": edges,
        "embeddings.position_embeddings.weight": normal(3, 100),
        "embeddings.position.embedding.weight": normal(3, 4),
        "encoder.half.weight": f16_edges,
        "encoder.bias": normal(1, 8)[0],
        "encoder.cube": normal(8, 8).reshape(4, 4, 4),
        "embeddings.position_ids": np.arange(6).reshape(1, 6),
        "one.by_one": normal(1, 1),
    }
    path = GOOD / "bert.safetensors"
    path.write_bytes(safetensors_save(tensors, {"note": "commas, [brackets] {"}))
    for name, values in tensors.items():
        if values.ndim == 2 and values.dtype != np.int64:
            expect_values(path, name, values)

    bits = bf16_bits(normal(6, 33))
    bits[0, :5] = [0x0000, 0x8000, 0x0001, 0x7F7F, 0xFF7F]
    header = {"model.embed_tokens.weight": {"dtype": "BF16", "shape": [6, 33], "data_offsets": [0, bits.nbytes]}}
    path = GOOD / "bf16.safetensors"
    path.write_bytes(safetensors_bytes(json.dumps(header).encode() + b" " * 5, bits.tobytes()))
    expect_values(path, "model.embed_tokens.weight", (bits.astype(np.uint32) << 16).view(np.float32))

    # The header's length, 123, is '{': must not be mistaken for JSON.
    values = normal(2, 3)
    header = json.dumps({"lookup": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}).encode()
    path = GOOD / "length-is-brace.safetensors"
    path.write_bytes(safetensors_bytes(header.ljust(0x7B), values.tobytes()))
    expect_values(path, "lookup", values)

    path = GOOD / "sharded.safetensors.index.json"
    a = {"model.embed_tokens.weight": normal(11, 24), "model.norm.weight": normal(1, 24)[0]}
    b = {"lm_head.weight": normal(11, 24), "model.stale.weight": normal(2, 2)}
    shards = {"sharded-00001-of-00002.safetensors": a, "sharded-00002-of-00002.safetensors": b}
    weight_map = {}
    for shard, tensors in shards.items():
        (GOOD / shard).write_bytes(safetensors_save(tensors))
        for name, values in tensors.items():
            if values.ndim == 2:
                expect_values(GOOD / shard, name, values)
            if name != "model.stale.weight":  # in a shard, not in the map: not part of the model
                weight_map[name] = shard
                if values.ndim == 2:
                    expect_values(path, name, values)
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}, indent=2))

    # An object at byte 8, where a safetensors header begins.
    path = GOOD / "brace-at-8.safetensors.index.json"
    path.write_text('{"a"   :{}, "weight_map":{"lm_head.weight": "sharded-00002-of-00002.safetensors"}}')
    expect_values(path, "lm_head.weight", b["lm_head.weight"])


# ---- .npy ----


def npy_bytes(header, data=b"", version=(1, 0), header_bytes=None):
    text = header.encode()
    length = len(text) if header_bytes is None else header_bytes
    packed = struct.pack("<H" if version[0] == 1 else "<I", length)
    return b"\x93NUMPY" + bytes(version) + packed + text + data


def good_npy():
    values = normal(5, 7)
    for descr in "<f2", "<f4", "<f8":
        for version in ((1, 0), (2, 0), (3, 0)):
            if version[0] > 1 and descr != "<f4":
                continue
            path = GOOD / f"{descr[1:]}-v{version[0]}.npy"
            array = values.astype(descr)
            with path.open("wb") as file:
                np.lib.format.write_array(file, array, version)
            expect_values(path, "", array.astype(np.float32))
    path = GOOD / "other-order.npy"
    path.write_bytes(npy_bytes("{\"shape\":(5,7),'fortran_order' : False, 'descr': \"<f4\"}", values.tobytes()))
    expect_values(path, "", values)
    path = GOOD / "one-value.npy"
    np.save(path, normal(1, 1))
    expect_values(path, "", np.load(path))


# ---- GGUF ----


def k_quant_blocks(qtype, n_blocks):
    """Random blocks with sane scales: the package can decode these types but not encode them."""
    block = gguf.GGML_QUANT_SIZES[qtype][1]
    blocks = rng.integers(0, 256, (n_blocks, block), np.uint8)
    halves = rng.uniform(-0.02, 0.02, (n_blocks, 2)).astype(np.float16).view(np.uint8)
    if qtype == Q.Q6_K:
        blocks[:, -2:] = halves[:, :2]
    else:
        blocks[:, :4] = halves
    return blocks


def gguf_write(path, tensors, alignment=None, keys=True):
    writer = gguf.GGUFWriter(path, "llama")
    if alignment:
        writer.add_custom_alignment(alignment)
    if keys:
        writer.add_array("tokenizer.ggml.tokens", [f"tok{i}" for i in range(300)])
        writer.add_array("tokenizer.ggml.scores", [float(i) for i in range(300)])
        writer.add_bool("flag", True)
        writer.add_float64("pi", 3.14159)
    for name, data, qtype in tensors:
        writer.add_tensor(name, data, raw_dtype=qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def good_gguf():
    tensors = []
    for qtype in (Q.F32, Q.F16, Q.BF16, Q.Q8_0, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q4_K, Q.Q5_K, Q.Q6_K):
        if qtype in (Q.Q4_K, Q.Q5_K, Q.Q6_K):
            data = k_quant_blocks(qtype, 6).reshape(3, -1)
        else:
            data = gguf.quants.quantize(normal(4, 96), qtype)
        tensors.append((f"{qtype.name.lower()}.weight", data, qtype))
    path = GOOD / "types.gguf"
    others = [
        ("norm", normal(1, 16)[0], None),
        ("cube", normal(8, 32).reshape(2, 4, 32), None),
        ("q2_k.weight", rng.integers(0, 256, (2, 84), np.uint8), Q.Q2_K),
    ]
    gguf_write(path, tensors + others)
    for name, data, qtype in tensors:
        expect_values(path, name, gguf.quants.dequantize(data, qtype))

    # Large enough that the header does not fit into the first 64 KiB that are read.
    path = GOOD / "alignment.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(128)
    writer.add_array("tokenizer.ggml.tokens", [f"{i:05}" for i in range(5200)])
    data = gguf.quants.quantize(normal(3, 32), Q.Q8_0)
    values = normal(5, 10)
    writer.add_tensor("token_embd.weight", data, raw_dtype=Q.Q8_0)
    writer.add_tensor("position_embd.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    expect_values(path, "token_embd.weight", gguf.quants.dequantize(data, Q.Q8_0))
    expect_values(path, "position_embd.weight", values)

    # Version 2 differs from 3 in the number alone (3 allows for big-endian files).
    path = GOOD / "v2.gguf"
    values = normal(4, 12)
    gguf_write(path, [("token_embd.weight", values, None), ("per_layer_token_embd.weight", values * 2, None)])
    raw = bytearray(path.read_bytes())
    raw[4:8] = struct.pack("<I", 2)
    path.write_bytes(raw)
    expect_values(path, "token_embd.weight", values)
    expect_values(path, "per_layer_token_embd.weight", values * 2)


# ---- One defect each ----


def bad(name, data, expect):
    (BAD / name).write_bytes(data)
    (BAD / (name + ".expect")).write_text(expect + "\n")


def bad_safetensors():
    def entry(shape=(2, 3), dtype="F32", offsets=(0, 24)):
        return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}

    def case(name, header, expect, data=bytes(24), **more):
        bad(f"st-{name}.safetensors", safetensors_bytes(header, data, **more), expect)

    ok = {"t": entry()}
    case("header-2-63", ok, "header length at byte 0: 9223372036854775808, expected at most", header_bytes=1 << 63)
    case("header-2-64", ok, "header length at byte 0: 18446744073709551615, expected", header_bytes=(1 << 64) - 1)
    case("header-past-end", ok, "header length at byte 0: 1000, expected at most", header_bytes=1000)
    case("header-100mb", ok, "header length at byte 0: 100000001, expected at most", header_bytes=100000001)
    case("truncated", ok, "data_offsets: expected [begin, end] within 20 bytes of data", bytes(20))
    case("trailing", ok, "the data ends at byte 97, the file has 98", bytes(25))
    case("not-json", b"{nonsense}", "header, JSON byte")
    case("json-trailing", json.dumps(ok).encode() + b"{}", "header, JSON byte")
    case("deep-arrays", b'{"t":' + b"[" * 5000 + b"]" * 5000 + b"}", "JSON nested deeper than 3")
    case("deep-objects", b'{"a":' * 4000 + b"1" + b"}" * 4000, "JSON nested deeper than 3")
    one = json.dumps(entry()).encode()
    case("duplicate-name", b'{"t":' + one + b',"t":' + one + b"}", "duplicate object key")
    case("duplicate-field", b'{"t":{"dtype":"F32","shape":[2,3],"shape":[2,3],"data_offsets":[0,24]}}', "duplicate object key")
    case("overlap", {"t": entry(), "u": entry((1, 3), offsets=(12, 24))}, "'t' and 'u' overlap at byte")
    case("same-range", {"t": entry(), "u": entry()}, "overlap at byte")
    case("hole", {"t": entry((2, 2), offsets=(8, 24))}, "tensor 't' starts at byte")
    case("wrong-size", {"t": entry((2, 4))}, "a range of 24 bytes, expected 32 (shape times F32)")
    case("name-long", {"n" * 500: entry((2, 4))}, "nn', data_offsets: a range of 24 bytes, expected 32 (shape times F32)")
    case("shape-2-64", {"t": entry((1 << 32, 1 << 32))}, "shape needs more than 2^63 bytes")
    case("shape-2-63", {"t": entry((1 << 31, 1 << 30))}, "shape needs more than 2^63 bytes")
    case("shape-too-big", b'{"t":{"dtype":"F32","shape":[99999999999999999999,1],"data_offsets":[0,24]}}', "too big integer")
    case("shape-negative", {"t": entry((-2, -3))}, "shape: expected non-negative integers")
    case("shape-real", {"t": entry((2.0, 3))}, "shape: expected non-negative integers")
    case("shape-missing", {"t": {"dtype": "F32", "data_offsets": [0, 24]}}, "shape: missing, expected an array")
    case("shape-long", {"t": entry([1] * 17)}, "17 values, expected at most 16")
    case("dtype-missing", {"t": {"shape": [2, 3], "data_offsets": [0, 24]}}, "dtype: expected a string")
    case("offsets-reversed", {"t": entry(offsets=(24, 0))}, "data_offsets: expected [begin, end]")
    case("offsets-negative", {"t": entry(offsets=(-24, 0))}, "data_offsets: expected non-negative")
    case("offsets-three", {"t": entry(offsets=(0, 12, 24))}, "3 values, expected at most 2")
    case("offsets-one", {"t": entry(offsets=(0,))}, "data_offsets: expected [begin, end]")
    case("name-control", {"\x1b[2J": entry()}, "control character 0x1b in its name")
    case("name-nul", {"a\0b": entry()}, "header, JSON byte")
    case("not-an-object", {"t": [1, 2]}, "dtype: expected a string")
    case("only-1d", {"embed.weight": entry((6,))}, "'embed.weight' has 1 axes, expected 2")
    case("only-f64", {"embed.weight": entry((1, 3), "F64")}, "is of type F64, expected F32")
    case("unknown-dtype", {"embed.weight": entry((1, 3), "F5_NEW")}, "is of type unknown, expected F32")
    case("no-rows", {"embed.weight": entry((0, 3), offsets=(0, 0))}, "is empty", b"")
    case("no-embedding", {"a": entry((1, 3), offsets=(0, 12)), "b": entry((1, 3), offsets=(12, 24))}, "2 tensors can be read, none has the name")
    case("several", {"a.wte.weight": entry((1, 3), offsets=(0, 12)), "shared.weight": entry((1, 3), offsets=(12, 24))}, "2 tensors may be the embedding, name one: 'a.wte.weight', 'shared.weight'")

    values = normal(9, 5)
    values[7, 3] = np.nan
    case("nan", {"wte.weight": entry((9, 5), offsets=(0, 180))}, "tensor 'wte.weight', row 7, column 3: found NaN", values.tobytes())
    values = values.astype(np.float16)
    values[7, 3], values[8, 4] = 0, -np.inf
    case("inf", {"wte.weight": entry((9, 5), "F16", (0, 90))}, "row 8, column 4: found infinity", values.tobytes())


def bad_index():
    def case(name, text, expect):
        bad(f"index-{name}.json", text if isinstance(text, bytes) else json.dumps(text).encode(), expect)

    shard = "index-shard.data"
    (BAD / shard).write_bytes(safetensors_save({"t": normal(2, 3)}))
    case("no-map", {"metadata": {}}, "without the object weight_map")
    case("empty-map", {"weight_map": {}}, "without the object weight_map")
    case("map-array", {"weight_map": ["t"]}, "without the object weight_map")
    case("parent", {"weight_map": {"t": "../good/bf16.safetensors"}}, "expected the name of a file beside the index")
    case("absolute", {"weight_map": {"t": "/dev/zero"}}, "expected the name of a file beside the index")
    case("dots", {"weight_map": {"t": ".."}}, "expected the name of a file beside the index")
    case("number", {"weight_map": {"t": 1}}, "expected the name of a file beside the index")
    case("missing-shard", {"weight_map": {"t": "nowhere.safetensors"}}, "nowhere.safetensors: cannot open: No such file")
    case("missing-tensor", {"weight_map": {"t": shard, "u": shard}}, f"weight_map: tensor 'u' is not in '{shard}'")
    case("duplicate", b'{"weight_map": {"t": "a", "t": "b"}}', "duplicate object key")
    case("deep", b'{"weight_map":' + b"[" * 3000 + b"]" * 3000 + b"}", "JSON nested deeper than 8")
    case("bad-shard", {"weight_map": {"t": "st-overlap.safetensors"}}, "st-overlap.safetensors: tensors 't' and 'u' overlap")
    case("empty-shard", {"weight_map": {"t": "empty.bin"}}, "empty.bin: the file has 0 bytes, expected at least 8")
    case("many-shards", {"weight_map": {f"t{i}": "index-shard.data" if i % 2 else f"./{i}" for i in range(4)}}, "expected the name of a file beside")


def bad_npy():
    def case(name, expect, descr="'<f4'", order="False", shape="(2, 3)", header=None, data=bytes(24), **more):
        if header is None:
            header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"
        bad(f"npy-{name}.npy", npy_bytes(header, data, **more), expect)

    def made(name, array, expect):
        np.save(BAD / f"npy-{name}.npy", array)
        (BAD / f"npy-{name}.npy.expect").write_text(expect + "\n")

    made("fortran", np.asfortranarray(normal(3, 4)), "fortran_order: True, expected False")
    made("big-endian", normal(3, 4).astype(">f4"), "'>f4' is big-endian")
    made("3d", normal(4, 4).reshape(2, 2, 4), "shape: 3 axes, expected 2")
    made("1d", normal(1, 4)[0], "shape: 1 axes, expected 2")
    made("0d", np.float32(1), "shape: 0 axes, expected 2")
    made("int", np.arange(6).reshape(2, 3), "descr: '<i8', expected")
    made("complex", normal(2, 2).astype(np.complex64), "descr: '<c8', expected")
    made("structured", np.zeros((2, 2), [("a", "<f4"), ("b", "<f4")]), "a structured dtype")
    made("no-rows", normal(0, 4), "shape: (0, 4), expected at least one row")
    made("no-columns", normal(4, 0), "shape: (4, 0), expected at least one row")
    made("wide", np.zeros((1, 65537), np.float16)[:, :0].reshape(0, 65537), "shape: (0, 65537), expected at least one row")
    values = normal(6, 2)
    values[4, 1] = np.inf
    made("inf", values, "row 4, column 1: found infinity")
    values = values.astype(np.float64)
    values[4, 1] = 1e300
    made("f8-range", values, "row 4, column 1: found infinity, expected a finite f32")
    values[3, 0] = np.nan
    made("nan", values, "row 3, column 0: found NaN")

    case("negative", "'-', expected a length", shape="(-2, -3)")
    case("overflow", "expected a length below 2^64", shape="(99999999999999999999, 1)")
    case("shape-2-64", "its shape needs more than 2^63 bytes", shape="(18446744073709551615, 65536)")
    case("truncated", "20 bytes of data, expected 24", data=bytes(20))
    case("trailing", "28 bytes of data, expected 24", data=bytes(28))
    case("many-axes", "expected at most 64 axes", shape="(" + "1," * 65 + ")")
    case("shape-comma", "'3', expected )", shape="(2 3)")
    case("unclosed-shape", "the end, expected a length", header="{'shape': (2, ")
    case("nested-shape", "expected a length", shape="((2, 3),)")
    case("float-shape", "expected )", shape="(2.0, 3)")
    case("order-number", "expected True or False", order="0")
    case("unknown-key", "expected descr, fortran_order and shape, once each", header="{'descr': '<f4', 'colour': 1}")
    case("twice", "once each", header="{'shape': (2, 3), 'shape': (2, 3)}")
    case("missing-key", "expected descr, fortran_order and shape in the dict", header="{'descr': '<f4'}")
    case("garbage", "expected nothing after the dict", header="{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)} x")
    case("expression", "expected {", header="__import__('os')")
    case("escape", "expected a dtype such as", descr="'\\x3cf4'")
    case("long-string", "expected a dtype such as", descr="'" + "<" * 40 + "'")
    case("unclosed-string", "expected a dtype such as", descr="'<f4", header="{'descr': '<f4")
    case("brace-in-data", "the end, expected }", header="{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)", data=b"}" * 24)
    case("no-header", "the end, expected {", header="", data=bytes(24))
    case("version", "version at byte 6: 4.0, expected", version=(4, 0))
    case("header-long", "header length at byte 8: 4294967295, expected at most", version=(2, 0), header_bytes=(1 << 32) - 1)
    case("header-past-end", "header length at byte 8: 60000, expected at most", header_bytes=60000)
    bad("npy-short.npy", b"\x93NUMPY\x01\x00\x00\x00", "the file has 10 bytes, expected at least 12")


def bad_gguf():
    def string(text):
        text = text if isinstance(text, bytes) else text.encode()
        return struct.pack("<Q", len(text)) + text

    def tensor(name="t", ne=(32, 2), qtype=0, offset=0):
        return string(name) + struct.pack(f"<I{len(ne)}QIQ", len(ne), *ne, qtype, offset)

    def case(name, expect, keys=(), tensors=None, data=bytes(256), magic=b"GGUF", version=3, n_keys=None, n_tensors=None, alignment=32):
        tensors = [tensor()] if tensors is None else tensors
        n_keys = len(keys) if n_keys is None else n_keys
        n_tensors = len(tensors) if n_tensors is None else n_tensors
        raw = magic + struct.pack("<IQQ", version, n_tensors, n_keys) + b"".join(keys) + b"".join(tensors)
        bad(f"gguf-{name}.gguf", raw + bytes(-len(raw) % alignment) + data, expect)

    def key(name, kind, value):
        return string(name) + struct.pack("<I", kind) + value

    def array(kind, count, values=b""):
        return struct.pack("<IQ", kind, count) + values

    case("version-1", "version at byte 4: 0x00000001, expected 2 or 3", version=1)
    case("version-4", "version at byte 4: 0x00000004, expected 2 or 3", version=4)
    case("big-endian", "(big-endian), expected 2 or 3", version=0x03000000)
    case("many-tensors", "number of tensors at byte 8: 18446744073709551615, the rest", n_tensors=(1 << 64) - 1)
    case("many-keys", "number of key-value pairs at byte 16: 9223372036854775808, the rest", n_keys=1 << 63)
    case("keys-past-end", "the file ends after", n_keys=16)
    case("key-length", "key at byte 32: 18446744073709551615 bytes, the file ends after", keys=[struct.pack("<Q", (1 << 64) - 1)])
    case("key-length-wraps", "key at byte 32: 18446744073709551584 bytes, the file ends after", keys=[struct.pack("<Q", (1 << 64) - 32)])
    case("value-type", ": 13, expected 0 to 12", keys=[key("k", 13, b"")])
    case("string-length", "string at byte", keys=[key("k", 8, struct.pack("<Q", 1 << 40))])
    case("array-length", "array length at byte", keys=[key("k", 9, array(8, 1 << 60))])
    case("array-bytes", "array length at byte", keys=[key("k", 9, array(11, (1 << 61) + 1))])
    case("array-type", ": 4294967295, expected 0 to 12", keys=[key("k", 9, array((1 << 32) - 1, 1))])
    case("array-depth", "nested deeper than 4", keys=[key("k", 9, array(9, 1) * 200 + array(0, 0))])
    case("alignment-type", "general.alignment at byte 53: type 10, expected 4", keys=[key("general.alignment", 10, struct.pack("<Q", 32))])
    case("alignment-zero", "general.alignment at byte 53: 0, expected a power of two", keys=[key("general.alignment", 4, struct.pack("<I", 0))])
    case("alignment-48", "general.alignment at byte 53: 48, expected a power of two", keys=[key("general.alignment", 4, struct.pack("<I", 48))])
    case("alignment-twice", "a second time", keys=[key("general.alignment", 4, struct.pack("<I", 64))] * 2)
    case("alignment-2-31", "256 bytes at 2147483648 + 0, the file has", keys=[key("general.alignment", 4, struct.pack("<I", 1 << 31))])
    case("name-length", "tensor name at byte 24: 2000 bytes, expected at most 1024", tensors=[tensor("n" * 2000)])
    case("name-control", "control character 0x0a in its name", tensors=[tensor("a\nb")])
    case("axes", "axes, expected at most 4", tensors=[tensor(ne=(1, 1, 1, 1, 1))])
    case("axes-2-32", "4294967295 axes, expected at most 4", tensors=[string("t") + struct.pack("<I", (1 << 32) - 1) + bytes(64)])
    case("shape-2-64", "shape needs more than 2^63 bytes", tensors=[tensor(ne=(1 << 32, 1 << 32))])
    case("shape-wraps", "shape needs more than 2^63 bytes", tensors=[tensor(ne=(1 << 16, 1 << 16, 1 << 16, 1 << 16))])
    case("shape-past-end", "8388608 bytes at", tensors=[tensor(ne=(65536, 32))])
    case("block", "rows of 33 values, expected a multiple of 32 (a block of Q8_0)", tensors=[tensor(ne=(33, 1), qtype=8)])
    case("block-k", "rows of 64 values, expected a multiple of 256 (a block of Q4_K)", tensors=[tensor(ne=(64, 1), qtype=12)])
    case("offset-unaligned", "offset 8: expected a multiple of 32", tensors=[tensor(ne=(8, 2), offset=8)])
    case("offset-past-end", "256 bytes at 96 + 32", tensors=[tensor(offset=32)])
    case("offset-2-64", "+ 18446744073709551584, the file has", tensors=[tensor(offset=(1 << 64) - 32)])
    case("overlap", "'a' and 'b' overlap at byte", tensors=[tensor("a", (32, 2)), tensor("b", (32, 1), offset=128)])
    case("duplicate-name", "two tensors are named 't'", tensors=[tensor("t", (32, 1)), tensor("t", (32, 1), offset=128)])
    case("truncated", "256 bytes at 96 + 0, the file has 351", data=bytes(255))
    case("unread-type", "tensor 'token_embd.weight' is of type IQ4_NL, expected", tensors=[tensor("token_embd.weight", (32, 1), 20)])
    case("unknown-type", "tensor 'token_embd.weight' is of type unknown, expected", tensors=[tensor("token_embd.weight", (32, 1), 99)])
    case("withdrawn-type", "is of type unknown, expected", tensors=[tensor("token_embd.weight", (32, 1), 4)])
    case("3d", "'token_embd.weight' has 3 axes, expected 2", tensors=[tensor("token_embd.weight", (32, 1, 2))])
    case("no-tensors", "0 tensors can be read, none has the name", tensors=[])
    case("wide", "its rows are longer than 65536 values", tensors=[tensor("token_embd.weight", (65537, 0))])

    block = bytearray(gguf.quants.quantize(normal(3, 32), Q.Q8_0).tobytes())
    block[34:36] = struct.pack("<e", float("nan"))
    case("nan-scale", "tensor 't', row 1, column 0: found NaN", tensors=[tensor(ne=(32, 3), qtype=8)], data=bytes(block))
    block = bytearray(k_quant_blocks(Q.Q4_K, 2).tobytes())
    block[146:148] = struct.pack("<e", float("inf"))
    case("inf-min", "tensor 't', row 1, column", tensors=[tensor(ne=(256, 2), qtype=12)], data=bytes(block))


def bad_foreign():
    bad("empty.bin", b"", "the file is empty")
    bad("one-byte.bin", b"G", "begins like no model file")
    bad("zip.bin", b"PK\x03\x04" + bytes(60), "begins like no model file")
    bad("text.txt", b"Not a model at all.\n", "begins like no model file")
    bad("short-magic.gguf", b"GGU", "begins like no model file")
    bad("only-magic.gguf", b"GGUF", "version at byte 4: 4 bytes, the file ends after 0")


def main():
    for folder in GOOD, BAD:
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            if ".carvq" not in path.name:  # those have another maker
                path.unlink()
    for make in good_safetensors, good_npy, good_gguf, bad_safetensors, bad_index, bad_npy, bad_gguf, bad_foreign:
        make()
    good, bad_files = (sum(f.stat().st_size for f in folder.iterdir()) for folder in (GOOD, BAD))
    print(f"good {good} bytes, bad {bad_files} bytes")


if __name__ == "__main__":
    main()
