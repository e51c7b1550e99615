#!/usr/bin/env bash
# Longer runs: storms of kills and cancels, the property tests with many cases, the fault tests many times, a hundred ordinary programs of ten
# packages (tests/everyday/run.py, which makes an environment of each: 1.2 GB of disk at a time, from the package registry), and an hour of
# fuzzing (HOB_FUZZ_SECONDS, see .make/fuzz.sh; 0 leaves it out).
# HOB_SOAK_SECONDS (60) and HOB_SOAK_ROUNDS (200) say how long the storms are, PROPTEST_CASES (20000) and SOAK_ROUNDS (20) the rest;
# HOB_SEED repeats a storm or a run of misbehaving objects that failed (HOB_MISBEHAVING_ROUNDS of them: 50000).
set -euo pipefail
cd "$(dirname "$0")/.."
export PROPTEST_CASES=${PROPTEST_CASES:-20000}
rounds=${SOAK_ROUNDS:-20}
cargo test --no-run
.make/recipes.sh target/debug/hob
echo "soak: storms" >&2
# One after the other: they count processes, descriptors, bytes and milliseconds.
HOB_SOAK_SECONDS=${HOB_SOAK_SECONDS:-60} HOB_SOAK_ROUNDS=${HOB_SOAK_ROUNDS:-200} \
  timeout 7200 cargo test --test it -- --test-threads=1 --show-output storms:: cli::freezing::nothing_of_the_freeze_corpus
timeout 3600 cargo test --lib
echo "soak: a hundred ordinary programs" >&2
HOB_TEST_HOB=target/debug/hob timeout 7200 python3 tests/everyday/run.py
echo "soak: objects that misbehave" >&2
HOB_MISBEHAVING_ROUNDS=${HOB_MISBEHAVING_ROUNDS:-50000} PYTHONPATH=python/src timeout 3600 python3 -m unittest python.tests.test_misbehaving
for round in $(seq "$rounds"); do
  echo "soak: round $round of $rounds" >&2
  timeout 900 cargo test --test it -- --test-threads=4 pods:: storms:: shelf:: repository:: cli::
done
if [ "${HOB_FUZZ_SECONDS:-900}" != 0 ]; then
  .make/fuzz.sh
fi
