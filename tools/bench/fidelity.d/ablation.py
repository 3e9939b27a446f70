#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
What each part of the encoder is worth: `carvq pack` with the option strings of ablation.json, at
one rate, all rows compared. The parts cost different numbers of bits, so beside each rel_mse stands
the one that the rate would give by the rate-distortion slope (a factor of 4 a bit): modelled, and
only as good as the bits are close. What this carvq does not offer is said, not left out.
"""

import argparse
import json
import pathlib
import sys

import common
import packing

# rel_mse a bit, of Gaussian values: Cover and Thomas, Elements of Information Theory, 10.3.
SLOPE = 4.0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0].strip())
    add = parser.add_argument
    packing.add_arguments(parser)
    add("--rate", type=float, default=1.6, help="bits a parameter, default 1.6")
    add("--tables", type=lambda s: s.split(","), default=["minilm", "gemma8"],
        help="of " + ",".join(packing.TABLES) + "; default minilm,gemma8")
    add("--options", default=str(packing.HERE / "ablation.json"), metavar="FILE",
        help="list of {what, options}; {bits} stands for the rate")
    return parser.parse_args()


def run(packer, name, rate, entry):
    result = {"table": name, **entry}
    try:
        packed = packer.pack(name, bits=rate, options=entry["options"])
    except packing.Refused as refusal:
        return {**result, "refused": str(refusal)}
    closeness = packer.evaluate(packed)
    return {
        **result,
        **closeness,
        "setting": packed.setting,
        "at_rate": closeness["rel_mse"] * SLOPE ** (packed.bits - rate),
        "decode_us": packer.decode_us(packed),
        "pack_s": packed.seconds,
    }


def cells(r):
    if "refused" in r:
        return (r["what"], f"not offered: {r['refused']}", "", "", "", "", "", "")
    return (
        r["what"], r["setting"], f"{r['bits_per_param']:.3f}", f"{r['rel_mse']:.4f}",
        f"{r['at_rate']:.4f}", f"{r['cosine_mean']:.4f}", f"{r['cosine_min']:.3f}",
        "" if r["decode_us"] is None else f"{r['decode_us']:.2f}",
    )


def main():
    args = arguments()
    packer = packing.Packer(args)
    packer.work.mkdir(parents=True, exist_ok=True)
    entries = json.loads(pathlib.Path(args.options).read_text())
    header = ("what", "setting", "bits", "rel_mse", f"at {args.rate} bits", "mean cosine",
              "worst cosine", "decode us/row")
    results = []
    for name in args.tables:
        for entry in entries:
            results.append(run(packer, name, args.rate, entry))
            print(f"{name}: {' '.join(cells(results[-1]))}", file=sys.stderr, flush=True)
        rows = [cells(r) for r in results if r["table"] == name]
        print(f"\n### Ablation, {packing.TABLES[name].title}\n")
        print(common.markdown_table(header, rows), flush=True)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
