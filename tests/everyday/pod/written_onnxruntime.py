"""onnxruntime, in the order of its tutorials: load and run, what a model says of itself, options, profiles,
errors, bindings.

The models are those that its wheel carries for that purpose.
"""

import json
import os

import numpy as np
import onnxruntime as ort
from onnxruntime.datasets import get_example


def _sigmoid(**more):
    return ort.InferenceSession(get_example("sigmoid.onnx"), providers=["CPUExecutionProvider"], **more)


def _numbers(*shape):
    return np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def load_and_run():
    session = _sigmoid()
    return session.run([session.get_outputs()[0].name], {session.get_inputs()[0].name: _numbers(3, 4, 5)})[0]


def what_a_model_takes_and_gives():
    session = _sigmoid()
    return [[node.name, node.shape, node.type] for node in session.get_inputs() + session.get_outputs()]


def what_a_model_says_of_itself():
    meta, names = _sigmoid().get_modelmeta(), ("producer_name", "graph_name", "domain", "description", "version", "custom_metadata_map")
    return {name: getattr(meta, name) for name in names}


def a_wrong_shape_is_said():
    session = ort.InferenceSession(get_example("mul_1.onnx"), providers=["CPUExecutionProvider"])
    try:
        session.run(None, {session.get_inputs()[0].name: _numbers(3, 3)})
    except Exception as error:
        return [type(error).__name__, str(error)[:80]]


def a_wrong_name_is_said():
    try:
        _sigmoid().run(["nothing"], {"x": _numbers(3, 4, 5)})
    except Exception as error:
        return [type(error).__name__, str(error)[:80]]


def options_and_threads():
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = 2
    options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    return _sigmoid(sess_options=options).run(None, {"x": _numbers(3, 4, 5)})[0].sum(axis=2)


def an_optimized_model_is_written():
    options = ort.SessionOptions()
    options.optimized_model_filepath = "optimized.onnx"
    _sigmoid(sess_options=options)
    return ort.InferenceSession("optimized.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": _numbers(3, 4, 5)})[0][0]


def a_profile_is_written():
    options = ort.SessionOptions()
    options.enable_profiling = True
    session = _sigmoid(sess_options=options)
    session.run(None, {"x": _numbers(3, 4, 5)})
    path = session.end_profiling()
    with open(path) as file:
        names = {event["name"] for event in json.load(file)}
    os.unlink(path)
    return "model_run" in names


def bound_memory():
    session, x = _sigmoid(), _numbers(3, 4, 5)
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output("y")
    session.run_with_iobinding(binding)
    value = ort.OrtValue.ortvalue_from_numpy(x)
    return [binding.copy_outputs_to_cpu()[0][0, 0], value.shape(), value.device_name()]


def asked_of_it_later():
    import threading

    done, got = threading.Event(), []

    def answered(outputs, _data, problem):
        got.append(problem or outputs[0].sum())
        done.set()

    _sigmoid().run_async(None, {"x": _numbers(3, 4, 5)}, answered, None)
    assert done.wait(60)
    return got, ort.get_available_providers()[-1]
