#!/usr/bin/env bash
# Installs what a machine must have to build and test Hob. Safe to run again: each step is skipped when it is
# there.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else return 1; fi; }
apt_install() {
  command -v apt-get >/dev/null || die "please install these by hand and run again: $*"
  say "installing $* (apt-get)"
  as_root apt-get update -qq >/dev/null || die "apt-get update failed"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null || die "apt-get could not install $*"
}

[ "$(uname -s)" = Linux ] || die "Hob runs on Linux; this is $(uname -s)"
command -v cargo >/dev/null || die "no cargo: install Rust 1.95 or newer with rustup"
command -v cc >/dev/null || apt_install build-essential
command -v python3 >/dev/null || apt_install python3 python3-pip python3-venv
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "python3 is $(python3 -V 2>&1); 3.11 or newer is wanted"
python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
python3 -c 'import ensurepip' 2>/dev/null || apt_install python3-venv

# A voice for the test of speech recognition (13 MB), which is skipped without one.
if ! command -v flite >/dev/null && command -v apt-get >/dev/null; then
  (apt_install flite) || say "no flite: the test of speech recognition will be skipped"
fi

# A clock that is wrong, for the tour of all commands (small; skipped without it).
if ! command -v faketime >/dev/null && command -v apt-get >/dev/null; then
  (apt_install faketime) || say "no faketime: the tour with a wrong clock will be skipped"
fi

# Glue in Rust: rustup's target, else Debian's packages that can build its standard library.
target=wasm32-unknown-unknown
has_target() { [ -d "$(rustc --print target-libdir --target $target 2>/dev/null)" ]; }
has_debian() { [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] && command -v wasm-ld-19 >/dev/null && [ -d "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/std" ]; }
if ! has_target && ! has_debian; then
  if command -v rustup >/dev/null; then
    say "adding the Rust target $target (rustup)"
    rustup target add $target >/dev/null 2>&1 || true
  fi
  has_target || apt_install rustc-web cargo-web rust-web-src lld-19
fi
