#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Codebooks on rows they never saw: carvq packs one half of a table of N(0,1) rows, its codebooks are
read from that file as FORMAT.md lays them out, and both halves are coded with them here, by
exhaustive search over every combination of stages, as the packer searches this size jointly. The
half that was packed must come out as `carvq eval` says, or this reader is wrong. The bits are those
of the whole table's file.
"""

import argparse
import itertools
import json
import pathlib
import sys

import numpy as np

import common
import packing

OPTIONS = "--adaptor none --row-scale off --group global --stages 3 --codebook-bits 4 --subvector 8"
GOAL_REL_MSE, GOAL_BITS = 0.183, 1.52


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    packing.add_arguments(parser)
    parser.add_argument("--options", default=OPTIONS, help=f"of carvq pack, default '{OPTIONS}'")
    parser.add_argument("--rows", type=int, default=1000, help="of each half to code, default 1000")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def codebooks(path, p):
    """[stage][slot][centroid] of a file whose rows all share one set."""
    data = path.read_bytes()
    entries = [data[256 + 32 * i:][:32] for i in range(int.from_bytes(data[64:68], "little"))]
    chunk = next(e for e in entries if e[:4] == b"CDBK")
    offset, length = (int.from_bytes(chunk[i:i + 8], "little") for i in (8, 16))
    shape = (p["n_stages"], p["subvector_dims"], 2 ** p["codebook_bits"])
    plain = p["codebook_bits"] <= 4 and not p["row_scale"] and not p["latent_dims"]
    if not plain or length != 2 * np.prod(shape):
        raise SystemExit(f"{path}: expected one small codebook set, no row scale and no adaptor")
    return np.frombuffer(data, "<f2", np.prod(shape), offset).reshape(shape).astype(np.float32)


def combinations(books):
    """Every sum of one centroid a stage: [combination][slot]."""
    stages = [book.T for book in books]
    return np.array([sum(c) for c in itertools.product(*stages)], np.float32)


def rel_mse(rows, points, h):
    """Of the nearest points; a sub-vector holds the strided dimensions j, J + j, 2J + j ..."""
    half_norms = np.square(points).sum(axis=1) / 2
    error = 0.0
    for row in rows:
        sub = row.reshape(h, -1).T
        best = (sub @ points.T - half_norms).argmax(axis=1)
        error += float(np.square(sub - points[best]).sum(dtype=np.float64))
    return error / float(np.square(rows, dtype=np.float64).sum())


def main():
    args = arguments()
    packer = packing.Packer(args)
    packer.work.mkdir(parents=True, exist_ok=True)
    table = packer.table("normal")
    half = len(table) // 2
    half_path = packer.work / "normal-half.npy"
    if not half_path.exists():
        np.save(half_path, table[:half])
    whole = packer.pack("normal", options=args.options)
    packed = packer.pack("normal-half", options=args.options, source=str(half_path))
    parameters = packer.info(packed.path)["parameters"]
    points = combinations(codebooks(packed.path, parameters))
    rng = np.random.default_rng(args.seed)

    def sample(first, end):
        return np.array(table[first + np.sort(rng.choice(end - first, args.rows, replace=False))])

    h = parameters["subvector_dims"]
    seen = rel_mse(sample(0, half), points, h)
    unseen = rel_mse(sample(half, len(table)), points, h)
    claimed = packer.evaluate(packed)["rel_mse"]
    all_rows = packer.evaluate(whole)["rel_mse"]
    met = unseen <= GOAL_REL_MSE and whole.bits <= GOAL_BITS
    print(f"### N(0,1), {len(table):,} x {table.shape[1]}: codebooks of one half on both\n")
    print(common.markdown_table(("rows", "rel_mse", "bits"), [
        ("packed half, carvq eval", f"{claimed:.4f}", f"{packed.bits:.3f}"),
        (f"packed half, coded here, {args.rows} rows", f"{seen:.4f}", ""),
        (f"other half, coded here, {args.rows} rows", f"{unseen:.4f}", ""),
        ("whole table, carvq eval", f"{all_rows:.4f}", f"{whole.bits:.3f}"),
        ("goal", f"{GOAL_REL_MSE}", f"{GOAL_BITS}"),
    ]))
    print(f"\n{'Met' if met else 'Not met'}: {unseen:.4f} on unseen rows, {whole.bits:.3f} bits")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps({
            "claimed": claimed, "seen": seen, "unseen": unseen, "whole": all_rows,
            "bits": whole.bits, "met": met,
        }, indent=1) + "\n")
    if abs(seen / claimed - 1) > 0.02:
        sys.exit(f"heldout: {seen:.4f} here, {claimed:.4f} by carvq eval: codebooks misread")


if __name__ == "__main__":
    main()
