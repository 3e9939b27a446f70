#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Each verb of carvqctl against a real carvqd, in text and in JSON, and what goes wrong. TAP.
#   carvqctl.sh CARVQD CARVQCTL WRITE_TABLE
set -u

. "$(dirname "$0")/with-carvqd.sh"

# json NAME EXPRESSION ARGUMENT...: true of the answer, which is `j`.
json() {
  local name=$1 expression=$2
  shift 2
  ctl --json "$@" && python3 - "$dir/out" "$expression" <<'PYTHON' 2>>"$dir/err"
import json, struct, sys
def f32(x): return struct.unpack("<f", struct.pack("<f", x))[0]
j = json.load(open(sys.argv[1]))
sys.exit(0 if eval(f"({sys.argv[2]})") else "not true: " + sys.argv[2])
PYTHON
  result "$name" $?
}

# ---- nobody there ----
expect "no daemon: exit 3, with the path" 3 "$dir/control.sock: .*is carvqd running" status
expect "no daemon: lookup too" 3 "carvqctl: " lookup small 0
expect "no daemon: version still has ours" 0 "carvqctl [0-9]+\.[0-9]+\.[0-9]+" version
json "no daemon: version is null" 'j["carvqd"] is None' version
expect "a wrong control socket path" 3 "longer than" --control "$(printf 'x%.0s' {1..200})" status

# ---- usage ----
expect "no verb" 2 "a verb is missing"
expect "unknown verb" 2 "unknown verb 'frobnicate'" frobnicate
expect "unknown option" 2 "frobnicate" --frobnicate status
expect "missing argument" 2 "lookup: an argument is missing" lookup small
expect "too many arguments" 2 "unexpected argument 'x'" status x
expect "an option of another verb" 2 "status: takes no --watch" status --watch
expect "an interval that is none" 2 "--watch: '0' is no interval, expected 0.1 to 3600" stats --watch=0
expect "an interval that is not finite" 2 "--interval: 'nan' is no interval" top --interval nan
expect "two formats at once" 2 "exclude each other" stats --json --openmetrics
expect "--json and another format" 2 "--json and --format npy exclude" lookup small 0 --json --format npy
expect "no such format" 2 "'csv' is no format, expected text, json or npy" lookup small 0 --format csv
expect "top wants a terminal" 3 "is carvqd running" top

"$write_table" "$dir/small.carvq" 1000 8 f32
"$write_table" "$dir/packed.carvq" 5000 640 carvq
head -c 100 "$dir/small.carvq" >"$dir/short.carvq"
{ head -c 60 "$dir/small.carvq"; printf 'X'; tail -c +62 "$dir/small.carvq"; } >"$dir/flipped.carvq"
echo "no table" >"$dir/foreign.carvq"
start --table "small=$dir/small.carvq"

# ---- status ----
expect "status" 0 "carvqd [0-9.]+, pid $daemon, .*serves +1 table to 0 clients" status
json "status in JSON" "j['pid'] == $daemon and j['n_tables'] == 1 and not j['stopping'] and \
j['control_path'] == '$CARVQ_CONTROL' and j['spin_ns_max'] == 50000 and j['n_workers'] == 1" status
json "version of both" 'j["carvqd"] == j["carvqctl"]' version

# ---- load, unload ----
expect "load" 0 "Loaded packed from $dir/packed.carvq, generation 2" load packed "$dir/packed.carvq"
(cd "$dir" && "$carvqctl" load again packed.carvq) >"$dir/out" 2>"$dir/err" &&
  grep -q "from $dir/packed.carvq" "$dir/out"
result "load by relative path" $?
expect "load over an older one" 0 "generation 4" load again "$dir/packed.carvq"
expect "unload" 0 "Unloaded again" unload again
expect "unload twice" 1 "carvqd has no table 'again'" unload again
expect "load: no file" 1 "cannot load 'x': $dir/none.carvq: No such file" load x "$dir/none.carvq"
expect "load: truncated" 1 "cannot load 'x': $dir/short.carvq: .*expected" load x "$dir/short.carvq"
expect "load: flipped byte" 1 "cannot load 'x': $dir/flipped.carvq: .*checksum" load x "$dir/flipped.carvq"
expect "load: foreign file" 1 "cannot load 'x': $dir/foreign.carvq: .*" load x "$dir/foreign.carvq"
expect "load: a directory" 1 "cannot load 'x': $dir: " load x "$dir"
expect "load: bad name" 1 "'a/b' cannot name a table" load a/b "$dir/small.carvq"
json "none of that left a table" 'sorted(t["name"] for t in j["tables"]) == ["packed", "small"]' tables

