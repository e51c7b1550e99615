#!/usr/bin/env bash
# Prints the benchmarks' tables and appends each figure to target/bench/results.jsonl; docs/performance.md says what each is.
# Arguments name benchmarks (w1_echo, w5_glue, host_memory); without any, all of them are run.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- w1_echo w5_glue host_memory
chosen=()
for name in "$@"; do chosen+=(--bench "$name"); done
# A home of the caller's, or its tools, must not change what is measured.
unset HOB_HOME
cargo bench --quiet "${chosen[@]}"
