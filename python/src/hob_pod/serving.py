"""Serving: reads asks from the data lane with the main thread, calls the author's method, writes the answer.

The main thread is the author's: there is no hand-off between reading an ask and the method, because a queue
to another thread would double the round trip. So this thread reads nothing while the method runs; the control
lane has its own. With `concurrency` above 1 the author's code runs in the threads and tasks of `slots`, and
this thread only reads.
"""

import _socket  # without the enums of `socket`, which take 8 ms to make
import sys
import time
import types

from . import answers, asks, belonging, control, ending, faults, gate, guard, lane, own, program, sessions, steps, tracebacks, wire
from .blob import Blob

#: If an operation's last runs were all shorter than HELD_S, earlier answers wait for its answer: this is the
#: number of runs.
QUICK_RUNS = 8
_monotonic, _trace, _profile, _depth = time.monotonic, sys.gettrace, sys.getprofile, sys.getrecursionlimit
_bind = belonging.variable.set
#: Only for functions of these types do a TypeError's frames show whether the call itself failed.
_OF_PYTHON = (types.FunctionType, types.MethodType)
#: Types of results that are never awaited or iterated.
_PLAIN = frozenset((dict, list, str, int, float, bool, tuple, type(None)))


class Operation:
    """One operation of the pod: the author's method and how to call it."""

    __slots__ = ("method", "takes_blobs", "must_take_blobs", "streaming", "batch", "is_async", "quick")

    def __init__(self, method, takes_blobs, streaming, batch, is_async):
        self.method = method
        self.takes_blobs = takes_blobs
        # Whether the recipe is to blame, not its caller, if blobs come and the method takes none.
        self.must_take_blobs = False
        self.streaming = streaming
        self.batch = batch
        self.is_async = is_async  # calling the method only makes a coroutine or an async generator
        self.quick = 0  # number of consecutive short runs