# ---- lookup ----
expect "lookup in text, one row a line" 0 \
  '^7 7 7\.00097656 7\.00195312 [^\n]*\n999 999 999\.000977 [^\n]*\n' lookup small 7 999
expect "text shows what is not finite" 0 "^0 nan inf -0 " lookup small 0
json "lookup restores each f32" 'j["table"] == "small" and [r["id"] for r in j["rows"]] == [7, 999, 7] and
all(f32(v) == f32(r["id"] + c / 1024) for r in j["rows"] for c, v in enumerate(r["values"]))' lookup small 7 999 7
json "null for what is not finite" 'j["rows"][0]["values"][:2] == [None, None] and
str(j["rows"][0]["values"][2]) == "-0.0"' lookup small 0
json "more rows than one batch" 'len(j["rows"]) == 700 and j["rows"][699]["id"] == 700' \
  lookup small $(seq 700)
json "packed rows are finite" 'len(j["rows"][0]["values"]) == 640 and None not in j["rows"][0]["values"]' \
  lookup packed 4999
expect "lookup: no such table" 1 "no table|no such table|none" lookup none 0
expect "lookup: id past the end" 1 "row 1000 is not in table small, which has rows 0 to 999" lookup small 0 1000
[ ! -s "$dir/out" ]
result "and then prints no row" $?
expect "lookup: no number" 2 "'7x' is no row id" lookup small 7x
expect "lookup: beyond 64 bits" 2 "no row id" lookup small 99999999999999999999999

json "--format json is --json" 'j["rows"][0]["values"][0] == 7' lookup small 7 --format json
# npy NAME EXPRESSION: of the array `a` in out.
npy() {
  python3 - "$dir/out" "$2" <<'PYTHON' 2>>"$dir/err"
import ast, math, struct, sys
b = open(sys.argv[1], "rb").read()
assert b[:8] == b"\x93NUMPY\1\0", b[:8]
length, = struct.unpack("<H", b[8:10])
assert (10 + length) % 64 == 0 and b[9 + length:10 + length] == b"\n"
h = ast.literal_eval(b[10:10 + length].decode())
assert h["descr"] == "<f4" and not h["fortran_order"]
rows, dims = h["shape"]
v = struct.unpack(f"<{rows * dims}f", b[10 + length:])
a = [v[i * dims:(i + 1) * dims] for i in range(rows)]
sys.exit(0 if eval(f"({sys.argv[2]})") else "not true: " + sys.argv[2])
PYTHON
  result "$1" $?
}
ctl lookup small 7 999 0 --format npy
npy "npy has the values" '[r[1] for r in a] == [7 + 1 / 1024, 999 + 1 / 1024, math.inf] and math.isnan(a[2][0]) and
math.copysign(1, a[2][2]) == -1'
ctl lookup small $(seq 700) --format npy -o "$dir/rows.npy"
[ ! -s "$dir/out" ]
result "--output leaves standard output alone" $?
mv "$dir/rows.npy" "$dir/out"
npy "npy of many rows, in a file" 'rows == 700 and all(r[0] == i + 1 for i, r in enumerate(a))'
expect "lookup: a file that cannot be made" 1 "/none/rows: No such file" lookup small 1 -o "$dir/none/rows"
expect "lookup: a full disk" 1 "/dev/full: No space left" lookup small 1 -o /dev/full
[ -c /dev/full ]
result "and a device is not removed" $?
expect "lookup: nothing is written for a wrong id" 1 "row 1000 is not in" lookup small 1000 -o "$dir/none.txt"
[ ! -e "$dir/none.txt" ]
result "and no file made" $?

# ---- terminals: with one, and what is printed on it ----
# terminal VARIABLE=VALUE... COMMAND...
terminal() { script -qec "env TERM=xterm $*" /dev/null >"$dir/out" 2>"$dir/err" </dev/null; }
if command -v script >/dev/null; then
  terminal "$carvqctl" tables
  grep -q $'\e\[1mTABLE' "$dir/out"
  result "titles are bold on a terminal" $?
  terminal NO_COLOR=1 "$carvqctl" tables
  grep -q TABLE "$dir/out" && ! grep -q $'\e' "$dir/out"
  result "but not with NO_COLOR" $?
  terminal TERM=dumb "$carvqctl" tables
  grep -q TABLE "$dir/out" && ! grep -q $'\e' "$dir/out"
  result "nor on one that is dumb" $?
  terminal "$carvqctl" lookup small 1 --format npy
  [ $? = 2 ] && grep -q "binary.*terminal: use -o FILE" "$dir/out"
  result "npy is not written to a terminal" $?
