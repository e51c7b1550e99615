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
#: How long the author's code may run within one telling, in seconds. Native code that does not come back
#: cannot be ended.
TELLING_S = 2.0
#: Between two interrupts of code that swallowed the first, in seconds, and how many there are.
AGAIN_S, INTERRUPTS_MAX = 0.2, 10

#: () -> the work that the calling thread belongs to, or None; and what is called with it when its code cannot
#: be ended. Set by the runner.
whose = given_up = None

#: What runs no code of the author's when it is asked for its text. A long integer takes time.
_PLAIN = (str, bytes, float, bool, type(None))
_INTEGER_MAX = 1 << 64

# Through the descriptors of `type` and `BaseException`: a metaclass, `__getattribute__` and `__class__` are
# the author's.
_name_of = type.__dict__["__name__"].__get__
_qualname_of = type.__dict__["__qualname__"].__get__
_module_of = type.__dict__["__module__"].__get__
_order_of = type.__dict__["__mro__"].__get__
_names_of = type.__dict__["__dict__"].__get__
_arguments_of = BaseException.__dict__["args"].__get__
_copied = str.__str__  # of an instance of a subclass: a text without its methods

_start_thread = _thread.start_new_thread
# By the index: what the attribute gives is one object for all, and its types would be set for libraries of
# the author's too.
_set_exception = ctypes.pythonapi["PyThreadState_SetAsyncExc"]
_set_exception.argtypes = (ctypes.c_ulong, ctypes.c_void_p)
_set_exception.restype = ctypes.c_int


def interrupt(thread, kind):
    """Has that thread raise an exception of the class `kind` before its next bytecode. None: takes one back
    that it did not raise yet."""
    _set_exception(thread, None if kind is None else id(kind))


class TooLong(BaseException):
    """Raised within an object's own code when its telling takes too long."""


def is_a(value, kinds):
    """As `isinstance`, by what `value` is and not by what it says (`__class__`)."""
    return issubclass(type(value), kinds)


def kind(value):
    """The name of the class of `value`."""
    return name(type(value))


def name(cls):
    """The name of a class."""
    return plain(_name_of(cls))[:NAME_CHARS_MAX]


def full_name(cls):
    """As a traceback has it: with its module, unless that goes without saying."""
    try:
        module = _module_of(cls)
    except BaseException:  # a class without one
        module = None
    text = plain(_qualname_of(cls))
    if is_a(module, str) and plain(module) not in ("builtins", "__main__"):
        text = f"{plain(module)}.{text}"
    return text[: 2 * NAME_CHARS_MAX]


def plain(text):
    """`text`, which is one, without what a subclass of `str` adds."""
    return text if type(text) is str else _copied(text)


def cut(text, chars_max):
    """The beginning of a text, which says where it was cut."""
    return text if len(text) <= chars_max else f"{text[:chars_max]}... ({len(text) - chars_max} characters left out)"


def text(value, chars_max=TEXT_CHARS_MAX):
    """`str(value)`; what took its place if that cannot be had."""
    return _text(str, "__str__", value, chars_max)


def shown(value, chars_max=TEXT_CHARS_MAX):
    """`repr(value)`; what took its place if that cannot be had."""
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
    """The attribute of that name, or `default`."""
    given, problem = call(getattr, value, key, default)
    return default if problem is not None else given


def arguments(error):
    """What `error` was made of: a tuple, whatever a subclass has under that name."""
    return _arguments_of(error)


def runs_nothing(value, method):
    """Whether asking `value` for its text runs nothing but the interpreter's own code."""
    if _is_plain(value):
        return True
    # These make their text of what they were made of alone. Others of the interpreter do so of what may have
    # been set since: a `filename`, a `msg`.
    if is_a(value, BaseException) and all(map(_is_plain, _arguments_of(value))):
        for cls in _order_of(type(value)):
            # A class that was made at run time may have keys that compare as they like.
            if any(type(key) is not str or key == method for key in _names_of(cls)):
                return cls is BaseException or cls is KeyError
    return False


def _is_plain(value):
    # By identity: to look a class up in a set asks its metaclass for a hash.
    cls = type(value)
    if cls is int:
        return -_INTEGER_MAX < value < _INTEGER_MAX
    return any(cls is plain_kind for plain_kind in _PLAIN)


# --- running the author's code


def call(function, *arguments):
    """(what `function` gives, None), or (None, what it did instead, in words)."""
    watch = _watches.get(_thread.get_ident())
    if watch is not None:
        return watch.call(function, arguments)
    return together(call, function, *arguments)


def together(function, *arguments):
    """What `function`, which is the runner's, gives. All that it asks through this module has TELLING_S in
    sum."""
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
    """Puts (what it gives, None), or (None, what it raised) in the list `box`.

    It raises nothing: asyncio asks what a task raises for its class, and is not asked to come back. And it
    returns nothing: frames of asyncio hold the task, and the error that it would hold may hold them.
    """
    try:
        box.append((await awaitable, None))
    except BaseException as error:
        box.append((None, error))


def given(box):
    """What an `outcome` was, which is not in its box any more. Raises what it was."""
    value, error = box.pop()
    if error is None:
        return value
    try:
        raise error
    finally:
        error = None  # it holds this frame: what it came with would stay until the collector finds both


class _Watch:
    """Ends code of the author's in one thread that takes too long. A thread of its own sees to it, once any
    such code is run."""

    def __init__(self, thread):
        self._thread = thread
        self._lock = _thread.allocate_lock()  # guards what follows
        self._depth = 0  # calls of the author's code that are under way, one within the other
        self._set = False  # an interrupt was set and not taken back
        self._until = None
        self._over = None  # a lock, released at the end
        self._asked = self._work = None  # the kind of what is asked now, and the work that this is for

    def call(self, function, arguments):
        """As the function `call`."""
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
            self._leave(before)  # it may have come into the one above
            return None, "took too long"
        except BaseException as error:
            return None, f"raised {kind(error)}"

    def end(self):
        """There is nothing more to be told."""
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
            return  # no more threads: then without a bound in time
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
                # What sleeps on the main thread hears it by a signal alone; whoever has no handler is not
                # disturbed by this one.
                _signal.pthread_kill(self._thread, _signal.SIGURG)
            except (OSError, RuntimeError):
                return  # the thread is gone
        if not over.acquire(timeout=AGAIN_S) and given_up is not None:
            given_up(self._work, name(self._asked), INTERRUPTS_MAX)


_watches = {}  # by thread, while it tells