class Server:
    """The data lane and the operations behind it."""

    def __init__(self, sock, start, pod_folder):
        self.operations = {}
        self.lacking = {}  # declared operations without a method, and why: (what, hint)
        self.regions = None  # memory that the host shares with this pod
        self.models = None  # unloads the models and loads them again, for a class that can
        # checks whether the author's libraries keep something on disk; None once the check is over
        self.cache = None
        self.slots = None  # runs the author's code with concurrency above 1
        self.lane = lane.Lane(sock)
        self.answers = answers.Answers(start, pod_folder)
        self._socket = sock
        self._incarnation = start["incarnation"]
        self._digest = start["digest"]
        self._frame_bytes_max = start["frame_bytes_max"]
        self._loop = None
        # The event loop that plain methods find as the current one: (the function that sets it, the loop).
        self.loop_of_works = None
        self.ground = belonging.Ground()  # replaced once the pod's class is constructed
        asks.hand.emit = self._progress
        ending.tasks = self.end_tasks

    def event_loop(self):
        """Returns the pod's one event loop; asyncio is imported on first use."""
        if self._loop is None or self._loop.is_closed():
            asyncio = program.of_python("asyncio")
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
            own.keep(*_descriptors_of(self._loop))
            if self.slots is None:
                self.loop_of_works = (asyncio.set_event_loop, self._loop)
        return self._loop

    def settle(self, function, *arguments):
        """Runs a function of the author's that is no work (`load`, a warm-up); also awaits what it
        returns."""
        gate.main.run(self._settle, function, *arguments)

    def _settle(self, function, *arguments):
        result = self.ground.settle(function, *arguments)
        if hasattr(result, "__await__"):
            loop = self.event_loop()
            box = []
            self._complete(loop, self.ground.task(loop, result, box), box)

    def serve(self, at_rest):
        """Answers asks until the host hangs up or drains the pod. `at_rest()` is called before each read."""
        decoder = wire.Decoder(self._frame_bytes_max)
        take = self._take if self.slots is None else self.slots.take
        receive, main = self._socket.recv_into, gate.main
        one = self.slots is None
        while True:
            at_rest()
            if one:
                if self._loop is not None:
                    self._background()
                main.idle = True
                count = receive(decoder.space())
                main.idle = False
            else:
                count = receive(decoder.space())
            if count == 0:
                control.leave(0)
            frames = decoder.received(count)
            more = len(frames)
            for frame in frames:
                more -= 1
                take(frame, more)

    def wake(self):
        """Makes the main thread read the end of the lane, and so end the process in order. For any thread."""
        try:
            self._socket.shutdown(_socket.SHUT_RD)
        except OSError:
            pass  # it has ended already

    def work_of(self, frame, now):
        """Returns the work that a frame asks for; None for a message that is no ask. Raises ProtocolError."""
        message = frame.message
        if message is None:
            return asks.Work(frame.ask, now, None, frame)
        kind = message["type"]
        if kind in ("give", "close") and sessions.session() is not None:
            return None
        if kind in ("load", "unload") and self.models is not None:
            return None
        if kind != "ask" and kind != "batch":
            raise wire.ProtocolError(f"the host sent `{kind}` on the data lane")
        if message["incarnation"] != self._incarnation or message["digest"] != self._digest:
            raise wire.ProtocolError("an ask for another incarnation or another recipe came here")
        operation = self.operations.get(message["operation"])
        if operation is not None and operation.batch != (kind == "batch"):
            raise wire.ProtocolError(f"`{kind}` is not how the operation `{message['operation']}` is asked")
        if kind == "ask":
            return asks.Work(frame.ask, now + message["left_ms"] / 1000, operation, frame)
        items = message["items"]
        if not items or items[0]["ask"] != frame.ask:
            raise wire.ProtocolError("the first item of a batch is not the ask of its frame")
        return asks.BatchWork(items, now, operation, frame)

    def _between(self, message):
        """Handles a message of the host for this thread that is no ask."""
        if message["type"] == "unload":
            self.models.unload()
        elif message["type"] == "load":
            self.models.load(message.get("gpu"), message.get("lever"))
        else:
            gate.main.run(sessions.between, message)

    def _take(self, frame, more):
        """Runs one work on this thread; `more` works were read with it, so its answer may wait for theirs."""
        now = _monotonic()
        work = self.work_of(frame, now)
        if work is None:
            self.lane.flush()
            self._between(frame.message)
            gate.main.over()
            return
        operation, out = work.operation, self.lane
        if out.held and (operation is None or operation.quick < QUICK_RUNS or out.overdue(now)):
            out.flush()
        if not asks.begin(work):
            out.flush()
            control.leave(0)
        if work.batch and not self.left_out(work):
            if not asks.finish(work):
                control.leave(0)
            return
        work.gate = gate.main
        asks.hand.work = work
        parts = self.ground.context.copy().run(self.run, work)
        done = _monotonic()
        quick = done - now < lane.HELD_S
        if operation is not None:
            operation.quick = operation.quick + 1 if quick else 0
        if more and quick and not work.regions:
            out.hold(work, parts, done)
        else:
            out.answer(work, parts)
        asks.hand.work = parts = None
        self.over(work)
        if not asks.finish(work):
            out.flush()
            control.leave(0)
        if gate.main.waits:
            gate.main.over()

    # --- from work to the frames that answer it

    def run(self, work):
        """Runs `work` on this thread, in a context of its own; returns the parts of its answer, whatever
        happens."""
        _bind(work)
        if self.ground.decimal is not None:
            self.ground.set_decimal()
        if self.loop_of_works is not None:
            set_loop, loop = self.loop_of_works
            set_loop(loop)  # `asyncio.run` of an earlier work leaves no current loop
        here = work.gate
        try:
            try:
                here.open = True
                # The method's result has no name here: an exception in it refers to this frame, and the frame
                # would refer to the exception.
                parts = self._outputs(work, self._call(work), True)
            finally:
                here.open = False  # a plain store: no call before it in which an interruption could arrive
                # The last place where a cancel can interrupt; from here on no interrupt can hit the next ask.
                self._leave(work)
        except faults.Cancelled:
            here.open = False
            # A worker thread's one interrupt may have arrived in the `disarm` above. There is no second one.
            self._leave(work)
            return self.cancelled(work)
        # BaseException: also an exit, asyncio's CancelledError, and what authors derive from BaseException.
        except BaseException as error:
            here.open = False
            self._leave(work)  # an exception that was set before may have arrived in the `_leave` above
            return self._failed(work, error)
        return self._only_wanted(work, parts) if work.cancelled or work.batch else parts

    def _leave(self, work):
        """Called when the author's code is over."""
        if _trace() is not None or _profile() is not None or _depth() != self.ground.depth:
            self.ground.calm(work.thread == 0)
        if work.gate.thrown:
            work.gate.shut()
        if work.thread:
            asks.disarm(work)
        else:
            work.armed = False
            if self.ground.restores:
                self.ground.restore()

    async def run_async(self, work):
        """`run` on the event loop, for a method whose call runs nothing yet; a cancel cancels its task."""
        try:
            given = work.operation.method(*self._arguments(work))
            if hasattr(type(given), "__anext__"):
                self._must_stream(work)
                given = self._stream_async(work, given)
            parts = self._outputs(work, await given)
        except faults.Cancelled:
            return self.cancelled(work)
        except BaseException as error:
            return self._failed(work, error)
        return self._only_wanted(work, parts)

    def parts_of(self, work, task):
        """Returns the result of the task of `run_async`. The task may have raised an exception that other
        code set in the loop's thread."""
        error = task.exception()
        return task.result() if error is None else self._failed(work, error)

    def _outputs(self, work, value, called=False):
        """Returns the parts of the answer with `value`. `called`: a method returned it, so it may have to be
        awaited or iterated."""
        if called and type(value) not in _PLAIN:
            value = self._value(work, value)
        if self.cache is not None and not self.cache.look():
            self.cache = None
        if work.batch:
            return self.answers.outputs(work, value)
        work.outgoing = []
        return self.answers.output(work.ask, value, work.outgoing)

    def over(self, work):
        """Called when the answer is sent, and the runner no longer uses the blobs of `work`."""
        if work.regions:
            work.frame = None
            self.regions.done(work.regions)

    def _unsent(self, work):
        """Takes back the regions with blobs that will not be sent."""
        outgoing, work.outgoing = work.outgoing, None
        for region in outgoing or ():
            self.regions.unused(region)

    def _only_wanted(self, work, parts):
        if not work.batch:
            if work.cancelled:
                parts = None
                return self.cancelled(work)
            return parts
        if len(work.deadlines) == len(work.items):
            return parts
        # An answer of a batch is one part, because it carries no blobs.
        return [
            part if item["ask"] in work.deadlines else self._cancelled_ask(work, item["ask"])[0] for item, part in zip(work.items, parts)
        ]

    def _failed(self, work, error):
        self._unsent(work)
        if work.cancelled:
            return self.cancelled(work)
        message = work.frame.message
        if message is None:
            return self.answers.fault(work.ask, {"code": error.code, "message": error.message})
        fault = self.answers.fault_of(error, message["operation"], work.ends() <= time.monotonic(), work.printed)
        if not work.batch:
            # Describing the fault may have taken a while.
            return self._only_wanted(work, self.answers.fault(work.ask, fault))
        return self._only_wanted(work, self.answers.faults(work, fault, work.operation is not None))

    def cancelled(self, work):
        """Returns the answer of a cancelled work."""
        self._unsent(work)
        if not work.batch:
            return self._cancelled_ask(work, work.ask)
        # Also if the author raised `Cancelled` although callers still wait: no item has a result.
        return [part for item in work.items for part in self._cancelled_ask(work, item["ask"])]

    def _cancelled_ask(self, work, ask):
        name = work.frame.message["operation"] if work.frame.message is not None else "an ask"
        return self.answers.fault(ask, {"code": "cancelled", "message": f"`{name}` was cancelled"})

    def left_out(self, work):
        """Answers the items that were cancelled before their batch began. Returns whether any item is left to
        run."""
        for ask in work.left_out:
            self.lane.send(self._cancelled_ask(work, ask))
        return bool(work.items)

    # --- calling the author

    def _arguments(self, work):
        frame, operation = work.frame, work.operation
        message = frame.message
        if message is None:
            limit = self._frame_bytes_max
            raise faults.Fault("too_large", f"the ask's frame has {frame.too_large} bytes; at most {limit} are read")
        name = message["operation"]
        if operation is None and name in self.lacking:
            lacks, hint = self.lacking[name]
            raise faults.Fault("recipe_failed", f"{lacks}, and the glue asks for it", hint)
        if operation is None:
            names = ", ".join(f"`{name}`" for name in self.operations)
            raise faults.Fault("operation_not_found", f"the pod has no operation `{name}` (it has: {names})")
        if work.batch:
            return ([item["input"] for item in work.items],)
        if not operation.takes_blobs:
            if message.get("blobs"):
                given = ", ".join(blob["name"] for blob in message["blobs"])
                if operation.must_take_blobs:
                    lacks = f"the method of `{name}` has no parameter `blobs`, and the operation was given {given}"
                    raise faults.Fault("recipe_failed", lacks, steps.signature(name, takes_blobs=True))
                raise faults.Fault("invalid_input", f"`{name}` takes no blobs, but got {given}", steps.no_blobs(name))
            return (message["input"],)
        blobs = {}
        for name, media_type, data, *region in frame.blobs():
            if region:
                number, size = region
                work.regions = (*work.regions, number)
                data = self.regions.view(number, size)
            blobs[name] = Blob(data.toreadonly(), media_type)
        return message["input"], blobs

    def _call(self, work):
        arguments = self._arguments(work)
        if work.thread or work.cancelled:
            asks.arm(work)
        else:
            work.armed = True
            if work.cancelled:
                asks.check(work)
        try:
            return work.operation.method(*arguments)
        except TypeError as error:
            if type(work.operation.method) not in _OF_PYTHON or not steps.is_unfit(error):
                raise
            name = work.frame.message["operation"]
            hint = steps.signature(name, work.operation.takes_blobs, work.batch)
            raise faults.Fault("recipe_failed", f"`{name}` raised TypeError: {guard.text(error)}", hint, {"type": "TypeError"}) from None

    def _value(self, work, value):
        """Returns the final value for `value`, which the author's method returned: awaits or iterates it."""
        if type(value) is types.CoroutineType or hasattr(type(value), "__await__"):
            return self._await(work, value)
        if work.batch:
            return value
        if hasattr(type(value), "__next__"):
            self._must_stream(work)
            return self._stream(work, value)
        if hasattr(type(value), "__anext__"):
            self._must_stream(work)
            return self._await(work, self._stream_async(work, value))
        return value

    def _must_stream(self, work):
        if not work.operation.streaming:
            name = work.frame.message["operation"]
            raise faults.Fault(
                "recipe_failed",
                f"`{name}` yields chunks, but recipe.toml does not declare it as streaming",
                f"set `streaming = true` in [operations.{name}], or return the whole result",
            )

    def _stream(self, work, chunks):
        """Sends each chunk; the generator's return value is the answer."""
        try:
            while True:
                try:
                    chunk = next(chunks)
                except StopIteration as end:
                    return end.value
                self._chunk(work, chunk)
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()  # runs the author's `finally` now, and not whenever the garbage collector does

    async def _stream_async(self, work, chunks):
        try:
            async for chunk in chunks:
                parts, weight = self._chunk_of(work, chunk)
                await asks.spend_async(work, weight)
                self._emit(work, parts)
        finally:
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()

    def _await(self, work, awaitable):
        """Runs it as a task of its own, so that a cancel can reach it; a signal would interrupt the loop
        itself."""
        asks.disarm(work)
        if self.slots is not None:
            return self.slots.wait_for(work, awaitable)
        loop = self.event_loop()
        box = []
        task = loop.create_task(guard.outcome(awaitable, box))
        work.task = loop, task
        if work.cancelled:
            task.cancel()
        return self._complete(loop, task, box)

    def _complete(self, loop, task, box):
        """Returns the outcome of the task in `box`. An exit of another task, in the background, does not
        count."""
        try:
            while not task.done():
                try:
                    loop.run_until_complete(task)
                except (SystemExit, KeyboardInterrupt) as error:
                    if loop.is_closed():
                        raise
                    tracebacks.say("a task in the background exited", error)
            task.result()  # raises only if the task was cancelled before its first step
            return guard.given(box)
        except BaseException:
            # Raised by a signal handler during the loop, for example. What is left of this work must not run
            # during the next one.
            if not task.done() and not loop.is_closed():
                task.cancel()
                loop.run_until_complete(task)
            raise

    def end_tasks(self):
        """Called at the pod's end: cancels the tasks that are left in the loop and runs them to their end, as
        `asyncio.run` does."""
        if self._loop is None or self._loop.is_closed():
            return
        if self.slots is None:
            self._loop.run_until_complete(_end_tasks(self._loop))
        else:
            self.slots.wait_for_all(_end_tasks(self._loop))

    def _background(self):
        """Runs tasks that the author's code left in the loop until an ask comes. Does nothing if no task is
        left."""
        while not self._loop.is_closed() and _is_left(self._loop):
            try:
                if gate.main.run(self._run_background, self._loop):
                    return
            except BaseException as error:
                tracebacks.say("a task in the background exited, or a handler of a signal raised", error)

    def _run_background(self, loop):
        """Runs the loop; returns whether an ask came."""
        while not loop.is_closed() and _is_left(loop):
            come = []

            def readable(come=come):
                come.append(True)
                loop.stop()

            loop.add_reader(self._socket.fileno(), readable)
            try:
                loop.run_forever()
            finally:
                if not loop.is_closed():
                    loop.remove_reader(self._socket.fileno())
            if come:
                return True
        return False

    # --- what is sent before the answer, from any thread; whole, or not at all

    def _chunk(self, work, value):
        parts, weight = self._chunk_of(work, value)
        asks.spend(work, weight)
        self._emit(work, parts)

    def _chunk_of(self, work, value):
        """Returns the frame of a chunk, and its weight."""
        paused = asks.pause(work)
        work.outgoing = []
        try:
            return self.answers.chunk(work.ask, value, work.outgoing)
        except BaseException:
            self._unsent(work)
            raise
        finally:
            asks.resume(work, paused)

    def _emit(self, work, parts):
        paused = asks.pause(work)
        try:
            if work.cancelled:
                self._unsent(work)
            else:
                self.lane.emit(work, parts)
                work.outgoing = None
        finally:
            asks.resume(work, paused)

    def _progress(self, work, fields):
        paused = asks.pause(work)
        try:
            self.lane.emit(work, self.answers.progress(work.wanted(), fields))
        finally:
            asks.resume(work, paused)


def _descriptors_of(loop):
    """Returns the descriptors of asyncio's own loop; a loop that the author installed may have others, or
    none."""
    found = (getattr(loop, name, None) for name in ("_selector", "_ssock", "_csock"))
    return [part.fileno() for part in found if part is not None]


async def _end_tasks(loop):
    asyncio = program.of_python("asyncio")
    tasks = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled() and task.exception() is not None:
            text = "a task that was left in the background failed at the pod's end"
            loop.call_exception_handler({"message": text, "exception": task.exception(), "task": task})
    await loop.shutdown_asyncgens()


def _is_left(loop):
    """Returns whether the loop has anything to do or to wait for."""
    try:
        # One entry is the loop's own pipe, with which other threads wake it.
        if loop._ready or loop._scheduled or len(loop._selector.get_map()) > 1:
            return True
    except AttributeError:  # a loop of another kind, which the author installed
        return True
    asyncio = program.of_python("asyncio")
    # Up to Python 3.11 all tasks are in one set. Checking whether the set is empty, after each work, takes a
    # tenth of the time of listing the tasks.
    known = getattr(getattr(asyncio, "tasks", None), "_all_tasks", None)
    return (known is None or len(known) > 0) and bool(asyncio.all_tasks(loop))
