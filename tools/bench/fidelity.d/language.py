#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Perplexity of Gemma 3 270M with only its input embeddings replaced: the original's, round-to-nearest
int4, int3 and int2, and what `carvq` packs and decodes. Counts for the tiered tables come from one
Debian package's prose, the scored text from another's. Prints a Markdown table.

Every result is kept in the work folder under a digest of what it was computed from, rows included,
so that a second run computes only what has changed.
"""

import argparse
import collections
import hashlib
import json
import pathlib
import shlex
import sys

import numpy as np

import common
import language_model
import language_noise
import language_rows
import language_text

PACKED = {
    "carvq-1.6": "--bits 1.6",
    "carvq-2.4": "--bits 2.4",
    "carvq-3.0": "--bits 3.0",
    "tiered-1.6": "--bits 1.6 --counts {counts}",
    "tiered-2.4": "--bits 2.4 --counts {counts}",
    "rank-1.6": "--bits 1.6 --counts rank",
}
ROUNDED = {"int4": 4, "int3": 3, "int2": 2}


def pair(text):
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text}: expected NAME=...")
    return name, value


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--model", required=True, metavar="GGUF", help="Gemma 3 270M")
    add("--carvq", default="carvq", help="the carvq program")
    add("--tokens", type=int, default=20480, help="tokens to score, default 20480")
    add("--work", required=True, metavar="DIR", help="texts, packed tables and kept results")
    add("--json", metavar="OUT", help="also write the results here")
    add("--only", nargs="+", metavar="NAME", help="of: original " + " ".join([*ROUNDED, *PACKED]))
    add("--threads", type=int, default=2)
    add("--counts", choices=("text", "rank"), default="text",
        help="what the tiered tables are given: counts of a text (default) or the order of ids")
    add("--counts-text", nargs="+", choices=language_text.TEXTS, metavar="PACKAGE",
        default=["debian-reference-en", "developers-reference", "debian-faq", "anarchism"],
        help="of: " + " ".join(language_text.TEXTS))
    add("--scored-text", choices=language_text.TEXTS, metavar="PACKAGE", default="debian-handbook")
    add("--pack", action="append", default=[], type=pair, metavar="NAME=ARGS",
        help="one more table by `carvq pack ARGS`, or other arguments for a known one; {counts} "
             "stands for the counts")
    add("--rows", action="append", default=[], type=pair, metavar="NAME=FILE",
        help="one more table, an .npy or .carvq file")
    add("--noise", action="store_true", help="rows with noise of known strength instead")
    args = parser.parse_args()
    if args.scored_text in args.counts_text:
        parser.error(f"--counts-text: {args.scored_text} is scored, and counts must not see that")
    args.pack = PACKED | dict(args.pack)
    args.rows = dict(args.rows)
    known = ["original", *ROUNDED, *args.pack, *args.rows]
    unknown = set(args.only or ()) - set(known)
    if unknown:
        parser.error(f"--only: {' '.join(sorted(unknown))} is none of: {' '.join(known)}")
    args.only = args.only or known
    return args


class Bench:
    def __init__(self, args):
        self.args = args
        self.work = pathlib.Path(args.work)
        (self.work / "results").mkdir(parents=True, exist_ok=True)
        self.model = language_model.Model(args.model, args.threads)
        stat = pathlib.Path(args.model).stat()
        self.about_model = repr((stat.st_size, stat.st_mtime_ns,
                                 language_model.llama_cpp.__version__)).encode()
        self.windows = self.model.windows(self.tokens(args.scored_text), args.tokens)
        self.counts = self.count(args.counts_text)
        np.save(self.work / "counts.npy", self.counts)
        self.table = common.load_gemma(args.model)
        self.reference = None

    def kept(self, compute, *made_of):
        """What compute() gives, or gave for the same model and the same bytes."""
        digest = hashlib.sha256(self.about_model)
        for part in made_of:
            digest.update(hashlib.sha256(part).digest())
        path = self.work / "results" / f"{digest.hexdigest()[:32]}.npy"
        if path.exists():
            return np.load(path)
        value = compute()
        np.save(path, value)
        return value

    def tokens(self, package):
        text = language_text.read(package, self.work)
        return self.kept(lambda: self.model.tokenize(text), b"tokens", text.encode())

    def count(self, packages):
        """How often each token occurs in these texts, and BOS once a window, as in use."""
        counts = np.zeros(self.model.n_vocab, np.uint64)
        for package in packages:
            counts += np.bincount(self.tokens(package), minlength=len(counts)).astype(np.uint64)
        counts[self.model.bos] += counts.sum() // language_model.WINDOW
        return counts

    def pack(self, name, options):
        counts = "rank" if self.args.counts == "rank" else str(self.work / "counts.npy")
        options = shlex.split(options.replace("{counts}", counts))
        return language_rows.pack(name, self.args.carvq, self.args.model, options, self.work,
                                  self.args.threads)

    def nll(self, source):
        """Of the source's rows; None: of token ids, the way everyone runs the model."""
        used = np.unique(self.windows[:, :-1])
        # Scaled before the digest: a result is kept for the very bytes that the model reads.
        rows = None if source is None else self.model.scaled(source.rows(used))
        look_up = None if rows is None else lambda ids: rows[np.searchsorted(used, ids)]

        def compute():
            nll = self.model.nll(self.windows, look_up)
            progress(f"{self.model.tokens_per_s:.0f} tokens/s")
            return nll

        return self.kept(compute, b"nll %d" % language_model.CONTEXT, self.windows.tobytes(),
                         b"ids" if rows is None else rows.tobytes())

    def source(self, name):
        args = self.args
        if name == "original":
            tensor = common.gguf_tensor(args.model, "token_embd.weight")
            bits = int(tensor.n_bytes) * 8 / int(np.prod(tensor.shape))
            return language_rows.Array(name, bits, self.table)
        if name in args.rows:
            return language_rows.from_file(name, args.rows[name], args.carvq, self.work)
        if name in args.pack:
            return self.pack(name, args.pack[name])
        return language_rows.RoundToNearest(ROUNDED[name], self.table)

    def measure(self, source):
        """A source's perplexity beside the reference's, and the error of the rows it read."""
        nll = self.nll(source)
        ratio, error = language_model.ratio(nll, self.reference)
        rel_mse, worst_id, worst = language_rows.rel_mse_read(
            source, self.table, self.windows[:, :-1])
        return {
            "name": source.name,
            "rel_mse_read": rel_mse,
            "worst_row": worst_id,
            "worst_row_rel_mse": worst,
            "perplexity": language_model.perplexity(nll),
            "ratio": ratio,
            "ratio_standard_error": error,
        }

    def prove_equal(self):
        """The reference, from token ids; feeding the unmodified rows must give the same."""
        progress("original, token ids")
        self.reference = self.nll(None)
        progress("original, embeddings")
        result = self.measure(self.source("original"))
        if abs(result["ratio"] - 1) > 0.001:
            raise SystemExit(f"unmodified rows fed as embeddings give {result['ratio']:.5f} of the "
                             "perplexity of token ids, expected 1 within 0.001")
        return result

    def measure_tables(self):
        results = []
        for name in self.args.only:
            progress(name)
            source = self.source(name)
            result = self.measure(source)
            result |= {"bits": source.bits, "rel_mse": language_rows.rel_mse(source, self.table)}
            source.close()
            results.append(result)
            progress(f"{name}: {result['bits']:.3f} bits, ratio {result['ratio']:.4f}")
        return results

    def measure_noise(self):
        results = []
        for source in language_noise.sources(self.table, self.counts):
            results.append(self.measure(source))
            progress(f"{source.name}: ratio {results[-1]['ratio']:.4f}")
        return results


