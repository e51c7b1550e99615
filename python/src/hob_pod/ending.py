"""Ends a program in order: runs the functions that it registered for its end, as Python does after a
program's last line.

`control` ends the process. The functions are the author's code and may hang. The host waits for them one
second longer than END_S, and then ends whatever is left.
"""

import _thread
import faulthandler
import os
import sys
import time

from . import guard, own

#: Longest time that tasks, threads that are no daemons, and functions registered with `atexit` may take
#: together, in seconds.
END_S = 2.0

#: Ends the tasks that are left in the event loop; set by the server.
tasks = None


def in_order():
    """Called on the main thread, with nothing in hand, just before the process ends. If this takes too long,
    its stacks are printed and the process is ended."""
    try:
        _thread.start_new_thread(_watch, ())
    except RuntimeError:
        pass  # no thread available: the host watches too
    # The order in which Python does this. A module that was never imported has registered nothing: modules
    # that register (logging, multiprocessing) import `atexit`. A recipe may have a file of that name.
    python = (("threading", "_shutdown"), ("atexit", "_run_exitfuncs"))
    for run in (tasks, *(getattr(sys.modules.get(name), function, None) for name, function in python)):
        try:
            if run is not None:
                run()
        # An error of an author's function, on Python 3.9; later versions report it themselves.
        except BaseException as error:
            _tell(f"{guard.kind(error)} at its end")


def _watch():
    time.sleep(END_S)
    _tell(f"its end took more than {END_S:g} s: tasks, threads that are no daemons, or functions of `atexit`")
    faulthandler.dump_traceback(own.told)
    os._exit(0)


def _tell(text):
    # Not through sys.stderr, whose lock may be held by the code that hangs.
    own.write(f"hob_pod: {text}\n".encode())
