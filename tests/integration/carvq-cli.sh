#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The carvq program as a user meets it: every codec and odd shape there and back, the same bytes for
# any number of threads, and what bad input gets. Prints TAP. CARVQ: the program; CARVQ_SOURCE_ROOT:
# the repository; WRITE_TABLE: the tests' own generator. No step waits for time to pass.
set -u
export LC_ALL=C

carvq=${CARVQ:?} root=${CARVQ_SOURCE_ROOT:?}
make_npy=$root/tests/integration/make-npy.py
dir=$(mktemp -d)
tmpfs=
cleanup() {
        [ -z "$tmpfs" ] || umount "$tmpfs"
        rm -rf "$dir"
}
trap cleanup EXIT
cd "$dir" || exit 1

. "$root/tests/integration/tap.sh"

# ---- Help and usage ----

for command in "" pack info eval unpack verify; do
        golden=$root/tests/data/golden/carvq${command:+-$command}-help.txt
        # shellcheck disable=SC2086
        check "carvq $command --help as agreed" \
                diff -u "$golden" <("$carvq" $command --help)
done
check "--version" grep -Eqx 'carvq [0-9.]+' <("$carvq" --version)
lines=30 refuses "no command" 2 'Usage: carvq COMMAND' "$carvq"
refuses "unknown command" 2 'no command "frob"' "$carvq" frob
refuses "unknown option" 2 '--frob is not an option here' "$carvq" pack --frob a -o b
refuses "unknown letter in a cluster" 2 'carvq info: -x is not an option here' "$carvq" info -xj a
refuses "carvq's option for another codec" 2 '--stages is of the carvq codec, not of f32' \
        "$carvq" pack a -o b --codec f32 --stages 4
refuses "force without a shape" 2 '--adaptor-force needs --adaptor' "$carvq" pack a -o b --adaptor-force
refuses "weights without a network" 2 '--adaptor-weights needs --adaptor MxH1' \
        "$carvq" pack a -o b --adaptor 3 --adaptor-weights int8
refuses "an order of nothing" 2 '--adaptor-order needs an adaptor' "$carvq" pack a -o b --adaptor none --adaptor-order after
refuses "an order for another codec" 2 '--adaptor-order is of the carvq codec' \
        "$carvq" pack a -o b --codec f16 --adaptor-order after
refuses "bad order" 2 '--adaptor-order: bad value "first"' "$carvq" pack a -o b --adaptor-order first
refuses "bad weights" 2 '--adaptor-weights: bad value "f32"' "$carvq" pack a -o b --adaptor-weights f32
refuses "components that are no number" 2 '--adaptor: bad value "3y"' "$carvq" pack a -o b --adaptor 3y
refuses "a network without latents" 2 '--adaptor: bad value "0x8"' "$carvq" pack a -o b --adaptor 0x8
refuses "a shape with a sign" 2 'bad value' "$carvq" pack a -o b --adaptor +5x5
refuses "missing value" 2 '-o needs a value' "$carvq" pack a -o
refuses "bad stages" 2 '--stages: bad value "17"' "$carvq" pack a -o b --stages 17
refuses "bad adaptor" 2 '--adaptor: bad value "4x"' "$carvq" pack a -o b --adaptor 4x
refuses "bad group" 2 '--group: bad value "4"' "$carvq" pack a -o b --group 4
refuses "bad codec" 2 '--codec: bad value "zip"' "$carvq" pack a -o b --codec zip
refuses "no output named" 2 'expected one SRC' "$carvq" pack a
refuses "npy cannot hold bf16" 2 'bf16.*safetensors' "$carvq" unpack a -o b.npy --dtype bf16
refuses "unknown ending" 2 'npy or .safetensors' "$carvq" unpack a -o b.bin

# ---- There and back ----

python3 "$make_npy" small.npy 300 100
python3 "$make_npy" small.safetensors 300 100
for codec in carvq f32 f16 bf16 int8 int4; do
        check "pack $codec" pack small.npy -o "$codec.carvq" --codec "$codec"
        check "verify $codec" "$carvq" verify "$codec.carvq"
        check "info $codec" "$carvq" info "$codec.carvq" --json
        check "info $codec is right" json out \
                "o['codec'] == '$codec' and o['n_rows'] == 300 and o['n_dims'] == 100 and
                 sum(o['chunk_bytes'].values()) == o['file_bytes'] and
                 abs(o['bits_per_param'] - o['file_bytes'] * 8 / 30000) < 1e-6 and
                 o['meta']['source_format'] == 'npy'"
        "$carvq" eval "$codec.carvq" small.npy --json --quiet >"$codec.json"
        check "eval $codec agrees with what was promised" python3 -c '
