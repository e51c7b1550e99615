"""A pod whose start and memory are measured: it imports what `wheels.py` names, which the benchmark writes,
and has little to do.

It stands apart from `recipes/echo` because what matters here are the wheels, and nobody ships a recipe that
does nothing with them.
"""

import gc
import importlib
import os
import sys
import time

import wheels

for name in wheels.WHEELS:
    importlib.import_module(name)


class Start:
    """The operations of `hob/start-...`."""

    def load(self, models):
        self.cpu_ms = time.process_time() * 1e3

    def touch(self, input):
        return {"pid": os.getpid(), "python": sys.executable, "cpu_ms": self.cpu_ms}

    def work(self, input):
        """A little of what the wheels are for, or a collection of garbage; then time for the other pod to be
        asked as well."""
        if input["collect"]:
            gc.collect()
        else:
            work()
        time.sleep(input["seconds"])
        return {}


def work():
    if "numpy" in wheels.WHEELS:
        import numpy

        square = numpy.ones((64, 64), dtype=numpy.float32)
        assert float((square @ square)[0, 0]) == 64.0
    if "onnxruntime" in wheels.WHEELS:
        import numpy
        import onnxruntime
        import tokenizers

        session = onnxruntime.InferenceSession(identity(), providers=["CPUExecutionProvider"])
        assert session.run(None, {"x": numpy.array([7], dtype=numpy.float32)})[0][0] == 7
        words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"word": 3, "?": 0}, unk_token="?"))
        assert words.encode("word").ids == [3]
    if "torch" in wheels.WHEELS or "sentence_transformers" in wheels.WHEELS:
        import torch

        square = torch.ones(64, 64)
        assert float((square @ square)[0, 0]) == 64.0
    if "sentence_transformers" in wheels.WHEELS:
        from sentence_transformers import util

        assert abs(float(util.cos_sim(square[0], square[0])[0, 0]) - 1) < 1e-6


def identity():
    """An ONNX model with one node, which gives back one float: written by hand, since a package for that is
    large."""

    def field(number, value):
        if isinstance(value, int):
            return bytes([number << 3, value])
        return bytes([number << 3 | 2, len(value)]) + value

    shape = field(1, field(1, 1))  # one dimension, of 1
    tensor = field(1, field(1, 1) + field(2, shape))  # of float32
    node = field(1, b"x") + field(2, b"y") + field(4, b"Identity")
    graph = field(1, node) + field(2, b"one") + field(11, field(1, b"x") + field(2, tensor)) + field(12, field(1, b"y") + field(2, tensor))
    return field(1, 8) + field(7, graph) + field(8, field(2, 13))
