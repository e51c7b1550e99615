"""Hides the runner's own descriptors from the author's code.

Programs close descriptors that they did not open (`os.closerange(3, 1024)`, as daemons do), which would
include a pod's lanes. So the functions of `os` leave the runner's out. Code that bypasses these functions
(native code, an object made from a number) ends the pod, which says so.
"""

import errno
import os
import sys

_close, _closerange, _dup2, _write, _stat = os.close, os.closerange, os.dup2, os.write, os.fstat
_own = set()

#: The descriptor for the runner's own messages: standard error, even if the author closed it, or opened
#: something in its place.
told = 2
_identity = None  # the file behind it, once the descriptor is the runner's own
#: Whether this is a process that the author's code forked.
forked = False


def keep(*descriptors):
    """Marks descriptors as the runner's, until the process ends."""
    _own.update(descriptors)


def keep_stderr(descriptor):
    """Marks a copy of standard error as the runner's, and uses it for the runner's messages."""
    global told, _identity
    told, _identity = descriptor, _identify(descriptor)
    keep(descriptor)


def _identify(descriptor):
    try:
        found = _stat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def write(data):
    """Writes one of the runner's own messages, if possible: native code may have closed the descriptor, or
    put something in its place."""
    for descriptor in (told, 2):
        if _identity is not None and _identify(descriptor) != _identity:
            continue
        try:
            while data:
                data = data[_write(descriptor, data) :]
            return
        except OSError:
            pass


def follow():
    """Installs the functions. Called once, before any code of the author's."""
    for name, function in (("close", _close_others), ("closerange", _close_range), ("dup2", _duplicate)):
        function.__name__ = function.__qualname__ = name
        function.__doc__ = getattr(os, name).__doc__
        setattr(os, name, function)
        setattr(sys.modules["posix"], name, function)


def let_go():
    """Called in a process that the author's code forked: the lanes are closed there, and their numbers are
    free for everybody."""
    global forked
    forked = True
    _own.clear()


def _is_own(descriptor):
    return type(descriptor) is int and descriptor in _own


def _not_there(number):
    return OSError(number, os.strerror(number))


def _close_others(fd):
    if _is_own(fd):
        raise _not_there(errno.EBADF)
    _close(fd)


def _close_range(fd_low, fd_high, /):
    for own in sorted(_own):
        if fd_low <= own < fd_high:
            _closerange(fd_low, own)
            fd_low = own + 1
    _closerange(fd_low, fd_high)


def _duplicate(fd, fd2, inheritable=True):
    if _is_own(fd):
        raise _not_there(errno.EBADF)
    if _is_own(fd2) and fd2 != fd:
        raise _not_there(errno.EBUSY)
    return _dup2(fd, fd2, inheritable)
