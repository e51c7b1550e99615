"""Assembles all-MiniLM-L6-v2 as one ONNX graph, with pooling and normalising inside.

It is separate from the pod so that running the model needs neither torch nor this file. The graph is written
node by node from the published weights. Its bytes depend only on them and on this code, so anyone can build
it again and check the digest in recipe.toml.
"""

import argparse
import hashlib
import json
import math
import os
import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper
from safetensors.numpy import load_file

# Written into the file. Fixed, so that a newer `onnx` package makes the same bytes.
IR_VERSION = 9
OPSET = 20

# The score of a masked token before softmax: the lowest float32.
MASKED = float(np.finfo(np.float32).min)


class Graph:
    """Nodes and weights of a graph in progress; every method returns the name of what it made."""

    def __init__(self):
        self.nodes = []
        self.weights = []

    def weight(self, name, array):
        """Adds a constant. Its bytes are little-endian on every machine."""
        array = np.ascontiguousarray(array)
        kind = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}[str(array.dtype)]
        data = array.astype(array.dtype.newbyteorder("<")).tobytes()
        self.weights.append(helper.make_tensor(name, kind, array.shape, data, raw=True))
        return name

    def floats(self, name, *values):
        return self.weight(name, np.array(values, np.float32))

    def integers(self, name, *values):
        return self.weight(name, np.array(values, np.int64))

    def add(self, operator, inputs, output, **attributes):
        """Adds a node; `output` is a name, or several."""
        outputs = [output] if isinstance(output, str) else output
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=outputs[0], **attributes))
        return output

    def linear(self, x, weight, bias, name):
        """Adds x @ weight + bias."""
        product = self.add("MatMul", [x, self.weight(name + ".weight", weight)], name + ".product")
        return self.add("Add", [product, self.weight(name + ".bias", bias)], name)

    def layer_norm(self, x, tensors, source, epsilon, name):
        scale = self.weight(name + ".weight", tensors[source + ".weight"])
        bias = self.weight(name + ".bias", tensors[source + ".bias"])
        return self.add("LayerNormalization", [x, scale, bias], name, axis=-1, epsilon=epsilon)


def embed_tokens(graph, tensors, config):
    """Adds word, position and segment embeddings, summed and normalised."""
    words = graph.weight("embeddings.words", tensors["embeddings.word_embeddings.weight"])
    # A single text is all segment 0, so that row is added to the positions once.
    positions = tensors["embeddings.position_embeddings.weight"] + tensors["embeddings.token_type_embeddings.weight"][0]
    positions = graph.weight("embeddings.positions", positions)
    word = graph.add("Gather", [words, "input_ids"], "embeddings.word")
    length = graph.add("Shape", ["input_ids"], "length", start=1, end=2)
    position = graph.add("Slice", [positions, graph.integers("zero", 0), length, graph.integers("axis0", 0)], "embeddings.position")
    total = graph.add("Add", [word, position], "embeddings.sum")
    return graph.layer_norm(total, tensors, "embeddings.LayerNorm", config["layer_norm_eps"], "embeddings")


def attention(graph, tensors, config, x, mask, source, name):
    """Adds multi-head self-attention, up to and including its output projection."""
    width, heads = config["hidden_size"], config["num_attention_heads"]
    size = width // heads
    # One product for query, key and value; the scale of the scores is folded into the query.
    scale = np.float32(1 / math.sqrt(size))
    parts = [(f"{source}.self.{part}", scale if part == "query" else np.float32(1)) for part in ("query", "key", "value")]
    weight = np.concatenate([tensors[part + ".weight"].T * factor for part, factor in parts], axis=1)
    bias = np.concatenate([tensors[part + ".bias"] * factor for part, factor in parts])
    joined = graph.linear(x, weight, bias, name + ".qkv")
    query, key, value = graph.add("Split", [joined], [f"{name}.{part}" for part in ("query", "key", "value")], axis=-1, num_outputs=3)

    def by_head(tensor, order):
        split = graph.add("Reshape", [tensor, "heads"], tensor + ".split")
        return graph.add("Transpose", [split], tensor + ".heads", perm=order)

    query, key, value = by_head(query, [0, 2, 1, 3]), by_head(key, [0, 2, 3, 1]), by_head(value, [0, 2, 1, 3])
    scores = graph.add("Add", [graph.add("MatMul", [query, key], name + ".scores"), mask], name + ".masked")
    shares = graph.add("Softmax", [scores], name + ".shares", axis=-1)
    mixed = graph.add("Transpose", [graph.add("MatMul", [shares, value], name + ".mixed")], name + ".by_token", perm=[0, 2, 1, 3])
    merged = graph.add("Reshape", [mixed, "merged"], name + ".merged")
    output = source + ".output.dense"
    return graph.linear(merged, tensors[output + ".weight"].T, tensors[output + ".bias"], name + ".output")


