"""The models of this pod: loaded when the host has memory for them, released when the host needs that memory
for others.

This may happen more than once in a pod's life; the process stays, with everything that it imported.
"""

import ctypes
import gc
import os
import sys

from . import asks, faults, guard, steps, tracebacks


class ModelPaths(dict):
    """{name: path} of the recipe's models, in the form that `load` gets.

    All of them lie in one folder, each as a plain file at its name (`onnx/model.onnx` lies in a folder
    `onnx`), and nothing else is there, so that a loader that reads several files by name finds them. The pod
    cannot write to that folder.
    """

    def __init__(self, start):
        super().__init__(start["models"])
        #: The path of that folder; None for a recipe without models.
        self.folder = start.get("models_folder")


class Models:
    """The models of the author's class."""

    def __init__(self, runner, pod):
        self._runner = runner
        self._pod = pod
        self.doing = ""  # for the fault of a failure

    def can_unload(self):
        """Returns whether the class has an `unload`."""
        return callable(getattr(self._pod, "unload", None))

    def bring(self, gpu, lever=None):
        """Loads, and warms up. `gpu`: {"id", "kind"} of the GPU to use, or None. Raises what the author's
        code raises."""
        global _lever
        _lever = lever
        runner, entry = self._runner, self._runner.start["entry"]
        runner.title.show("loading")
        use(gpu)
        load = getattr(self._pod, "load", None)
        if load is not None:
            self.doing = f"`load` of `{entry}`"
            try:
                self._call(load, runner.start["models"])
            except TypeError as error:
                if not steps.is_unfit(error):
                    raise
                said = f"{self.doing} raised TypeError: {guard.text(error)}"
                raise faults.Fault("import_failed", said, steps.signature("load"), {"type": "TypeError"}) from None
        warm_up = runner.start["warm_up"]
        if warm_up is not None:
            self.doing = f"warming up with `{warm_up}`"
            runner.warm_up(warm_up, self._pod)

    def load(self, gpu, lever):
        """The host's request to load again."""
        try:
            self.bring(gpu, lever)
        except BaseException as error:
            self._runner.failed(error, self.doing)
        self._runner.control.send({"type": "ready"})
        self._runner.title.show("ready")

    def unload(self):
        """The host's request to unload the models, and to free what allocators keep back."""
        self._runner.title.show("unloading")
        self.doing = f"`unload` of `{self._runner.start['entry']}`"
        try:
            self._call(self._pod.unload)
        except BaseException as error:
            self._runner.failed(error, self.doing)
        give_back()
        self._runner.control.send({"type": "unloaded"})
        self._runner.title.show("empty")

    def _call(self, method, *arguments):
        self._runner.server.settle(method, *arguments)


#: The value of the recipe's lever when the models were loaded.
_lever = None


def lever():
    """Returns the current value of the recipe's `[pod.lever]`, one of its `values`; None for a recipe without
    a lever.

    After the memory ran out (`MemoryError`, CUDA's out of memory, a pod that was killed for its memory), the
    host lowers the value and runs the ask again. Use it for what costs memory, such as a batch size. In
    `load` it is the value to load with.
    """
    work = asks.current()
    if work is None or work.frame is None or work.frame.message is None:
        return _lever
    return work.frame.message.get("lever", _lever)


#: The GPU that the host gave this pod, as its driver calls it.
_gpu = None


def gpu():
    """Returns the GPU that this pod must use, as its driver names it (for NVIDIA its UUID), or None.

    Frameworks see only this GPU, as their device 0: the host's choice is in CUDA_VISIBLE_DEVICES or
    ROCR_VISIBLE_DEVICES.
    """
    return _gpu


def use(chosen):
    """From now on frameworks see only that GPU. They read the variable when they first use a GPU, which is in
    `load`."""
    global _gpu
    if chosen is None:
        return
    _gpu = chosen["id"]
    name = {"nvidia": "CUDA_VISIBLE_DEVICES", "amd": "ROCR_VISIBLE_DEVICES"}.get(chosen["kind"])
    if name is not None:
        os.environ[name] = _gpu


def give_back():
    """Gives memory that nothing refers to back to the system."""
    gc.collect()
    torch = sys.modules.get("torch")
    try:
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
    except Exception as error:  # an error of a half-imported torch must not stop the rest
        tracebacks.say("torch kept its cache", error)
    try:
        # Not every C library has this function.
        ctypes.CDLL(None).malloc_trim(0)
    except (ImportError, OSError, AttributeError):
        pass
