#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make-seeds.py FOLDER: first inputs for every fuzz target, FOLDER/NAME/*, from tests/data and from what is
said in each target's head. What fuzzing made of them, minimised, is corpus/."""
import pathlib
import struct
import sys

root = pathlib.Path(__file__).resolve().parent.parent
out = pathlib.Path(sys.argv[1])


def write(target, name, content):
    folder = out / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


# ---- Model files: those of the ordinary tests ----

for target, endings in {"safetensors": (".safetensors", ".json"), "gguf": (".gguf",), "npy": (".npy",)}.items():
    for path in sorted(root.glob("data/good/*")) + sorted(root.glob("data/bad/*")):
        if path.name.endswith(endings) and not path.name.endswith(".f32.npy") and path.stat().st_size <= 4096:
            write(target, path.name, path.read_bytes())

# ---- Tables: a header, and something for its chunks ----

MAGIC = b"\x89CARVQ\r\n"
CODECS = {"f32": 1, "f16": 2, "bf16": 3, "int8": 4, "int4": 5, "carvq": 6}


def header(codec, n_rows, n_dims, n_chunks=1, stages=0, bits=0, subvector=0, cols=0, rows=0, row_scale=0, latent=0,
           hidden=(0, 0), adaptor=0, latent_bits=0, tiers=None, tier_rows=(), window=None, col_scale=0, int8_tier=0):
    tiers = tiers or ([(stages, bits)] if stages else [])
    tiers = [t if isinstance(t, tuple) else (t, bits) for t in tiers]
    codes = len(tiers) - int8_tier if tiers else 0
    h = MAGIC + struct.pack("<HHIQQQ", 1, 0, 256, 0, 0, 23)
    h += struct.pack("<QIIQII", n_rows, n_dims, CODECS[codec], 0, n_chunks, 0)
    h += struct.pack("<IIIIQIIIIII", stages, bits, subvector, cols, rows, row_scale, latent, *hidden, adaptor, latent_bits)
    h += struct.pack("<I4B", len(tiers), *([s for s, _ in tiers] + [0] * 4)[:4])
    h += struct.pack("<3Q", *(list(tier_rows) + [0] * 3)[:3])
    h += struct.pack("<I4BI", window if window is not None else bits, *([b for _, b in tiers] + [0] * 4)[:4], col_scale)
    h += struct.pack("<4HI", *([0x3C00] * codes + [0] * 4)[:4], int8_tier)
    h += bytes(64 + 16)
    assert len(h) == 256, len(h)
    return h


