#!/usr/bin/env bash
# Prints the benchmarks' tables and appends each figure to target/bench/results.jsonl; docs/performance.md says what each is.
# Arguments name benchmarks (w1_echo, w1_in_flight, w2_http, w3_embeddings, w5_glue, w6_recovery, w7_idle, w8_start, host_memory); without any,
# all of them are run. Installs what they are measured against, once; what cannot be installed is skipped and said to be. With
# HOB_BENCH_TORCH=1 w8_start measures torch and sentence-transformers as well, whose environment is 5.6 GB.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- w1_echo w1_in_flight w2_http w3_embeddings w5_glue w6_recovery w7_idle w8_start host_memory
chosen=() models=no
for name in "$@"; do
  chosen+=(--bench "$name")
  case $name in w3_embeddings | w6_recovery) models=yes ;; esac
done
say() { printf 'bench: %s\n' "$*" >&2; }

# A home of the caller's, or its tools, must not change what is measured.
unset HOB_HOME

peers() {
  local folder=target/bench/venvs/peers lock=recipes/sentence-embeddings/pod/requirements.lock pins=tests/bench/peers/requirements.txt
  local wanted
  wanted=$(cat $lock $pins | sha256sum | cut -c1-64)
  [ "$(cat $folder/complete 2>/dev/null)" != "$wanted" ] || return 0
  say "installing mosec, litserve and execnet into $folder (270 MB)"
  rm -rf $folder
  if command -v uv >/dev/null; then
    uv venv --quiet --python python3 $folder &&
      uv pip install --quiet --python $folder/bin/python --require-hashes --only-binary :all: -r $lock &&
      uv pip install --quiet --python $folder/bin/python --no-deps --only-binary :all: -r $pins || return 1
  else
    python3 -m venv $folder &&
      $folder/bin/python -m pip install --quiet --require-hashes --only-binary :all: -r $lock &&
      $folder/bin/python -m pip install --quiet --no-deps --only-binary :all: -r $pins || return 1
  fi
  echo "$wanted" >$folder/complete
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
peers || say "the peers' packages could not be installed: their columns are skipped"
load_generator || say "wrk could not be installed: what it measures is skipped"
if [ $models = yes ]; then
  cargo build --quiet --release --bin hob
  .make/recipes.sh target/release/hob
fi
cargo bench --quiet "${chosen[@]}"
