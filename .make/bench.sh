#!/usr/bin/env bash
# Prints the benchmarks' tables and appends each figure to target/bench/results.jsonl; docs/performance.md
# says what each is. Arguments name benchmarks (w1_echo, w1_in_flight, w2_http, w3_embeddings, w4_bytes,
# w5_glue, w6_recovery, w7_idle, w8_start, w9_streams, host_memory); without any, all of them are run.
# Installs what they are measured against, once; what cannot be installed is skipped and said to be. With
# HOB_BENCH_TORCH=1 w8_start measures torch and sentence-transformers as well, whose environment is 5.6 GB.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- w1_echo w1_in_flight w2_http w3_embeddings w4_bytes w5_glue w6_recovery w7_idle w8_start w9_streams host_memory
chosen=() models=no ray=no
for name in "$@"; do
  chosen+=(--bench "$name")
  case $name in w3_embeddings | w6_recovery) models=yes ;; w4_bytes) ray=yes ;; esac
done
say() { printf 'bench: %s\n' "$*" >&2; }

# A home of the caller's, or its tools, must not change what is measured.
unset HOB_HOME

# Makes an environment below target/bench/venvs unless it is there as wanted: its name, its size, a lock with
# hashes (or `-`), pins.
environment() {
  local folder=target/bench/venvs/$1 size=$2 lock=$3 pins=$4 wanted install
  wanted=$(cat $([ "$lock" = - ] || echo "$lock") "$pins" | sha256sum | cut -c1-64)
  [ "$(cat "$folder/complete" 2>/dev/null)" != "$wanted" ] || return 0
  say "installing what $pins names into $folder ($size)"
  rm -rf "$folder"
  if command -v uv >/dev/null; then
    uv venv --quiet --python python3 "$folder" || return 1
    install=(uv pip install --quiet --python "$folder/bin/python")
  else
    python3 -m venv "$folder" || return 1
    install=("$folder/bin/python" -m pip install --quiet)
  fi
  [ "$lock" = - ] || "${install[@]}" --require-hashes --only-binary :all: -r "$lock" || return 1
  "${install[@]}" --no-deps --only-binary :all: -r "$pins" || return 1
  echo "$wanted" >"$folder/complete"
}

load_generator() {
  command -v wrk >/dev/null && return 0
  command -v apt-get >/dev/null || return 1
  local root=()
  [ "$(id -u)" = 0 ] || root=(sudo -n)
  say "installing wrk (apt-get)"
  "${root[@]}" apt-get update -qq >/dev/null &&
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends wrk >/dev/null
}

mkdir -p target/bench
environment peers "270 MB" recipes/sentence-embeddings/pod/requirements.lock tests/bench/peers/requirements.txt ||
  say "the peers' packages could not be installed: their columns are skipped"
if [ $ray = yes ]; then
  environment ray "360 MB" - tests/bench/peers/ray.txt || say "ray could not be installed (is there a wheel for $(python3 -V)?): its column is skipped"
fi
load_generator || say "wrk could not be installed: what it measures is skipped"
if [ $models = yes ]; then
  cargo build --quiet --release --bin hob
  .make/recipes.sh target/release/hob
fi
cargo bench --quiet "${chosen[@]}"
