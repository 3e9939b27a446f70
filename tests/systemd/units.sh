#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What systemd-analyze says about the units. TAP.
#   units.sh SERVICE CARVQD CARVQCTL UNIT...
set -u
n=0 failed=0
service=$1 carvqd=$(realpath "$2") carvqctl=$(realpath "$3")
shift 3
command -v systemd-analyze >/dev/null || { echo "1..0 # SKIP systemd-analyze is missing"; exit; }

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cp "$@" "$dir"
# Not installed yet: the programs that were built take their place.
sed "s,/[^ ]*/carvqd\( \|$\),$carvqd\1,g; s,/[^ ]*/carvqctl\( \|$\),$carvqctl\1,g" "$service" >"$dir/carvqd.service"
cd "$dir" || exit 1

# check NAME COMMAND...: and it says nothing.
check() {
  local name=$1
  n=$((n + 1))
  shift
  if "$@" >out 2>&1 && [ ! -s out ]; then echo "ok $n - $name"; return; fi
  failed=1
  echo "not ok $n - $name"
  sed 's/^/# /' out
}
# The manual may not be installed.
check "systemd-analyze verify has no complaint" \
  systemd-analyze verify --man=no --recursive-errors=yes ./*.service ./*.socket ./*.slice
exposed() {
  systemd-analyze security --offline=yes --no-pager --threshold=5 ./carvqd.service >exposure 2>&1 || cat exposure
  grep -q 'Overall exposure level' exposure || cat exposure
}
check "the exposure is at most 0.5" exposed
sed -n 's/^[^a-zA-Z]*\(Overall.*[0-9]\).*/# \1/p' exposure
echo "1..$n"
exit $failed
