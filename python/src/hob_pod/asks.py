"""The ask in hand: which it is, whether it was cancelled, how long it may take.

Apart because three parties touch it, each from its own thread: the runner (main thread) begins and ends
asks, the control thread cancels them, the author's code (any thread) asks about them.

How a cancel interrupts: the control thread sends SIGURG to the main thread (a signal ends a sleep or a read, which an
exception set from outside would not), and the handler below raises `Cancelled` there, if the ask in hand is the one
that was cancelled and its code is what runs. The handler runs on the main thread, between two bytecodes, so it
reads `armed` without a race: a signal that comes late finds another ask, or none, and does nothing.
"""

import _signal  # without the enums of `signal`, which take 3 ms to make
import _thread
import os
import time

from .faults import Cancelled

#: Cancels that came before their ask was read. The host queues fewer asks than this for one pod.
CANCELLED_MAX = 1024


class _Hand:
    """State of this process; one instance, below."""

    def __init__(self):
        self.lock = _thread.allocate_lock()  # guards `cancelled`, `in_hand`, `task`, `draining`
        self.main_thread = 0
        self.in_hand = 0  # the ask in hand, from before its first line of code until its answer is out
        self.armed = 0  # the ask whose code may be interrupted right now; written by the main thread alone
        self.task = None  # (ask, loop, asyncio task) while an async operation runs
        self.deadline = 0.0
        self.draining = False
        self.cancelled = {}  # cancelled asks that are in hand or still to come, oldest first
        self.emit = None  # sends a message of the ask in hand; set by the runner


hand = _Hand()


def prepare():
    """Called once, on the main thread."""
    hand.main_thread = _thread.get_ident()
    _signal.signal(_signal.SIGURG, _interrupt)
    os.register_at_fork(after_in_child=_forked)


def _interrupt(_signal_number, _frame):
    if hand.armed and hand.armed in hand.cancelled:
        hand.armed = 0  # once: what the author does in `finally` is not interrupted again
        raise Cancelled


def _forked():
    """A worker process of the author's has no ask and no lanes."""
    hand.in_hand = hand.armed = 0
    hand.emit = None


def begin(ask, left_ms):
    """Takes `ask` in hand. False if the pod is draining and takes no more."""
    with hand.lock:
        if hand.draining:
            return False
        hand.in_hand = ask
    hand.deadline = time.monotonic() + left_ms / 1000
    return True


def finish():
    """The answer is out. False if the pod is draining and is over now."""
    with hand.lock:
        hand.cancelled.pop(hand.in_hand, None)
        hand.in_hand = 0
        return not hand.draining


def drain():
    """No more asks. True if none is in hand."""
    with hand.lock:
        hand.draining = True
        return hand.in_hand == 0


def cancel(ask):
    """Called by the control thread; the ask may be in hand, still to come, or over."""
    with hand.lock:
        while len(hand.cancelled) >= CANCELLED_MAX:
            del hand.cancelled[next(iter(hand.cancelled))]
        hand.cancelled[ask] = True
        in_hand, task = hand.in_hand == ask, hand.task
    if task is not None and task[0] == ask:
        try:
            task[1].call_soon_threadsafe(task[2].cancel)
        except RuntimeError:
            pass  # the author closed the loop; the flag stands
    elif in_hand:
        _signal.pthread_kill(hand.main_thread, _signal.SIGURG)


def arm(ask):
    """From here on a cancel interrupts. Raises Cancelled if it came before."""
    hand.armed = ask
    check()


def disarm():
    """From here on a cancel only sets the flag."""
    hand.armed = 0


def check():
    """Raises Cancelled if the ask in hand was cancelled."""
    if hand.in_hand in hand.cancelled:
        hand.armed = 0
        raise Cancelled


def cancelled():
    """Whether the operation in hand was cancelled: what it still does is for nobody."""
    return hand.in_hand in hand.cancelled


def time_left():
    """Seconds until the deadline of the operation in hand; 0.0 when it has passed."""
    return max(0.0, hand.deadline - time.monotonic())


def progress(**fields):
    """Tells the caller how far the operation is, e.g. `progress(done=3, total=10)`. May be called from any thread.

    Does nothing outside an operation. Raises Cancelled on the main thread if the operation was cancelled.
    """
    emit = hand.emit
    if emit is not None and hand.in_hand:
        emit({"type": "progress", "data": fields})
