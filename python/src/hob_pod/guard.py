"""The guard: asks the author's objects for their text, class and attributes, whatever they do when asked.

The whole runner describes such objects (faults, progress, tracebacks, its own log), and each question runs
the author's code: it may raise anything (SystemExit too), recurse, never end, lie, or return something that
is no text. Nothing in here raises because of it, and the output is bounded: each text in length, and all
questions of one description together in time.

This module imports everything at its own import: a recipe may have a file with the name of any of Python's
modules.
"""

import _signal
import _thread
import ctypes
import time

#: Longest text of one object, in characters.
TEXT_CHARS_MAX = 4_000
#: Longest name of a class.
NAME_CHARS_MAX = 200
#: How long the author's code may run within one description, in seconds. Native code that does not return
#: cannot be ended.
TELLING_S = 2.0
#: Seconds between two interrupts of code that swallowed the first one, and the number of interrupts.
AGAIN_S, INTERRUPTS_MAX = 0.2, 10

#: `whose()` returns the work that the calling thread belongs to, or None. `given_up` is called with that work
#: when its code cannot be ended. Both are set by the runner.
whose = given_up = None

#: Types whose text runs no code of the author's. The text of a long integer takes time.
_PLAIN = (str, bytes, float, bool, type(None))
_INTEGER_MAX = 1 << 64

# Through the descriptors of `type` and `BaseException`: the author may define a metaclass, `__getattribute__`
# and `__class__`.
_name_of = type.__dict__["__name__"].__get__
_qualname_of = type.__dict__["__qualname__"].__get__
_module_of = type.__dict__["__module__"].__get__
_order_of = type.__dict__["__mro__"].__get__
_names_of = type.__dict__["__dict__"].__get__
_arguments_of = BaseException.__dict__["args"].__get__
_copied = str.__str__  # `str` of an instance of a subclass, without the subclass's methods

_start_thread = _thread.start_new_thread
# By index: the attribute returns one object for all, so setting its types would set them for the author's
# libraries too.
_set_exception = ctypes.pythonapi["PyThreadState_SetAsyncExc"]
_set_exception.argtypes = (ctypes.c_ulong, ctypes.c_void_p)
_set_exception.restype = ctypes.c_int


def interrupt(thread, kind):
    """Makes that thread raise an exception of the class `kind` before its next bytecode. None: takes back an
    exception that it has not raised yet."""
    _set_exception(thread, None if kind is None else id(kind))


class TooLong(BaseException):
    """Raised within an object's own code if describing the object takes too long."""


def is_a(value, kinds):
    """Like `isinstance`, by the real type of `value` and not by its `__class__`."""
    return issubclass(type(value), kinds)


def kind(value):
    """Returns the name of the class of `value`."""
    return name(type(value))


def name(cls):
    """Returns the name of a class."""
    return plain(_name_of(cls))[:NAME_CHARS_MAX]


def full_name(cls):
    """Returns the name in the form of a traceback: with its module, apart from builtins."""
    try:
        module = _module_of(cls)
    except BaseException:  # a class without a module
        module = None
    text = plain(_qualname_of(cls))
    if is_a(module, str) and plain(module) not in ("builtins", "__main__"):
        text = f"{plain(module)}.{text}"
    return text[: 2 * NAME_CHARS_MAX]


def plain(text):
    """Returns `text`, a `str`, without the additions of a subclass."""
    return text if type(text) is str else _copied(text)


def cut(text, chars_max):
    """Returns the beginning of a text, with a mark where it was cut."""
    return text if len(text) <= chars_max else f"{text[:chars_max]}... ({len(text) - chars_max} characters left out)"


def text(value, chars_max=TEXT_CHARS_MAX):
    """Returns `str(value)`; if that fails, a replacement that says why."""
    return _text(str, "__str__", value, chars_max)


def shown(value, chars_max=TEXT_CHARS_MAX):
    """Returns `repr(value)`; if that fails, a replacement that says why."""
    return _text(repr, "__repr__", value, chars_max)


def _text(function, method, value, chars_max):
    if type(value) is str:
        return cut(value if function is str else repr(value[: chars_max + 1]), chars_max)
    if runs_nothing(value, method):
        try:
            return cut(function(value), chars_max)
        except BaseException as error:
            return _instead(method, f"raised {kind(error)}")
    given, problem = call(function, value)
    return _instead(method, problem) if problem is not None else cut(plain(given), chars_max)


def _instead(method, problem):
    return f"<no text: its {method} {problem}>"


def attribute(value, key, default=None):
    """Returns the attribute of that name, or `default`."""
    given, problem = call(getattr, value, key, default)
    return default if problem is not None else given


def arguments(error):
    """Returns the arguments that `error` was made with: a tuple, whatever a subclass has under that name."""
    return _arguments_of(error)


