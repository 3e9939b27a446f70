# SPDX-License-Identifier: Apache-2.0
"""
The tables that the fidelity benches measure, and carvq as the benches run it: pack, unpack, eval,
info and the time to decode a row. Everything made lands in the work folder under a name that
changes with the program, the options and the table, so that a second run makes nothing twice.
"""

import dataclasses
import hashlib
import json
import pathlib
import re
import shlex
import subprocess
import time

import numpy as np

import common

HERE = pathlib.Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Table:
    title: str
    model: str | None  # a file of the models folder that carvq reads itself


TABLES = {
    "normal": Table("N(0,1)", None),
    "minilm": Table("all-MiniLM-L6-v2, word embeddings", "minilm.safetensors"),
    "gemma": Table("Gemma 3 270M, token embeddings", "gemma3-270m.gguf"),
    "narrow": Table("Gemma 3 270M, the first 100 columns of 100,000 rows", None),
    "gemma8": Table("Gemma 3 270M, token embeddings, every 8th row", None),
}


def add_arguments(parser):
    add = parser.add_argument
    add("--carvq", required=True, metavar="PATH", help="the carvq program")
    add("--work", required=True, metavar="DIR", help="packed tables and kept results")
    add("--models", default=str(HERE.parents[2] / "models"), metavar="DIR",
        help="what tools/fetch-models brought, default models/ of the sources")
    add("--pack-options", default="--bits {bits}", metavar="TEMPLATE",
        help="options of `carvq pack` for a rate, default '--bits {bits}'")
    add("--decode-command", metavar="TEMPLATE", default="",
        help="prints the us a row of {file} as its last number; default: bench-decode-file, where"
             " the build folder has it beside carvq's")
    add("--threads", type=int, default=2, help="of carvq pack, default 2")
    add("--json", metavar="OUT", help="also write the figures here")


def machine():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown CPU"


@dataclasses.dataclass
class Packed:
    path: pathlib.Path
    source: str
    bits: float  # of the file, all included
    setting: str
    seconds: float | None  # None where an earlier run packed it


class Refused(Exception):
    """carvq does not know these options."""


class Packer:
    def __init__(self, args):
        self.args = args
        self.work = pathlib.Path(args.work)
        self.models = pathlib.Path(args.models)
        self.program = hashlib.sha256(pathlib.Path(args.carvq).read_bytes()).hexdigest()

    def table(self, name):
        """Rows of f32, mapped from the work folder."""
        path = self.work / f"{name}.npy"
        if not path.exists():
            np.save(path, self._make(name))
        return np.load(path, mmap_mode="r")

    def _make(self, name):
        if name == "normal":
            return np.random.default_rng(1).standard_normal((20000, 2048), dtype=np.float32)
        if name == "narrow":
            return np.ascontiguousarray(self.table("gemma")[:100000, :100])
        if name == "gemma8":
            return np.ascontiguousarray(self.table("gemma")[::8])
        load = {"minilm": common.load_minilm, "gemma": common.load_gemma}[name]
        return load(str(self.models / TABLES[name].model))

    def _source(self, name):
        model = TABLES[name].model
        if model:
            return str(self.models / model)
        self.table(name)
        return str(self.work / f"{name}.npy")

    def pack(self, name, bits=None, options=None, source=None):
        """With `options` those, else the template's for `bits`."""
        options = shlex.split((options or self.args.pack_options).format(bits=bits))
        source = source or self._source(name)
        stat = pathlib.Path(source).stat()
        key = repr((self.program, options, source, stat.st_size, stat.st_mtime_ns))
        path = self.work / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.carvq"
        seconds = None
        if not path.exists():
            start = time.perf_counter()
            self._run("pack", source, "-o", str(path), "--quiet", "--threads",
                      str(self.args.threads), *options)
            seconds = time.perf_counter() - start
        info = self.info(path)
        return Packed(path, source, info["bits_per_param"], describe(info["parameters"]), seconds)

    def info(self, path):
        return json.loads(self._run("info", str(path), "--json"))

    def evaluate(self, packed):
        return json.loads(self._run("eval", str(packed.path), packed.source, "--json", "--quiet"))

    def unpack(self, packed):
        """Every row as the decoder gives it. The last table unpacked is the only one kept."""
        path = self.work / "decoded.npy"
        self._run("unpack", str(packed.path), "-o", str(path), "--quiet")
        return np.load(path, mmap_mode="r")

    def decode_us(self, packed):
        """None where there is no program to time it."""
        template = self.args.decode_command
        if not template:
            beside = pathlib.Path(self.args.carvq).resolve().parents[1] / "bench/bench-decode-file"
            if not beside.exists():
                return None
            template = f"{shlex.quote(str(beside))} {{file}}"
        command = [w.format(file=packed.path) for w in shlex.split(template)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return float(re.findall(r"\d+(?:\.\d+)?", output)[-1])

    def _run(self, verb, *arguments):
        command = [self.args.carvq, verb, *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 2:
            raise Refused(done.stderr.strip().splitlines()[0] if done.stderr else "wrong usage")
        if done.returncode:
            said = done.stderr.strip()
            raise SystemExit(f"{shlex.join(command)}: exit {done.returncode}\n{said}")
        return done.stdout


def describe(p):
    """What the packer chose, from the parameters that `carvq info` prints."""
    bits = [str(t["code_bits"]) for t in p["tiers"] if t["of"] == "codes"]
    if p["n_stages"] > 1:
        bits = [f"{p['n_stages']}x{p['codebook_bits']}"]
    words = [f"d={p['subvector_dims']} {'/'.join(bits)} bits"]
    if p["window_bits"] > p["codebook_bits"]:
        words.append(f"window {p['window_bits']}")
    words += ["row scale"] if p["row_scale"] else []
    words += ["column scale"] if p["col_scale"] else []
    if p["adaptor"] != "none":
        shape = [str(v) for v in [p["latent_dims"], *p["hidden_dims"]] if v]
        words.append("mean" if not shape else "adaptor " + "x".join(shape))
    return ", ".join(words)
