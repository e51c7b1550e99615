"""A small host for all tests here: starts a pod through the real keeper and speaks on both lanes, one message
at a time.

The tests of the keeper also run it in a process that they kill.
"""

import array
import mmap
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time

from hob_pod import wire

KEEPER = os.path.join(os.path.dirname(os.path.abspath(wire.__file__)), "keeper.py")
WAIT_S = 20


class Lane:
    """One lane, blocking, with a timeout so that a test never hangs."""

    def __init__(self, sock):
        self.socket = sock
        self.decoder = wire.Decoder()
        self.frames = []
        sock.settimeout(WAIT_S)

    def send(self, message, ask=0, tail=()):
        self.socket.sendall(b"".join(wire.encode(ask, message, tail)))

    def receive(self):
        """Returns the next frame; None at the end of the lane."""
        while not self.frames:
            try:
                count = self.socket.recv_into(self.decoder.space())
            except ConnectionResetError:  # the pod left messages unread, as a draining pod does
                return None
            if count == 0:
                return None
            self.frames = self.decoder.received(count)
        return self.frames.pop(0)


class Pod:
    """A pod under the real keeper. `source` is the module `pod.py`; its class is `Pod`.

    `operations`: name -> whether it streams, or "batch".
    """

    def __init__(
        self,
        source="",
        operations=None,
        python=sys.executable,
        site_packages=None,
        environment=None,
        models=None,
        models_folder=None,
        command=(),
        files=None,
        concurrency=1,
        warm_up=None,
        title=None,
        paged=True,
        session=None,
        restore=None,
        shares=False,
        entry="pod:Pod",
    ):
        self.entry = entry
        self.shares = shares
        self.folder = tempfile.mkdtemp(prefix="hob-pod-test-")
        self.scratch = os.path.join(self.folder, "scratch")
        os.makedirs(os.path.join(self.folder, "pod"))
        os.makedirs(self.scratch)
        for name, text in {"pod.py": source, **(files or {})}.items():
            with open(os.path.join(self.folder, "pod", name), "w") as file:
                file.write(textwrap.dedent(text))
        self.operations = operations or {}
        self.site_packages = site_packages
        self.environment = environment  # the interpreter that the pod should believe to run
        self.models = models or {}
        self.models_folder = models_folder  # None: as a host from before this folder existed
        self.concurrency = concurrency
        self.warm_up = warm_up
        self.session = session  # the name of a session
        self.restore = restore  # the bytes of a JSON checkpoint to begin with
        page = os.path.join(self.folder, "page")
        with open(page, "w+b") as file:
            file.truncate(4096)
            self.page = mmap.mmap(file.fileno(), 4096)
        ours, theirs = socket.socketpair()
        arguments = [python, "-I", "-S", KEEPER, "--host-pid", str(os.getpid())]
        if paged:
            arguments += ["--page", page]
        if title is not None:
            arguments += ["--title", title]
        if command:
            arguments += ["--", *command]
        self.process = subprocess.Popen(arguments, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        theirs.close()
        self.control = Lane(ours)
        self.data = None
        self.output = {"stdout": b"", "stderr": b""}
        self.drains = [threading.Thread(target=self._drain, args=(name,), daemon=True) for name in self.output]
        for drain in self.drains:
            drain.start()
        self.asked = 0

    def _drain(self, name):
        pipe = getattr(self.process, name)
        while True:
            piece = os.read(pipe.fileno(), 65536)
            if not piece:
                return
            self.output[name] += piece

    def hello(self):
        return self.control.receive().message

    def start(self, frame_bytes_max=16 << 20):
        """Sends `start` with the data lane."""
        ours, theirs = socket.socketpair()
        message = {
            **({"blob_frame_bytes_max": 256 << 10, "chunk_credit": 64} if self.shares else {}),
            "type": "start",
            "protocol": 1,
            "incarnation": "incarnation-1",
            "frame_bytes_max": frame_bytes_max,
            "recipe": "test/pod",
            "version": "1.0.0",
            "digest": "sha256:00",
            "folder": self.folder,
            "entry": self.entry,
            "site_packages": self.site_packages,
            **({} if self.environment is None else {"python": self.environment}),
            "scratch": self.scratch,
            "models": self.models,
            **({} if self.models_folder is None else {"models_folder": self.models_folder}),
            "operations": {
                name: {"streaming": kind is True, "batch": kind == "batch", "blobs": kind == "blobs"}
                for name, kind in self.operations.items()
            },
            "concurrency": self.concurrency,
            "warm_up": self.warm_up,
        }
        descriptors = [theirs.fileno()]
        file = None
        if self.session is not None:
            message["session"] = {"name": self.session, "piece_bytes_max": 1000, "checkpoint_bytes_max": 10000, "restore": None}
            if self.restore is not None:
                message["session"]["restore"] = {"number": 7, "bytes": len(self.restore), "json": True}
                file = tempfile.TemporaryFile()
                file.write(self.restore)
                file.seek(0)
                descriptors.append(file.fileno())
        frame = b"".join(wire.encode(0, message))
        sent = self.control.socket.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))])
        self.control.socket.sendall(frame[sent:])
        theirs.close()
        if file is not None:
            file.close()
        self.data = Lane(ours)
        return self.control.receive()

    def ready(self, frame_bytes_max=16 << 20):
        """Exchanges hello, start, load, ready; returns self."""
        assert self.hello()["type"] == "hello"
        started = self.start(frame_bytes_max)
        assert started and started.message == {"type": "started"}, (started and started.message, self.output)
        self.control.send({"type": "load"})
        ready = self.control.receive()
        assert ready and ready.message == {"type": "ready"}, (ready and ready.message, self.output)
        return self

    def ask(self, operation, input=None, blobs=None, left_ms=60_000):
        """Sends an ask; returns its number."""
        self.asked += 1
        blobs = blobs or {}
        message = {
            "type": "ask",
            "incarnation": "incarnation-1",
            "digest": "sha256:00",
            "operation": operation,
            "input": {} if input is None else input,
            "left_ms": left_ms,
            "blobs": [{"name": n, "media_type": "application/octet-stream", "bytes": len(b)} for n, b in blobs.items()],
        }
        self.data.send(message, self.asked, list(blobs.values()))
        return self.asked

    def batch(self, operation, inputs, left_ms=60_000):
        """Sends one batch; returns the numbers of its asks."""
        asks = [self.asked + 1 + n for n in range(len(inputs))]
        self.asked += len(inputs)
        message = {
            "type": "batch",
            "incarnation": "incarnation-1",
            "digest": "sha256:00",
            "operation": operation,
            "items": [{"ask": ask, "left_ms": left_ms, "input": input} for ask, input in zip(asks, inputs)],
        }
        self.data.send(message, asks[0])
        return asks

    def answers(self, asks):
        """Receives the answers of these asks, in any order: ask -> message."""
        found = {}
        while len(found) < len(asks):
            frame, _ = self.answer()
            assert frame.ask in asks and frame.ask not in found, frame.ask
            found[frame.ask] = frame.message
        return found

    def answer_among(self, ask, *others):
        """Receives the answer of `ask`; no answer of `others` may come before it."""
        while True:
            frame = self.data.receive()
            assert frame is not None, f"the data lane ended: {self.output}"
            assert frame.ask == ask, f"a frame of ask {frame.ask} (others: {others})"
            if frame.message["type"] == "answer":
                return frame.message

    def call_among(self, operation, *others):
        """Sends one ask and returns its output, while others are in hand."""
        return self.answer_among(self.ask(operation), *others)["output"]

    def in_hand(self):
        """Returns the asks in hand, as the answer to a ping lists them."""
        self.control.send({"type": "ping", "seq": 0})
        return self.control.receive().message["asks"]

    def word(self, index):
        """Returns a u64 of the page."""
        return int.from_bytes(self.page[8 * index : 8 * index + 8], sys.byteorder)

    def answer(self, ask=None):
        """Receives up to the answer of `ask`: (answer's frame, frames before it)."""
        before = []
        while True:
            frame = self.data.receive()
            assert frame is not None, f"the data lane ended: {self.output}"
            assert ask is None or frame.ask == ask, f"a frame of ask {frame.ask} while {ask} was in hand"
            if frame.message["type"] == "answer":
                assert frame.message["incarnation"] == "incarnation-1"
                return frame, before
            before.append(frame)

    def call(self, operation, input=None, blobs=None, left_ms=60_000):
        """Sends one ask; returns its output, or the fault as `{"fault": ...}`."""
        frame, _ = self.answer(self.ask(operation, input, blobs, left_ms))
        return frame.message["output"] if "output" in frame.message else {"fault": frame.message["fault"]}

    def wait(self):
        """Waits for the keeper, and all output; returns its exit status, negative for a signal."""
        status = self.process.wait(WAIT_S)
        for drain in self.drains:
            drain.join(WAIT_S)
        return status

    def close(self):
        """Kills everything that is left, at once."""
        self.control.socket.close()
        if self.data is not None:
            self.data.socket.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
        try:
            self.wait()
        finally:
            self.process.stdout.close()
            self.process.stderr.close()
            self.page.close()
            shutil.rmtree(self.folder, ignore_errors=True)


def until(condition, seconds=WAIT_S):
    """Waits until `condition()` is true; returns whether it became true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return bool(condition())


def alive(pid):
    """Whether the process runs (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False
