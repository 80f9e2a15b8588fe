#!/bin/sh
# rustc.sh RUSTC ARGUMENTS - the compiler with coverage for libFuzzer, for the packages of this workspace alone (Cargo calls it
# by RUSTC_WORKSPACE_WRAPPER): what they stand on is used as it was built for everything else. Stable options only.
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
