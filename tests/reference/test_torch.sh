#!/bin/sh
# Runs a recipe that uses torch and transformers as they are; and makes the reference vectors again with torch and
# sentence-transformers, and compares them with minilm.json.
#
# It stands apart from the other tests because its environment is 6 GB. Hob builds that environment once, in a home of its own
# (HOB_TORCH_HOME; default: target/tmp/torch-home), and everything here runs in it. Built again when the lock changes, instead of
# the old one. Ends with a line `N passed, M failed`.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
home=${HOB_TORCH_HOME:-$root/target/tmp/torch-home}
mkdir -p "$home"
home=$(cd "$home" && pwd)

# First what needs room too, and is not the home's.
cd "$root"
cargo test --quiet --no-run --test it

# Megabytes that the home takes while the environment is built, and after that. What is there already is the same environment, a part of
# it, or one that is deleted first.
takes=6200
there=$(du -sm "$home" | cut -f1)
free=$(df -Pm "$home" | awk 'END { print $4 }')
if [ $((takes - there)) -gt "$free" ]; then
    echo "test-torch: no room for torch: $((takes - there)) MB are needed in $home, and $free MB are free there;" \
        "free some, or name a folder on a larger disk with HOB_TORCH_HOME" >&2
    exit 1
fi

HOB_TEST_TORCH=$home cargo test --quiet --test it -- --nocapture packages::torch

# The interpreter of the environment that the test has built. Nothing is to be written into it.
exec "$(cat "$home/python")" -B "$here/make.py" --check
