#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The live screens of carvqctl, as tmux shows them: what stands where in 80x24 and in 200x60, keys, the daemon's
# absence, and the terminal afterwards. TAP.
#   carvqctl-screen.sh CARVQD CARVQCTL WRITE_TABLE
set -u

if ! command -v tmux >/dev/null; then echo 1..1; echo "ok 1 - live screens # SKIP tmux is not installed"; exit; fi
. "$(dirname "$0")/with-carvqd.sh"
trap 'terminal kill-server 2>/dev/null; stop; rm -rf "$dir"' EXIT

"$write_table" "$dir/small.carvq" 1000 8 f32
"$write_table" "$dir/adapted.carvq" 600 64 adapted
long=a-table-with-a-name-that-is-longer-than-what-a-narrow-screen-has-room-for
start_again() { start --table "small=$dir/small.carvq" --table "adapted=$dir/adapted.carvq" --table "$long=$dir/small.carvq"; }
start_again

terminal() { TMUX='' LC_ALL=C.UTF-8 tmux -f /dev/null -S "$dir/tmux" "$@"; }
capture() { terminal capture-pane -p >"$dir/out"; }
keys() { terminal send-keys "$@"; }
# What is typed before the shell reads again would be lost.
quit() { keys q; eventually shows '(^|\n)\$\s*\Z'; }
resize() { terminal resize-window -x "$1" -y "$2"; }
# shows REGEX: the screen, as one text, now.
shows() { capture && grep -Pqz -- "(?s)$1" "$dir/out"; }
# expect_screen NAME REGEX: soon.
expect_screen() { eventually shows "$2"; result "$1" $?; }
look_up() { "$carvqctl" lookup small 1 2 3 >/dev/null; "$carvqctl" lookup adapted $(seq 40) >/dev/null; }
# fits NAME COLUMNS
fits() {
  capture
  awk -v n="$2" 'length > n { exit 1 }' "$dir/out"
  result "$1" $?
}

: >"$dir/err"
terminal new-session -d -x 80 -y 24 "env PS1='\$ ' bash --norc --noprofile"
expect_screen "a terminal" '^\$\s*\Z'
keys "stty -g >$dir/before; TERM=xterm-256color $carvqctl top --interval 0.2; echo left with \$?; stty -g >$dir/after" Enter
expect_screen "top: the daemon" '^carvqd [0-9.]+, up [0-9a-z]+: 3 tables, 0 clients, 1 worker, kernel'
look_up
rates() { look_up; shows '\nsmall +[0-9.]+ +[0-9.]+ +- +[0-9.]+ .s +[0-9.]+ .s +-100\.0%\n'; }
eventually rates
result "rates, latency and what is saved" $?
hits() { look_up; look_up; shows '\nadapted +[0-9.,]+ +[0-9.,]+ +[0-9.]+% '; }
eventually hits
result "hits of the cache" $?
expect_screen "busy tables first" 'Tables by ROWS/S, every 0.2 s\nTABLE +ROWS/S +LOOKUPS/S +HITS +P50 +P99 +SAVED\n.*a-table-with'
expect_screen "a long name is cut, with a sign" '\na-table-with-a[a-z-]*~ +0 +0 +- '
expect_screen "the legend ends the screen" 'Rates are counted[^\n]*;\n[^\n]*q quit\s*\Z'
[ "$(wc -l <"$dir/out")" = 24 ]
result "and is its last line" $?
fits "nothing is wider than 80" 80

keys s
expect_screen "s sorts by the next column" 'Tables by LOOKUPS/S'
keys s s s
expect_screen "of those that are seen" 'Tables by SAVED'
keys s
expect_screen "and starts again" 'Tables by ROWS/S'
keys Up F1 F5 M-q Tab
expect_screen "Tab: clients; keys that are none do nothing" 'Clients by ROWS/S.*\nCLIENT +PID +ROWS/S.*No clients are connected'
keys t
expect_screen "t: tables" 'Tables by ROWS/S'
keys c
expect_screen "c: clients" 'Clients by ROWS/S'
keys t

resize 200 60
expect_screen "a wide screen has more columns" 'SAVED +READ/S +WRITTEN/S +CACHED/S +ERRORS/S +CLIENTS +MEMORY +AS F16 +BITS +CODEC\n'
fits "and fills no more than it has" 200
[ "$(wc -l <"$dir/out")" = 60 ] && tail -n 1 "$dir/out" | grep -q "q quit"
result "with the legend at its end" $?
resize 40 8
expect_screen "a tiny one is cut, not mixed up" '^carvqd [^\n]{1,33}\n.*Tables by ROWS/S[^\n]*\n'
fits "to what it has" 40
resize 80 24
expect_screen "and back" 'SAVED\n.*q quit'

kill "$daemon"
wait "$daemon"
expect_screen "the daemon goes: it says so and keeps the figures" '^Trying again: [^\n]*control.sock: .*\nsmall '
start_again
expect_screen "the daemon is back" '^carvqd [0-9.]+, up '

keys C-z
expect_screen "Ctrl-Z gives the terminal back" 'Stopped.*\n\$\s*\Z'
keys "fg; echo left with \$?" Enter
expect_screen "fg goes on" '^carvqd .*q quit'
keys q
expect_screen "q ends it with 0, and the screen is as it was" '^\$ stty.*left with 0\n'
eventually test -s "$dir/after" && cmp -s "$dir/before" "$dir/after"
result "and so is the terminal" $?

# ends NAME SIGNAL
ends() {
  rm -f "$dir/after" "$dir/pid"
  keys "clear; (sh -c 'echo \$PPID' >$dir/pid; TERM=xterm-256color exec $carvqctl top); echo left with \$?; stty -g >$dir/after" Enter
  eventually shows '^carvqd .*q quit'
  eventually test -s "$dir/pid"
  kill -s "$2" "$(cat "$dir/pid")"
  eventually test -s "$dir/after" && cmp -s "$dir/before" "$dir/after" && shows 'left with 0' && ! shows 'q quit'
  result "$1" $?
}
ends "SIGINT restores the terminal" INT
ends "SIGTERM too" TERM
ends "SIGHUP too" HUP

for ((i = 0; i < 30; i++)); do "$carvqctl" load "t$i" "$dir/small.carvq" >/dev/null; done
keys "clear; TERM=xterm-256color $carvqctl top --interval 0.2" Enter
expect_screen "more tables than fit: how many more" '\nt18 [^\n]*\n\.\.\. and 19 more\nRates are counted[^\n]*\n[^\n]*q quit\s*\Z'
quit
keys "clear; TERM=xterm-256color $carvqctl stats --watch 0.2" Enter
expect_screen "more blocks than fit: what to do" 'table [^\n]*\n.*\n\.\.\. more than fits: [^\n]*\s*\Z'
quit
keys "clear; TERM=xterm-256color $carvqctl stats small --watch 0.2; echo left with \$?" Enter
expect_screen "stats --watch in place" '^[0-9: -]+ carvqd [0-9.]+, up [^\n]*, over 0\.[0-9] s\n\ntable small.*lookups +[0-9.]+ +[0-9,]+  counted'
keys C-c
expect_screen "until Ctrl-C" 'left with 0\n'
echo "1..$n"
exit $failed