def layer(graph, tensors, config, x, mask, index):
    """Adds one transformer layer."""
    source, name = f"encoder.layer.{index}", f"layer{index}"
    epsilon = config["layer_norm_eps"]
    attended = attention(graph, tensors, config, x, mask, source + ".attention", name + ".attention")
    x = graph.add("Add", [attended, x], name + ".attention.sum")
    x = graph.layer_norm(x, tensors, source + ".attention.output.LayerNorm", epsilon, name + ".attention.norm")
    up, down = source + ".intermediate.dense", source + ".output.dense"
    wide = graph.linear(x, tensors[up + ".weight"].T, tensors[up + ".bias"], name + ".up")
    wide = graph.add("Gelu", [wide], name + ".gelu", approximate="none")
    narrow = graph.linear(wide, tensors[down + ".weight"].T, tensors[down + ".bias"], name + ".down")
    x = graph.add("Add", [narrow, x], name + ".sum")
    return graph.layer_norm(x, tensors, source + ".output.LayerNorm", epsilon, name + ".norm")


def pool(graph, x, real):
    """Adds the mean over a text's real tokens, scaled to length 1. `real` is 1 for a token and 0 for
    padding."""
    column = graph.add("Unsqueeze", [real, graph.integers("pool.axis", 2)], "pool.mask")
    kept = graph.add("Mul", [x, column], "pool.kept")
    axis = graph.integers("pool.tokens", 1)
    total = graph.add("ReduceSum", [kept, axis], "pool.sum", keepdims=0)
    count = graph.add("ReduceSum", [column, axis], "pool.count", keepdims=0)
    mean = graph.add("Div", [total, count], "pool.mean")
    return graph.add("LpNormalization", [mean], "embeddings_out", axis=-1, p=2)


def assemble(tensors, config):
    """Returns the whole model: `input_ids` and `attention_mask` in, one vector of length 1 for each text
    out."""
    heads, width = config["num_attention_heads"], config["hidden_size"]
    graph = Graph()
    graph.integers("heads", 0, 0, heads, width // heads)
    graph.integers("merged", 0, 0, width)
    real = graph.add("Cast", ["attention_mask"], "mask.real", to=TensorProto.FLOAT)
    missing = graph.add("Sub", [graph.floats("one", 1), real], "mask.missing")
    mask = graph.add("Mul", [missing, graph.floats("mask.lowest", MASKED)], "mask.flat")
    mask = graph.add("Unsqueeze", [mask, graph.integers("mask.axes", 1, 2)], "mask")
    x = embed_tokens(graph, tensors, config)
    for index in range(config["num_hidden_layers"]):
        x = layer(graph, tensors, config, x, mask, index)
    output = pool(graph, x, real)

    tokens = ["texts", "tokens"]
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "all-MiniLM-L6-v2",
            [helper.make_tensor_value_info(name, TensorProto.INT64, tokens) for name in ("input_ids", "attention_mask")],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["texts", width])],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="hob/sentence-embeddings",
    )


def check_config(config):
    """Refuses weights that this graph would compute wrongly."""
    wanted = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for key, value in wanted.items():
        if config.get(key) != value:
            sys.exit(f"config.json says {key} = {config.get(key)!r}; this graph is for {value!r}")


def publish(path, data):
    """Writes the whole file or nothing, and prints its name, digest and size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.write_bytes(data)
    staged.replace(path)
    print(f"{path.name}\t{hashlib.sha256(data).hexdigest()}\t{len(data)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="folder with model.safetensors, config.json and tokenizer.json")
    parser.add_argument("--to", type=Path, required=True, help="folder for all-MiniLM-L6-v2.onnx and tokenizer.json")
    options = parser.parse_args()

    config = json.loads((options.weights / "config.json").read_text("utf-8"))
    check_config(config)
    model = assemble(load_file(options.weights / "model.safetensors"), config)
    checker.check_model(model, full_check=True)
    publish(options.to / "all-MiniLM-L6-v2.onnx", model.SerializeToString(deterministic=True))
    publish(options.to / "tokenizer.json", (options.weights / "tokenizer.json").read_bytes())


if __name__ == "__main__":
    main()
