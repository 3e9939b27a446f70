#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The completion that carvqctl prints, by running it in bash as its line editor would. TAP.
#   carvqctl-completion.sh CARVQD CARVQCTL WRITE_TABLE
set -u

. "$(dirname "$0")/with-carvqd.sh"
"$write_table" "$dir/small.carvq" 100 8 f32
"$carvqctl" completion bash >"$dir/script"
mkdir "$dir/bin" "$dir/files"
ln -s "$carvqctl" "$dir/bin/carvqctl"
touch "$dir/files/one.carvq" "$dir/files/two.carvq"

# complete_words WORD...: the last one is what the cursor stands behind. One candidate a line in out.
complete_words() {
  PATH=$dir/bin:$PATH bash --norc -uc '
    source "$1"
    cd "$2"
    shift 2
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    $(complete -p carvqctl | sed "s/.*-F \([^ ]*\).*/\1/") carvqctl "${COMP_WORDS[COMP_CWORD]}" x
    printf "%s\n" "${COMPREPLY[@]-}"' bash "$dir/script" "$dir/files" "$@" >"$dir/out" 2>"$dir/err"
}
# completes NAME CANDIDATES WORD...
completes() {
  local name=$1 expected=$2
  shift 2
  complete_words "$@"
  [ "$(sort "$dir/out" | xargs)" = "$expected" ] && [ ! -s "$dir/err" ]
  result "$name" $?
}

bash -n "$dir/script"
result "the script is bash" $?
completes "verbs, with no daemon" "stats status" carvqctl sta
completes "a table, with no daemon: nothing, and silent" "" carvqctl stats ""
start --table "words=$dir/small.carvq" --table "wide=$dir/small.carvq" --table "other=$dir/small.carvq"
completes "every verb" "bench clients completion load lookup reload stats status tables top trace unload version" carvqctl ""
completes "options of a verb" "--watch" carvqctl stats --w
completes "and none of another's" "" carvqctl status --w
completes "options before a verb" "--socket" carvqctl --s
completes "tables" "other wide words" carvqctl stats ""
completes "tables that begin so" "wide words" carvqctl lookup w
completes "ids are not known" "" carvqctl lookup words ""
completes "behind options" "other" carvqctl --json stats o
completes "where --control says" "" carvqctl --control /nowhere stats ""
completes "and where it says with =" "" carvqctl --control = /nowhere stats ""
completes "full precisions" "bf16 f16 f32" carvqctl bench words --against ""
completes "formats" "npy" carvqctl lookup words 1 --format n
completes "formats behind =" "json" carvqctl lookup words 1 --format = j
completes "files" "one.carvq two.carvq" carvqctl load new ""
completes "files of options" "two.carvq" carvqctl lookup words 1 -o tw
completes "what it can complete" "bash" carvqctl completion b
echo "1..$n"
exit $failed
