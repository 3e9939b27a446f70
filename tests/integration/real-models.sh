#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Two whole models from the Python registry: pack, eval, verify, serve to two processes at once. TAP.
# Environment: CARVQ, CARVQD, CARVQCTL, CARVQ_COMPARE, CARVQ_SOURCE_ROOT.
set -u

echo "TAP version 13"
echo "1..8"
n=0
result() { # STATUS NAME
  n=$((n + 1))
  if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; fi
}
reason=$("$CARVQ_SOURCE_ROOT/tools/fetch-models" 2>&1)
if [ $? != 0 ]; then
  for name in minilm gemma; do
    for what in pack eval verify serve; do n=$((n + 1)); echo "ok $n - $name $what # SKIP ${reason##*$'\n'}"; done
  done
  exit 0
fi

work=$(mktemp -d)
daemon=
trap '[ -z "$daemon" ] || kill "$daemon"; wait; rm -rf "$work"' EXIT
export CARVQ_SOCKET=$work/data.sock CARVQ_CONTROL=$work/control.sock

# bits between 1.4 and 1.7; a relative squared error that a broken codebook or a mixed-up row could not reach
in_bounds() {
  python3 -c '
import json, sys
d = json.load(open(sys.argv[1]))
print("# bits %.4f rel_mse %.4f cosine mean %.4f min %.4f" %
      (d["bits_per_param"], d["rel_mse"], d["cosine_mean"], d["cosine_min"]))
sys.exit(not (1.4 < d["bits_per_param"] < 1.7 and d["rel_mse"] < 0.15 and d["cosine_mean"] > 0.92))' "$1"
}

serve() { # NAME
  "$CARVQD" --socket "$CARVQ_SOCKET" --control "$CARVQ_CONTROL" --table "$1=$work/$1.carvq" \
    --tables-dir "" --log-level warning 2>"$work/log" &
  daemon=$!
  local tries=0
  until "$CARVQCTL" status >/dev/null 2>&1; do
    kill -0 "$daemon" 2>/dev/null && [ $((tries += 1)) -lt 600 ] || { sed 's/^/# /' "$work/log"; return 1; }
    sleep 0.05
  done
  "$CARVQ_COMPARE" --rows 100000 --seed 1 "$1" "$work/$1.carvq" >"$work/one" 2>&1 &
  local one=$! status=0
  "$CARVQ_COMPARE" --rows 100000 --seed 2 "$1" "$work/$1.carvq" >"$work/two" 2>&1 || status=1
  wait "$one" || status=1
  sed 's/^/# /' "$work/one" "$work/two"
  kill "$daemon"
  wait "$daemon" || status=1
  daemon=
  return $status
}

for model in minilm.safetensors gemma3-270m.gguf; do
  name=${model%%[.3]*}
  source=$CARVQ_SOURCE_ROOT/models/$model
  "$CARVQ" pack "$source" -o "$work/$name.carvq" >"$work/pack" 2>&1
  status=$?
  grep -v rows/s "$work/pack" | sed 's/^/# /'
  result $status "$name pack"
  "$CARVQ" eval "$work/$name.carvq" "$source" --json >"$work/eval" 2>"$work/log" && in_bounds "$work/eval"
  result $? "$name eval"
  "$CARVQ" verify "$work/$name.carvq" >/dev/null
  result $? "$name verify"
  serve "$name"
  result $? "$name serve"
done
