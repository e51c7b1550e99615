"""The asks in hand: which they are, whether they were cancelled, how long they may take.

Three parties use them, each from its own thread: the runner begins and ends asks, the control thread cancels
them, the author's code (any thread) queries them.

How a cancel interrupts, depending on what runs the author's code:

* The main thread: the control thread sends it SIGURG, because a signal ends a sleep or a read, which an
  exception set from outside does not. The handler below raises `Cancelled` there if the work in hand is
  cancelled and armed. The handler runs on the main thread, between two bytecodes, so a late signal finds
  other work, or none.
* A worker thread (concurrency above 1): `Cancelled` is set as its asynchronous exception, once for each work
  and only while that work is armed. Disarming takes back an exception that was set but not raised yet, so a
  late one has nothing to hit.
* A task of the event loop: `task.cancel()`.
"""

import _signal  # without the enums of `signal`, which take 3 ms to make
import _thread
import os
import time

from . import belonging, gate, guard, program, wire
from .faults import Cancelled

#: Cancels that came before their ask was read. The host queues fewer asks than this for one pod.
CANCELLED_MAX = 1024


class Work:
    """One run of the author's code, for one ask."""

    batch = False
    # Defaults of the class, so that making a Work (for every ask) sets few attributes.
    open = True  # its progress and chunks may go out; changed under the data lane's lock
    armed = False  # its code may be interrupted right now
    cancelled = False  # all callers have left; never reset
    sent = False  # its asynchronous exception was set; at most once
    raised = False  # the runner raised `Cancelled` in its thread
    thread = 0  # the worker thread that runs it; 0 for the main thread and the event loop
    task = None  # (loop, asyncio task) while a task runs it
    gate = None  # of the thread that runs it
    # the weight that its chunks may still have, None for no limit; changed under the lock of the hand
    credit = None
    waiter = None  # waits for more credit: a lock, or (loop, future)
    regions = ()  # numbers of the regions with its input blobs
    printed = ""  # the end of what it printed on stderr
    outgoing = None  # regions with blobs of its answer and chunks that are not sent yet

    def __init__(self, ask, deadline, operation, frame):
        self.ask = ask
        self.deadline = deadline
        self.operation = operation  # None if the pod has no operation of that name
        self.frame = frame

    def drop(self, _ask):
        """The caller of its ask has left."""
        self.cancelled = True

    def wanted(self):
        """The asks whose callers still wait."""
        return (self.ask,)

    def ends(self):
        """The deadline of the first of them."""
        return self.deadline


class BatchWork(Work):
    """One run of the author's code, for the asks of a batch."""

    batch = True

    def __init__(self, items, now, operation, frame):
        super().__init__(items[0]["ask"], 0.0, operation, frame)
        self.items = items  # the items to run, in their order
        self.left_out = []  # asks that were cancelled before the batch began
        # only of asks that are still wanted
        self.deadlines = {item["ask"]: now + item["left_ms"] / 1000 for item in items}

    def drop(self, ask):
        self.deadlines.pop(ask, None)
        self.cancelled = not self.deadlines

    def wanted(self):
        return list(self.deadlines)

    def ends(self):
        return min(list(self.deadlines.values()), default=0.0)


class _Hand:
    """The state of this process; one instance, below."""

    def __init__(self):
        # Guards the fields up to `early`, and the fields of `Work` about cancelling.
        self.lock = _thread.allocate_lock()
        self.works = {}  # ask -> its Work, from before its first line of code until its answer is out
        self.begun = 0  # the highest ask that was begun
        self.draining = False
        self.early = {}  # asks that were cancelled before they arrived, oldest first
        self.work = None  # the work that the main thread runs; always None with concurrency above 1
        self.slots = False  # concurrency is above 1
        self.main_thread = 0
        self.page = None  # u64s that the host reads too; the first is `begun`
        self.emit = None  # sends progress of a work; set by the runner


hand = _Hand()


