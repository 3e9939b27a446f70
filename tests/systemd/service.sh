#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The installed service under a real systemd, as an administrator meets it. TAP; skips with the reason where no
# container can be booted.
#   service.sh BUILD_ROOT CLIENT PROBE WRITE_TABLE
set -u
build=$1 client=$2 probe=$3 write_table=$(realpath "$4")
here=$(dirname "$(realpath "$0")")

reason=$("$here/boot") || { echo "1..0 # SKIP $reason"; exit; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/test"
DESTDIR=$dir/tree meson install -C "$build" --no-rebuild --quiet >"$dir/install" 2>&1 || {
  sed 's/^/# /' "$dir/install"
  echo "Bail out! meson install"
  exit 1
}
cp "$here"/{in-container.sh,stall-thread.py} "$client" "$probe" "$dir/test/"
# The wide one takes long enough to decode that lookups are in flight when the daemon is told to stop.
"$write_table" "$dir/test/first.carvq" 1000 64 carvq
"$write_table" "$dir/test/second.carvq" 2000 256 carvq

"$here/boot" 100 "$dir/tree" "$dir/test" in-container.sh >"$dir/out" 2>"$dir/err"
status=$?
if [ $status = 77 ]; then
  echo "1..0 # SKIP $(cat "$dir/out")"
  exit
fi
cat "$dir/out"
[ $status = 0 ] || sed 's/^/# /' "$dir/err"
exit $status
