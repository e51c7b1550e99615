"""The data lane's sending half: whole frames from any thread, and several small answers in one write.

The order of frames is decided here, under one lock: nothing of an ask follows its answer, and an answer that
waits for others is sent before anything later.
"""

import _thread
import time

from . import gate

#: Frames that follow each other up to this size go out in one write, in bytes.
JOINED_BYTES_MAX = 64 << 10
#: An answer waits for the next one at most this long if the next ask keeps its promise to be short, in
#: seconds...
HELD_S = 50e-6
#: ... and about this long if it breaks it: then the watcher sends.
WATCH_S = 0.001
#: Looks in vain until the watcher goes to sleep. Nothing ticks in an idle pod.
WATCH_TICKS_MAX = 20

_start_thread = _thread.start_new_thread  # before `belonging` follows those of the author


class Lane:
    """Sends on the data lane. For any thread."""

    def __init__(self, sock):
        self._socket = sock
        self._sending = _thread.allocate_lock()
        self.held = []  # answers that wait for the next one
        self._held_bytes = 0
        self._held_since = 0.0
        self._watching = False
        self._watched = 0  # answers that were ever held
        self._wake = None

    def close(self):
        """For a forked worker process, which has no part in this."""
        self.held = []
        self._socket.close()

    def answer(self, work, parts):
        """Sends the answer of `work`, and what was held before it."""
        with self._sending:
            if work.open:  # `stuck` may have answered it
                work.open = False  # nothing of it follows
                self._send(parts)

    def send(self, parts):
        """Sends frames that belong to no work in hand."""
        with self._sending:
            self._send(parts)

    def emit(self, work, parts):
        """Sends progress or a chunk of `work`, unless that was answered."""
        if gate.is_held():
            with self._sending:
                if work.open:
                    self._send(parts)
            return
        # A thread of the author's, in which an exception may be set: it comes before or after one call, and
        # nothing of others is in it.
        data = b"".join(parts)
        while True:
            with self._sending:
                if not self.held:
                    if work.open and data:
                        self._socket.sendall(data)
                    return
            time.sleep(WATCH_S)  # for the watcher

    def hold(self, work, parts, now):
        """Answers `work` together with what comes next, in a moment."""
        with self._sending:
            work.open = False
            if not self.held:
                self._held_since = now
                self._held_bytes = 0
            self.held += parts
            self._held_bytes += sum(map(len, parts))
            self._watched += 1
            if not self._watching:
                self._watching = True
                if self._wake is None:
                    self._wake = _thread.allocate_lock()
                    self._wake.acquire()
                    _start_thread(self._watch, ())
                self._wake.release()

    def overdue(self, now):
        """Whether what is held must go now."""
        return now - self._held_since > HELD_S or self._held_bytes >= JOINED_BYTES_MAX

    def flush(self):
        """Sends what is held."""
        with self._sending:
            if self.held:
                self._send(())

    def _send(self, parts):
        if self.held:
            parts, self.held = [*self.held, *parts], []
        if len(parts) == 1:
            self._socket.sendall(parts[0])
        elif sum(map(len, parts)) <= JOINED_BYTES_MAX + 4096:
            self._socket.sendall(b"".join(parts))
        else:
            for part in parts:
                self._socket.sendall(part)

    def _watch(self):
        """Sends what is held although the ask after it turned out to be long."""
        gate.Gate()  # never open
        try:
            while True:
                self._wake.acquire()
                seen, ticks = self._watched, 0
                while True:
                    time.sleep(WATCH_S)
                    if self.held and time.monotonic() - self._held_since > WATCH_S:
                        self.flush()
                    if self._watched != seen:
                        seen, ticks = self._watched, 0
                        continue
                    ticks += 1
                    if ticks >= WATCH_TICKS_MAX:
                        with self._sending:
                            if self.held:
                                continue
                            self._watching = False
                        break
        except OSError:
            pass  # the host is gone; whoever reads the lane sees it
