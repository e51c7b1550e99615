#!/usr/bin/env bash
# Formatting and lints of Rust and Python; any finding fails.
set -euo pipefail
cd "$(dirname "$0")/.."
ruff_version=0.17.5
cargo fmt --check
cargo fmt --check --manifest-path fuzz/Cargo.toml
cargo clippy --quiet --all-targets -- -D warnings
ruff=target/ruff-$ruff_version/bin/ruff
if [ ! -x "$ruff" ]; then
  echo "lint: installing ruff $ruff_version into target/" >&2
  python3 -m venv "target/ruff-$ruff_version"
  "target/ruff-$ruff_version/bin/python" -m pip install --quiet "ruff==$ruff_version"
fi
"$ruff" check --config python/pyproject.toml python recipes tests
