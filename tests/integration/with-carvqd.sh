# SPDX-License-Identifier: Apache-2.0
# For scripts that test carvqctl against a real carvqd in a folder of its own: cases as TAP, and a start that
# waits until it answers. Sourced, with the arguments CARVQD CARVQCTL WRITE_TABLE of the script.

carvqd=$(realpath "$1") carvqctl=$(realpath "$2") write_table=$(realpath "$3")
dir=$(mktemp -d)
export CARVQ_SOCKET=$dir/carvqd.sock CARVQ_CONTROL=$dir/control.sock
unset JOURNAL_STREAM RUNTIME_DIRECTORY NOTIFY_SOCKET
n=0 failed=0 daemon=

# A moment, without a process.
pause() { read -rt "${1:-0.05}" <>"$dir/pause" || true; }
skip() { n=$((n + 1)); echo "ok $n - $1 # SKIP $2"; }
# eventually COMMAND...: within 20 s.
eventually() {
  local i
  for ((i = 0; i < 400; i++)); do "$@" && return; pause; done
  return 1
}
stop() { if [ -n "$daemon" ]; then kill "$daemon"; wait "$daemon"; fi; }
trap 'stop; rm -rf "$dir"' EXIT

# result NAME STATUS: one test case; what was seen goes with a failure.
result() {
  n=$((n + 1))
  if [ "$2" = 0 ]; then echo "ok $n - $1"; return; fi
  failed=1
  echo "not ok $n - $1"
  sed 's/^/# out: /' "$dir/out"
  sed 's/^/# err: /' "$dir/err"
}
ctl() { "$carvqctl" "$@" >"$dir/out" 2>"$dir/err"; }
# expect NAME EXIT_STATUS REGEX ARGUMENT...: of both outputs, as one text.
expect() {
  local name=$1 status=$2 regex=$3 r
  shift 3
  ctl "$@"
  r=$?
  [ $r = "$status" ] && grep -Pqz -- "(?s)$regex" "$dir/out" "$dir/err"
  result "$name" $?
}
# The daemon answers once its sockets are there; up to 20 s of attempts, each a blocking connect.
start() {
  "$carvqd" --config /dev/null --socket "$CARVQ_SOCKET" --control "$CARVQ_CONTROL" --tables-dir "" \
    ${CARVQD_EVENT_LOOP:+--event-loop "$CARVQD_EVENT_LOOP"} "$@" \
    2>"$dir/log" &
  daemon=$!
  for ((i = 0; i < 2000; i++)); do
    [ -S "$CARVQ_CONTROL" ] && ctl status && return
    kill -0 "$daemon" 2>/dev/null || break
    read -rt 0.01 <>"$dir/pause" || true
  done
  echo "Bail out! carvqd does not start: $(tail -n 3 "$dir/log")"
  exit 1
}
mkfifo "$dir/pause"
