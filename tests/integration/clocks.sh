#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The clock of the day may jump: nothing in daemon and library asks it. What they decide by is
# CLOCK_MONOTONIC, which does not jump, nor run while the machine is suspended; and processor time,
# which is nobody's clock. By the names in the source, and by what the programs import. TAP.
#   clocks.sh SOURCE_ROOT CARVQD LIBCARVQ
set -u

cd "$1" || exit 1
n=0
expect_none() {
  n=$((n + 1))
  if [ -z "$2" ]; then echo "ok $n - $1"; else
    echo "not ok $n - $1"
    sed 's/^/# /' <<<"$2"
  fi
}
echo 1..3
expect_none "clocks in the source are CLOCK_MONOTONIC" "$(grep -rnow 'CLOCK_[A-Z_]*\|TIMER_ABSTIME\|TIME_UTC\|IORING_TIMEOUT_[A-Z]*TIME' \
  daemon lib proto --include='*.[ch]' | grep -v ':CLOCK_MONOTONIC$')"
for program in "$2" "$3"; do
  # A sanitizer's runtime, when linked in, has wrappers of everything; what it defines is not imported.
  expect_none "${program##*/} imports no other clock" "$(nm -D --undefined-only "$program" |
    grep -Eow '(time|gettimeofday|ftime|timespec_get|localtime(_r)?|gmtime(_r)?|mktime|strftime|alarm|setitimer|timer_create|pthread_(cond|mutex)_timedwait|sem_timedwait)(@.*)?')"
done
