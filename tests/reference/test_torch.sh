#!/bin/sh
# Makes the reference vectors again with torch and sentence-transformers, and compares them with minilm.json; and runs a recipe
# that uses torch and transformers as they are.
#
# It stands apart from the other tests because its environment is 5.5 GB; `make test-torch` runs it. The
# environment is made once, in HOB_TORCH_VENV (default: ~/.cache/hob/torch-venv), again when the lock changes.
# Needs `uv`, or Python 3.11+ with pip. Ends with a line `N passed, M failed`.
set -eu

# Python 3.11+ is wanted on the machine; uv shall not fetch one of its own.
export UV_PYTHON_DOWNLOADS=never

here=$(cd "$(dirname "$0")" && pwd)
venv=${HOB_TORCH_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/hob/torch-venv}
lock=$(sha256sum "$here/requirements.lock" | cut -c1-64)

if [ "$(cat "$venv/.lock-sha256" 2>/dev/null)" != "$lock" ]; then
    echo "making $venv (5.5 GB; torch, sentence-transformers)" >&2
    rm -rf "$venv"
    mkdir -p "$(dirname "$venv")"
    if command -v uv >/dev/null; then
        uv venv --quiet --python '>=3.11' "$venv"
        UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-300} uv pip install --quiet --python "$venv/bin/python" --require-hashes --only-binary :all: -r "$here/requirements.lock"
    else
        python3 -m venv "$venv"
        "$venv/bin/python" -m pip install --quiet --require-hashes --only-binary :all: -r "$here/requirements.lock"
    fi
    echo "$lock" >"$venv/.lock-sha256"
fi

# The recipe of torch and transformers, in an environment that Hob builds itself.
(cd "$here/../.." && HOB_TEST_TORCH="$venv/bin/python" cargo test --quiet --test it -- --nocapture packages::torch)

exec "$venv/bin/python" "$here/make.py" --check
