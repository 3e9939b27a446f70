#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the shared library exports, what its map lists and what carvq.h declares are the same names.
# usage: test-symbols.sh LIBRARY MAP HEADER
set -u

exported=$(nm -D --defined-only "$1" | sed -n 's/^.* [TDBR] \([^@]*\).*/\1/p' | sort)
listed=$(sed -n 's/^ *\(carvq_[a-z_]*\);$/\1/p' "$2" | sort)
declared=$(sed -n 's/^[a-z].*[ *]\(carvq_[a-z_]*\)(.*/\1/p' "$3" | sort)
needed=$(readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | grep -v -e '^libc\.so' -e '^ld-linux' \
        -e '^libm\.so' -e '^libasan' -e '^libubsan' -e '^libxxhash')

check() {
        if [ "$3" = "$4" ]; then
                echo "ok $1 - $2"
        else
                echo "not ok $1 - $2"
                printf 'found:\n%s\nexpected:\n%s\n' "$3" "$4" | sed 's/^/# /'
        fi
}

echo 1..4
check 1 "exports are those of the map" "$exported" "$listed"
check 2 "exports are those of the header" "$exported" "$declared"
check 3 "every export has the version CARVQ_0.1" \
        "$(nm -D --defined-only "$1" | grep -c '@@CARVQ_0.1$')" "$(echo "$listed" | wc -l)"
check 4 "nothing is needed but libc and libxxhash" "$needed" ""
