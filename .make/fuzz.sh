#!/usr/bin/env bash
# Fuzzing of everything that strangers send: one target after the other, from the kept corpora, until the time
# is over or something falls. HOB_FUZZ_SECONDS (900) is the time of each of `bundle`, `wire_frames` and
# `manifest`; each other target has a quarter of it: an hour in all. `.make/fuzz.sh TARGET...` runs only
# these. What falls lies in fuzz/artifacts/TARGET; once it is mended, it belongs into fuzz/corpus/TARGET as
# `found-WHAT`, where `make test` asks it again. `.make/fuzz.sh keep` takes some of what reached new branches
# into the kept corpora.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${HOB_FUZZ_SECONDS:-900}
version=0.13.2
all=(bundle wire_frames manifest tuf_metadata glue_fault home_files call_lines)
say() { printf 'fuzz: %s\n' "$*" >&2; }
die() { printf 'fuzz: %s\n' "$*" >&2; exit 1; }

command -v c++ >/dev/null || die "no C++ compiler, which libFuzzer is compiled with: install g++ (Debian: build-essential) and run again"
tools=$PWD/target/cargo-fuzz-$version
if [ ! -x "$tools/bin/cargo-fuzz" ]; then
  say "installing cargo-fuzz $version into target/"
  cargo install --quiet cargo-fuzz --locked --version "$version" --root "$tools"
fi
export PATH="$tools/bin:$PATH"
# Options that the stable compiler has and does not promise to keep: those that count which branches ran.
export RUSTC_BOOTSTRAP=1
# No sanitizer: neither this crate nor the parsers below it have unsafe code for one to watch, and it would
# halve the inputs tried. Debug assertions and overflow checks are on; memory and time are bounded by the
# options below.
sanitizer=none
# Thousands of small folders a second: in memory, where there is such a place.
[ -w /dev/shm ] && export TMPDIR=${TMPDIR:-/dev/shm}

# Longest input: of what a target reads, the length at which everything in it can still occur.
longest() {
  case $1 in
    bundle) echo 16384 ;;
    *) echo 8192 ;;
  esac
}
# New inputs go to the first folder, which git ignores; the kept ones are only read.
found() { echo "fuzz/target/corpus/$1"; }

run() {
  local target=$1 time=$2
  mkdir -p "$(found "$target")"
  say "$target for $time s"
  # In MB of memory, and seconds that one input may take: far above what the slowest sound input needs here.
  cargo fuzz run --sanitizer "$sanitizer" "$target" "$(found "$target")" "fuzz/corpus/$target" -- -max_total_time="$time" \
    -rss_limit_mb=1024 -timeout=30 -max_len="$(longest "$target")" -dict="fuzz/dictionaries/$target.dict" -print_final_stats=1 -verbosity=1
}

keep() {
  local target=$1 merged count
  [ -d "$(found "$target")" ] || return 0
  merged=$(mktemp -d)
  # What adds no branch to the kept ones is left out; of the rest two dozen of all lengths, so that the
  # repository stays small.
  cargo fuzz run --sanitizer "$sanitizer" "$target" "$merged" "fuzz/corpus/$target" "$(found "$target")" -- -merge=1 -verbosity=0
  for known in "fuzz/corpus/$target"/*; do rm -f "$merged/$(sha1sum "$known" | cut -d' ' -f1)"; done
  count=$(find "$merged" -type f -size -5 | wc -l)
  find "$merged" -type f -size -5 -printf '%s %p\n' | sort -n | awk -v step=$((count / 24 + 1)) 'NR % step == 0 { print $2 }' |
    xargs -r cp -t "fuzz/corpus/$target"
  rm -r "$merged"
}

if [ "${1:-}" = keep ]; then
  shift
  for target in "${@:-${all[@]}}"; do keep "$target"; done
  exit
fi
for target in "${@:-${all[@]}}"; do
  case $target in
    bundle | wire_frames | manifest) run "$target" "$seconds" ;;
    *) run "$target" $((seconds / 4)) ;;
  esac
done
