"""The control lane: a thread of its own that answers while the author's code is busy.

It must never wait for the author. It answers pings, cancels, drains and ends the process, and touches nothing
else.
"""

import _socket  # without the enums of `socket`, which take 8 ms to make
import _thread
import errno
import os
import sys
from array import array

from . import asks, confine, ending, gate, guard, own, sessions, tracebacks, wire

#: The number of the control lane: standard input, until the runner has moved it.
_lane = 0
#: Errors of a descriptor that was closed, or that is another one by now.
_TAKEN = (errno.EBADF, errno.ENOTSOCK, errno.ENOTCONN, errno.EINVAL)


class Control:
    """The control lane. Sending is for any thread; receiving belongs to one thread, after `listen`."""

    def __init__(self, sock):
        global _lane
        self._socket, _lane = sock, sock.fileno()
        self._sending = _thread.allocate_lock()
        self._decoder = wire.Decoder()
        self._early = []
        self.flush = None  # sends the answers that are held back; set before `listen`
        self.wake = None  # makes the main thread end the process, in order; set before `listen`
        self.title = None  # shows the pod's state in `ps`; set before `listen`
        self.regions = None  # memory that the host shares; set before `listen`
        self._descriptors = []  # received descriptors, oldest first, each for one message
        self.gpu = self.lever = None  # from the host's first `load`
        self._drained = False
        self._load = _thread.allocate_lock()
        self._load.acquire()

    def send(self, message, tail=()):
        """Sends one message, with the bytes that belong to it."""
        # One call: only handlers of signals can come between, and they wait.
        data = b"".join(wire.encode(0, message, tail))
        shut = gate.shut_here()
        try:
            with self._sending:
                self._socket.sendall(data)
        finally:
            gate.open_again(shut)

    def receive_start(self):
        """Waits for `start`; returns the message and the descriptors that came with it."""
        while True:
            count = self._receive()
            if count == 0:
                leave(0)
            frames = self._decoder.received(count)
            if frames:
                start, *self._early = frames
                if start.message is None or start.message["type"] != "start":
                    raise wire.ProtocolError("wanted `start` as the first message of the host")
                descriptors, self._descriptors = self._descriptors, []
                return start.message, descriptors

    def _receive(self):
        """Reads once into the decoder; keeps descriptors that come with the bytes."""
        room = _socket.CMSG_SPACE(4 * array("i").itemsize)
        count, ancillary, flags, _ = self._socket.recvmsg_into([self._decoder.space()], room, _socket.MSG_CMSG_CLOEXEC)
        for level, kind, data in ancillary:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                descriptors = array("i")
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
                self._descriptors += descriptors
        if flags & _socket.MSG_CTRUNC:
            raise wire.ProtocolError("descriptors were lost on the control lane (RLIMIT_NOFILE?)")
        return count

    def fileno(self):
        """Returns the number of its descriptor."""
        return self._socket.fileno()

    def listen(self, frame_bytes_max):
        """Starts the thread."""
        self._decoder.frame_bytes_max = frame_bytes_max
        # Not `threading`: it would cost 5 ms of every start, and this thread needs no object.
        _thread.start_new_thread(self._run, ())

    def close(self):
        """Closes the lane in a forked worker process, which must not use it."""
        self._socket.close()

    def wait_for_load(self):
        """Returns when the host sends `load`; ends the process if it sends `drain` instead."""
        self._load.acquire()
        if self._drained:
            leave(0)

    def _run(self):
        try:
            gate.Gate()  # never open
            for frame in self._early:
                self._handle(frame)
            while True:
                count = self._receive()
                if count == 0:
                    os._exit(0)  # the host is gone
                for frame in self._decoder.received(count):
                    self._handle(frame)
        except BaseException as error:
            end_by(error, "the control lane failed")

    def _handle(self, frame):
        message = frame.message
        if message is None:
            raise wire.ProtocolError(f"a frame of {frame.too_large} bytes on the control lane")
        kind = message["type"]
        if kind == "ping":
            in_hand = asks.in_hand()
            self.send({"type": "pong", "seq": message["seq"], "asks": in_hand})
            # Here the message costs the asks no time.
            if in_hand:
                self.title.busy()
            else:
                self.title.at_rest()
        elif kind == "cancel":
            asks.cancel(message["ask"])
        elif kind == "checkpoint":
            sessions.wanted(message["seq"])
        elif kind == "kept":
            sessions.kept(message)
        elif kind == "credit":
            asks.give_credit(message["ask"], message["chunks"])
        elif kind == "region":
            self.regions.given(message, self._descriptors.pop(0))
        elif kind == "free":
            self.regions.freed(message["region"])
        elif kind == "forget":
            self.regions.forget(message["region"])
        elif kind == "no_room":
            self.regions.refused(message["why"])
        elif kind == "load":
            if self._load.locked():
                self.gpu, self.lever = message.get("gpu"), message.get("lever")
                self._load.release()
        elif kind == "drain":
            idle = asks.drain()
            self.title.show("draining")
            if idle:
                self.flush()
                self._drained = True
                self.wake()
                if self._load.locked():
                    self._load.release()
        elif kind == "exit":
            os._exit(0)
        else:
            raise wire.ProtocolError(f"the host sent `{kind}` on the control lane")


def leave(code):
    """Ends the process: in order, if this is the main thread. Not by sys.exit, which would wait for anything
    that hangs at exit."""
    if _thread.get_ident() == asks.hand.main_thread:
        try:
            gate.main.run(ending.in_order)
        except BaseException as error:
            tracebacks.say("the end in order was interrupted", error)
    _exit(code)


def _exit(code):
    for stream in (sys.stdout, sys.stderr):
        guard.call(_flush, stream)  # the streams may be the author's
    os._exit(code)


def _flush(stream):
    stream.flush()


def end_by(end, what="the runner failed"):
    """Ends the process with the outcome of one of its threads: a failure of the runner, or of something that
    belonged to it."""
    if own.forked:
        own.write(b"hob_pod: a process that the recipe forked came out of its method: it ends by `os._exit`\n")
        os._exit(70)
    if guard.is_a(end, ConnectionError):
        os._exit(0)  # the host is gone
    confine.end_if_ran_out(_lane, end)
    if guard.is_a(end, OSError) and end.errno in _TAKEN:
        what = "the recipe closed a descriptor that its pod speaks to the host by, in native code or by an object made from its number"
    die(what, end)


def die(what, error):
    """Ends the process after a failure of the protocol or of the runner itself, with its traceback on
    stderr."""
    try:
        tracebacks.say(what, error)
    except BaseException:
        own.write(b"hob_pod: the runner failed, and so did telling of it\n")
    _exit(70)
