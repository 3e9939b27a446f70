#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The probes in carvqd: their names and how many arguments each has are an interface. TAP.
#   probes.sh CARVQD
set -u

probes=$(readelf -n "$1" 2>/dev/null | awk '$1 == "Provider:" { p = $2 } $1 == "Name:" { name = $2 }
  $1 == "Arguments:" { if (p == "carvq") print name, NF - 1 }' | sort -u)
if [ -z "$probes" ]; then echo "1..0 # SKIP carvqd was built without probes, or there is no readelf"; exit; fi
expected="cache_hit 3
cache_miss 2
complete 5
decode_end 3
decode_start 3
session_close 3
session_open 4
submit 5
table_publish 4
table_retire 2
wake 1"
echo 1..1
if difference=$(diff <(echo "$expected") <(echo "$probes")); then
  echo "ok 1 - carvqd has the probes that probes.h names"
else
  echo "not ok 1 - carvqd has the probes that probes.h names"
  sed 's/^/# /' <<<"$difference"
fi
