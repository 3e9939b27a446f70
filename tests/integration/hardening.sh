#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What compiler and linker were told to put into what is installed is there. TAP.
#   hardening.sh FORTIFIED FILE...      FORTIFIED: true or false; FILEs are programs and libraries
set -u
fortified=$1
shift
n=0 failed=0

# check NAME COMMAND...
check() {
  local name=$1
  shift
  n=$((n + 1))
  if "$@" >/dev/null; then echo "ok $n - $name"; return; fi
  failed=1
  echo "not ok $n - $name"
}
command -v readelf >/dev/null || { echo "1..0 # SKIP readelf is missing"; exit; }

has() { grep -Eq -- "$1" <<<"$2"; } # REGEX TEXT
lacks() { ! has "$@"; }
for file in "$@"; do
  name=$(basename "$file")
  elf=$(readelf -hldW "$file") symbols=$(readelf --dyn-syms -W "$file")
  check "$name can be loaded anywhere" has '^ *Type: +DYN' "$elf"
  [[ $name == *.so* ]] || check "$name is a program for that" has 'FLAGS_1.*PIE' "$elf"
  check "$name: relocations are read-only ..." has GNU_RELRO "$elf"
  check "$name: ... all of them, before it runs" has 'BIND_NOW|FLAGS_1.*NOW' "$elf"
  check "$name: the stack is not executable" has 'GNU_STACK .* RW ' "$elf"
  check "$name: nothing is both written and executed" lacks 'LOAD .* RWE' "$elf"
  check "$name: code is not relocated" lacks TEXTREL "$elf"
  check "$name: arrays on the stack are guarded" has __stack_chk_fail "$symbols"
  if [ "$fortified" = true ]; then
    check "$name: calls with known sizes are checked" has '__[a-z]+_chk' "$symbols"
  else
    n=$((n + 1))
    echo "ok $n - $name: calls with known sizes are checked # SKIP not with sanitizers, and not without optimization"
  fi
done
echo "1..$n"
exit $failed
