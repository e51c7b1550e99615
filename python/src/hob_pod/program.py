"""Makes the process look like a program of its own: without the arguments with which the host started it.

A recipe's modules are written for that: `argparse` reads `sys.argv` when they are imported, others look at
`__main__`, and the files beside a script come before Python's modules of the same names.
"""

import io
import os
import sys

#: Modules that every Python imports before a program's first line, so that a file beside the program never
#: replaces them.
_STARTED = frozenset(
    ("abc", "builtins", "codecs", "encodings", "genericpath", "hob_pod", "io", "marshal", "os", "posix", "posixpath", "site", "stat")
    + ("sys", "time", "zipimport")
)
#: Characters of stderr that are kept for the fault of an exit.
PRINTED_CHARS_MAX = 2_000

#: Modules of Python's that the runner imports when it first needs them.
_LATER = frozenset(("asyncio", "mmap"))

_held = {}  # those modules, if a file of the recipe has the name of one
_kept = []  # objects that must stay alive although nothing refers to them
_current = None  # returns the work that the calling thread belongs to, or None
_before = ""  # the end of what was printed on stderr outside any work


def become(folder, entry):
    """Sets the program's arguments, and puts the recipe's `folder` first on the path. Called once, before any
    of its code."""
    module = os.path.join(folder, entry.partition(":")[0].replace(".", os.sep))
    path = os.path.join(module, "__init__.py")
    path = path if os.path.isfile(path) else module + ".py"
    sys.argv = [path]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv = [sys.executable, path]
    _kept.append(sys.modules.get("__main__"))
    sys.modules["__main__"] = type(sys)("__main__")
    uncover(folder)
    sys.path.insert(0, folder)


def uncover(folder):
    """Makes sure that no module that the runner imported hides a file of the recipe: the runner keeps its
    modules, and other code finds the recipe's."""
    try:
        names = os.listdir(folder)
    except OSError:
        return  # the import reports the error
    theirs = set()
    for name in names:
        top, _, ending = name.partition(".")
        is_module = ending in ("py", "so") or ending.endswith(".so") or os.path.isfile(os.path.join(folder, name, "__init__.py"))
        if is_module and top not in _STARTED:
            theirs.add(top)
    if theirs & _LATER:
        _held.update((name, __import__(name)) for name in sorted(_LATER))  # with everything that they import
    for name in [name for name in sys.modules if name.partition(".")[0] in theirs]:
        _kept.append(sys.modules.pop(name))


def of_python(name):
    """Returns Python's own module of that name, whatever the recipe has under that name."""
    return _held.get(name) or __import__(name)


class _Heard(io.TextIOWrapper):
    """`sys.stderr` that keeps the end of what each work printed: often this is all that explains a
    `sys.exit(2)`."""

    def write(self, text):
        if type(text) is str:
            _keep(text)
        return super().write(text)


_Heard.__name__ = _Heard.__qualname__ = "TextIOWrapper"
_Heard.__module__ = "_io"


def _keep(text):
    global _before
    work = None if _current is None else _current()
    if work is None:
        _before = (_before + text)[-PRINTED_CHARS_MAX:]
    else:
        work.printed = (work.printed + text)[-PRINTED_CHARS_MAX:]


def printed_before():
    """Returns the end of what was printed on stderr outside any work."""
    return _before


def hear(current):
    """Installs that `sys.stderr`. `current()` returns the work that the calling thread belongs to, or None.
    Called once."""
    global _current, _before
    _current, _before = current, ""
    old = sys.stderr
    if type(old) is not io.TextIOWrapper:
        return
    old.flush()
    heard = _Heard(old.buffer, encoding=old.encoding, errors=old.errors, newline="\n", line_buffering=True)
    heard.mode = "w"
    _kept.append(old)  # its end would close the stream that both write to
    sys.stderr = heard
    if sys.__stderr__ is old:
        sys.__stderr__ = heard
