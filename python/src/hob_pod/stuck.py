"""Handles author's code that can be neither interrogated nor ended: its caller still gets an answer, and the
pod ends.

`guard` detects this but knows no works. Native code that never releases the interpreter is not detected here:
the host notices that the pod is silent.
"""

import faulthandler
import os
import time

from . import asks, own

#: How long other works in progress may take before the pod ends in any case, in seconds.
NEIGHBOURS_S = 30.0
_LOOK_S = 0.05
_HINT = "let `__str__`, `__repr__` and attributes of an exception return, and let BaseException pass through them"


class Stuck:
    """Called by the guard, on a thread of the guard's."""

    def __init__(self, control, server):
        self._control, self._server = control, server
        self.ready = False  # whether the pod serves works yet

    def __call__(self, work, kind, interrupts):
        """`work`: the work of the stuck thread, or None. `kind`: the type of the object that was asked. Never
        returns."""
        said = f"code of a {kind} that was asked for its text, or for what is in it, went on although it was interrupted {interrupts} times"
        own.write(f"hob_pod: {said}: this pod ends\n".encode("utf-8", "replace"))
        faulthandler.dump_traceback(own.told)
        detail = {"type": kind, "untold": said}
        if work is not None and work.open:
            name = work.frame.message["operation"] if work.frame is not None else "an ask"
            fault = {"code": "recipe_failed", "message": f"`{name}` came to what cannot be told: {said}", "hint": _HINT, "detail": detail}
            self._answer(work, fault)
        elif not self.ready:
            fault = {"code": "import_failed", "message": f"the pod failed, and why cannot be told: {said}", "hint": _HINT, "detail": detail}
            self._control.send({"type": "failed", "fault": fault})
        asks.drain()
        until = time.monotonic() + NEIGHBOURS_S
        while any(other is not work for other in list(asks.hand.works.values())) and time.monotonic() < until:
            time.sleep(_LOOK_S)
        self._server.lane.flush()
        os._exit(70)

    def _answer(self, work, fault):
        answers = self._server.answers
        if work.cancelled:
            parts = self._server.cancelled(work)
        elif work.batch:
            parts = answers.faults(work, fault, True)
        else:
            parts = answers.fault(work.ask, fault)
        self._server.lane.answer(work, parts)

