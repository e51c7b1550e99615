#!/usr/bin/env bash
# Builds what the shipped recipes need before they can be packed: wasm glue and models. Usage: recipes.sh HOB
set -euo pipefail
hob=$(realpath "$1")
cd "$(dirname "$0")/.."
for recipe in recipes/sentence-embeddings recipes/document-search; do
  stamp=$(find $recipe/glue wit src/author/build.rs -type f -not -path '*/target/*' | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c1-64)
  if [ ! -f $recipe/glue.wasm ] || [ "$(cat $recipe/glue/target/stamp 2>/dev/null)" != "$stamp" ]; then
    "$hob" build $recipe >&2
    echo "$stamp" > $recipe/glue/target/stamp
  fi
  $recipe/build/build.sh >&2
done
