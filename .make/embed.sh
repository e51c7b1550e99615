#!/usr/bin/env bash
# The crate as apps take it: each combination of features is linted, another system is refused by name, and
# the app of examples/embed is built. Its dependencies are compiled once more, with the features that it has:
# minutes the first time.
set -euo pipefail
cd "$(dirname "$0")/.."
for features in "" serve author; do
  echo "embed: features \`$features\`" >&2
  cargo clippy --quiet --lib --no-default-features --features "$features" -- -D warnings
done
echo "embed: the program without its server" >&2
cargo clippy --quiet --lib --bins --no-default-features --features cli -- -D warnings
cargo test --quiet --lib --no-default-features --features cli -- door::tests

# Of the systems that are not Linux this is one whose standard library a machine with Hob's tools has: glue in
# Rust is compiled for it.
target=wasm32-unknown-unknown
if rustup target list --installed | grep -q "^$target$"; then
  if said=$(cargo check --lib --no-default-features --target "$target" 2>&1); then
    echo "embed: the crate compiles for $target, where it cannot work" >&2
    exit 1
  fi
  if ! grep -q "error: Hob runs on Linux alone" <<<"$said" || [ "$(grep -c '^error' <<<"$said")" -gt 2 ]; then
    printf '%s\nembed: wanted one error, which says that Hob runs on Linux alone\n' "$said" >&2
    exit 1
  fi
fi

# The same versions of everything as here.
cp Cargo.lock examples/embed/Cargo.lock
cargo build --quiet --manifest-path examples/embed/Cargo.toml --target-dir target
echo "embed: built target/debug/embed" >&2
