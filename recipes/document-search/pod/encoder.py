"""Computes vectors of texts with all-MiniLM-L6-v2.

It is what hob/sentence-embeddings does, without its batches of many callers: a recipe must be complete in
itself.
"""

import os

# One pod gets this many cores: if every library has a thread pool as wide as the machine, two pods become
# slow.
THREADS = max(1, int(os.environ.get("OMP_NUM_THREADS") or 1))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true" if THREADS > 1 else "false")
os.environ.setdefault("RAYON_NUM_THREADS", str(THREADS))

# The variables above are read when these are imported.
import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
from hob_pod import Fault, cancelled  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

MODEL, DIMENSIONS = "all-MiniLM-L6-v2", 384

#: Tokens of a text that the model reads: the length that it was trained with.
TOKENS_MAX = 256

#: Texts, and tokens with padding, in one run of the model. A run cannot be stopped, so it must end well
#: within the two seconds that a cancelled call gets.
RUN_TEXTS, RUN_TOKENS = 32, 8 * TOKENS_MAX


class Encoder:
    """The model, loaded from its two files."""

    def __init__(self, model, tokenizer):
        self.tokenizer = Tokenizer.from_file(tokenizer)
        self.tokenizer.enable_truncation(TOKENS_MAX)
        self.tokenizer.no_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        # An idle pod must cost nothing: its threads sleep instead of spinning.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def encode(self, texts):
        """Returns one row of float32 for each text, of length 1."""
        tokens = [text.ids for text in self.tokenizer.encode_batch(texts)]
        vectors = np.empty((len(texts), DIMENSIONS), np.float32)
        for run in runs(tokens):
            if cancelled():
                raise Fault("cancelled", "stopped between two runs of the model because the call was cancelled")
            vectors[run] = self._run([tokens[index] for index in run])
        return vectors

    def _run(self, texts):
        ids = np.zeros((len(texts), max(map(len, texts))), np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        return self.session.run(None, {"input_ids": ids, "attention_mask": mask})[0]


def runs(tokens):
    """Groups texts of similar length, so that little of a run is padding. Yields lists of indices."""
    run = []
    for index in sorted(range(len(tokens)), key=lambda index: len(tokens[index])):
        # The texts are sorted, so the newest is the longest and sets the width of all.
        if run and (len(run) == RUN_TEXTS or (len(run) + 1) * len(tokens[index]) > RUN_TOKENS):
            yield run
            run = []
        run.append(index)
    if run:
        yield run
