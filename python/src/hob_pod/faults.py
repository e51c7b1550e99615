"""Faults: those that an author raises, and those that the runner makes of any other exception.

Starting, loading and asks all end here.
"""

import _socket
import errno
import os
import sys

from . import guard, steps, tracebacks, values, wire

#: The codes that an author may give a fault. The runner reports a refusal of the sandbox itself
#: (`sandbox_denied`).
CODES = frozenset(
    (
        "recipe_failed",
        "import_failed",
        "dependency_missing",
        "model_missing",
        "out_of_memory",
        "too_large",
        "invalid_json",
        "invalid_output",
        "invalid_input",
        "operation_not_found",
        "cancelled",
        "deadline",
        "protocol_violation",
    )
)
MESSAGE_CHARS_MAX = 2_000
#: The end of a traceback is the most useful part. Well below the host's bound for a fault's detail.
TRACEBACK_CHARS_MAX = 16_000
#: Largest detail of a fault, in bytes of JSON, so that no frame is lost to it. The host carries less.
DETAIL_BYTES_MAX = 128 << 10
#: Printed lines that the fault of an exit repeats.
LINES_MAX = 20

#: How many levels of `raise ... from` are followed, and how many errors of any kind behind one error.
CAUSES_MAX, BEHIND_MAX = 5, 16

