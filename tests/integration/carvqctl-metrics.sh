#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# carvqctl stats --openmetrics and --prometheus, read by parsers that are not ours: Prometheus' own two, in
# promtool, and that of its client for Python. TAP.
#   carvqctl-metrics.sh CARVQD CARVQCTL WRITE_TABLE
set -u

. "$(dirname "$0")/with-carvqd.sh"

# What a label must escape stands in a path.
"$write_table" "$dir/small.carvq" 1000 8 f32
mkdir "$dir/a\"b\\c"
"$write_table" "$dir/a\"b\\c/adapted.carvq" 600 64 adapted
start --table "small=$dir/small.carvq"
"$carvqctl" load adapted "$dir/a\"b\\c/adapted.carvq" >/dev/null
"$carvqctl" load small "$dir/small.carvq" >/dev/null
for i in 1 2 3; do "$carvqctl" lookup small 1 2 >/dev/null; "$carvqctl" lookup adapted 5 >/dev/null; done

ctl stats --openmetrics
[ $? = 0 ] && [ "$(tail -n 1 "$dir/out")" = "# EOF" ] && [ "$(grep -c '^# EOF' "$dir/out")" = 1 ]
result "ends with # EOF" $?
grep -Fxq 'carvq_lookups_total{table="small",generation="3"} 3' "$dir/out" &&
  grep -Fxq 'carvq_rows_total{table="small",generation="3"} 6' "$dir/out" &&
  grep -Fq 'path="'"$dir"'/a\"b\\c/adapted.carvq"' "$dir/out"
result "values and escaped labels" $?
cp "$dir/out" "$dir/metrics"

if python3 -c 'import prometheus_client' 2>/dev/null; then
  python3 - "$dir/metrics" "$dir" <<'PYTHON' 2>"$dir/err"
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
families = {f.name: f for f in text_string_to_metric_families(open(sys.argv[1]).read())}
assert families["carvq_lookups"].type == "counter"
assert families["carvqd"].type == "info"
assert families["carvq_table_file_bytes"].unit == "bytes"
assert families["carvq_lookup_latency_seconds"].type == "summary"
paths = [s.labels["path"] for s in families["carvq_table"].samples]
assert sys.argv[2] + '/a"b\\c/adapted.carvq' in paths, paths
value = lambda name, **labels: sum(s.value for s in families[name].samples
                                   if labels.items() <= s.labels.items())
assert value("carvq_rows", table="small") == 6
assert value("carvq_table_full_bytes", table="adapted", type="f32") == 600 * 64 * 4
# Every sample of a table can be told apart from that of its older generation.
for f in families.values():
    keys = [(s.name, *sorted(s.labels.items())) for s in f.samples]
    assert len(keys) == len(set(keys)), keys
PYTHON
  result "OpenMetrics, by prometheus_client" $?
else
  skip "OpenMetrics, by prometheus_client" "the Python package is not installed"
fi

if command -v promtool >/dev/null; then
  # This reader wants a time for each sample.
  sed '/^#/!s/$/ 1700000000/' "$dir/metrics" >"$dir/timed"
  promtool tsdb create-blocks-from openmetrics "$dir/timed" "$dir/tsdb" >"$dir/out" 2>"$dir/err"
  result "OpenMetrics, by promtool" $?
  "$carvqctl" stats --prometheus | promtool check metrics >"$dir/out" 2>"$dir/err"
  result "the older format, by promtool check metrics" $?
  [ ! -s "$dir/out" ] && [ ! -s "$dir/err" ]
  result "which finds nothing to remark" $?
else
  for name in "OpenMetrics" "the older format"; do skip "$name, by promtool" "prometheus is not installed"; done
fi

ctl stats --prometheus
! grep -Eq '^# (EOF|UNIT)' "$dir/out" && grep -Fxq '# TYPE carvq_lookups_total counter' "$dir/out" &&
  [ "$(grep -v '^#' "$dir/out" | grep -v uptime)" = "$(grep -v '^#' "$dir/metrics" | grep -v uptime)" ]
result "the older format has the same samples" $?
ctl stats small --openmetrics
! grep -q adapted "$dir/out" && grep -q 'table="small"' "$dir/out"
result "of one table" $?
expect "no such table" 1 "carvqd has no table 'none'" stats none --openmetrics
stop
daemon=
ctl stats --openmetrics
[ $? = 3 ] && [ ! -s "$dir/out" ]
result "nothing is printed when the daemon is gone" $?
echo "1..$n"
exit $failed
