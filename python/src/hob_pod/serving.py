"""Serving: reads asks from the data lane with the main thread, calls the author's method, writes the answer.

Apart from the control lane because this thread is the author's: there is no hand-off between reading an ask and
the method (a queue to another thread would double the round trip), so it is deaf while the method runs.
"""

import _thread
import types

from . import asks, control, faults, wire
from .blob import Blob


class Operation:
    """One operation of the pod: the author's method and how to call it."""

    __slots__ = ("method", "takes_blobs", "streaming")

    def __init__(self, method, takes_blobs, streaming):
        self.method = method
        self.takes_blobs = takes_blobs
        self.streaming = streaming


class Server:
    """The data lane and the operations behind it."""

    def __init__(self, sock, start, pod_folder):
        self.operations = {}
        self._socket = sock
        self._sending = _thread.allocate_lock()
        self._emitting = 0  # the ask whose progress and chunks may go out; changed under `_sending`
        self._incarnation = start["incarnation"]
        self._digest = start["digest"]
        self._frame_bytes_max = start["frame_bytes_max"]
        self._models = start["models"]
        self._pod_folder = pod_folder
        self._loop = None
        asks.hand.emit = self._emit

    def close(self):
        """For a forked worker process, which has no part in this."""
        self._socket.close()

    def event_loop(self):
        """The pod's one event loop; asyncio is imported when it is first wanted."""
        if self._loop is None:
            import asyncio

            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop

    def serve(self):
        """Answers asks until the host goes or drains."""
        decoder = wire.Decoder(self._frame_bytes_max)
        while True:
            count = self._socket.recv_into(decoder.space())
            if count == 0:
                control.leave(0)
            for frame in decoder.received(count):
                self._take(frame)

    def _take(self, frame):
        ask, message = frame.ask, frame.message
        left_ms = 0
        if message is not None:
            if message["type"] != "ask":
                raise wire.ProtocolError(f"the host sent `{message['type']}` on the data lane")
            if message["incarnation"] != self._incarnation or message["digest"] != self._digest:
                raise wire.ProtocolError("an ask for another incarnation or another recipe came here")
            left_ms = message["left_ms"]
        if not asks.begin(ask, left_ms):
            control.leave(0)
        self._emitting = ask
        parts = self._answer(frame)
        with self._sending:
            self._emitting = 0  # nothing of this ask follows its answer
            for part in parts:
                self._socket.sendall(part)
        if not asks.finish():
            control.leave(0)

    def _answer(self, frame):
        """The frame (in parts) that answers `frame`, whatever happens in between."""
        ask, message = frame.ask, frame.message
        if message is None:
            limit = self._frame_bytes_max
            text = f"the ask's frame has {frame.too_large} bytes; at most {limit} are read"
            return self._fault(ask, {"code": "too_large", "message": text})
        name = message["operation"]
        fault = None
        try:
            try:
                value = self._call(ask, name, frame)
                parts = self._encode(ask, {"type": "answer", "incarnation": self._incarnation}, "output", value)
            finally:
                # The last place where a cancel can interrupt; from here on nothing can end up in the next ask.
                asks.disarm()
        except SystemExit:
            raise
        except faults.Cancelled:
            pass
        except BaseException as error:  # also asyncio's CancelledError, and what authors derive from BaseException
            fault = faults.of(error, f"`{name}`", self._models, self._pod_folder)
        else:
            if not asks.cancelled():
                return parts
        if fault is None or asks.cancelled():
            fault = {"code": "cancelled", "message": f"`{name}` was cancelled"}
        return self._fault(ask, fault)

    def _call(self, ask, name, frame):
        operation = self.operations.get(name)
        if operation is None:
            names = ", ".join(f"`{name}`" for name in self.operations)
            raise faults.Fault("operation_not_found", f"the pod has no operation `{name}` (it has: {names})")
        blobs = {name: Blob(data.toreadonly(), media_type) for name, media_type, data in frame.blobs()}
        if blobs and not operation.takes_blobs:
            raise faults.Fault("invalid_input", f"`{name}` takes no blobs, but got {', '.join(blobs)}")
        arguments = (frame.message["input"], blobs) if operation.takes_blobs else (frame.message["input"],)
        asks.arm(ask)
        value = operation.method(*arguments)
        if type(value) is types.CoroutineType or hasattr(value, "__await__"):
            return self._run_async(ask, value)
        if hasattr(value, "__next__"):
            self._must_stream(name, operation)
            return self._stream(value)
        if hasattr(value, "__anext__"):
            self._must_stream(name, operation)
            return self._run_async(ask, self._stream_async(value))
        return value

    def _must_stream(self, name, operation):
        if not operation.streaming:
            raise faults.Fault(
                "recipe_failed",
                f"`{name}` yields chunks, but recipe.toml does not declare it as streaming",
                f"set `streaming = true` in [operations.{name}], or return the whole result",
            )

    def _stream(self, chunks):
        """Sends each chunk; the generator's return value is the answer."""
        try:
            while True:
                try:
                    chunk = next(chunks)
                except StopIteration as end:
                    return end.value
                self._chunk(chunk)
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()  # runs the author's `finally` now, not when the garbage collector finds time

    async def _stream_async(self, chunks):
        try:
            async for chunk in chunks:
                self._chunk(chunk)
        finally:
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()

    def _run_async(self, ask, awaitable):
        """Runs it as a task of its own, so that a cancel can reach it; signals would tear the loop itself."""
        asks.disarm()
        loop = self.event_loop()

        async def run():
            return await awaitable

        task = loop.create_task(run())
        asks.hand.task = (ask, loop, task)
        try:
            if asks.cancelled():
                task.cancel()
            return loop.run_until_complete(task)
        finally:
            asks.hand.task = None

    # --- sending

    def _chunk(self, value):
        self._emit({"type": "chunk"}, "data", value)

    def _emit(self, message, field=None, value=None):
        """Sends progress or a chunk of the ask in hand, from any thread; whole, or not at all."""
        ask = self._emitting
        hand = asks.hand
        on_main = _thread.get_ident() == hand.main_thread
        armed = hand.armed
        if on_main:
            hand.armed = 0  # an interrupt between two writes would tear the frame
        try:
            parts = self._encode(ask, message, field, value)
            with self._sending:
                if ask and self._emitting == ask:
                    for part in parts:
                        self._socket.sendall(part)
        finally:
            if on_main:
                hand.armed = armed
        if on_main and armed:
            asks.check()

    def _encode(self, ask, message, field, value):
        """The frame of `message` with `value` (which may come with blobs) as its `field`, in parts."""
        tail = ()
        if field is not None:
            value, blobs = value if _has_blobs(value) else (value, None)
            message[field] = value
            if blobs:
                if len(blobs) > wire.BLOBS_MAX:
                    raise faults.Fault("too_large", f"{len(blobs)} blobs at once; at most {wire.BLOBS_MAX} are carried")
                message["blobs"] = [
                    {"name": name, "media_type": blob.media_type, "bytes": len(blob.data)}
                    for name, blob in blobs.items()
                ]
                tail = [blob.data for blob in blobs.values()]
        try:
            parts = wire.encode(ask, message, tail)
        except wire.NotJson as error:
            # The place as the author sees it: below what was returned or yielded.
            prefix = f"/{field or 'data'}"
            pointer = error.pointer[len(prefix) :] if error.pointer.startswith(prefix) else error.pointer
            raise wire.NotJson(pointer or "/", error.problem) from None
        size = sum(map(len, parts)) - wire.HEADER.size
        if size > self._frame_bytes_max:
            raise faults.Fault(
                "too_large",
                f"the result has {size} bytes; at most {self._frame_bytes_max} are carried",
                "give it in chunks (`streaming = true`), or less of it",
                {"bytes": size, "limit": self._frame_bytes_max},
            )
        return parts

    def _fault(self, ask, fault):
        return wire.encode(ask, {"type": "answer", "incarnation": self._incarnation, "fault": fault})


def _has_blobs(value):
    """Whether an author gave `(value, {name: Blob})`."""
    if type(value) is not tuple or len(value) != 2 or not isinstance(value[1], dict):
        return False
    return all(isinstance(blob, Blob) for blob in value[1].values())