body = bytes((i * 37 + i // 7) % 256 for i in range(600))
halves = b"".join(struct.pack("<H", 0x3000 + 97 * i % 0x1000) for i in range(150))
for codec in ("f32", "f16", "bf16", "int8", "int4"):
    write("table", codec, header(codec, 20, 33) + halves)
write("table", "rvq", header("carvq", 50, 100, stages=3, bits=4, subvector=8, cols=4, rows=20, row_scale=1) + body)
write("table", "rvq-3-bits", header("carvq", 9, 70, stages=2, bits=3, subvector=7, cols=3, rows=9) + halves)
write("table", "large", header("carvq", 40, 64, stages=2, bits=8, subvector=16, cols=2, rows=40) + halves)
write("table", "window", header("carvq", 500, 48, stages=2, bits=6, subvector=4, cols=12, rows=500, col_scale=1,
                                tiers=[(2, 4), (2, 6)], tier_rows=[100], window=12) + body)
write("table", "tiers", header("carvq", 1000, 32, stages=4, bits=8, subvector=8, cols=4, rows=1000, adaptor=1,
                               tiers=[1, 2, 4], tier_rows=[500, 100]) + body)
write("table", "int8-tier", header("carvq", 900, 32, stages=2, bits=4, subvector=8, cols=4, rows=900, int8_tier=1,
                                   tiers=[(0, 0), (2, 4), (0, 0)], tier_rows=[600, 50]) + halves)
write("table", "adaptor", header("carvq", 30, 40, stages=3, bits=4, subvector=8, cols=5, rows=30, latent=5, hidden=(9, 7),
                                 adaptor=1, latent_bits=16) + halves)
write("table", "adaptor-int8", header("carvq", 30, 40, stages=1, bits=4, subvector=8, cols=5, rows=30, latent=6,
                                      hidden=(20, 0), adaptor=2, latent_bits=8) + halves)
write("table", "linear", header("carvq", 30, 40, stages=2, bits=5, subvector=8, cols=5, rows=30, latent=3, adaptor=2,
                                latent_bits=8, row_scale=1) + halves)
write("table", "means", header("carvq", 30, 40, stages=2, bits=4, subvector=8, cols=5, rows=30, adaptor=1) + halves)
for name in ("limits", "many-rows"):
    n = 65536 if name == "limits" else 1 << 40
    write("table", name, header("int8", 3 if name == "limits" else n, 65536 if name == "limits" else 1) + body[:64])

# ---- Rings ----


def submission(user=0, table=0, ids=0, bags=0, at=0, stride=0, n_ids=1, n_bags=0, col=0, n_cols=0, scale=1.0, type=0,
               pooling=0, zero=0, flags=0):
    return struct.pack("<QQQQQQQIIIIfBBBB", user, table, 0, ids, bags, at, stride, n_ids, n_bags, col, n_cols, scale,
                       type, pooling, zero, flags)


def ring(steps, submissions, ids=b"", sq=4, cq=1, ids_pages=7, arena=31, sq_head=0xFFFFFFFE, cq_tail=0xFFFFFFFD, wild=5):
    geometry = struct.pack("<IIQQ", 8, 16, 4096, 1 << 20)
    head = struct.pack("<BBBBII", sq, cq, ids_pages, arena, sq_head, cq_tail)
    return (geometry + head + struct.pack("<BI", steps, wild) + bytes([len(submissions) - 1]) + b"\2" +
            struct.pack("<QQ", 1 << 32 | 3, 5) + b"".join(submissions) + (ids or bytes(range(64))))


write("ring", "one", ring(1, [submission(n_ids=3, stride=28)]))
write("ring", "all-tables", ring(1, [submission(table=t, n_ids=2, stride=4096, at=8192 * t, zero=1) for t in range(4)]))
write("ring", "sum", ring(9, [submission(table=1, n_ids=8, n_bags=3, bags=1024, pooling=1, stride=4000)],
                          bytes(range(8)) + bytes(120) + b"\0\2\5" + bytes(60)))
write("ring", "mean-f16", ring(1, [submission(table=2, n_ids=8, n_bags=2, bags=1024, pooling=2, type=1, stride=256,
                                              col=3, n_cols=50, scale=0.5, zero=1)], bytes(range(8)) + bytes(120) + b"\0\4"))
write("ring", "pieces", ring(1, [submission(table=3, n_ids=500, stride=256, flags=1, zero=1, type=2)], bytes(range(33)) * 16))
write("ring", "large", ring(9, [submission(table=1, n_ids=32, stride=4000, flags=1, zero=1)] * 16, b"\0\1\2" * 20))
write("ring", "full", ring(0, [submission(n_ids=1, stride=28)] * 16, cq=0))
write("ring", "jumps", ring(3, [submission(n_ids=1, stride=28)] * 4))
write("ring", "tail-jumps", ring(5, [submission(n_ids=1, stride=28)] * 4, wild=0xFFFFFFFF))
write("ring", "failed", ring(0xF1, [submission(n_ids=4, stride=28)] * 2, wild=0))
write("ring", "edges", ring(1, [submission(at=0xFFFFFFFFFFFFFFC0, stride=1 << 60, n_ids=65536), submission(ids=1 << 63),
                                submission(stride=28, at=64, n_ids=4681), submission(user=1), submission(type=3),
                                submission(scale=float("nan")), submission(n_cols=8, stride=32)]))

# ---- Socket messages ----

M, FIT = 0x40, 6


def message(type, content=b"", size=0, shape=M | FIT):
    """`content` begins at the header, which is mended."""
    return bytes([shape, type - 1]) + (bytes(8) + content).ljust(size, b"\0")


def raw(content, shape=0):
    return bytes([shape]) + struct.pack("<H", len(content)) + content


hello = message(1, bytes(16) + struct.pack("<QQ", 3, 0) + b"fuzz", 168)
shared = message(3, struct.pack("<IIQQ", 8, 16, 4096, 65536), 32)
open_table = message(5, struct.pack("<Q", 7) + b"small", 144)
handshake = hello + shared
write("wire", "handshake", handshake)
write("wire", "open", handshake + open_table)
write("wire", "all", handshake + open_table + message(10, struct.pack("<QQ", 8, 256), 24) +
      message(12, struct.pack("<QQ", 9, 256), 24) + message(7, struct.pack("<Q", 256), 16))
write("wire", "close-twice", handshake + open_table + message(7, struct.pack("<Q", 256), 16) * 2)
write("wire", "open-absent", handshake + message(5, struct.pack("<Q", 7) + b"absent", 144))
write("wire", "wrong-order", shared + hello)
write("wire", "two-hellos", hello + hello)
write("wire", "required", message(1, bytes(16) + struct.pack("<QQ", 255, 255), 168))
write("wire", "big", hello + message(3, struct.pack("<IIQQ", 4096, 4096, 1 << 40, 1 << 40), 32))
for kind in range(8):
    write("wire", f"memfd-{kind}", hello + message(3, struct.pack("<IIQQ", 8, 16, 4096, 65536), 32, M | FIT | kind << 3))
for n in (0, 1, 2, 5):
    write("wire", f"fds-{n}", message(1, bytes(16), 168, M | n))
for type in range(1, 14):
    write("wire", f"type-{type}", handshake + message(type, struct.pack("<QQ", 1, 256), 64))
write("wire", "raw", raw(struct.pack("<IIQHHIQQ", 1, 168, 0x474E495251565243, 1, 1, 0, 0, 0) + bytes(128)))
write("wire", "newer", raw(struct.pack("<IIQHHIQQ", 1, 200, 0x474E495251565243, 2, 0, 0, 0, 0) + bytes(160)))
write("wire", "too-long", raw(bytes(570)))

# ---- Configurations ----

write("config", "shipped", (root.parent / "systemd/carvqd.conf").read_bytes())
write("config", "settings", b"""[carvqd]
tables-dir = /var/lib/carvq
cache-bytes = 64M
log-level = debug
cpu-mask = avx2,avx512
spin-us = 0
workers = 4
max-sessions = 16
max-ring-bytes = 1G
socket = /run/x
control = /run/y

[table words]
path = /srv/words.carvq
cache-bytes = auto
group = root
populate = yes
lock = no
huge-pages = yes
""")
write("config", "drop-ins", b"""[carvqd]
workers = 2
%%%10-a.conf
[carvqd]
workers = 3
tables-dir =
[table a]
path = /a
%%%9-b.conf
[table a]
cache-bytes = 1K
%%%README
nothing
%%%.hidden.conf
[carvqd]
%%%--table a=/b
%%%--table a:group=100
%%%--table a:frob=1
""")
write("config", "complaints", b"""workers = 1
[elsewhere]
workers = x
[carvqd]
workers = 0
spin-us = 99999999999999999999
frob = 1
cache-bytes = 17E
no equals sign
[table .hidden]
[table a b]
[table ok]
group = nobody-of-that-name
populate = maybe
path =
; comment
# comment
[unclosed
""")
write("config", "long", b"[carvqd]\nsocket = /" + b"x" * 190 + b"\n  control = y\n" + b"[table " + b"n" * 127 + b"]\n")
write("config", "bytes", b"\xef\xbb\xbf[carvqd]\r\nworkers = 2 ; two\r\n\0\xff = \xfe\n")

# ---- Varlink ----


def call(method, parameters="", rest=""):
    text = '{"method":"' + method + '"' + (',"parameters":' + parameters if parameters else "") + rest + "}"
    return text.encode() + b"\0"


C, S = "io.carvq.Control.", "org.varlink.service."
write("varlink", "info", call(S + "GetInfo") + call(C + "GetStatus", "{}"))
write("varlink", "description", call(S + "GetInterfaceDescription", '{"interface":"io.carvq.Control"}') +
      call(S + "GetInterfaceDescription", '{"interface":"x\\u0007\\n\\u0085"}'))
write("varlink", "lists", call(C + "ListClients") + call(C + "ListTables") + call(C + "GetStats", '{"table":null}'))
write("varlink", "stats", call(C + "GetStats", '{"table":"small"}'))
write("varlink", "load", call(C + "LoadTable", '{"name":"a","path":"/a"}') + call(C + "UnloadTable", '{"name":"a"}'))
write("varlink", "unload", call(C + "UnloadTable", '{"name":"a"}') + call(C + "Reload"))
write("varlink", "oneway", call(S + "GetInfo", "", ',"oneway":true') * 3 + call(S + "GetInfo", "", ',"more":true'))
write("varlink", "upgrade", call(S + "GetInfo", "", ',"upgrade":true'))
write("varlink", "refusals", call("io.carvq.Control.Frob") + call("a.b.C") + call("x") + call(C + "GetStats", '{"frob":1}') +
      call(C + "UnloadTable") + call(C + "UnloadTable", '{"name":1}') + call(C + "GetStats", "null"))
for name, text in {"array": b"[]", "empty": b"", "number": b"1", "no-method": b"{}", "method": b'{"method":1}',
                   "twice": b'{"method":"a","method":"b"}', "parameters": b'{"method":"a","parameters":[]}',
                   "flag": b'{"method":"a","oneway":1}', "nul": b'{"method":"a\\u0000b"}', "utf-8": b'{"method":"\xff"}',
                   "deep": b'{"method":"a","parameters":{"x":' + b"[" * 200 + b"]" * 200 + b"}}"}.items():
    write("varlink", name, text + b"\0")
write("varlink", "unfinished", call(S + "GetInfo") + b'{"method":"org.varlink.service.GetI')
