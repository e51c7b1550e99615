#!/usr/bin/env bash
# Holds the crates in Cargo.lock against deny.toml: known vulnerabilities, licences, bans, sources. Not part
# of `make test`: it compiles `cargo-deny` once (minutes), and fetches the list of vulnerabilities.
# HOB_ADVISORIES=FOLDER names a clone of the advisory database, for a machine that cannot fetch it.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.20.2
tools=$PWD/target/cargo-deny-$version
if [ ! -x "$tools/bin/cargo-deny" ]; then
  echo "deny: installing cargo-deny $version into target/" >&2
  cargo install --quiet cargo-deny --locked --version "$version" --root "$tools"
fi
config=deny.toml
if [ -n "${HOB_ADVISORIES:-}" ]; then
  config=target/deny.toml
  sed "s|^\[advisories\]|&\ndb-urls = [\"file://$(realpath "$HOB_ADVISORIES")\"]|" deny.toml >$config
fi
"$tools/bin/cargo-deny" check --config $config licenses bans sources
"$tools/bin/cargo-deny" check --config $config advisories
