#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Disks that fail at any moment, files that shrink while they are read, and files of holes: what
# carvq and carvqd say, and that nothing half-written is left behind. Prints TAP. Arguments: CARVQ
# CARVQD CARVQCTL WRITE_TABLE, the library of fault.c, and the repository.
set -u
export LC_ALL=C
unset JOURNAL_STREAM RUNTIME_DIRECTORY NOTIFY_SOCKET CARVQ_FAULT

carvq=$(realpath "$1") carvqd=$(realpath "$2") carvqctl=$(realpath "$3") write_table=$(realpath "$4")
fault=$(realpath "$5") root=$6
dir=$(mktemp -d)
daemon=
cleanup() {
        [ -z "$daemon" ] || { kill "$daemon"; wait "$daemon"; }
        rm -rf "$dir"
}
trap cleanup EXIT
cd "$dir" || exit 1
. "$root/tests/integration/tap.sh"

# failing CALL:N:ERRNO:TEXT COMMAND...: the numbers are Linux'. Leaks are others' business: who looks for
# them stops all threads, also those that wait in the preloaded library.
become_failing() {
        local what=$1
        shift
        exec env CARVQ_FAULT="$what" LD_PRELOAD="$fault" \
                ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0:detect_leaks=0" "$@"
}
failing() { (become_failing "$@"); }
EIO=5 ENOMEM=12 EMFILE=24 ENOSPC=28

# walk NAME CALL ERRNO TEXT PATTERN COMMAND...: the first call fails, the second ... until none does. The
# function `sound` looks at what is left each time.
walk() {
        local name=$1 call=$2 errno=$3 text=$4 pattern=$5 i
        shift 5
        for ((i = 1; i < 200; i++)); do
                if failing "$call:$i:$errno:$text" "$@" >out 2>err; then break; fi
                grep -Eq -- "$pattern" err && [ "$(wc -l <err)" = 1 ] && sound && continue
                echo "# call $i of $call, expected on stderr: $pattern"
                fail "$name"
                return
        done
        if [ $i -gt 1 ] && [ $i -lt 200 ]; then pass "$name: each of $((i - 1))"; else fail "$name: $i calls"; fi
}

python3 "$root/tests/integration/make-npy.py" small.npy 3000 100
"$write_table" old.carvq 100 16 f32
"$write_table" tiered.carvq 3000 100 tiered
"$write_table" adapted.carvq 200 100 adapted
mkdir made

# ---- Writing ----

sound() { cmp -s old.carvq made/x.carvq && no_leftovers made; }
for case in pwrite:$EIO pwrite:$ENOSPC ftruncate:$EIO fsync:$EIO rename:$EIO; do
        call=${case%:*} errno=${case#*:} what=write
        [ $call != rename ] || what='rename the finished file'
        said="^carvq: made/x.carvq: cannot $what: (Input/output error|No space left on device)\$"
        cp old.carvq made/x.carvq
        walk "pack, error $errno of $call" $call $errno x.carvq "$said" \
                "$carvq" pack small.npy -o made/x.carvq --codec int8 --quiet
        check "then it packs" "$carvq" verify made/x.carvq --quiet
        cp old.carvq made/x.carvq
        walk "unpack, error $errno of $call" $call $errno x.npy "${said/x.carvq/x.npy}" \
                "$carvq" unpack tiered.carvq -o made/x.npy --quiet
done
# The file is in place by then; that its name survives a power cut cannot be promised.
refuses "pack, the folder cannot be synced" 3 'made/x.carvq: cannot sync the folder: Input/output error' \
        failing "fsync:2:$EIO:/made" "$carvq" pack small.npy -o made/x.carvq --codec int8 --quiet
check "but it is whole" "$carvq" verify made/x.carvq --quiet
check "and nothing beside it" no_leftovers made

# ---- Reading ----

for format in small.npy safetensors gguf tiered.carvq adapted.carvq; do
        source=$format
        case $format in
        safetensors) source=$root/tests/data/good/bert.safetensors ;;
        gguf) source=$root/tests/data/good/types.gguf ;;
        esac
        name=${source##*/} tensor=
        case $format in
        safetensors) tensor='--tensor embeddings.word_embeddings.weight' ;;
        gguf) tensor='--tensor f32.weight' ;;
        esac
        cp old.carvq made/x.carvq
        # shellcheck disable=SC2086
        walk "pack $name, reads fail" pread $EIO "$name" "$name: .*read.*: Input/output error\$" \
                "$carvq" pack "$source" -o made/x.carvq --codec f32 --quiet $tensor
        # shellcheck disable=SC2086
        cp old.carvq made/x.carvq
        walk "pack $name, no descriptor is left" open $EMFILE "$name" "$name: .*: Too many open files\$" \
                "$carvq" pack "$source" -o made/x.carvq --codec f32 --quiet $tensor