import json, sys
promised, seen = json.load(open(sys.argv[1]))["meta"], json.load(open(sys.argv[2]))
assert abs(promised["rel_mse"] - seen["rel_mse"]) <= 1e-6 * (1e-9 + seen["rel_mse"]), (promised, seen)
assert abs(promised["cosine_mean"] - seen["cosine_mean"]) < 1e-6
assert seen["cosine_min"] <= seen["cosine_mean"] and seen["max_abs_err"] >= 0' \
                <("$carvq" info "$codec.carvq" --json) "$codec.json"
        check "the same from safetensors" pack small.safetensors -o st.carvq --codec "$codec"
        # Fixtures are drawn alike, so that all but meta must be the same.
        check "with the same rows" cmp <("$carvq" unpack "$codec.carvq" -o u.npy --quiet && cat u.npy) \
                <("$carvq" unpack st.carvq -o v.npy --quiet && cat v.npy)
done
check "f32 is exact" json f32.json "o['rel_mse'] == 0 and o['max_abs_err'] == 0"
check "f16 is close" json f16.json "o['rel_mse'] < 1e-6"
check "int8 is close" json int8.json "o['rel_mse'] < 2e-4"
check "int4 is close" json int4.json "o['rel_mse'] < 2e-2"
check "carvq is near its rate" json carvq.json "o['rel_mse'] < 0.25 and o['cosine_mean'] > 0.85"

check "unpack f32 gives the file back" cmp small.npy <("$carvq" unpack f32.carvq -o back.npy --quiet && cat back.npy)
for dtype in f32 f16 bf16; do
        check "unpack to safetensors $dtype" "$carvq" unpack f32.carvq -o "$dtype.safetensors" --dtype $dtype
        check "pack that again" pack "$dtype.safetensors" -o again.carvq --codec f32 --tensor embedding
        check "nothing lost but precision" "$carvq" eval again.carvq small.npy --json --quiet
        check "less than 2^-14 of it" json out "o['rel_mse'] < 2**-14"
done
check "the tensor keeps its name" grep -q model.embed_tokens.weight \
        <("$carvq" unpack st.carvq -o named.safetensors --quiet && head -c 200 named.safetensors)
check "a packed table is a source" pack int8.carvq -o repacked.carvq --codec f32
check "and reads as it decodes" cmp <("$carvq" unpack int8.carvq -o u.npy --quiet && cat u.npy) \
        <("$carvq" unpack repacked.carvq -o v.npy --quiet && cat v.npy)

