"""The model of recipes/sentence-embeddings as peers use it: the recipe's own class, the recipe's own files.

Apart from the peers so that all columns run the same code on the same texts; what differs is what is around
it.
"""

import os

from embedder import Embedder

# Most texts in one batch, in every column: what the recipe declares.
BATCH_ITEMS = 32

# How long mosec and LitServe wait for a batch to fill, in milliseconds: mosec's own example and LitServe's
# have no less.
BATCH_WAIT_MS = 5


def load():
    """A model that has run once."""
    if os.environ["OMP_NUM_THREADS"] != "1":
        raise ValueError("all columns have one thread")
    folder = os.environ["BENCH_MODELS"]
    model = Embedder()
    model.load({name: os.path.join(folder, name) for name in ("all-MiniLM-L6-v2.onnx", "tokenizer.json")})
    embed(model, [{"text": "warm up"}])
    return model


def embed(model, inputs):
    """A result for each `{"text": ...}`, out of one batch."""
    return model.embed([{"texts": [item["text"]]} for item in inputs])


def tell_worker():
    """Writes down which process does the work, for who wants to kill it."""
    with open(os.environ["BENCH_WORKERS"], "a") as file:
        file.write(f"{os.getpid()}\n")
