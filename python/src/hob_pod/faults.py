"""Faults: what an author raises, and what the runner makes of any exception.

Apart because start, load and asks all end here, and because the modules it needs (traceback) are slow to
import and wanted only when something went wrong.
"""

import os
import sys

from . import wire

#: The codes that a pod may use (docs/pod-protocol.md).
CODES = frozenset(
    (
        "recipe_failed",
        "import_failed",
        "dependency_missing",
        "model_missing",
        "out_of_memory",
        "too_large",
        "invalid_json",
        "invalid_input",
        "operation_not_found",
        "cancelled",
        "deadline",
        "protocol_violation",
    )
)
MESSAGE_CHARS_MAX = 2_000
#: The end of a traceback says most. Well below the host's bound for a fault's detail.
TRACEBACK_CHARS_MAX = 16_000

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class Cancelled(BaseException):
    """The operation in hand was cancelled."""


class Fault(Exception):
    """A failure that the author can name.

    `code`: one of CODES, mostly `recipe_failed` or `invalid_input`. `message` names the thing, what was found and
    what was wanted; `hint` is the next step; `detail` is a dict that JSON can carry.
    """

    def __init__(self, code, message, hint=None, detail=None):
        if code not in CODES:
            raise ValueError(f"unknown fault code {code!r}: wanted one of {', '.join(sorted(CODES))}")
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.detail = detail


def of(error, doing, models=(), folder=None, overdue=False):
    """The fault (a dict for the wire) that `error` is. `doing` says what was going on, e.g. "`embed`"."""
    if isinstance(error, Fault):
        return _fault(error.code, error.message, error.hint, error.detail)
    if isinstance(error, wire.NotJson):
        hint = "return lists, dicts with text keys, text, finite numbers, booleans, None; bytes go into a hob_pod.Blob"
        detail = {"pointer": error.pointer, "problem": error.problem}
        return _fault("invalid_json", f"{doing} gave {error}", hint, detail)
    kind = type(error).__name__
    detail = {"type": kind, "traceback": _traceback(error)}
    device = _out_of_memory(error, kind)
    if device:
        text = f"{doing} ran out of {device} memory: {error}"
        return _fault("out_of_memory", text, None, {**detail, "device": device})
    if isinstance(error, ModuleNotFoundError) and error.name and not _is_own(error.name, folder):
        package = error.name.partition(".")[0]
        return _fault(
            "dependency_missing",
            f"{doing} needs the Python package `{package}`, which the recipe's environment does not have",
            f"add `{package}` to requirements.in and lock again (the package's name may differ from the module's)",
            {**detail, "package": package},
        )
    if isinstance(error, FileNotFoundError):
        model = _model_of(error, models)
        if model:
            text = f"{doing} did not find the model `{model}`: {error}"
            return _fault("model_missing", text, None, {**detail, "model": model})
    text = f"{doing} raised {kind}: {error}" if str(error) else f"{doing} raised {kind}"
    return _fault("recipe_failed", text, None, detail)


def of_start(error, doing, models, folder):
    """As `of`, for failures before the pod is ready: an error without a better name is `import_failed`."""
    fault = of(error, doing, models, folder)
    if fault["code"] == "recipe_failed" and not isinstance(error, Fault):
        fault["code"] = "import_failed"
    return fault


def _fault(code, message, hint, detail):
    fault = {"code": code, "message": printable(str(message))[:MESSAGE_CHARS_MAX]}
    if hint is not None:
        fault["hint"] = printable(str(hint))[:MESSAGE_CHARS_MAX]
    if detail is not None:
        try:
            wire.dump(detail)
        except wire.NotJson as error:
            detail = {"dropped": f"the fault's detail has {error}"}
        fault["detail"] = detail
    return fault


def printable(text):
    """`text` without lone surrogates (undecodable file names have them)."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _traceback(error):
    import traceback

    # The runner's own frames say nothing to the author.
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith((_HERE, "<frozen importlib")):
        frames = frames.tb_next
    text = printable("".join(traceback.format_exception(type(error), error, frames)))
    if len(text) > TRACEBACK_CHARS_MAX:
        text = f"... ({len(text) - TRACEBACK_CHARS_MAX} characters left out)\n" + text[-TRACEBACK_CHARS_MAX:]
    return text


def _out_of_memory(error, kind):
    """`cpu` or `gpu` if that memory ran out. By name and text: importing torch to ask would cost seconds."""
    if isinstance(error, MemoryError):
        return "gpu" if kind == "OutOfMemoryError" else "cpu"  # cupy's is a MemoryError
    text = str(error)
    if kind == "OutOfMemoryError" or "CUDA out of memory" in text or "CUDA error: out of memory" in text:
        return "gpu"
    if isinstance(error, RuntimeError) and "DefaultCPUAllocator" in text:
        return "cpu"  # torch, which raises no MemoryError
    return None


def _is_own(module, folder):
    """Whether a missing module is the recipe's or Python's own, so that no package would bring it."""
    top = module.partition(".")[0]
    if top in sys.modules or top in getattr(sys, "stdlib_module_names", ()):
        return True
    return folder is not None and any(os.path.exists(os.path.join(folder, top + end)) for end in ("", ".py"))


def _model_of(error, models):
    """The name of the model whose file (or a file in it) is missing."""
    missing = error.filename
    if not isinstance(missing, (str, bytes)):
        return None
    missing = os.path.abspath(os.fsdecode(missing))
    for name in models:
        path = os.path.abspath(models[name])
        if missing == path or missing.startswith(path + os.sep):
            return name
    return None
