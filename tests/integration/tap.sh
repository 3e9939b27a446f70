# SPDX-License-Identifier: Apache-2.0
# For scripts that test the program `carvq` in a folder of their own: cases as TAP, and what most of
# them look at. Sourced.

n=0
pass() {
        n=$((n + 1))
        echo "ok $n - $1"
}
fail() {
        n=$((n + 1))
        echo "not ok $n - $1"
        sed 's/^/# /' "${2:-}out" "${2:-}err" 2>/dev/null
}
skip() {
        n=$((n + 1))
        echo "ok $n - $1 # SKIP $2"
}
# check NAME COMMAND...: passes when the command succeeds. What carvq printed stays in out and err
# until it runs again; what a check of that printed does not take its place.
check() {
        local name=$1 to=check
        shift
        case $1 in "$carvq" | pack) to= ;; esac
        if "$@" >"${to}out" 2>"${to}err"; then pass "$name"; else fail "$name" "$to"; fi
}
# refuses NAME STATUS PATTERN COMMAND...: exit status and one line on stderr, no word too many.
refuses() {
        local name=$1 want=$2 pattern=$3 got
        shift 3
        "$@" >out 2>err
        got=$?
        if [ $got = "$want" ] && grep -Eq -- "$pattern" err && [ "$(wc -l <err)" -le "${lines:-1}" ]; then
                pass "$name"
        else
                echo "# exit status $got, expected $want; expected on stderr: $pattern"
                fail "$name"
        fi
}
no_leftovers() {
        [ -z "$(find "${1:-.}" -name '.*.tmp')" ]
}
# json FILE EXPRESSION: a Python expression over the object `o`.
json() {
        python3 -c 'import json, sys; o = json.load(open(sys.argv[1])); assert eval("(" + sys.argv[2] + ")"), o' "$@"
}
# flip FILE OFFSET: inverts one byte.
flip() {
        python3 -c 'import sys
f = open(sys.argv[1], "r+b"); f.seek(int(sys.argv[2])); b = f.read(1)
f.seek(int(sys.argv[2])); f.write(bytes([b[0] ^ 255]))' "$@"
}
pack() {
        "$carvq" pack "$@" --quiet
}