for shape in 1x1 300x1 70x7 1x100 300x100 200x384 100x640 4x65536 65x1031; do
        python3 "$make_npy" s.npy ${shape%x*} ${shape#*x}
        for codec in carvq int4; do
                check "$shape $codec packs" pack s.npy -o s.carvq --codec $codec
                check "$shape $codec verifies" "$carvq" verify s.carvq
                check "$shape $codec evaluates" "$carvq" eval s.carvq s.npy --json --quiet
                check "$shape $codec is close" json out "o['rel_mse'] < 0.5"
        done
done
for options in "--stages 1 --codebook-bits 8" "--stages 4 --codebook-bits 5 --subvector 7" \
        "--group 64x3" "--group 100xall --row-scale on" "--group 7x1 --row-scale off" \
        "--group global --adaptor 2x8x8 --adaptor-force" "--adaptor 3x16 --adaptor-force --stages 2"; do
        # shellcheck disable=SC2086
        check "pack $options" pack small.npy -o o.carvq $options
        check "evaluates" "$carvq" eval o.carvq small.npy --json --quiet
        check "as promised" python3 -c '
import json, sys
promised, seen = json.load(open(sys.argv[1]))["meta"], json.load(open("out"))
assert abs(promised["rel_mse"] - seen["rel_mse"]) < 1e-4 * seen["rel_mse"], (promised, seen)
assert seen["rel_mse"] < 0.6' <("$carvq" info o.carvq --json)
done

# ---- The adaptor's rule ----

python3 "$make_npy" low-rank.npy 800 300 low-rank
python3 "$make_npy" normal.npy 2000 128
# What is printed: the winner with its error, and all others with theirs.
both='held-out error at equal bytes [0-9.e-]+; against (.*, )?'
check "an adaptor that pays" "$carvq" pack low-rank.npy -o lr.carvq --adaptor 2x8
check "is kept, and both sides are told" grep -Eq "adaptor +2x8 (half|int8) [a-z]+: ${both}none" out
check "and stored" json <("$carvq" info lr.carvq --json) "o['parameters']['latent_dims'] == 2"
check "an adaptor that does not pay" "$carvq" pack small.npy -o lr.carvq --adaptor 2x8
check "is dropped, and both sides are told" grep -Eq "adaptor +none: ${both}2x8" out
check "and absent" json <("$carvq" info lr.carvq --json) "o['parameters']['latent_dims'] == 0"
check "components that do not pay" "$carvq" pack normal.npy -o lr.carvq --adaptor 3
check "are dropped" grep -Eq "adaptor +none: ${both}means and 3 components before" out
check "or kept by force" "$carvq" pack normal.npy -o lr.carvq --adaptor 3 --adaptor-force --adaptor-order after
check "in the order that was asked for" grep -Eq "adaptor +means and 3 components after, by force: ${both}none" out
check "and stored" json <("$carvq" info lr.carvq --json) "o['parameters']['latent_dims'] == 3"
refuses "more components than dimensions" 3 '--adaptor 129: rows of 128 dimensions' \
        pack normal.npy -o x.carvq --adaptor 129

check "weights of int8" pack low-rank.npy -o i8.carvq --adaptor 2x8 --adaptor-weights int8 --adaptor-order before
check "are int8" json <("$carvq" info i8.carvq --json) "o['parameters']['adaptor'] == 'int8'"

check "nothing in common" "$carvq" pack normal.npy -o lr.carvq
check "gets no adaptor" grep -Eq 'adaptor +none: ' out
check "directions in common" "$carvq" pack low-rank.npy -o lr.carvq
check "get an affine one, against a network and every order" grep -Eq \
        "adaptor +means and 2 components [a-z]+: ${both}none .*, 2x32 (half|int8) before" out
check "fast" "$carvq" pack low-rank.npy -o lr.carvq --preset fast
check "tries no other order" grep -Eqx " +adaptor +means and 2 components before: ${both}none [0-9.e-]+" out

# Another order than before wins only by half a percent, and before wins where it is better.
for table in low-rank normal small uneven; do
        [ $table != uneven ] || python3 "$make_npy" uneven.npy 600 150 uneven
        for options in "" "--adaptor 2"; do
                # shellcheck disable=SC2086
                check "$table $options packs" "$carvq" pack $table.npy -o o.carvq --bits 3 $options
                check "the least error wins, others than before by 0.5 %" python3 -c '
import re
note = re.search("adaptor +(.*)", open("out").read())[1]
winner, *others = re.findall(r"(?:; against |, |^)([a-z0-9 ]+?):?(?: held-out error at equal bytes)? ([0-9.e-]+)(?=[;,]|$)", note)
def cost(c):
    margin = (1 if c[0].endswith(("before", "none")) else 1.005) * (1.05 if re.match(r"\d", c[0]) else 1)
    return float(c[1]) * margin
print(note, [winner, *others])
assert all(cost(winner) <= cost(o) * 1.001 for o in others)
assert len(others) >= 1 or note == "none: nothing in common"'
        done
done

# ---- Same input, options, seed: same bytes ----

for options in "" "--adaptor 2x8 --adaptor-force" "--group 300x7" "--codec int4" "--adaptor 2 --adaptor-order before" \
        "--adaptor 2 --adaptor-force --adaptor-order after" "--adaptor 2 --adaptor-force --adaptor-order alternate" \
        "--adaptor 2x8 --adaptor-force --adaptor-order alternate --stages 2"; do
        for threads in 1 2 5; do
                # shellcheck disable=SC2086
                pack low-rank.npy -o t$threads.carvq --threads $threads $options
        done
        check "threads 1, 2: same bytes ($options)" cmp t1.carvq t2.carvq
        check "threads 1, 5: same bytes ($options)" cmp t1.carvq t5.carvq
done
pack low-rank.npy -o one.carvq
pack low-rank.npy -o other.carvq --seed 2
check "another seed: other bytes" eval '! cmp -s one.carvq other.carvq'

# ---- Damage ----

meta_at=$(python3 -c 'import os, struct
d = open("carvq.carvq", "rb").read()
print([struct.unpack_from("<Q", d, 256 + 32 * i + 8)[0] for i in range(struct.unpack_from("<I", d, 64)[0])
       if d[256 + 32 * i:][:4] == b"META"][0])')
damage() { # NAME OFFSET STATUS PATTERN
        cp carvq.carvq bad.carvq
        flip bad.carvq "$2"
        refuses "verify: $1" "$3" "$4" "$carvq" verify bad.carvq
}
damage "magic" 0 1 'bad.carvq: magic at byte 0'
damage "header" 41 1 'bad.carvq: header_checksum'
damage "contents table" 270 1 'bad.carvq: contents_checksum'
damage "codebooks" 400 1 'bad.carvq: chunk codebooks is damaged'
check "the list says which" grep -Eqx 'codebooks +damaged' out
check "and which not" grep -Eqx 'rows +ok' out
damage "padding" 4000 1 'bad.carvq: padding before chunk rows, byte 4000'
damage "rows" 5000 1 'bad.carvq: chunk rows is damaged'
damage "meta" $((meta_at + 3)) 1 'bad.carvq: chunk meta is damaged'
for bytes in 0 100 300 4096 5000; do
        head -c $bytes carvq.carvq >short.carvq
        refuses "verify: cut at $bytes" 1 'short.carvq: ' "$carvq" verify short.carvq
        refuses "info: cut at $bytes" 3 'short.carvq: ' "$carvq" info short.carvq
        refuses "unpack: cut at $bytes" 3 'short.carvq: ' "$carvq" unpack short.carvq -o x.npy
done
refuses "eval of another shape" 3 'has 65 x 1031 values' "$carvq" eval carvq.carvq s.npy --quiet
refuses "eval without the file" 3 'absent.carvq: cannot open' "$carvq" eval absent.carvq s.npy
refuses "verify without the file" 3 'absent.carvq: cannot open' "$carvq" verify absent.carvq
check "no output of a refused command" test ! -e x.npy

# ---- Tiers ----

"${WRITE_TABLE:?}" tiered.carvq 1000 100 tiered
check "verify: tiers" "$carvq" verify tiered.carvq
check "they are listed" grep -Eqx 'tiers +ok' out
check "info: tiers" json <("$carvq" info tiered.carvq --json) \
        "[t['n_rows'] for t in o['parameters']['tiers']] == [500, 375, 125] and \
         o['chunk_bytes']['rows'] == sum(t['n_rows'] * t['record_bytes'] for t in o['parameters']['tiers'])"
check "unpack: tiers" "$carvq" unpack tiered.carvq -o tiered.npy
check "eval: every row is where it was" "$carvq" eval tiered.carvq tiered.npy
tiers_at=$(python3 -c 'import struct
d = open("tiered.carvq", "rb").read()
print([struct.unpack_from("<Q", d, 256 + 32 * i + 8)[0] for i in range(struct.unpack_from("<I", d, 64)[0])
       if d[256 + 32 * i:][:4] == b"TIER"][0])')
flip tiered.carvq $((tiers_at + 64))
refuses "verify: a wrong rank" 1 'tiered.carvq: chunk tiers, level 1, block 1: rank is' "$carvq" verify tiered.carvq

# ---- Bad input ----

python3 "$make_npy" nan.npy 100 50 nan
refuses "NaN is refused with row and column" 3 'nan.npy: .*row 50, column 25' pack nan.npy -o x.carvq
refuses "by every codec" 3 'nan.npy: .*row 50, column 25' pack nan.npy -o x.carvq --codec f32
python3 "$make_npy" huge.npy 100 50 huge
refuses "f16 range" 3 'huge.npy: row 50, column 25: 1e\+06 is outside the range of f16' \
        pack huge.npy -o x.carvq --codec f16
refuses "no source" 3 'absent.npy: cannot open' pack absent.npy -o x.carvq
refuses "no such tensor" 3 'small.safetensors: ' pack small.safetensors -o x.carvq --tensor frob
echo hello >text.txt
refuses "no model file" 3 'text.txt: ' pack text.txt -o x.carvq
refuses "no such folder" 3 'absent/x.carvq: cannot create: No such file' pack small.npy -o absent/x.carvq
mkdir folder.carvq
refuses "output is a folder" 3 'folder.carvq: is a folder, expected a file' pack small.npy -o folder.carvq
refuses "output in a folder without a name" 3 'locked-out/: cannot create|names a folder' \
        pack small.npy -o locked-out/
refuses "output is a device" 3 '/dev/null: exists and is not a regular file' pack small.npy -o /dev/null
# What cannot be written is known before the work, and nothing overwrites what it reads.
check "output is looked at first" test ! -s out
cp small.npy same.npy
refuses "packing a file onto itself" 3 'same.npy: is the source itself' pack same.npy -o ./same.npy
check "leaves it as it was" cmp small.npy same.npy
cp f32.carvq same.npy
refuses "unpacking a file onto itself" 3 'same.npy: is the source itself' "$carvq" unpack same.npy -o same.npy
check "leaves that, too" cmp f32.carvq same.npy
refuses "verify a device" 3 '/dev/zero: is not a regular file' "$carvq" verify /dev/zero
python3 "$make_npy" few.npy 20 100
python3 "$make_npy" outlier.npy 500 64 outlier
python3 "$make_npy" tiny.npy 200 64 tiny
python3 "$make_npy" uneven.npy 2000 50 uneven
refuses "a forced adaptor with too few rows" 3 'at least 64 rows' \
        pack few.npy -o x.carvq --adaptor 3x9 --adaptor-force
lines=9 check "an outlier turns the row scale on" "$carvq" pack outlier.npy -o outlier.carvq
check "and is packed" grep -q ', row scale' out
check "values too small for half" "$carvq" pack tiny.npy -o tiny.carvq --quiet
check "are warned about" grep -q 'tiny.carvq: nothing of the source is left' err
check "columns of very different size train all sub-vectors" pack uneven.npy -o uneven.carvq
check "and come back" "$carvq" eval uneven.carvq uneven.npy --json
check "well enough" json out 'o["rel_mse"] < 0.24'
bash -c "exec '$carvq' unpack f32.carvq -o closed.npy <&- >&- 2>&-"
"$carvq" unpack f32.carvq -o opened.npy --quiet
check "closed standard descriptors stay out of the output" cmp closed.npy opened.npy
lines=9 refuses "several tensors, nobody to ask" 3 'choose one with --tensor' \
        pack "$root/tests/data/good/v2.gguf" -o x.carvq
check "they are listed" grep -Eq '^ +1  ' err
check "none of these left a file" test ! -e x.carvq
check "nor a temporary one" no_leftovers

# ---- Whole or not at all ----

mkdir locked
cp f32.carvq locked/kept.carvq
chmod 555 locked
if [ "$(id -u)" = 0 ]; then
        # Root may write anywhere: ask as somebody else.
        unprivileged() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
        chmod 755 "$dir"
else
        unprivileged() { "$@"; }
fi
if unprivileged "$carvq" --version >/dev/null 2>&1; then
        refuses "unwritable folder" 3 'locked/x.carvq: cannot create: Permission denied' \
                unprivileged "$carvq" pack small.npy -o locked/x.carvq --quiet
else
        skip "unwritable folder" "cannot run $carvq as another user"
fi
chmod 755 locked

mkdir full
if mount -t tmpfs -o size=64k tmpfs full 2>/dev/null; then
        tmpfs=$dir/full
        refuses "disk full" 3 'full/x.carvq: cannot write: No space left' \
                pack small.npy -o full/x.carvq --codec f32
        check "leaves nothing" test -z "$(ls -A full)"
        refuses "disk full while unpacking" 3 'full/x.npy: cannot write: No space left' \
                "$carvq" unpack f32.carvq -o full/x.npy --quiet
        check "leaves nothing either" test -z "$(ls -A full)"
else
        skip "disk full" "cannot mount a tmpfs here"
fi
refuses "standard output is full" 3 'standard output: No space left' \
        bash -c "exec '$carvq' info carvq.carvq >/dev/full"

# Zeros without disk space: long enough to be caught in the middle.
python3 "$make_npy" sparse.npy 1000000 256 sparse
mkdir stopped
cp f32.carvq stopped/x.carvq
for signal in TERM INT; do
        # A shell's background jobs ignore SIGINT; Python gives it back.
        python3 -c 'import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])' \
                "$carvq" pack sparse.npy -o stopped/x.carvq --codec int8 --quiet 2>err &
        pid=$!
        while no_leftovers stopped && kill -0 $pid 2>/dev/null; do :; done
        kill -$signal $pid
        wait $pid
        status=$?
        check "SIG$signal ends it as a signal does" test $status = $((128 + $(kill -l $signal)))
        check "SIG$signal leaves no temporary file" no_leftovers stopped
        check "SIG$signal leaves the old file" cmp f32.carvq stopped/x.carvq
done

echo "1..$n"
