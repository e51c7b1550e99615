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
    """That of the calling thread."""

    def __init__(self):
        self.thread = _ident()
        self.open = False  # changed by its own thread alone; a plain store, so nothing comes in between
        self.thrown = False  # something may have been set in this thread while it was open
        self.waits = False  # for the gate to open: handlers, or an exception
        self.idle = False  # the runner waits, and holds nothing that a handler could miss
        self.handlers = {}  # by number of their signal, those that wait
        self.late = None  # the exception that waits
        self.lock = _thread.allocate_lock()  # held while something is set
        _gates[self.thread] = self

    def shut(self):
        """The author's code is over. What was set in this thread and did not come yet is dropped; what waits
        is told."""
        self.open = False
        if self.thrown:
            try:
                self._settle()
            except BaseException as error:
                self._tell(error)

    def over(self):
        """After a work's end, when nothing is held: what waited for its code to go on comes too late."""
        self.waits = False
        late, self.late = self.late, None
        if late is not None:
            self._tell(late)
        # Those that wait now, each once: one that ticks faster than it runs would keep the runner here for
        # ever.
        waited, self.handlers = self.handlers, {}
        for number, handler in waited.items():
            self.guarded(handler, number, None)

    def run(self, function, *arguments):
        """What `function` gives, which is the author's and no work."""
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
        """A handler whose author's code does not run."""
        try:
            handler(number, frame)
        except BaseException as error:
            tracebacks.say("a handler of a signal raised between two works", error)

    def _settle(self):
        """Has what was set in this thread come now, if it did not yet."""
        with self.lock:
            self.thrown = False
        _boundary()

    def _tell(self, error):
        kind = guard.name(error) if isinstance(error, type) else guard.kind(error)
        tracebacks.say(f"an exception that was set in a thread came after the work that it was for: {kind}")


def _boundary():
    """Where an exception that was set comes."""


def shut_here():
    """The gate of this thread, which was open and is shut now, or None. What was set before comes out."""
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
    """As `shut_here`, where nothing may come out: it is told."""
    try:
        return shut_here()
    except BaseException as error:
        here = _gates[_ident()]
        here.shut()
        here._tell(error)
        return here


def open_again(here):
    """After it. What waited comes now."""
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
    """Whether this thread has a gate: what it sends is not interrupted while that is shut."""
    return _ident() in _gates


#: Whether a handler of the alarm was set since that was last looked at.
alarm_set = False
#: That of the main thread, where signals are handled; made by `follow`.
main = None


def follow():
    """From now on. Once, on the main thread, before any code of the author's; what it imports was not
    imported for him."""
    global main
    main = Gate()
    for number in range(1, _signal.NSIG):
        handler = _getsignal_as_python(number)
        if callable(handler) and number != _signal.SIGURG:  # of what a zygote imported
            _signal_as_python(number, _Handler(handler))
    _signal.signal, _signal.getsignal = set_handler, _get_handler
    ctypes.pythonapi.PyThreadState_SetAsyncExc = _SetAsyncExc()


def forked():
    """In a process that the author's code forked there is nothing of the runner's to interrupt."""
    _gates.clear()
    main.open = True
    main.waits = False
    main.handlers.clear()


class _Handler:
    """The author's handler of a signal, as the interpreter has it."""

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
    """As `signal.signal`."""
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
    """As `PyThreadState_SetAsyncExc`, with the object itself, None for none."""
    here = _gates.get(thread)
    if here is None:
        return _set(thread, kind)
    here.thrown = True  # before the look at `open`: whoever shuts it meanwhile waits for the lock
    with here.lock:
        if here.open:
            return _set(thread, kind)
        here.late, here.waits = kind, True
        return 1


def _set(thread, kind):
    return guard.interrupt(thread, kind)


class _SetAsyncExc:
    """What `ctypes.pythonapi` has under that name."""

    argtypes = None
    restype = ctypes.c_int

    def __call__(self, thread, kind):
        thread = getattr(thread, "value", thread)
        if type(kind) is ctypes.py_object:
            kind = kind.value if kind else None
        return set_exception(thread, None if type(kind) is int and kind == 0 else kind)