def runs_nothing(value, method):
    """Returns whether the text of `value` comes from the interpreter's own code alone."""
    if _is_plain(value):
        return True
    # These errors make their text only of the arguments that they were made with. Other built-in errors also
    # use attributes that may have been set since: a `filename`, a `msg`.
    if is_a(value, BaseException) and all(map(_is_plain, _arguments_of(value))):
        for cls in _order_of(type(value)):
            # A class that was made at run time may have keys with a comparison of their own.
            if any(type(key) is not str or key == method for key in _names_of(cls)):
                return cls is BaseException or cls is KeyError
    return False


def _is_plain(value):
    # By identity: a lookup of a class in a set asks its metaclass for a hash.
    cls = type(value)
    if cls is int:
        return -_INTEGER_MAX < value < _INTEGER_MAX
    return any(cls is plain_kind for plain_kind in _PLAIN)


# --- running the author's code


def call(function, *arguments):
    """Returns (result of `function`, None), or (None, what happened instead, in words)."""
    watch = _watches.get(_thread.get_ident())
    if watch is not None:
        return watch.call(function, arguments)
    return together(call, function, *arguments)


def together(function, *arguments):
    """Returns the result of `function`, which is the runner's. All calls that it makes through this module
    share TELLING_S."""
    me = _thread.get_ident()
    if me in _watches:
        return function(*arguments)
    watch = _watches[me] = _Watch(me)
    try:
        return function(*arguments)
    finally:
        del _watches[me]
        watch.end()


async def outcome(awaitable, box):
    """Puts (its result, None), or (None, its exception) in the list `box`.

    It raises nothing: asyncio asks an exception of a task for its class, and that may never return. It
    returns nothing: frames of asyncio hold the task, and the error that it would hold may hold these frames.
    """
    try:
        box.append((await awaitable, None))
    except BaseException as error:
        box.append((None, error))


def given(box):
    """Takes the outcome from the box of `outcome` and returns the result, or raises the exception."""
    value, error = box.pop()
    if error is None:
        return value
    try:
        raise error
    finally:
        # the error holds this frame: without this both would stay until the collector finds them
        error = None


class _Watch:
    """Ends code of the author's in one thread that takes too long. It starts a thread of its own once such
    code runs."""

    def __init__(self, thread):
        self._thread = thread
        self._lock = _thread.allocate_lock()  # guards the fields below
        self._depth = 0  # number of calls of the author's code in progress, nested within each other
        self._set = False  # an interrupt was set and not taken back
        self._until = None
        self._over = None  # a lock, released at the end
        # the type of the object that is asked now, and the work for which it is asked
        self._asked = self._work = None

    def call(self, function, arguments):
        """See the function `call`."""
        if self._until is None:
            self._begin()
        elif self._late():
            return None, "was not asked, no time was left"
        before = self._depth
        try:
            try:
                with self._lock:
                    self._depth = before + 1
                    if before == 0 and arguments:
                        self._asked = type(arguments[0])
                return function(*arguments), None
            finally:
                self._leave(before)
        except TooLong:
            self._leave(before)  # the interrupt may have arrived in the `_leave` above
            return None, "took too long"
        except BaseException as error:
            return None, f"raised {kind(error)}"

    def end(self):
        """Called when the description is complete."""
        if self._over is not None:
            self._over.release()

    def _begin(self):
        self._until = time.monotonic() + TELLING_S
        if whose is not None:
            self._work = whose()
        over = _thread.allocate_lock()
        over.acquire()
        try:
            _start_thread(self._run, (over,))
        except RuntimeError:
            return  # no more threads: then the time is not bounded
        self._over = over

    def _late(self):
        return time.monotonic() >= self._until

    def _leave(self, depth):
        while True:
            try:
                with self._lock:
                    self._depth = depth
                    if depth == 0 and self._set:
                        self._set = False
                        _set_exception(self._thread, None)
                return
            except TooLong:
                pass

    def _run(self, over):
        wait = self._until - time.monotonic()
        for _ in range(INTERRUPTS_MAX):
            if over.acquire(timeout=max(0.0, wait)):
                return
            wait = AGAIN_S
            with self._lock:
                if self._depth:
                    self._set = True
                    _set_exception(self._thread, id(TooLong))
            try:
                # Code that sleeps on the main thread notices only a signal; without a handler, this signal is
                # ignored.
                _signal.pthread_kill(self._thread, _signal.SIGURG)
            except (OSError, RuntimeError):
                return  # the thread is gone
        if not over.acquire(timeout=AGAIN_S) and given_up is not None:
            given_up(self._work, name(self._asked), INTERRUPTS_MAX)


_watches = {}  # by thread, during a description
