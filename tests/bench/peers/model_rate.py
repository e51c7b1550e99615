"""How fast the model is by itself: the recipe's class in a bare loop, without a caller, a wire or JSON.

Apart from the servers because it is the limit that they are held against. Reads the texts as a JSON line,
answers `ready`; then each line `{"items": 32, "seconds": 4}` is answered with
`{"texts": ..., "seconds": ..., "processor": ...}`.
"""

import json
import sys
import time

import embedding


def rate(model, inputs, items, seconds):
    """Embeds for so long, so many texts at a time."""
    clock = time.perf_counter
    done = 0
    start, processor = clock(), time.process_time()
    while (now := clock()) < start + seconds:
        embedding.embed(model, [inputs[(done + at) % len(inputs)] for at in range(items)])
        done += items
    now = clock()
    return {"texts": done, "seconds": now - start, "processor": time.process_time() - processor}


def main():
    model = embedding.load()
    inputs = [{"text": text} for text in json.loads(sys.stdin.readline())]
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(rate(model, inputs, order["items"], order["seconds"])), flush=True)


if __name__ == "__main__":
    main()