def prepare(page, concurrency):
    """Called once, on the main thread."""
    hand.main_thread = _thread.get_ident()
    hand.page = page
    _signal.signal(_signal.SIGURG, _interrupt)
    os.register_at_fork(after_in_child=_forked)
    hand.slots = concurrency > 1
    belonging.follow_threads()
    gate.follow()
    gate.main.idle = hand.slots  # the main thread reads, and runs no code of the author's


def _interrupt(_signal_number, _frame):
    work = hand.work
    if work is not None and work.armed and work.cancelled:
        work.armed = False  # once: what the author does in `finally` is not interrupted again
        raise Cancelled


def _forked():
    """Called in a worker process that the author's code forked: it has no ask and no lanes."""
    work = current()
    if work is not None:
        work.armed = work.open = False
    hand.work = None
    belonging.forget()
    hand.works = {}
    hand.emit = hand.page = None
    gate.forked()


def current():
    """Returns the work that the calling thread or task belongs to; None if there is none.

    The work may have been answered already. A thread that is older than all works belongs to the work in
    hand, if works come one at a time.
    """
    return belonging.current() or hand.work


def begin(work):
    """Takes `work` in hand. Returns False if the pod is draining and takes no more."""
    with hand.lock:
        if hand.draining:
            return False
        if work.batch:
            for item in work.items:
                _enter(work, item["ask"])
            if work.left_out:
                work.items = [item for item in work.items if item["ask"] in work.deadlines]
        elif work.ask <= hand.begun or hand.early:
            _enter(work, work.ask)
        else:
            hand.begun = ask = work.ask
            hand.works[ask] = work
        if hand.page is not None:
            hand.page[0] = hand.begun
    return True


def _enter(work, ask):
    if ask <= hand.begun:
        raise wire.ProtocolError(f"ask {ask} came after ask {hand.begun}")
    hand.begun = ask
    if hand.early and hand.early.pop(ask, False):
        work.drop(ask)
        if work.batch:
            work.left_out.append(ask)
            return
    hand.works[ask] = work


def finish(work):
    """Called once the answers are sent. Returns False if the pod is draining and this was the last work."""
    with hand.lock:
        if work.batch:
            for item in work.items:
                del hand.works[item["ask"]]
        else:
            del hand.works[work.ask]
        # The task's context holds the work: without this both would stay until the collector finds them.
        work.task = None
        return not hand.draining or bool(hand.works)


def in_hand():
    """The asks in hand, lowest first."""
    with hand.lock:
        return sorted(hand.works)


def drain():
    """Takes no more asks. Returns True if none is in hand."""
    with hand.lock:
        hand.draining = True
        return not hand.works


def cancel(ask):
    """Cancels an ask. Called by the control thread; the ask may be in hand, still to come, or over."""
    with hand.lock:
        work = hand.works.get(ask)
        if work is None:
            if ask > hand.begun:
                while len(hand.early) >= CANCELLED_MAX:
                    del hand.early[next(iter(hand.early))]
                hand.early[ask] = True
            return
        work.drop(ask)
        if not work.cancelled:
            return  # others of its batch are still wanted
        waiter, work.waiter = work.waiter, None
        _wake(waiter)
        task = work.task
        if task is None and work.thread:
            if work.armed and not work.sent:
                work.sent = True
                guard.interrupt(work.thread, Cancelled)
            return
    if task is not None:
        try:
            task[0].call_soon_threadsafe(task[1].cancel)
        except RuntimeError:
            pass  # the author closed the loop; the flag stands
    elif not hand.slots:
        _signal.pthread_kill(hand.main_thread, _signal.SIGURG)


def give_credit(ask, weight):
    """Called by the control thread: the host has read chunks of this weight."""
    with hand.lock:
        work = hand.works.get(ask)
        if work is None or work.credit is None:
            return
        work.credit += weight
        waiter, work.waiter = work.waiter, None
        _wake(waiter)


def _wake(waiter):
    if waiter is None:
        return
    if type(waiter) is not tuple:
        waiter.release()
        return
    loop, future = waiter
    try:
        loop.call_soon_threadsafe(lambda: future.done() or future.set_result(None))
    except RuntimeError:
        pass  # the author closed the loop


