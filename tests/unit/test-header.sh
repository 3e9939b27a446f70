#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# carvq.h alone, as the strictest users compile it. usage: test-header.sh HEADER
set -u

n=0
check() {
        n=$((n + 1))
        if ! command -v "$1" >/dev/null; then
                echo "ok $n - $* # SKIP $1 is not installed"
        elif out=$("$@" -fsyntax-only -Wall -Wextra -pedantic -Werror "$header" 2>&1); then
                echo "ok $n - $*"
        else
                echo "not ok $n - $*"
                echo "$out" | sed 's/^/# /'
        fi
}

header=$1
echo 1..4
check cc -std=c99 -x c
check cc -std=c17 -x c
check g++ -std=c++11 -x c++
check g++ -std=c++20 -x c++
