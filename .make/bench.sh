#!/usr/bin/env bash
# Benchmarks with their floors and peers in the same run; each figure is also appended to target/bench/results.jsonl.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p target/bench
cargo bench
