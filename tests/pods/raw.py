"""The pod protocol by hand, for pods that break it: no strictness, no threads, nothing that would stop a
misdeed.

Apart from `hob_pod` because that library cannot lie. It is copied beside the hostile pod into the recipe's
folder. All pods here have one operation, `run`, that takes an object. Those that begin with `#!` speak the
protocol through this module; the others are classes that the real runner runs (`entry = "<file>:Pod"`) and
take only `fired` from here.
"""

import array
import json
import os
import resource
import socket
import struct
import sys
import threading

HEADER = struct.Struct(">IIQ")
#: What a pod that is about to run out of memory may take first.
MORE_BYTES = 256 << 20


def fired(file, *pids):
    """Proof that a misdeed happens: to be called right before it, with `__file__` and the processes it is
    about.

    Leaves a file with the process ids, this process first, in the folder `fired` beside the recipe's folder,
    if there is one. Not inside the recipe's: that is read and compared for every call.
    """
    pod, name = os.path.split(os.path.abspath(file))
    marks = os.path.join(os.path.dirname(os.path.dirname(pod)), "fired")
    mark = os.path.join(marks, os.path.splitext(name)[0])
    if os.path.basename(pod) == "pod" and os.path.isdir(marks):
        with open(mark + ".new", "w") as text:
            text.write(" ".join(map(str, (os.getpid(), *pids))))
        os.rename(mark + ".new", mark)


def bound_memory():
    """Lets this process have only `MORE_BYTES` more than now, so that running out of memory harms no
    machine."""
    with open("/proc/self/status") as status:
        kilobytes = next(int(line.split()[1]) for line in status if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (kilobytes * 1024 + MORE_BYTES, resource.RLIM_INFINITY))


class Lane:
    """One lane: blocking, whole frames."""

    def __init__(self, sock):
        self.socket = sock
        self.lock = threading.Lock()

    def send(self, message, ask=0, tail=b""):
        self.send_text(json.dumps(message).encode(), ask, tail)

    def send_text(self, text, ask=0, tail=b""):
        self.send_bytes(HEADER.pack(len(text), len(tail), ask) + text + tail)

    def send_bytes(self, raw):
        with self.lock:
            self.socket.sendall(raw)

    def _exactly(self, count):
        raw = b""
        while len(raw) < count:
            piece = self.socket.recv(count - len(raw))
            if not piece:
                os._exit(0)  # the host is gone
            raw += piece
        return raw

    def receive(self):
        """The next (ask, message, tail)."""
        json_bytes, tail_bytes, ask = HEADER.unpack(self._exactly(HEADER.size))
        return ask, json.loads(self._exactly(json_bytes)), self._exactly(tail_bytes)


class Pod:
    """A pod up to the point where it misbehaves."""

    def __init__(self):
        lane = os.dup(0)  # not inheritable
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        self.control = Lane(socket.socket(fileno=lane))
        self.data = None
        self.start = None
        self.in_hand = []

    def hello(self, protocol=(1, 1)):
        who = {"pid": os.getpid(), "runtime": "raw " + sys.argv[0]}
        self.control.send({"type": "hello", "protocol": protocol, "features": ["fds"], **who})

    def receive_start(self):
        """Takes `start` with the data lane."""
        fds = array.array("i")
        first, ancillary, _, _ = self.control.socket.recvmsg(1, socket.CMSG_SPACE(4 * fds.itemsize))
        for _, kind, data in ancillary:
            if kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        if not first:
            os._exit(0)
        json_bytes, tail_bytes, _ = HEADER.unpack(first + self.control._exactly(HEADER.size - 1))
        self.start = json.loads(self.control._exactly(json_bytes))
        self.control._exactly(tail_bytes)
        self.data = Lane(socket.socket(fileno=fds[0]))

    def receive_load(self):
        """Says `started` and waits for `load`; pings are answered."""
        self.control.send({"type": "started"})
        while True:
            _, message, _ = self.control.receive()
            if message["type"] == "load":
                return
            self.handle(message)

    def ready(self, cancel=None):
        """The whole handshake. From then on a thread answers the control lane as a good pod does, until
        `cancel`."""
        self.hello()
        self.receive_start()
        self.receive_load()
        self.control.send({"type": "ready"})
        threading.Thread(target=self.listen, args=(cancel,), daemon=True).start()

    def listen(self, cancel=None):
        while True:
            _, message, _ = self.control.receive()
            if message["type"] == "cancel" and cancel is not None:
                cancel(message["ask"])
            self.handle(message)

    def handle(self, message):
        if message["type"] == "ping":
            in_hand = list(self.in_hand)
            self.control.send({"type": "pong", "seq": message["seq"], "asks": in_hand})
        elif message["type"] in ("drain", "exit"):
            os._exit(0)

    def ask(self):
        """The next ask: (its number, its input)."""
        ask, message, _ = self.data.receive()
        self.in_hand.append(ask)
        return ask, message["input"]

    def batch(self):
        """The next batch: [(ask, its input), ...]."""
        _, message, _ = self.data.receive()
        self.in_hand += [item["ask"] for item in message["items"]]
        return [(item["ask"], item["input"]) for item in message["items"]]

    def reply(self, ask, **result):
        """An answer with whatever is to be in it."""
        if ask in self.in_hand:
            self.in_hand.remove(ask)
        self.data.send({"type": "answer", "incarnation": self.start["incarnation"], **result}, ask)

    def answer(self, ask, output):
        """What a good pod answers."""
        self.reply(ask, output=output)
