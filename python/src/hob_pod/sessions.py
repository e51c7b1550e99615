"""The session that this pod belongs to: its name, its first state, and how its state gets to the host.

Most pods have no session. Three threads meet here: the author's code gives its state at a safe point, the
control thread receives requests and acknowledgements, and the main thread gives the state between asks. A
checkpoint goes in pieces on the control lane; the host keeps each piece before the next is sent.
"""

import _thread
import os

from . import asks, faults, guard, tracebacks, wire


class _State:
    """The state of this process; one instance, below. Without a session it is never set."""

    def __init__(self):
        self.name = None
        self.give = None  # the author's `checkpoint`, if the class has one
        self.close = None  # the author's `close`
        self.asked = self.given = 0  # numbers of the host's requests: the last heard, the last answered
        self.control = None
        self.folder = None
        self.piece_bytes_max = self.checkpoint_bytes_max = 0
        self.giving = _thread.allocate_lock()
        self.heard = _thread.allocate_lock()  # released by the control thread when the host has answered
        self.heard.acquire()
        self.answer = None


state = _State()


def session():
    """Returns the name of the session that this pod belongs to, or None."""
    return state.name


def checkpoint_due():
    """Returns whether `checkpoint()` would send the state: a checkpoint is due, or was requested."""
    return state.asked > state.given and state.give is not None


def checkpoint(force=False):
    """Sends the pod's state to the host if that is due (or `force`). For safe points inside a long operation.

    Calls the class's `checkpoint`. Returns True if the host has the state on disk; the next pod then begins
    with it. Returns False if nothing was due, there is no session, or the host could not keep the state
    (`hob sessions` says why). Raises what the class's `checkpoint` raises.
    """
    if state.give is None or not (force or state.asked > state.given):
        return False
    return _give()


def _give():
    with state.giving:
        state.given = state.asked
        try:
            value = state.give()
            is_json = isinstance(value, dict)
            data = memoryview(wire.dump(value) if is_json else _bytes(value)).cast("B")
            if len(data) > state.checkpoint_bytes_max:
                text = f"the state has {len(data)} bytes; at most {state.checkpoint_bytes_max} are kept"
                _send({"type": "checkpoint", "fault": {"code": "too_large", "message": text}})
                return False
        except BaseException as error:
            _send({"type": "checkpoint", "fault": faults.of(error, "`checkpoint`", folder=state.folder)})
            raise
        # A cancel must not interrupt between a piece and its answer: the host would treat the next piece as a
        # protocol violation.
        work = asks.current()
        paused = work is not None and asks.pause(work)
        try:
            return _send_all(data, is_json)
        finally:
            if work is not None:
                asks.resume(work, paused)


def _bytes(value):
    if isinstance(value, (bytes, bytearray, memoryview)):
        return value
    kind = guard.kind(value)
    raise faults.Fault("recipe_failed", f"`checkpoint` gave a {kind}; wanted bytes, or a dict of what JSON can carry")


def _send_all(data, is_json):
    at = 0
    while True:
        piece = data[at : at + state.piece_bytes_max]
        at += len(piece)
        last = at == len(data)
        blobs = [{"name": "state", "media_type": "application/octet-stream", "bytes": len(piece)}]
        _send({"type": "checkpoint", "json": is_json, "last": last, "blobs": blobs}, piece)
        state.heard.acquire()
        if state.answer["fault"] is not None:
            return False
        if last:
            return True


def _send(message, tail=None):
    """Sends on the control lane, which other messages share."""
    state.control.send(message, () if tail is None else (tail,))


# --- called by the runner


def prepare(start, control, pod_folder):
    """Called once, before any code of the author's."""
    declared = start.get("session")
    if declared is None:
        return
    state.name = declared["name"]
    state.control = control
    state.folder = pod_folder
    state.piece_bytes_max = declared["piece_bytes_max"]
    state.checkpoint_bytes_max = declared["checkpoint_bytes_max"]
    os.register_at_fork(after_in_child=_forked)


def _forked():
    """Called in a worker process that the author's code forked: it has no session."""
    state.name = state.give = state.close = None


def find(pod, entry):
    """Finds the author's methods. Raises Fault if one of a pair is missing."""
    if state.name is None:
        return
    found = {name: getattr(pod, name, None) for name in ("checkpoint", "restore", "close")}
    methods = {name: method for name, method in found.items() if callable(method)}
    if ("checkpoint" in methods) != ("restore" in methods):
        has, lacks = ("checkpoint", "restore") if "checkpoint" in methods else ("restore", "checkpoint")
        text = f"`{entry}` has a method `{has}` and no `{lacks}`: a session's state goes out by one and comes back by the other"
        raise faults.Fault("import_failed", text, f"add `{lacks}`, or take `{has}` out")
    for name, method in methods.items():
        if getattr(getattr(method, "__code__", None), "co_flags", 0) & 0x280:  # coroutine, async generator
            raise faults.Fault("import_failed", f"`{name}` of `{entry}` is async: wanted a plain method")
    state.give, state.close = methods.get("checkpoint"), methods.get("close")


def restore(pod, start, descriptor):
    """Gives the class its last checkpoint, read from the descriptor that came with `start`."""
    declared = start["session"]["restore"]
    with os.fdopen(descriptor, "rb") as file:
        data = file.read()
    if len(data) != declared["bytes"]:
        raise wire.ProtocolError(f"a checkpoint of {declared['bytes']} bytes has {len(data)}")
    method = getattr(pod, "restore", None)
    if not callable(method):
        raise faults.Fault("import_failed", f"`{start['entry']}` has no method `restore` for its session's checkpoint")
    method(wire.parse(data) if declared["json"] else data)


# --- called by the control thread


def wanted(seq):
    """The host requests the state."""
    if state.give is None:
        _send({"type": "checkpoint"})
    else:
        state.asked = max(state.asked, seq)


def kept(message):
    """The host's answer to a piece."""
    state.answer = message
    state.heard.release()


# --- called by the main thread, between two asks


def between(message):
    """Handles the host's message on the data lane."""
    if message["type"] == "give":
        # The same request on the control lane may still be in transit.
        state.asked = max(state.asked, message["seq"])
        if checkpoint_due():
            try:
                _give()
            except BaseException as error:
                tracebacks.say("`checkpoint` failed", error)  # the host has been told
        return
    try:
        if state.close is not None:
            state.close()
    except BaseException as error:
        tracebacks.say("`close` failed", error)
    _send({"type": "closed"})
