"""Determines which work the running code belongs to, and removes what one work leaves that the next must not
find.

`asks` knows works and no code; this module handles contexts, threads, and the state of the process that a
work may have changed. State that belongs to the process for good stays as it is left, and is the author's to
keep in order: modules and their globals, the environment, files, thread-locals, random generators, locale,
filters of warnings, umask.
"""

import _signal
import _thread
import io
import os
import sys
from contextvars import ContextVar, copy_context

from . import gate, guard

#: The work of a context: bound in the context of each work, which tasks and `asyncio.to_thread` inherit.
variable = ContextVar("hob_pod_work", default=None)
_owners = {}  # thread -> the work during which it was started, while it runs

# Taken before anything replaces them; the runner's own threads belong to no work.
_change_folder, _folder = os.chdir, os.getcwd
_depth, _set_depth = sys.getrecursionlimit, sys.setrecursionlimit
_trace, _set_trace, _profile, _set_profile = sys.gettrace, sys.settrace, sys.getprofile, sys.setprofile
_start_thread = _thread.start_new_thread
_start_joinable = getattr(_thread, "start_joinable_thread", None)  # Python 3.13


def current():
    """Returns the work that the calling thread or task belongs to, answered or not; None if there is none."""
    return variable.get() or (_owners and _owners.get(_thread.get_ident())) or None


def forget():
    """Called in a process that the author's code forked: nothing there belongs to a work."""
    variable.set(None)
    _owners.clear()


def follow_threads():
    """From now on a thread that is started during a work belongs to that work, whichever code starts it.
    Called once, before the author's code."""
    _thread.start_new_thread = _thread.start_new = _started
    if _start_joinable is not None:
        _thread.start_joinable_thread = _started_joinable
    threading = sys.modules.get("threading")  # in a zygote, it took references to these functions on import
    if threading is not None:
        if hasattr(threading, "_start_new_thread"):
            threading._start_new_thread = _started
        if hasattr(threading, "_start_joinable_thread"):
            threading._start_joinable_thread = _started_joinable


def _started(function, arguments, *more):
    work = current()
    if work is None or not callable(function) or type(arguments) is not tuple:
        return _start_thread(function, arguments, *more)
    return _start_thread(_run, (work, function, arguments, *more))


def _started_joinable(function, *more, **options):
    work = current()
    if work is None or not callable(function):
        return _start_joinable(function, *more, **options)
    return _start_joinable(lambda: _run(work, function, ()), *more, **options)


def _run(work, function, arguments, options=None):
    me = _thread.get_ident()
    _owners[me] = work
    try:
        function(*arguments, **(options or {}))
    finally:
        _owners.pop(me, None)


def _opened(stream):
    """Returns a standard stream that is not closed: closing a stream does not close its descriptor."""
    if not stream.closed:
        return stream
    number = 1 if stream is sys.stdout else 2
    buffered = open(number, "wb", closefd=False)
    return io.TextIOWrapper(buffered, encoding="utf-8", errors="backslashreplace", newline="\n", line_buffering=True)


class Ground:
    """The state that every work begins with: the context and the state of the process as `load` left them."""

    def __init__(self):
        self.context = copy_context()
        self.decimal = None
        self.restores = False
        self._watchers = None, None
        self.depth = sys.getrecursionlimit()

    def settle(self, function, *arguments):
        """Calls `function` before any work and returns its result; all works see what it binds in its
        context."""
        return self.context.run(function, *arguments)

    def task(self, loop, awaitable, box):
        """Returns a task whose outcome goes into `box`. All works see what the task binds, if Python supports
        that (3.11)."""
        if sys.version_info >= (3, 11):
            return loop.create_task(guard.outcome(awaitable, box), context=self.context)
        return self.context.run(loop.create_task, guard.outcome(awaitable, box))

    def loaded(self, restores):
        """Called after the author's `load`. `restores`: works come one at a time, each of another caller."""
        module = sys.modules.get("_decimal") or sys.modules.get("_pydecimal")
        if module is not None and hasattr(module, "getcontext"):
            # It is a context variable like others, but the object bound to it is changed in place.
            self.decimal = (module.setcontext, self.context.run(module.getcontext).copy())
        self.restores = restores
        self._watchers = sys.gettrace(), sys.getprofile()
        self.depth = sys.getrecursionlimit()
        if restores:
            self._streams = sys.stdout, sys.stderr
            self._are_ours = all(guard.is_a(stream, io.TextIOWrapper) for stream in self._streams)
            self._alarm = _signal.getsignal(_signal.SIGALRM)
            self._ticks = _signal.getitimer(_signal.ITIMER_REAL)[1] > 0 or _signal.getitimer(_signal.ITIMER_REAL)[0] > 0
            try:
                self._folder = _folder()  # not as a descriptor: a pod holds no folder
            except OSError:
                self._folder = None

    def run(self, function, work):
        """Returns `function(work)`, called in a context of its own."""
        return self.context.copy().run(self._run, function, work)

    def _run(self, function, work):
        variable.set(work)
        if self.decimal is not None:
            self.set_decimal()
        return function(work)

    def set_decimal(self):
        """Sets a decimal context for this work alone."""
        set_context, template = self.decimal
        set_context(template.copy())

    def calm(self, main):
        """Called first after a work: a trace function that it left, or too small a stack, would make the
        runner fail. `main`: whether this is the main thread."""
        depth = _depth()
        if depth < self.depth or (self.restores and depth != self.depth):
            _set_depth(self.depth)
        trace, profile = self._watchers if main else (None, None)
        if _trace() is not trace:
            _set_trace(trace)
        if _profile() is not profile:
            _set_profile(profile)

    def restore(self):
        """Called after a work if `restores` is true: resets the streams, the working folder and the alarm to
        what `load` left."""
        # First, because a handler that raises must not do so in the next caller's work.
        if gate.alarm_set:
            gate.alarm_set = False
            if not self._ticks:
                _signal.setitimer(_signal.ITIMER_REAL, 0)
                if self._alarm is not None:
                    gate.set_handler(_signal.SIGALRM, self._alarm)
                    gate.alarm_set = False
        out, err = self._streams
        if sys.stdout is not out:
            sys.stdout = out
        if sys.stderr is not err:
            sys.stderr = err
        if self._are_ours and (out.closed or err.closed):
            self._streams = sys.stdout, sys.stderr = _opened(out), _opened(err)
        folder = self._folder
        if folder is not None:
            try:
                if _folder() == folder:
                    return
            except OSError:
                pass  # the folder is gone
            try:
                _change_folder(folder)
            except OSError:
                pass  # the author removed the folder