else
  skip "terminals" "script is not installed"
fi
ctl tables
! grep -q $'\e' "$dir/out"
result "no colours without a terminal" $?
expect "top wants a terminal" 2 "top: no|standard output is no terminal" top

# ---- tables, clients, stats ----
expect "tables" 0 "TABLE +ROWS.*small +1,000 +8  f32" tables
json "tables in JSON" '{t["name"]: t["codec"] for t in j["tables"]} == {"small": "f32", "packed": "carvq"} and
all(t["measured"]["pss_bytes"] > 0 for t in j["tables"]) and
[t for t in j["tables"] if t["name"] == "packed"][0]["modelled"] == {"f32_bytes": 12800000, "f16_bytes": 6400000}' tables
expect "clients" 0 "No clients|CLIENT" clients
json "clients in JSON" 'isinstance(j["clients"], list)' clients
expect "stats" 0 "table packed: 5,000 rows x 640, carvq.*saved on table read +modelled +95\.[0-9] % less" stats packed
expect "stats of all" 0 "table small.*table packed" stats
json "stats add up" '[(s["table"]["name"], len(j["clients"])) for s in j["tables"]] == [("packed", 0)] and
all(c["n_rows"] == 1 and c["n_values_read"] == 640 and c["table_read_bytes"] == 120 and
c["table_read_lines"] in (2, 3) and
c["arena_write_bytes"] == 2560 and m["client_read_bytes"] == 2560 and m["total_bytes"] == 120 + 2 * 2560 and
m["full_f32"]["table_read_bytes"] == 2560 and m["full_f16"]["table_read_bytes"] == 1280 and
abs(m["full_f32"]["table_read_saved"] - (1 - 120 / 2560)) < 1e-12
for c, m in [(s["stats"]["counted"], s["stats"]["modelled"]) for s in j["tables"]])' stats packed
expect "stats: no such table" 1 "carvqd has no table 'none'" stats none
"$carvqctl" stats >/dev/full 2>"$dir/err"
[ $? = 1 ] && grep -q "standard output" "$dir/err"
result "a full disk behind standard output" $?
ctl stats
[ "$(awk 'length > 80' "$dir/out" | wc -l)" = 0 ]
result "stats fit into 80 columns" $?

# ---- again and again ----
"$carvqctl" stats small --watch=0.1 2>"$dir/err" | sed '/latency/{x;s/^/x/;/xxx/{x;q};x}' >"$dir/out"
grep -q "rates from the next look on" "$dir/out" && grep -Pq "^  lookups +0 +[0-9]+  counted" "$dir/out" &&
  [ "$(grep -c '^table small' "$dir/out")" = 3 ]
result "stats --watch: block after block" $?
awk 'length > 80 || / $/ { exit 1 }' "$dir/out"
result "which fit into 80 columns, and no line ends in a space" $?
{
  "$carvqctl" stats --watch 0.1 --json 2>"$dir/err" | {
    read -r a
    for i in 1 2 3 4 5; do "$carvqctl" lookup small 1 2 3 >/dev/null; done
    read -r b; read -r c; read -r d
    printf '%s\n' "$a" "$b" "$c" "$d"
  }
} >"$dir/out"
python3 - "$dir/out" <<'PYTHON' 2>>"$dir/err"
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
small = [next(t for t in j["tables"] if t["table"]["name"] == "small") for j in lines]
assert lines[0]["interval_seconds"] is None and small[0]["rates"] is None
for j, s, before in zip(lines[1:], small[1:], small):
    n = s["stats"]["counted"]["n_rows"] - before["stats"]["counted"]["n_rows"]
    assert abs(s["rates"]["stats"]["counted"]["n_rows"] * j["interval_seconds"] - n) < 1e-6
    assert "measured" not in s["rates"]["stats"] and 0.1 <= j["interval_seconds"] < 60
assert any(s["rates"]["stats"]["counted"]["n_rows"] > 0 for s in small[1:])
PYTHON
result "stats --watch --json: rates are differences by second" $?
expect "stats --traffic: each figure, or the reason" 0 "asked for, all tables .*counted.*carvqd +([0-9.]+ [KMG]?i?B \(measured|unavailable\s+\(.+\)).*machine +([0-9.]+ .*measured|unavailable\s+\(.+\))" stats --traffic --seconds 0.1
json "stats --traffic --json" 'j["seconds"] >= 0.1 and j["counted"]["table_read_lines"] == 0 and
  (j["measured_carvqd"]["bytes"] is None) == isinstance(j["measured_carvqd"]["unavailable"], str) and
  (j["measured_machine"]["read_bytes"] is None) == isinstance(j["measured_machine"]["unavailable"], str)' stats --traffic --seconds 0.1
