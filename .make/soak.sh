#!/usr/bin/env bash
# Longer runs, in pieces: `make soak` runs all of them, `make soak PIECES="storms fuzz"` these.
#   storms storms of kills and cancels, and the corpus of inputs that froze hosts (HOB_SOAK_SECONDS 60,
#   HOB_SOAK_ROUNDS 200) units unit and property tests with many cases (PROPTEST_CASES 20000) injected errors
#   of system calls: what a machine has run out of, at each of them (HOB_INJECTED_EACH 20: so many of each
#   call) everyday a hundred ordinary programs of ten packages, each example in pods of its own (makes an
#   environment of each: 1.2 GB of disk at a
#                time, from the package registry)
#   misbehaving  objects that misbehave (HOB_MISBEHAVING_ROUNDS 50000)
#   tour         every documented command in all surroundings
#   rounds       the fault tests many times (SOAK_ROUNDS 20)
#   embed        the crate as apps take it: combinations of features, and the app of examples/embed
#   fuzz         fuzzing of what strangers send (HOB_FUZZ_SECONDS, see .make/fuzz.sh; 0 leaves it out)
# A setting that is wrong, or that there is none of (SOAK_ROUND), is refused before anything begins.
# HOB_SEED repeats a storm or a run of misbehaving objects that failed. Each piece prints how it ended.
set -euo pipefail
cd "$(dirname "$0")/.."
export PROPTEST_CASES=${PROPTEST_CASES:-20000}

storms() {
  # One after the other: they count processes, descriptors, bytes and milliseconds.
  HOB_SOAK_SECONDS=${HOB_SOAK_SECONDS:-60} HOB_SOAK_ROUNDS=${HOB_SOAK_ROUNDS:-200} \
    timeout 7200 cargo test --test it -- --test-threads=1 --show-output storms:: cli::freezing::nothing_of_the_freeze_corpus
}
units() { timeout 3600 cargo test --lib; }
injected() {
  HOB_INJECTED_EACH=${HOB_INJECTED_EACH:-20} timeout 14400 cargo test --test it -- --test-threads=1 --show-output cli::injected
}
everyday() { HOB_TEST_HOB=target/debug/hob timeout 7200 python3 tests/everyday/run.py; }
misbehaving() {
  HOB_MISBEHAVING_ROUNDS=${HOB_MISBEHAVING_ROUNDS:-50000} PYTHONPATH=python/src timeout 3600 python3 -m unittest python.tests.test_misbehaving
}
tour() { timeout 1800 python3 tests/tour/tour.py target/debug/hob; }
rounds() {
  local rounds=${SOAK_ROUNDS:-20}
  for round in $(seq "$rounds"); do
    echo "soak: round $round of $rounds" >&2
    timeout 900 cargo test --test it -- --test-threads=4 pods:: storms:: shelf:: repository:: cli:: || return 1
  done
}
embed() { timeout 3600 .make/embed.sh; }
fuzz() { [ "${HOB_FUZZ_SECONDS:-900}" = 0 ] || .make/fuzz.sh; }

# A setting that is no number would be taken for none, or for another, hours later.
whole() {
  local name
  for name in "$@"; do
    [[ ${!name-0} =~ ^[0-9]{1,9}$ ]] || { echo "soak: $name is \`${!name}\`, wanted a whole number" >&2; exit 2; }
  done
}
above_none() {
  local name
  whole "$@"
  for name in "$@"; do
    [ "${!name-1}" -gt 0 ] || { echo "soak: $name is ${!name}, wanted 1 or more: nothing would run" >&2; exit 2; }
  done
}
above_none PROPTEST_CASES HOB_SOAK_ROUNDS HOB_INJECTED_EACH HOB_MISBEHAVING_ROUNDS SOAK_ROUNDS
whole HOB_FUZZ_SECONDS
[[ ${HOB_SEED-0} =~ ^[0-9]{1,20}$ ]] || { echo "soak: HOB_SEED is \`$HOB_SEED\`, wanted the number that a run printed" >&2; exit 2; }
[[ ${HOB_SOAK_SECONDS-1} =~ ^[0-9]{1,9}(\.[0-9]+)?$ && ${HOB_SOAK_SECONDS-1} =~ [1-9] ]] ||
  { echo "soak: HOB_SOAK_SECONDS is \`$HOB_SOAK_SECONDS\`, wanted a number of seconds above 0" >&2; exit 2; }
for name in $(compgen -e | grep -E '^(HOB_)?SOAK_' || true); do
  case $name in HOB_SOAK_SECONDS | HOB_SOAK_ROUNDS | SOAK_ROUNDS) ;; *) echo "soak: there is no setting $name" >&2; exit 2 ;; esac
done

all="storms units injected everyday misbehaving tour rounds embed fuzz"
pieces=${*:-$all}
for piece in $pieces; do
  case " $all " in *" $piece "*) ;; *) echo "soak: no piece \`$piece\`; there are: $all" >&2; exit 2 ;; esac
done
cargo test --no-run
.make/recipes.sh target/debug/hob
for piece in $pieces; do
  echo "soak: $piece" >&2
  begun=$SECONDS
  if ! "$piece"; then
    echo "soak: $piece failed after $((SECONDS - begun)) s" >&2
    exit 1
  fi
  echo "soak: $piece ended well after $((SECONDS - begun)) s" >&2
done
