#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What `carvq pack` makes of bits, counts and presets: the rate is kept to the byte, more bits are
# closer, rows that are used more are closer than others. Prints TAP. Environment as carvq-cli.sh.
set -u
export LC_ALL=C

carvq=${CARVQ:?} root=${CARVQ_SOURCE_ROOT:?}
make_npy=$root/tests/integration/make-npy.py
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
. "$root/tests/integration/tap.sh"

python3 "$make_npy" table.npy 3000 100
python3 "$make_npy" narrow.npy 9000 30

# ---- Bits ----

for table in table narrow; do
        for bits in 1.0 1.37 1.6 2.4 4 8; do
                check "$table: --bits $bits packs" pack $table.npy -o b.carvq --bits $bits --preset fast
                check "$table: --bits $bits verifies" "$carvq" verify b.carvq
                "$carvq" eval b.carvq $table.npy --json --quiet >e.json
                check "$table: --bits $bits is kept, and used" json e.json \
                        "$bits * 0.92 < o['bits_per_param'] <= $bits"
                # N(0,1) values of as many bits leave at least 4^-bits; these tables are small, and
                # their codebooks too. The tails cost most where the bits are many.
                check "$table: --bits $bits is as close as it should be" json e.json \
                        "4 ** -$bits < o['rel_mse'] < (2 + $bits ** 2 / 6) * 4 ** -$bits"
        done
done
for preset in fast default best; do
        pack table.npy -o p.carvq --preset $preset
        "$carvq" eval p.carvq table.npy --json --quiet >$preset.json
done
check "default is closer than fast" json default.json \
        "o['rel_mse'] < $(python3 -c 'import json; print(json.load(open("fast.json"))["rel_mse"])')"
check "best is as close as default" json best.json \
        "o['rel_mse'] <= 1.01 * $(python3 -c 'import json; print(json.load(open("default.json"))["rel_mse"])')"
python3 "$make_npy" tiny.npy 20 30
check "a tiny table packs without --bits" pack tiny.npy -o x.carvq
refuses "a tiny table within 1.5 bits" 3 'tiny.npy: --bits 1.5: a table of this shape takes at least [0-9.]+$' \
        pack tiny.npy -o x.carvq --bits 1.5

# ---- A row that codes do not reach ----

python3 - <<'PY'
data = bytearray(open("table.npy", "rb").read())
rows = len(data) - 3000 * 100 * 4
import struct
struct.pack_into("<f", data, rows + (2 * 100 + 7) * 4, 45.0)
open("spike.npy", "wb").write(data)
PY
check "one row of one large value packs" pack spike.npy -o spike.carvq
check "it alone is of integers" json <("$carvq" info spike.carvq --json) \
        "[t['n_rows'] for t in o['parameters']['tiers'] if t['of'] == 'int8'] == [1]"
check "the bits are kept" json <("$carvq" info spike.carvq --json) "o['bits_per_param'] <= 1.6"
"$carvq" eval spike.carvq spike.npy --json --quiet >e.json
check "and no row is lost" json e.json "o['cosine_min'] > 0.8 and o['max_abs_err'] < 6"

# ---- Counts ----

python3 - <<'PY'
import struct
counts = [0] * 3000
for i in range(0, 3000, 7):
    counts[i] = 1000 + i
with open("counts.txt", "w") as f:
    f.write("# uses\n" + "".join(f"{c}\n" for c in counts))
header = "{'descr': '<u8', 'fortran_order': False, 'shape': (3000,), }"
header += " " * (-(len(header) + 11) % 64) + "\n"
with open("counts.npy", "wb") as f:
    f.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
    f.write(struct.pack("<3000Q", *counts))
PY
check "counts of text" pack table.npy -o text.carvq --counts counts.txt
check "counts of npy" pack table.npy -o npy.carvq --counts counts.npy
check "are the same counts" cmp <("$carvq" unpack text.carvq -o u.npy --quiet && cat u.npy) \
        <("$carvq" unpack npy.carvq -o v.npy --quiet && cat v.npy)
check "the tiered table verifies" "$carvq" verify npy.carvq
check "within the rate" json <("$carvq" info npy.carvq --json) "1.5 < o['bits_per_param'] <= 1.6"
check "with tiers" json <("$carvq" info npy.carvq --json) "len(o['parameters']['tiers']) > 1"
"$carvq" unpack npy.carvq -o tiered.npy --quiet
check "rows that are used are ten times closer" python3 - <<'PY'
import array

def rows(name):
    data = open(name, "rb").read()
    values = array.array("f", data[len(data) - 3000 * 100 * 4:])
    return [values[i * 100:(i + 1) * 100] for i in range(3000)]

original, decoded = rows("table.npy"), rows("tiered.npy")
error = [sum((a - b) ** 2 for a, b in zip(x, y)) / sum(a * a for a in x) for x, y in zip(original, decoded)]
used, unused = [error[i] for i in range(0, 3000, 7)], [error[i] for i in range(3000) if i % 7]
print(sum(used) / len(used), sum(unused) / len(unused))
assert 10 * sum(used) / len(used) < sum(unused) / len(unused) < 1.01
PY
check "rank" pack table.npy -o rank.carvq --counts rank
check "gives the first rows more" json <("$carvq" info rank.carvq --json) "len(o['parameters']['tiers']) > 1"
for threads in 1 3; do pack table.npy -o t$threads.carvq --counts counts.npy --threads $threads; done
check "threads 1, 3: same bytes" cmp t1.carvq t3.carvq
head -n 2000 counts.txt >short.txt
refuses "too few counts" 3 'short.txt: .*3000' pack table.npy -o x.carvq --counts short.txt
sed '10s/.*/-1/' counts.txt >negative.txt
refuses "a negative count" 3 'negative.txt: .*row 8' pack table.npy -o x.carvq --counts negative.txt
refuses "counts that are not there" 3 'none.npy: ' pack table.npy -o x.carvq --counts none.npy

# ---- Codes by hand ----

check "trellis codes by hand" pack table.npy -o w.carvq --stages 1 --codebook-bits 6 --window 9 --subvector 4
"$carvq" eval w.carvq table.npy --json --quiet >w.json
check "verify" "$carvq" verify w.carvq
pack table.npy -o j.carvq --stages 3 --adaptor none
pack table.npy -o g.carvq --stages 3 --adaptor none --beam 1
"$carvq" eval j.carvq table.npy --json --quiet >j.json
"$carvq" eval g.carvq table.npy --json --quiet >g.json
check "a greedy search is worse" json g.json \
        "o['rel_mse'] > 1.05 * $(python3 -c 'import json; print(json.load(open("j.json"))["rel_mse"])')"
for bad in "--bits 0.9" "--bits 8.1" "--bits x" "--bits nan" "--preset slow" "--window 0" "--window 17" \
        "--beam 0" "--col-scale maybe"; do
        # shellcheck disable=SC2086
        refuses "bad value: $bad" 2 'bad value' pack table.npy -o x.carvq $bad
done
refuses "bits and stages" 2 'exclude each other' pack table.npy -o x.carvq --bits 2 --stages 3
refuses "a window shorter than a code" 2 'window' pack table.npy -o x.carvq --codebook-bits 6 --window 5
refuses "a window over stages" 2 'window' pack table.npy -o x.carvq --stages 2 --window 9
refuses "bits of another codec" 2 'is of the carvq codec' pack table.npy -o x.carvq --codec f16 --bits 2

echo "1..$n"
