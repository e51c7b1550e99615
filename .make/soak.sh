#!/usr/bin/env bash
# Longer runs of what is random or racy: the property tests with many cases, the fault tests many times.
# SOAK_ROUNDS (default 20) and PROPTEST_CASES (default 20000) say how long.
set -euo pipefail
cd "$(dirname "$0")/.."
export PROPTEST_CASES=${PROPTEST_CASES:-20000}
rounds=${SOAK_ROUNDS:-20}
cargo test --no-run
.make/recipes.sh target/debug/hob
timeout 3600 cargo test --lib
for round in $(seq "$rounds"); do
  echo "soak: round $round of $rounds" >&2
  timeout 900 cargo test --test it -- --test-threads=4 pods:: shelf:: repository:: cli::
done
