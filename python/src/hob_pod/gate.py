"""The gate: signals and exceptions that the author's code set up interrupt only the author's code, never the
runner's.

A signal handler, and an exception that one thread sets in another (libraries of timeouts do both), can come
between any two bytecodes of the code that runs then. In the runner that would lose an answer, tear a frame or
keep a lock. So each thread that runs both kinds of code has a gate. The runner opens it before it calls the
author and shuts it afterwards, and also shuts it around everything that it does for the author in between (a
chunk, progress). An interruption that comes while a gate is shut waits until the gate opens again within the
same work. After that work it is too late: then a handler still runs and what it raises is reported, and an
exception is reported.

Interruptions that bypass these two ways (native code that calls `PyThreadState_SetAsyncExc`) are not held
back.
"""

import _signal
import _thread
import ctypes

from . import guard, tracebacks

_signal_as_python, _getsignal_as_python = _signal.signal, _signal.getsignal
_ident = _thread.get_ident
_gates = {}  # by thread


class Gate:
    """The gate of the calling thread."""

    def __init__(self):
        self.thread = _ident()
        self.open = False  # changed by its own thread alone; a plain store, so nothing comes in between
        self.thrown = False  # something may have been set in this thread while it was open
        self.waits = False  # a handler or an exception waits for the gate to open
        self.idle = False  # the runner waits, and holds nothing that a handler could miss
        self.handlers = {}  # waiting handlers, by the number of their signal
        self.late = None  # the exception that waits
        self.lock = _thread.allocate_lock()  # held while something is set
        _gates[self.thread] = self

    def shut(self):
        """Called when the author's code is over. An exception that was set in this thread and has not arrived
        yet is dropped; one that arrives here is reported."""
        self.open = False
        if self.thrown:
            try:
                self._settle()
            except BaseException as error:
                self._tell(error)

    def over(self):
        """Called after a work's end, when no lock is held: interruptions that still wait for its code are too
        late."""
        self.waits = False
        late, self.late = self.late, None
        if late is not None:
            self._tell(late)
        # Handles those that wait now, each once: an alarm that fires faster than its handler runs would keep
        # the runner here for ever.
        waited, self.handlers = self.handlers, {}
        for number, handler in waited.items():
            self.guarded(handler, number, None)

    def run(self, function, *arguments):
        """Runs a function of the author's that is no work; returns its result."""
        if self.open:
            return function(*arguments)
        try:
            try:
                self.open = True
                return function(*arguments)
            finally:
                self.open = False
        finally:
            self.shut()

    def guarded(self, handler, number, frame):
        """Runs a handler while the author's code does not run."""
        try:
            handler(number, frame)
        except BaseException as error:
            tracebacks.say("a handler of a signal raised between two works", error)

    def _settle(self):
        """Makes an exception that was set in this thread arrive now, if it has not yet."""
        with self.lock:
            self.thrown = False
        _boundary()

    def _tell(self, error):
        kind = guard.name(error) if isinstance(error, type) else guard.kind(error)
        tracebacks.say(f"an exception that was set in a thread came after the work that it was for: {kind}")


def _boundary():
    """The place at which an exception that was set arrives."""


def shut_here():
    """Shuts and returns the gate of this thread; None if there is none or it was shut. Raises an exception
    that was set before."""
    here = _gates.get(_ident())
    if here is None or not here.open:
        return None
    here.open = False
    if here.thrown:
        try:
            here._settle()
        except BaseException:
            here.open = True
            raise
    return here


def shut_told():
    """`shut_here` where nothing may be raised: an exception is reported instead."""
    try:
        return shut_here()
    except BaseException as error:
        here = _gates[_ident()]
        here.shut()
        here._tell(error)
        return here


def open_again(here):
    """Opens a gate that `shut_here` returned. Interruptions that waited arrive now."""
    if here is None:
        return
    here.open = True
    while here.waits:
        here.waits = False
        late, here.late = here.late, None
        if late is not None:
            set_exception(here.thread, late)
        while here.handlers:
            number, handler = here.handlers.popitem()
            handler(number, None)


def is_held():
    """Returns whether this thread has a gate: nothing interrupts its sending while the gate is shut."""
    return _ident() in _gates


#: Whether an alarm's handler was set since the last check.
alarm_set = False
#: The gate of the main thread, where signals are handled; made by `follow`.
main = None


def follow():
    """Installs the gates. Called once, on the main thread, before any code of the author's; signal handlers
    of packages that a zygote imported count as the author's."""
    global main
    main = Gate()
    for number in range(1, _signal.NSIG):
        handler = _getsignal_as_python(number)
        if callable(handler) and number != _signal.SIGURG:  # of a package that a zygote imported
            _signal_as_python(number, _Handler(handler))
    _signal.signal, _signal.getsignal = set_handler, _get_handler
    ctypes.pythonapi.PyThreadState_SetAsyncExc = _SetAsyncExc()


def forked():
    """Called in a process that the author's code forked: the runner has nothing there that could be
    interrupted."""
    _gates.clear()
    main.open = True
    main.waits = False
    main.handlers.clear()


class _Handler:
    """The author's handler of a signal, as installed in the interpreter."""

    __slots__ = ("handler",)

    def __init__(self, handler):
        self.handler = handler

    def __call__(self, number, frame):
        if main.open:
            return self.handler(number, frame)
        if main.idle:
            return main.guarded(self.handler, number, frame)
        main.handlers[number] = self.handler
        main.waits = True
        return None


def set_handler(number, handler):
    """Stands in for `signal.signal`."""
    global alarm_set
    if number == _signal.SIGALRM:
        alarm_set = True
    return _shown(_signal_as_python(number, _Handler(handler) if callable(handler) else handler))


def _get_handler(number):
    return _shown(_getsignal_as_python(number))


def _shown(handler):
    return handler.handler if type(handler) is _Handler else handler


for _function, _original in ((set_handler, _signal_as_python), (_get_handler, _getsignal_as_python)):
    _function.__name__ = _function.__qualname__ = _original.__name__
    _function.__doc__, _function.__module__ = _original.__doc__, "_signal"


def set_exception(thread, kind):
    """`PyThreadState_SetAsyncExc` with the object itself; None clears the exception."""
    here = _gates.get(thread)
    if here is None:
        return _set(thread, kind)
    here.thrown = True  # before `open` is read: a thread that shuts the gate meanwhile waits for the lock
    with here.lock:
        if here.open:
            return _set(thread, kind)
        here.late, here.waits = kind, True
        return 1


def _set(thread, kind):
    return guard.interrupt(thread, kind)


class _SetAsyncExc:
    """Stands in for the function of that name in `ctypes.pythonapi`."""

    argtypes = None
    restype = ctypes.c_int

    def __call__(self, thread, kind):
        thread = getattr(thread, "value", thread)
        if type(kind) is ctypes.py_object:
            kind = kind.value if kind else None
        return set_exception(thread, None if type(kind) is int and kind == 0 else kind)