#: Packages whose import name differs, as far as recipes are likely to use them.
_PACKAGES = {
    "Crypto": "pycryptodome",
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "faiss": "faiss-cpu",
    "fitz": "pymupdf",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
#: The command that makes a lock, run in the recipe's folder; the braces take the interpreter's version.
#: `locking` in src/shelf/environment/requirements.rs says the same.
_LOCK = (
    "uv pip compile --universal --python-version {}.{} --generate-hashes --only-binary :all: --no-emit-index-url"
    " pod/requirements.in -o pod/requirements.lock"
)
#: Parts of a hint; for the form see `_GRANTING`.
_UV = (" (where there is no `uv`, `pip install uv` brings it, and ", ({"do": "doctor"}, "`hob doctor`"), " says where Hob has its own)")
_NAME_LOCK = '; and name the lock in recipe.toml, which names none: `lock = "pod/requirements.lock"` in `[pod]`'
#: Whether the recipe has an environment, which is built from its lock.
locked = False
#: Set once the sandbox is around this process: from then on, the sandbox is what denies.
confined = False
#: The errors with which the sandbox denies acts.
_DENIED = (errno.EPERM, errno.EACCES, errno.EROFS)
#: Error numbers of a failed lookup of a name.
_NOT_FOUND = (_socket.EAI_AGAIN, _socket.EAI_NONAME)
#: Functions of clients and servers in which a connection begins.
_CONNECTS = frozenset(("create_connection", "create_server", "connect", "sock_connect", "_sock_connect", "connect_tcp"))
#: Whether names on the network were granted; a proxy leads to them.
way_out = False
#: The permissions that the recipe asks for and was not granted, by the act that fails without them
#: (`network`, `files`, `env`, `any`): the words that commands take, or None. And their `places` and
#: `variables`, by which a failure is recognised.
ungranted = {}
#: A part of a hint that each door words by itself, as `{"do": NAME, "of": [ARGUMENT, ...]}`, and the text for
#: a host that knows no parts.
_GRANTING = ({"do": "granting"}, "its operator's `hob grant`")
_ASK = ("what a recipe needs beyond its own files it asks for in `[permissions]` of recipe.toml, and is given by ", _GRANTING)
_ASK_NETWORK = (
    'a recipe that needs the network names each host in `[permissions]` of recipe.toml, as `network = ["example.org:443"]`, and is given'
    " it by ",
    _GRANTING,
    "; files that are only downloaded are named as `[[model]]`, and fetched before the pod starts",
)
_ASK_PROXY = (
    "the hosts that were granted are reached through the proxy that HTTPS_PROXY and HTTP_PROXY name: a client has to use it, and no name of"
    " the network is looked up in the sandbox",
)
_ASK_FILE = (
    "a pod sees its own files and no others of the machine: what else a recipe reads or writes it asks for in `[permissions]` of"
    ' recipe.toml, as `read = ["/data/books"]` or `write = ["/data/out"]`, and is given it by ',
    _GRANTING,
)
_ASK_VARIABLE = (
    "a pod has no variables of its host: what a recipe needs of them it asks for in `[permissions]` of recipe.toml, as"
    ' `env = ["API_TOKEN"]`, and is given it by ',
    _GRANTING,
)
#: Texts, in lower case, of errors without a class of their own that mean that an accelerator's memory is
#: full.
_GPU_MEMORY = (
    "cuda out of memory",
    "cuda error: out of memory",
    "cuda failure 2: out of memory",
    "cudaerrormemoryallocation",
    "hip out of memory",
    "mps backend out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)
#: The same for no particular device: the name of a device in the text decides.
_ANY_MEMORY = (
    "defaultcpuallocator",  # torch, which raises no MemoryError
    "failed to allocate memory for requested buffer",  # onnxruntime
    "oom when allocating tensor",  # tensorflow
    "resource_exhausted: out of memory",  # jax
    "std::bad_alloc",
)
_DEVICES = ("cuda", "gpu", "hip")
#: Of asyncio, of subprocess, and of socket up to Python 3.10.
_TIMEOUTS = frozenset(("TimeoutError", "TimeoutExpired", "timeout"))
#: Texts of loaders that do not name the file in `filename`.
_NO_FILE = (
    "no such file",
    "no_suchfile",
    "does not appear to have a file",
    "no file named",
    "file doesn't exist",
    "does not exist",
)

# The interpreter's own attributes, whatever a subclass has under these names.
_errno_of, _filename_of = OSError.__dict__["errno"].__get__, OSError.__dict__["filename"].__get__
_missing_name = ImportError.__dict__["name"].__get__
_exit_code = SystemExit.__dict__["code"].__get__

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class Cancelled(BaseException):
    """The operation in hand was cancelled."""


class Fault(Exception):
    """A failure that the author can name.

    `code`: one of CODES, mostly `recipe_failed` or `invalid_input`. `message` (text) names the thing, what
    was found and what was wanted; `hint` (text) is the next step; `detail` is a dict that JSON can carry.
    """

    def __init__(self, code, message, hint=None, detail=None):
        if code not in CODES:
            raise ValueError(f"unknown fault code {code!r}: wanted one of {', '.join(sorted(CODES))}")
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.detail = detail


def of(error, doing, models=(), folder=None, overdue=False, printed="", starts=False):
    """Returns the fault (a dict for the wire) for `error`, whatever the error's own code does when it is
    asked.

    `doing` says what was going on, e.g. "`embed`"; `models` is {name: path}; `folder` is the recipe's `pod`;
    `overdue` says that the ask's time was up when the error came; `printed` is the end of what was printed on
    stderr before; `starts` says that the pod was not ready yet.
    """
    try:
        return guard.together(_of, error, doing, models, folder, overdue, printed, starts)
    except Exception as problem:
        # The description may fail too: the working folder, or the depth of the stack, may be gone. That must
        # not end a pod with other callers' work in it.
        name = guard.kind(error)
        detail = {"type": name, "untold": f"telling more raised {guard.kind(problem)}"}
        return _fault("recipe_failed", f"{doing} raised {name}", None, detail)


def _of(error, doing, models, folder, overdue, printed, starts):
    if guard.is_a(error, Fault):
        return _fault(*_said(error))
    if guard.is_a(error, values.NotJson):
        detail = {"pointer": error.pointer, "problem": error.problem}
        return _fault("invalid_output", f"{doing} gave {error}", error.hint, detail)
    name, said = guard.kind(error), guard.text(error)
    detail = {"type": name, "traceback": _traceback(error)}
    if guard.is_a(error, SystemExit):
        return _exit(error, doing, detail, printed)
    # Libraries wrap errors in their own (`raise ... from`): the first known error counts.
    cause, text = error, said
    for _ in range(CAUSES_MAX):
        known = _known(cause, text, doing, models, folder, overdue)
        if known is not None:
            code, text, hint, more = known
            return _fault(code, text, hint, {**detail, **more})
        cause = tracebacks.cause(cause)
        if cause is None:
            break
        text = guard.text(cause)
    message = f"{doing} raised {name}: {said}" if said else f"{doing} raised {name}"
    behind = _behind(error) if confined else ()
    denied = _unreached(behind)
    if denied is not None:
        why, hint = denied
        return _fault("sandbox_denied", f"{message}; behind it: {why}, which its sandbox does not allow", hint, detail)
    if any(_is_ungranted_variable(inner) for inner in behind):
        hint = _step("env", _ASK_VARIABLE)
    elif any(_is_of_the_machine(inner, folder, models) for inner in behind):
        hint = _step("files", _ASK_FILE)
    else:
        hint = steps.of(error, said, starts)
    return _fault("recipe_failed", message, hint, detail)


def _step(tried, ask):
    """Returns the next step after a denial by the sandbox: grant what the recipe asks for, and for everything
    else `ask` (parts)."""
    given = ungranted.get(tried)
    if not given:
        return ask
    give = ({"do": "grant_lacking", "of": [given]}, f"its operator's `hob grant {given}`")
    return ("the recipe asks for what it was not given, and is given it by ", give, "; beyond that: ", *ask)


def _step_to_network():
    return _ASK_PROXY if way_out else _step("network", _ASK_NETWORK)


def _behind(error):
    """Yields `error` and the errors behind it, nearest first: its cause, its context, and errors that
    libraries keep in `reason` or as an argument."""
    found = [error]
    for outer in found:
        reason = guard.attribute(outer, "reason")
        inner = (tracebacks.cause(outer), reason, *guard.arguments(outer)[:2], *tracebacks.members(outer), tracebacks.context(outer))
        for one in inner:
            if one is not None and guard.is_a(one, BaseException) and all(one is not known for known in found) and len(found) < BEHIND_MAX:
                found.append(one)
    return found


def _unreached(behind):
    """Returns (what happened, the next step) if the sandbox caused one of these errors and neither its text
    nor its class says so; else None."""
    for inner in behind:
        # No server was asked. The C library reports this in one of two ways, depending on the requested
        # address family.
        if guard.is_a(inner, _socket.gaierror) and _number(inner) in _NOT_FOUND and not tracebacks.wanted_a_number(inner):
            return f"a name of the network was looked up ({guard.text(inner)})", _step_to_network()
        if _is_connection(inner):
            return f"a connection was tried ({guard.text(inner)})", _step_to_network()
    return None


def _is_connection(error):
    """Returns whether the error is of a client (or a server) that was refused its socket."""
    return _number(error) == errno.EPERM and _filename_of(error) is None and tracebacks.went_through(error, _CONNECTS)


def _is_of_the_machine(error, folder, models):
    """Returns whether a missing file may well exist, for processes other than pods."""
    missing = _filename_of(error) if guard.is_a(error, FileNotFoundError) else None
    if type(missing) is bytes:
        missing = os.fsdecode(missing)
    if type(missing) is not str or not missing.startswith("/"):
        return False
    # Also below `/tmp` and `/dev/shm`, which are the pod's own.
    asked = ungranted.get("places", ())
    if any(_is_at(missing, place) or _is_at(place, missing) for place in asked):
        return True
    recipe = os.path.dirname(folder) if folder else None
    own = [recipe, getattr(models, "folder", None), sys.prefix, sys.base_prefix, "/tmp", "/dev", "/proc", "/sys", "/scratch", "/usr"]
    return not any(place and _is_at(missing, place) for place in own)


def _is_at(path, place):
    """Whether `path` is `place` or below it."""
    return path == place or path.startswith(place.rstrip(os.sep) + os.sep)


def _is_ungranted_variable(error):
    """Returns whether the error is a lookup in `os.environ` of a variable that the recipe asks for and was
    not granted."""
    name = guard.arguments(error)[:1] if guard.is_a(error, KeyError) else ()
    asked = ungranted.get("variables", ())
    return bool(name) and type(name[0]) is str and name[0] in asked and tracebacks.went_through(error, ("__getitem__", "__delitem__"))


def _said(error):
    """Returns (code, message, hint, detail) of a Fault, as far as they are there: an author's subclass may
    have left any of them out."""
    code = guard.attribute(error, "code")
    message = guard.attribute(error, "message")
    detail = _detail(guard.attribute(error, "detail"))
    hint = guard.attribute(error, "hint")
    if type(code) is not str or code not in CODES:
        code = "recipe_failed"
    return code, guard.text(error if message is None else message), None if hint is None else guard.text(hint), detail


def _exit(error, doing, detail, printed):
    """Returns the fault of a `sys.exit`: it ends the work of one caller and not the pod, which has other
    callers' work."""
    code = _exit_code(error)
    if code is None or guard.is_a(code, int):
        number = int.__int__(code) & 0xFF if code is not None else 0
        said = f"{doing} called sys.exit with code {number}"
        detail["exit_code"] = number
    else:
        said = f"{doing} called sys.exit: {guard.text(code)}"
        detail["exit_code"] = 1
    lines = printable(printed).splitlines()[-LINES_MAX:]
    if lines:
        detail["log"] = lines
    return _fault("recipe_failed", said, "raise an exception, or hob_pod.Fault(...): an exit is one failure, and ends nothing else", detail)


def _known(error, text, doing, models, folder, overdue):
    """Returns (code, message, hint, more detail) for an error with a known next step; None for any other.
    `text` is the error's own."""
    kind = guard.kind(error)
    device = _out_of_memory(error, kind, text)
    if device:
        hint = "send less at once, or lower `items` of the operation's `batch` in recipe.toml" if device == "gpu" else None
        return "out_of_memory", f"{doing} ran out of {device} memory: {text}", hint, {"device": device}
    missing = _missing_name(error) if guard.is_a(error, ModuleNotFoundError) else None
    if type(missing) is str and missing and not _is_own(missing, folder):
        module = missing.partition(".")[0]
        package = _PACKAGES.get(module, module)
        lock = _LOCK.format(*sys.version_info)
        hint = f"add `{package}` to pod/requirements.in"
        if package == module:
            hint += " (a package's name may differ from the module's)"
        return (
            "dependency_missing",
            f"{doing} needs the Python package `{package}`, which the recipe's environment does not have",
            (f"{hint}, then lock {'again' if locked else 'it'}: `{lock}`", *_UV, *(() if locked else (_NAME_LOCK,))),
            {"package": package, "module": missing, "command": f"echo {package} >> pod/requirements.in && {lock}"},
        )
    library = _missing_library(error, text)
    if library:
        said = f"{doing} needs the library `{library}`, which this machine does not have"
        hint = "install the system's package that brings it, or lock a Python package that carries it"
        return "dependency_missing", said, hint, {"library": library}
    if confined and _number(error) in _DENIED:
        what = f"{doing} tried what its sandbox does not allow: {text}"
        written = _filename_of(error)
        if folder and type(written) is str and _number(error) == errno.EROFS and written.startswith(os.path.dirname(folder) + os.sep):
            hint = steps.WRITE
        else:
            hint = _step_to_network() if _is_connection(error) else _step("any", _ASK)
        return "sandbox_denied", what, hint, {"errno": errno.errorcode[_number(error)]}
    model = _missing_model(error, kind, text, models)
    if model:
        hint = None if model in models else f"name it as a `[[model]]` of recipe.toml: `{model}` is none, and pods see no other file there"
        return "model_missing", f"{doing} did not find the model `{model}`: {text}", hint, {"model": model}
    if overdue and (guard.is_a(error, TimeoutError) or kind in _TIMEOUTS):
        return "deadline", f"{doing} ran out of time: {kind}", None, {}
    return None


def _number(error):
    """Returns the error number of an OSError; None for any other error."""
    number = _errno_of(error) if guard.is_a(error, OSError) else None
    return number if type(number) is int else None


def of_start(error, doing, models, folder, printed=""):
    """`of` for failures before the pod is ready: an error without a better code is `import_failed`."""
    fault = of(error, doing, models, folder, printed=printed, starts=True)
    if fault["code"] == "recipe_failed" and not guard.is_a(error, Fault):
        fault["code"] = "import_failed"
    return fault


def _fault(code, message, hint, detail):
    fault = {"code": code, "message": printable(message)[:MESSAGE_CHARS_MAX]}
    if type(hint) is tuple:
        # A hint of the runner's own has parts; a fault of an author's has a text.
        fault["hint_parts"] = [part if type(part) is str else part[0] for part in hint]
        hint = "".join(part if type(part) is str else part[1] for part in hint)
    if hint is not None:
        fault["hint"] = printable(hint)[:MESSAGE_CHARS_MAX]
    if detail is not None:
        # Texts at the top of the detail may be made by the author (a key of a dict, a module's name);
        # `_detail` read the texts below.
        cut = {key: guard.cut(printable(value), TRACEBACK_CHARS_MAX + 100) for key, value in detail.items() if type(value) is str}
        fault["detail"] = {**detail, **cut}
    return fault


def _detail(given):
    """Reads the detail that an author gave, once: a second reading might differ. Returns it in the form in
    which it is carried."""
    if given is None:
        return None
    raw, problem = guard.call(_carried, given)
    if problem is not None:
        return {"dropped": f"the fault's detail could not be read: reading it {problem}"}
    found = wire.parse(raw)
    return found if type(found) is dict else {"detail": found}


def _carried(detail):
    """Returns `detail` as JSON; if that is impossible, the reason as JSON."""
    try:
        raw = wire.dump(detail, 2)
    except values.NotJson as error:
        return wire.dump({"dropped": f"the fault's detail has {error}"})
    if len(raw) > DETAIL_BYTES_MAX:
        return wire.dump({"dropped": f"the fault's detail has {len(raw)} bytes; at most {DETAIL_BYTES_MAX} are carried"})
    return raw


def printable(text):
    """Returns `text` without lone surrogates (undecodable file names have them)."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _traceback(error):
    # Leaves out the runner's own frames, which tell the author nothing.
    text = printable(tracebacks.told(error, (_HERE, "<frozen importlib")))
    if len(text) > TRACEBACK_CHARS_MAX:
        text = f"... ({len(text) - TRACEBACK_CHARS_MAX} characters left out)\n" + text[-TRACEBACK_CHARS_MAX:]
    return text


def _out_of_memory(error, kind, text):
    """Returns `cpu` or `gpu` if that memory ran out, else None. By name and text: importing torch to ask
    would cost seconds."""
    if kind == "OutOfMemoryError":
        return "gpu"  # torch's and cupy's; cupy's is a MemoryError
    if guard.is_a(error, MemoryError) or _number(error) == errno.ENOMEM:
        return "cpu"
    text = text.lower()
    if any(words in text for words in _GPU_MEMORY):
        return "gpu"
    if any(words in text for words in _ANY_MEMORY):
        return "gpu" if any(device in text for device in _DEVICES) else "cpu"
    return None


def _missing_library(error, text):
    """Returns the shared library that a module or a `ctypes.CDLL` needed, or None."""
    if not guard.is_a(error, (ImportError, OSError)):
        return None
    before, said, _ = text.partition(": cannot open shared object file")
    return before.rpartition(" ")[2] if said and before else None


def _is_own(module, folder):
    """Returns whether a missing module is the recipe's or Python's own, so that no package would bring it."""
    top = module.partition(".")[0]
    if top in sys.modules or top in getattr(sys, "stdlib_module_names", ()):
        return True
    return folder is not None and any(os.path.exists(os.path.join(folder, top + end)) for end in ("", ".py"))


def _absolute(path):
    try:
        return os.path.abspath(path)
    except OSError:  # the working folder is gone
        return path


def _missing_model(error, kind, text, models):
    """Returns the name of the model whose file (or a file in it) is missing, or that a missing file beside
    the models would have; else None."""
    if not models:
        return None
    folder = getattr(models, "folder", None)
    if guard.is_a(error, FileNotFoundError):
        missing = _filename_of(error)
        if type(missing) is str or type(missing) is bytes:
            missing = _absolute(os.fsdecode(missing))
            for name in models:
                path = _absolute(models[name])
                if missing == path or missing.startswith(path + os.sep):
                    return name
            if folder is not None and missing.startswith(folder + os.sep):
                return missing[len(folder) + 1 :]
            return None
    # onnxruntime, safetensors and transformers say it only in their text.
    if not guard.is_a(error, OSError) and kind not in ("NoSuchFile", "Fail"):
        return None
    if not any(words in text.lower() for words in _NO_FILE):
        return None
    # longest first: one path may be the beginning of another
    for name in sorted(models, key=lambda name: -len(models[name])):
        at = text.find(models[name])
        after = text[at + len(models[name]) :][:1]
        if at >= 0 and not (after.isalnum() or after in ("_", "-")):
            return name
    if folder is not None:
        rest = text.partition(folder + os.sep)[2]
        for end in " \t\n\"'`]":  # characters that follow a path in a sentence
            rest = rest.partition(end)[0]
        return rest.rstrip(".,:;)") or None
    return None
