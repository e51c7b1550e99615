#!/bin/sh
# Makes models/ as recipe.toml names it: the files that ../sentence-embeddings/build/build.sh makes, under a
# second name.
set -eu
recipe=$(cd "$(dirname "$0")/.." && pwd)
other=$(dirname "$recipe")/sentence-embeddings
"$other/build/build.sh"
mkdir -p "$recipe/models"
for file in all-MiniLM-L6-v2.onnx tokenizer.json; do
    # Not a symbolic link: a recipe folder must hold its own files.
    ln -f "$other/models/$file" "$recipe/models/$file" 2>/dev/null || cp "$other/models/$file" "$recipe/models/$file"
done