def progress(text):
    print(f"language: {text}", file=sys.stderr, flush=True)


def preamble(bench, unmodified):
    """What was measured: texts, windows, counts, and the proof that the way in is sound."""
    args, model = bench.args, bench.model
    window, context = language_model.WINDOW, language_model.CONTEXT
    n_windows = len(bench.windows)
    seen = float((bench.counts[bench.windows[:, 1:-1]] > 0).mean())

    def shipped(package):
        return f"{package} {language_text.version(package, bench.work)}"

    return (
        f"Perplexity of {pathlib.Path(args.model).name} over {n_windows * (window - context)} "
        f"tokens of {shipped(args.scored_text)}: {n_windows} windows of BOS and {window} tokens, "
        f"evenly spread, the first {context} of each read but not scored. "
        f"Counts: {int(bench.counts.sum())} tokens of "
        f"{', '.join(shipped(package) for package in args.counts_text)}, in which {seen:.1%} of "
        f"the scored text's tokens occur. "
        f"From token ids: {language_model.perplexity(bench.reference):.4f}; from the same rows fed "
        f"as embeddings: {unmodified['perplexity']:.4f} (ratio {unmodified['ratio']:.6f}). "
        f"Only the {model.n_vocab} x {model.n_dims} input rows are replaced, BOS among them; the "
        f"output matrix and all else ({other_types(args.model)}) are the file's. "
        "\"As read\" is the rel_mse of the rows that the text reads, each as often as it does; the "
        "worst of them stands beside it. ± is the standard error of the ratio over windows."
    )


def other_types(model):
    """The types of the tensors that stay, most frequent first: "109 F32, 81 Q5_0 ..."."""
    types = collections.Counter(
        tensor.tensor_type.name for tensor in common.gguf_tensors(model)
        if tensor.name != "token_embd.weight")
    return ", ".join(f"{n} {name}" for name, n in types.most_common())


def table(results):
    rows = [[
        r["name"],
        f"{r['bits']:.3f}" if "bits" in r else "",
        f"{r['rel_mse']:.4f}" if "rel_mse" in r else "",
        f"{r['rel_mse_read']:.4f}",
        f"{r['worst_row_rel_mse']:.3f} ({r['worst_row']})",
        f"{r['perplexity']:.3f}",
        f"{r['ratio']:.4f}",
        f"{r['ratio_standard_error']:.4f}",
    ] for r in results]
    header = ["rows", "bits/param", "rel_mse", "as read", "worst row (id)", "perplexity", "ratio",
              "±"]
    return common.markdown_table(header, rows)


def main():
    args = arguments()
    bench = Bench(args)
    unmodified = bench.prove_equal()
    results = bench.measure_noise() if args.noise else bench.measure_tables()
    text = preamble(bench, unmodified)
    print(f"{text}\n\n{table(results)}")
    if args.json:
        pathlib.Path(args.json).write_text(
            json.dumps({"about": text, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
