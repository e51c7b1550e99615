"""Slots: `concurrency` runs of the author's code at once, in worker threads and as tasks of one event loop.

A pod that does one thing at a time (the usual kind) uses none of this, and so stays fast and simple. Here the
main thread only reads: it waits for a free slot, begins the work (so works begin in their order) and hands it
over. An `async` method becomes a task; any other method gets a thread.
"""

import _queue
import _thread
import time

from . import asks, control, gate, guard, program, tracebacks

# taken before `belonging` replaces it to follow the author's threads
_start_thread = _thread.start_new_thread


class Slots:
    """The slots of one pod."""

    def __init__(self, server, count):
        self._server = server
        self._free = _queue.SimpleQueue()  # a token for each free slot
        for _ in range(count):
            self._free.put(None)
        self._jobs = _queue.SimpleQueue()
        self._counting = _thread.allocate_lock()
        self._idle = 0  # threads that wait for a job, minus the jobs that wait for threads
        self._loop = None

    def take(self, frame, _more):
        """Called by the main thread: hands over the work of `frame` as soon as a slot is free."""
        self._free.get()
        work = self._server.work_of(frame, time.monotonic())
        if not asks.begin(work):
            self._free.put(None)  # the thread that finishes the last work ends the process
            return
        if work.batch and not self._server.left_out(work):
            self._over(work)
        elif work.operation is not None and work.operation.is_async:
            self._event_loop().call_soon_threadsafe(self._start_task, work)
        else:
            with self._counting:
                self._idle -= 1
                new = self._idle < 0
                if new:
                    self._idle += 1
            self._jobs.put(work)
            if new:
                _start_thread(self._run_thread, ())

    def wait_for(self, work, awaitable):
        """Called by a worker thread for a method that returned an awaitable: returns its result."""
        loop = self._event_loop()
        done = _thread.allocate_lock()
        done.acquire()
        box, result = [], []

        def start():  # in the context of the work
            task = loop.create_task(guard.outcome(awaitable, box))
            task.add_done_callback(finished)
            work.task = (loop, task)
            if work.cancelled:
                task.cancel()

        def finished(task):
            # Not inside `run`: a task that is cancelled before its first step never runs `run`.
            result.append(task)
            done.release()

        loop.call_soon_threadsafe(start)
        done.acquire()
        result[0].result()  # raises only if the task was cancelled before its first step
        return guard.given(box)

    def wait_for_all(self, awaitable):
        """Called by the main thread at the pod's end: runs `awaitable` on the loop, if there ever was a
        loop."""
        if self._loop is None:
            awaitable.close()
            return
        done = _thread.allocate_lock()
        done.acquire()

        def start():
            self._loop.create_task(awaitable).add_done_callback(lambda _: done.release())

        self._loop.call_soon_threadsafe(start)
        done.acquire()

    def _over(self, work):
        if not asks.finish(work):
            self._server.wake()
        self._free.put(None)

    def _answer(self, work, parts):
        self._server.lane.answer(work, parts)

    def _answered(self, work):
        self._server.over(work)
        self._over(work)

    # --- threads

    def _run_thread(self):
        try:
            here = gate.Gate()
            while True:
                work = self._jobs.get()
                work.thread, work.gate = here.thread, here
                parts = self._server.ground.context.copy().run(self._server.run, work)
                self._answer(work, parts)
                parts = None  # the author's result must not be kept until the next job
                self._answered(work)
                work = None
                if here.waits:
                    here.over()
                with self._counting:
                    self._idle += 1
        except BaseException as end:
            control.end_by(end)

    # --- tasks

    def _event_loop(self):
        if self._loop is None:
            self._loop = self._server.event_loop()
            _start_thread(self._run_loop, ())
        return self._loop

    def _run_loop(self):
        try:
            program.of_python("asyncio").set_event_loop(self._loop)
            here = gate.Gate()
            while not self._loop.is_closed():
                try:
                    here.run(self._loop.run_forever)  # until the author stops the loop, which the pod owns
                except BaseException as error:
                    tracebacks.say("a task in the background exited, or something was set to be raised in the loop's thread", error)
            raise RuntimeError("the recipe closed the pod's event loop")
        except BaseException as end:
            control.end_by(end)

    def _start_task(self, work):
        if work.cancelled:
            shut = gate.shut_told()
            self._answer(work, self._server.cancelled(work))
            self._answered(work)
            gate.open_again(shut)
            return

        async def run():
            return await self._server.run_async(work)

        def finished(task):
            shut = gate.shut_told()
            # `run` never started if the cancel came before its first step.
            parts = self._server.cancelled(work) if task.cancelled() else self._server.parts_of(work, task)
            self._answer(work, parts)
            self._answered(work)
            gate.open_again(shut)

        task = self._server.ground.run(lambda _work: self._loop.create_task(run()), work)
        task.add_done_callback(finished)
        work.task = (self._loop, task)
        if work.cancelled:
            task.cancel()
