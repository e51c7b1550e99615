"""Runs all-MiniLM-L6-v2 over lists of texts.

Only this part needs packages, a model and memory; the glue defines the form of a caller's input and of the
answer. Tokenizing is done here, and not in the model's own file, so that the graph has only plain tensors.
"""

import os
from itertools import islice

# One pod gets this many cores: if every library has a thread pool as wide as the machine, two pods become
# slow.
THREADS = max(1, int(os.environ.get("OMP_NUM_THREADS") or 1))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true" if THREADS > 1 else "false")
os.environ.setdefault("RAYON_NUM_THREADS", str(THREADS))

# The variables above are read when these are imported.
import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
from hob_pod import Fault, cancelled, progress  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

# Tokens of a text that the model reads: the length that it was trained with, see its max_seq_length.
TOKENS_MAX = 256

# Texts, and tokens with padding, in one run of the model. The second bounds memory (attention holds 12 floats
# for each pair of tokens of a text: 25 MB for eight texts of full length) and time: a run cannot be stopped,
# so it must end well within the two seconds that a cancelled call gets.
RUN_TEXTS = 32
RUN_TOKENS = 8 * TOKENS_MAX

# Decimals of an answer's numbers: an error of at most 5e-8, less than the difference between two machines.
DECIMALS = 7


class Embedder:
    """The operation `embed` of `hob/sentence-embeddings`."""

    def load(self, models):
        """Reads both files; `models` has their paths by the names of recipe.toml."""
        self.tokenizer = Tokenizer.from_file(models["tokenizer.json"])
        self.tokenizer.enable_truncation(TOKENS_MAX)
        self.tokenizer.no_padding()

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        # An idle pod must cost nothing: its threads sleep instead of spinning.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(models["all-MiniLM-L6-v2.onnx"], options, providers=["CPUExecutionProvider"])

    def embed(self, inputs):
        """Maps each `{"texts": [...]}` to its `{"embeddings": [[384 numbers], ...]}`, in the same order.

        The texts of all callers run together, sorted by length, so that callers with one text each fill a
        run.
        """
        encoded = [text.ids for text in self.tokenizer.encode_batch([text for input in inputs for text in input["texts"]])]
        vectors = [None] * len(encoded)
        runs = list(_runs(encoded))
        done = 0
        for run in runs:
            # True only once all callers have left.
            if cancelled():
                raise Fault("cancelled", f"stopped after {done} of {len(encoded)} texts because the call was cancelled")
            for index, row in zip(run, self._run([encoded[index] for index in run])):
                vectors[index] = row
            done += len(run)
            # The progress of one caller means nothing to another.
            if len(inputs) == 1 and len(runs) > 1:
                progress(done=done, total=len(encoded), unit="texts")
        rest = iter(vectors)
        return [{"embeddings": list(islice(rest, len(input["texts"])))} for input in inputs]

    def _run(self, texts):
        """Runs the model once over token lists; returns lists of rounded floats."""
        width = max(len(text) for text in texts)
        ids = np.zeros((len(texts), width), np.int64)
        mask = np.zeros((len(texts), width), np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        (vectors,) = self.session.run(None, {"input_ids": ids, "attention_mask": mask})
        return np.round(vectors.astype(np.float64), DECIMALS).tolist()


def _runs(encoded):
    """Groups texts of similar length, so that little of a run is padding. Yields lists of indices."""
    run = []
    for index in sorted(range(len(encoded)), key=lambda index: len(encoded[index])):
        # The texts are sorted, so the newest is the longest and sets the width of all.
        if run and (len(run) == RUN_TEXTS or (len(run) + 1) * len(encoded[index]) > RUN_TOKENS):
            yield run
            run = []
        run.append(index)
    if run:
        yield run