def _spent(work, weight, new_waiter):
    """Returns None if a chunk of that weight may be sent, or nobody waits for it; otherwise what to wait
    for."""
    with hand.lock:
        if work.cancelled or work.credit is None:
            return None
        if work.credit >= weight:
            work.credit -= weight
            return None
        work.waiter = waiter = new_waiter()
        return waiter


def _locked():
    lock = _thread.allocate_lock()
    lock.acquire()
    return lock


def spend(work, weight):
    """Waits until a chunk of that weight may be sent: the caller reads chunks more slowly than they are
    made."""
    while True:
        waiter = _spent(work, weight, _locked)
        if waiter is None:
            return
        waiter.acquire()


async def spend_async(work, weight):
    """`spend` for a task."""
    loop = program.of_python("asyncio").get_running_loop()
    while True:
        waiter = _spent(work, weight, lambda: (loop, loop.create_future()))
        if waiter is None:
            return
        await waiter[1]


def arm(work):
    """From here on a cancel interrupts. Raises Cancelled if the cancel came before."""
    if work.thread:
        with hand.lock:
            armed = work.armed = not work.cancelled
        if not armed:
            work.raised = True
            raise Cancelled
    else:
        work.armed = True
        check(work)


def disarm(work):
    """From here on a cancel only sets the flag. On a worker thread the interrupt may still arrive in this
    function, once."""
    if work.thread:
        with hand.lock:
            work.armed = False
            if work.sent:
                guard.interrupt(work.thread, None)
    else:
        work.armed = False


def check(work):
    """Raises Cancelled on the main thread if `work` was cancelled."""
    if work.cancelled:
        work.armed = False
        raise Cancelled


def pause(work):
    """Called before a frame is written, which an interrupt would tear. Returns the second argument of
    `resume`."""
    shut = gate.shut_here()
    try:
        return shut, _pause(work)
    except BaseException:
        gate.open_again(shut)
        raise


def _pause(work):
    if work.thread:
        if not work.armed or work.thread != _thread.get_ident():
            return False
        disarm(work)
        _raise_once(work)
        return True
    if _thread.get_ident() != hand.main_thread:
        return False
    armed, work.armed = work.armed, False
    return armed


def resume(work, paused):
    """Called after the frame is written."""
    shut, armed = paused
    try:
        if armed:
            _resume(work)
    finally:
        gate.open_again(shut)


def _resume(work):
    if not work.thread:
        work.armed = True
        check(work)
        return
    with hand.lock:
        work.armed = not work.cancelled
    if not work.armed:
        _raise_once(work)


def _raise_once(work):
    """On a worker thread that is not armed: raises the interrupt that was taken back. Later calls are the
    author's clean-up."""
    if work.cancelled and not work.raised:
        work.raised = True
        raise Cancelled


def cancelled():
    """Returns whether the operation in hand was cancelled, or already answered: nobody waits for its
    result."""
    work = current()
    return work is not None and (work.cancelled or not work.open)


def time_left():
    """Returns the seconds until the deadline of the operation in hand (in a batch: the nearest deadline); 0.0
    if it has passed, or outside an operation."""
    work = current()
    return 0.0 if work is None else max(0.0, work.ends() - time.monotonic())


def progress(**fields):
    """Reports to the caller how far the operation is, e.g. `progress(done=3, total=10, unit="texts",
    message="embedding")`.

    Takes any fields that JSON can carry (docs/values.md); any other field is left out, and the log says so
    once. Every caller understands these: `done` (a number, 0 or more) and `total` (above 0), both in `unit`
    (text), and `message` (text: what is being done).

    May be called from any thread or task. A thread or task that was started during an operation belongs to
    it: it reports to that operation's caller until the answer, and then to nobody. An older thread (of a pool
    that `load` made) reports to the operation in hand, or with `concurrency` above 1 to nobody: run its work
    through `contextvars.copy_context().run`, as `asyncio.to_thread` does. Outside an operation, this does
    nothing. Raises Cancelled, in the thread or task that runs the operation, if the operation was cancelled.
    """
    emit = hand.emit
    work = current()
    if emit is not None and work is not None and work.open:
        emit(work, fields)