done
sound() { :; }
walk "info, reads fail" pread $EIO adapted.carvq 'adapted.carvq: read of .*: Input/output error$' \
        "$carvq" info adapted.carvq
walk "verify, no memory to map it" mmap $ENOMEM tiered.carvq 'tiered.carvq: mmap of [0-9]+ bytes: Cannot allocate memory$' \
        "$carvq" verify tiered.carvq --quiet

# ---- Cut while it is read ----

lost='^carvq: cut.carvq: was truncated, or cannot be read$'
mkdir cut
for command in "verify cut.carvq" "unpack cut.carvq -o cut/x.npy" "pack cut.carvq -o cut/x.carvq --codec int8" \
        "pack cut.carvq -o cut/x.carvq --threads 4" "eval cut.carvq old.npy"; do
        [ -e old.npy ] || "$carvq" unpack tiered.carvq -o old.npy --quiet
        cp tiered.carvq cut.carvq
        # shellcheck disable=SC2086
        refuses "carvq $command" 3 "$lost" failing "cut:1:0:cut.carvq" "$carvq" $command --quiet
        check "leaves nothing" test -z "$(ls -A cut)"
done
cp tiered.carvq cut.carvq
refuses "carvq eval of the table that it is compared with" 3 "$lost" failing "cut:1:0:cut.carvq" \
        "$carvq" eval tiered.carvq cut.carvq --quiet

# ---- Holes and nothing ----

: >empty.carvq
truncate -s 1T holes.carvq
refuses "verify: 0 bytes" 1 'empty.carvq: the file has 0 bytes, expected at least 256 \(header\)' \
        "$carvq" verify empty.carvq
refuses "pack: 0 bytes" 3 'empty.carvq: the file is empty, expected' "$carvq" pack empty.carvq -o made/y.carvq
refuses "verify: a terabyte of nothing" 1 'holes.carvq: magic at byte 0' "$carvq" verify holes.carvq
refuses "pack: a terabyte of nothing" 3 'holes.carvq: begins like no model file' \
        "$carvq" pack holes.carvq -o made/y.carvq
cp tiered.carvq punched.carvq
fallocate --punch-hole --offset 40960 --length 4096 punched.carvq 2>/dev/null ||
        dd if=/dev/zero of=punched.carvq bs=4096 seek=10 count=1 conv=notrunc status=none
refuses "verify: a hole in the rows" 1 'punched.carvq: chunk rows is damaged' "$carvq" verify punched.carvq --quiet
truncate -s +1T old.carvq
refuses "verify: a hole behind the end" 1 'old.carvq: file_bytes at byte 32: .*\(trailing bytes\)' \
        "$carvq" verify old.carvq
check "none of these left a file" test ! -e made/y.carvq

# ---- The daemon ----

said() { grep -Eq -- "$1" log; }
eventually() {
        local i
        for ((i = 0; i < 400; i++)); do "$@" && return; read -rt 0.05 <>pause; done
        return 1
}
mkfifo pause
export CARVQ_SOCKET=$dir/data CARVQ_CONTROL=$dir/control
for case in "open:1:$EMFILE:Too many open files" "pread:1:$EIO:read of the header: Input/output error" \
        "pread:2:$EIO:read of chunk tiers: Input/output error" "mmap:1:$ENOMEM:mmap of [0-9]+ bytes: Cannot allocate memory" \
        "cut:1:0:"; do
        IFS=: read -r call nth errno message <<<"$case"
        cp tiered.carvq one.carvq
        become_failing "$call:$nth:$errno:one.carvq" "$carvqd" --socket "$CARVQ_SOCKET" --control "$CARVQ_CONTROL" --tables-dir= \
                --table one=one.carvq --table two=adapted.carvq 2>log &
        daemon=$!
        check "carvqd, $call $nth: serves the other" eventually "$carvqctl" lookup two 1
        if [ "$call" = cut ]; then
                check "opens the file that was cut" eventually said 'table one: 3000 x 100'
                check "does not survive the rows" eval '! "$carvqctl" lookup one 2999'
                check "retires it" eventually said 'table one, generation 1: its file .* was truncated or cannot be read'
        else
                check "refuses the one" eventually said "table one is not loaded: one.carvq: $message"
                check "says so" eventually eval '"$carvqctl" tables | grep -q "one is refused"'
        fi
        cp tiered.carvq one.new && mv one.new one.carvq
        check "and takes it later" "$carvqctl" load one "$dir/one.carvq"
        check "with its rows" "$carvqctl" lookup one 2999
        check "and the other's are still there" "$carvqctl" lookup two 199
        kill "$daemon"
        wait "$daemon"
        check "and it ends in order" test $? = 0
        daemon=
done

echo "1..$n"
