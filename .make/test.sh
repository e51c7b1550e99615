#!/usr/bin/env bash
# The default test suite. Needs what `make setup` installs; no GPU, no network beyond the package registries.
# Lints run first, since they are quick to fail; the last lines are the test runner's.
set -euo pipefail
cd "$(dirname "$0")/.."
step() { printf '\n== %s\n' "$*" >&2; }

step "lint"
.make/lint.sh

step "pod runner (Python)"
PYTHONPATH=python/src timeout 600 python3 -m unittest discover -s python/tests -t python

step "building the tests"
cargo test --no-run

step "building the recipes that the tests call"
.make/recipes.sh target/debug/hob

step "the shipped recipes, through the program"
HOB_TEST_HOB=target/debug/hob timeout 1800 python3 -m unittest discover -v -s tests/shipped

step "every documented command, in surroundings that people have"
timeout 900 python3 tests/tour/tour.py target/debug/hob

step "ordinary programs of packages that most people use, in plain Python and in pods"
# Two packages with small environments, whose examples share a process; `make soak` runs all ten, each example
# in pods of its own.
HOB_TEST_HOB=target/debug/hob HOB_EVERYDAY_EACH=10 timeout 600 python3 tests/everyday/run.py httpx pillow

step "tests (Rust)"
# Tests that wait for processes are many; a few threads keep two cores busy.
timeout 2400 cargo test -- --test-threads=4

# The environments that the tests share stay, for the next run; what `uv` copied them from is as large again.
rm -rf target/tmp/*/cache/uv
