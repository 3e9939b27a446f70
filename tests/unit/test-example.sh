#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The example does what it says, on the table that is given. usage: test-example.sh EXAMPLE TABLE
set -u

check() {
        if [ "$3" = "$4" ]; then
                echo "ok $1 - $2"
        else
                echo "not ok $1 - $2"
                printf 'found:\n%s\nexpected:\n%s\n' "$3" "$4" | sed 's/^/# /'
        fi
}

echo 1..3
out=$("$1" "$2")
check 1 "rows of a file" "$? $(echo "$out" | grep -cE '^row [012]: -?[0-9.e-]+ \.\.\.$')" "0 3"
out=$("$1" /nonexistent.carvq 2>&1)
check 2 "a file that is not there" "$? $out" \
        "1 example: not found: /nonexistent.carvq: No such file or directory"
out=$(CARVQ_SOCKET=/nonexistent/socket "$1" name 2>&1)
check 3 "no daemon" "$? $out" \
        "1 example: not found: /nonexistent/socket: no daemon there (No such file or directory)"
