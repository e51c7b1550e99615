"""Next steps for the most common mistakes of authors, recognised by the interpreter's messages.

`faults` decides what an error is; this module changes only the hint, for the author of the code.
"""

import os

from . import guard, tracebacks

#: Most modules of the recipe that a hint names.
_MODULES_MAX = 8
_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep

_CORRECT = (
    "the recipe's own code raised it, and its author corrects it; that an input is wrong is told by"
    ' `raise hob_pod.Fault("invalid_input", "...")`'
)
_START = "the recipe's own code raised it before the first call: its author corrects it"
_SYNTAX = "correct that line: Python reads a module as a whole before it runs any of it"
_RELATIVE = (
    "the files of `pod/` are modules of their own and in no package: write `from helper import x` for `from .helper import x`, or put them"
    " into a folder with an `__init__.py`"
)
_RECURSION = "a method calls itself without end, or needs a higher `sys.setrecursionlimit`"
_TERMINAL = "a pod has no terminal, and nothing can be typed in: what it needs to know comes in the operation's input"
_DEBUGGER = (
    "a pod has no terminal for a debugger: take `breakpoint()` out; what `print` writes is shown with the call, and kept in its recipe's"
    " log"
)
_PROGRAM = (
    "what the program printed is in the log of the call; it runs in the pod's sandbox and sees no more than the pod does: other files and"
    " names of the network are asked for in `[permissions]` of recipe.toml, and the recipe's operator gives them with `hob grant`"
)
_NO_PROGRAM = (
    "a pod has the programs of the system's folders and of its environment: install the program on this machine, or add a package that"
    " brings it to the recipe's lock"
)

WRITE = (
    "the recipe's own files stay as they were signed: write into the working folder, by a relative path, which lasts as long as the pod, or"
    " give it back as a blob"
)

# The interpreter's own attribute, whatever a subclass has under that name.
_filename_of = OSError.__dict__["filename"].__get__


def of(error, text, starts=False):
    """Returns the next step after `error`, an exception of the author's code; `text` is its text. `starts`:
    the pod was not ready yet."""
    kind = guard.kind(error)
    if guard.is_a(error, SyntaxError):
        return _SYNTAX
    if guard.is_a(error, ImportError) and "relative import" in text:
        return _RELATIVE
    if guard.is_a(error, RecursionError):
        return _RECURSION
    if guard.is_a(error, EOFError) and text == "EOF when reading a line":
        return _TERMINAL
    if kind == "BdbQuit":
        return _DEBUGGER
    if kind == "CalledProcessError":
        return _PROGRAM
    if guard.is_a(error, FileNotFoundError) and tracebacks.went_through(error, ("_execute_child",)):
        program = _filename_of(error)
        return _NO_PROGRAM if type(program) is str and os.sep not in program else _PROGRAM
    return _START if starts else _CORRECT


def is_unfit(error):
    """Returns whether a TypeError came from calling a function with arguments that it does not take: none of
    its lines ran."""
    frame = tracebacks.stack(error)
    while frame is not None:
        if not guard.plain(frame.tb_frame.f_code.co_filename).startswith(_HERE):
            return False
        frame = frame.tb_next
    return True


def signature(name, takes_blobs=False, is_batch=False):
    """Returns how to write a method that the runner calls, and with what it is called."""
    if name == "load":
        return "it is called with the paths of the models: write `def load(self, models):`"
    method = name.replace("-", "_").replace(".", "_")
    if is_batch:
        what, words = "the list of its inputs", "inputs"
    elif takes_blobs:
        what, words = "its input and its blobs", "input, blobs"
    else:
        what, words = "its whole input as one value", "input"
    return f"it is called with {what}: write `def {method}(self, {words}):`"


def no_blobs(name):
    """Returns the next step if a caller gave blobs to a method that takes none, and the manifest does not
    declare blobs."""
    return f"call it without blobs; or its author has it take them: {signature(name, takes_blobs=True)}"


def of_entry(module, name, folder):
    """Returns the next step if the recipe's `folder` has no module named `module`, in which the pod's class
    `name` should be."""
    first, _, rest = module.partition(".")
    if first == "pod" and _has(folder, rest):
        return f"modules are named from the folder `pod`: set `entry` in recipe.toml to `{rest}:{name}`"
    path = f"pod/{module.replace('.', '/')}.py"
    there = _modules(folder)
    if there:
        return f"in `pod/` there is: {there}; set `entry` in recipe.toml to one of these, or put the class into `{path}`"
    return f"in `pod/` there is no module: put the class into `{path}`"


def _has(folder, module):
    path = os.path.join(folder, module.replace(".", os.sep))
    return bool(module) and (os.path.isfile(path + ".py") or os.path.isdir(path))


def _modules(folder):
    try:
        names = sorted(name[:-3] for name in os.listdir(folder) if name.endswith(".py"))
    except OSError:
        return ""
    more = ", ..." if len(names) > _MODULES_MAX else ""
    return ", ".join(f"`{name}`" for name in names[:_MODULES_MAX]) + more
