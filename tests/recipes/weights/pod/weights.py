"""Reads two models of several files: the names of the others stand in the first of each."""

import json
import os

import numpy
import onnxruntime
from safetensors import safe_open


class Weights:
    """One network twice: as ONNX with external data, and as sharded safetensors."""

    def load(self, models):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(models["onnx/model.onnx"], options, providers=["CPUExecutionProvider"])
        self.tensors = sharded(models["model.safetensors.index.json"])
        self.folder = models.folder

    def infer(self, input):
        x = numpy.array(input["x"], dtype="float32")
        files = [os.path.relpath(os.path.join(place, name), self.folder) for place, _, names in os.walk(self.folder) for name in names]
        return {
            "onnx": self.session.run(None, {"x": x})[0],
            "sharded": x * self.tensors["w"] + self.tensors["b"],
            "files": sorted(files),
        }


def sharded(index):
    """All tensors by their names, as transformers finds them: each in the file of the index's folder that the
    index names."""
    with open(index) as file:
        shards = json.load(file)["weight_map"]
    tensors = {}
    for name, shard in shards.items():
        with safe_open(os.path.join(os.path.dirname(index), shard), framework="np") as file:
            tensors[name] = file.get_tensor(name)
    return tensors
