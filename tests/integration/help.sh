#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What --help prints is part of the interface: PROGRAM against its golden file. TAP.
#   help.sh PROGRAM GOLDEN [VERB]
out=$("$1" ${3-} --help 2>&1; echo "exit $?")
echo 1..2
if difference=$(diff -u "$2" <(printf '%s\n' "${out%exit 0}" | sed '$d')); then
  echo "ok 1 - --help is as written down"
else
  echo "not ok 1 - --help is as written down"
  sed 's/^/# /' <<<"$difference"
fi
if [ "$(awk 'length > 80' <<<"$out" | wc -l)" = 0 ]; then echo "ok 2 - fits into 80 columns"; else echo "not ok 2 - fits into 80 columns"; fi
