#!/usr/bin/env bash
# The main job on real input, from nothing: build, sign a repository, serve it, install from it, call.
# Everything lies in .demo/ (HOB_HOME too, unless it is set); run again, it takes seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD/.demo
export HOB_HOME=${HOB_HOME:-$root/home}
mkdir -p "$root"
step() { printf '\n\033[1m== %s\033[0m\n' "$*" >&2; }

step "building hob"
cargo build --quiet --bin hob
hob=$PWD/target/debug/hob

step "building the recipes: wasm glue, ONNX model"
recipe=recipes/sentence-embeddings
.make/recipes.sh "$hob"

step "making and signing a repository"
repo=$root/repository keys=$root/keys
if [ ! -f "$repo/metadata/timestamp.json" ]; then
  rm -rf "$repo" "$keys"
  "$hob" repo init "$repo" --keys "$keys" >&2
  "$hob" repo add-publisher "$repo" hob --keys "$keys" >&2
fi
"$hob" repo refresh "$repo" --keys "$keys" >&2
for folder in recipes/echo $recipe; do
  "$hob" publish $folder --repo "$repo" --keys "$keys" >&2
done

step "serving it, and installing from it as anyone would"
port_file=$root/port
rm -f "$port_file"
python3 - "$repo" "$port_file" <<'PYTHON' &
import functools, http.server, os, sys
class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=sys.argv[1]))
with open(sys.argv[2] + ".new", "w") as file: file.write(str(server.server_address[1]))
os.rename(sys.argv[2] + ".new", sys.argv[2])
server.serve_forever()
PYTHON
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
for _ in $(seq 100); do [ -f "$port_file" ] && break; sleep 0.1; done
url=http://127.0.0.1:$(cat "$port_file")
printf '%s\n' "$url" >&2
# The port is new each time: the remote is named again, with the same root.
"$hob" --quiet remote remove demo >/dev/null 2>&1 || true
"$hob" remote add demo "$url" --root "$repo/metadata/1.root.json" >&2
"$hob" add hob/echo >&2
"$hob" add hob/sentence-embeddings >&2
"$hob" list >&2

step "one call"
"$hob" call hob/echo echo '{"text": "hello"}'

step "sentences by meaning, nearest to the query first"
query='How do I get my money back?'
sentences='["Refunds are paid within five days of a return.", "Our office is closed on public holidays.", "The cat slept all afternoon in the sun.", "You can cancel an order and be reimbursed.", "Parcels are shipped from Hamburg.", "Solar panels turn light into electricity."]'
printf 'query: %s\n' "$query"
"$hob" call hob/sentence-embeddings embed "{\"texts\": $sentences, \"similarity_to\": \"$query\"}" |
  SENTENCES=$sentences python3 -c '
import json, os, sys
result = json.load(sys.stdin)
for score, text in sorted(zip(result["similarities"], json.loads(os.environ["SENTENCES"])), reverse=True):
    print(f"  {score:6.3f}  {text}")'