expect "stats --traffic of a table" 2 "of the whole daemon" stats small --traffic
expect "stats --seconds without --traffic" 2 "--seconds is for --traffic" stats --seconds 2
expect "stats --watch: no such table" 1 "carvqd has no table 'none'" stats none --watch

# ---- bench ----
short="--seconds 0.1 --batch 16"
# shellcheck disable=SC2086
expect "bench" 0 "table packed: 5,000 rows x 640.*against f16.*uniform ids.*f16 in process.*carvq direct.*carvq ring.*\
saved by ring.*text-like ids.*emory traffic of the machine" bench packed $short
# shellcheck disable=SC2086
json "bench in JSON" 'j["table"] == "packed" and j["against"] == "f32" and set(j["ids"]) == {"uniform", "text_like"} and
all(c["unavailable"] is None and c["measured"]["ns_per_row"] > 0 and c["counted"]["row_write_bytes_per_row"] == 2560
for ways in j["ids"].values() for c in ways.values()) and
all(abs(ways["direct"]["counted"]["table_read_bytes_per_row"] - 120) < 1e-9 and
ways["ring"]["counted"] == ways["direct"]["counted"] | {"table_read_lines_per_row":
ways["ring"]["counted"]["table_read_lines_per_row"]} and 2 <= ways["ring"]["counted"]["table_read_lines_per_row"] <= 3 and
ways["full"]["counted"]["table_read_bytes_per_row"] == 2560 and ways["ring"]["saved"]["table_read"] > 0.95
for ways in j["ids"].values()) and (j["unavailable"]["imc"] or j["ids"]["uniform"]["full"]["measured"]["imc_bytes_per_row"] > 0)' \
  bench packed --against f32 $short
# shellcheck disable=SC2086
expect "bench from storage" 0 "uniform, cold ids\s+f16 in process +[0-9u].*" bench packed --cold $short
TMPDIR=$dir
export TMPDIR
# shellcheck disable=SC2086
json "bench from storage in JSON" 'all(c["unavailable"] or c["measured"]["ns_per_row"] > 0
for c in j["ids"]["cold"].values()) and len(j["ids"]["cold"]) == 3' bench packed --cold $short
unset TMPDIR
result "which leaves nothing behind" "$(find "$dir" -maxdepth 1 -name 'carvqctl-*' | grep -c .)"
ctl tables
! grep -q carvqctl-bench "$dir/out"
result "nor in the daemon" $?
# shellcheck disable=SC2086
expect "bench draws bars" 0 "" bench small --svg "$dir/bars.svg" $short
python3 -c 'import sys, xml.dom.minidom as x
d = x.parse(sys.argv[1])
assert len(d.getElementsByTagName("rect")) == 13, len(d.getElementsByTagName("rect"))' "$dir/bars.svg" 2>"$dir/err"
result "which are a picture" $?
expect "bench: no such precision" 2 "'f8' is no full precision, expected f32, f16 or bf16" bench packed --against f8
expect "bench: no such batch" 2 "'0' is no batch" bench packed --batch 0
expect "bench: no such table" 1 "carvqd has no table 'none'" bench none
expect "bench: nowhere to draw" 1 "nowhere/x.svg: No such file" bench small --svg "$dir/nowhere/x.svg" --seconds 0.1

# ---- the end ----
kill "$daemon"
wait "$daemon"
result "the daemon ends with 0" $?
daemon=
expect "and is not reached then" 3 "is carvqd running" status

# ---- someone else behind the socket: names that a terminal would obey ----
rm -f "$CARVQ_CONTROL"
python3 - "$CARVQ_CONTROL" <<'PYTHON' &
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
name = "a\x1b]0;b\x07\x9b2Jc\x7f\n"
for i in range(2):
    c, _ = s.accept()
    call = b""
    while not call.endswith(b"\0"):
        call += c.recv(4096)
    c.sendall(json.dumps({"parameters": {"clients": [{"name": name}]}}).encode() + b"\0")
    c.close()
PYTHON
fake=$!
eventually test -S "$CARVQ_CONTROL"
eventually ctl clients
grep -Fq 'a?]0;b???2Jc??' "$dir/out"
result "control characters of names are not printed" $?
json "but JSON has them" 'j["clients"][0]["name"] == "a\x1b]0;b\x07\x9b2Jc\x7f\n"' clients
wait "$fake"
echo "1..$n"
exit $failed
