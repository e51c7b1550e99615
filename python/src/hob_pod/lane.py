"""The data lane's sending half: whole frames from any thread, and several small answers in one write.

The order of frames is decided here, under one lock: nothing of an ask follows its answer, and an answer that
waits for others is sent before anything later.
"""

import _thread
import time

from . import gate

#: Frames that follow each other up to this size go out in one write, in bytes.
JOINED_BYTES_MAX = 64 << 10
#: An answer waits for the next one at most this long, in seconds, if the next ask is as short as expected...
HELD_S = 50e-6
#: ... and about this long if the ask is longer: then the watcher sends.
WATCH_S = 0.001
#: Idle checks after which the watcher goes to sleep. Nothing ticks in an idle pod.
WATCH_TICKS_MAX = 20

# taken before `belonging` replaces it to follow the author's threads
_start_thread = _thread.start_new_thread


class Lane:
    """Sends on the data lane. For any thread."""

    def __init__(self, sock):
        self._socket = sock
        self._sending = _thread.allocate_lock()
        self.held = []  # answers that wait for the next one
        self._held_bytes = 0
        self._held_since = 0.0
        self._watching = False
        self._watched = 0  # number of answers that were ever held
        self._wake = None

    def close(self):
        """Closes the lane in a forked worker process, which must not use it."""
        self.held = []
        self._socket.close()

    def answer(self, work, parts):
        """Sends the answer of `work`, after the answers that were held."""
        with self._sending:
            if work.open:  # `stuck` may have answered it
                work.open = False  # no frame of it follows
                self._send(parts)

    def send(self, parts):
        """Sends frames that belong to no work in hand."""
        with self._sending:
            self._send(parts)

    def emit(self, work, parts):
        """Sends progress or a chunk of `work`, unless the work was answered."""
        if gate.is_held():
            with self._sending:
                if work.open:
                    self._send(parts)
            return
        # An exception may be set in this thread, which is the author's: it arrives before or after one call,
        # so one call sends only frames of this work.
        data = b"".join(parts)
        while True:
            with self._sending:
                if not self.held:
                    if work.open and data:
                        self._socket.sendall(data)
                    return
            time.sleep(WATCH_S)  # until the watcher has sent them

    def hold(self, work, parts, now):
        """Holds the answer of `work` for a moment, to send it together with the next one."""
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
        """Returns whether held answers must be sent now."""
        return now - self._held_since > HELD_S or self._held_bytes >= JOINED_BYTES_MAX

    def flush(self):
        """Sends the held answers."""
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
        """Sends held answers if the ask after them turns out to be long."""
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
            pass  # the host is gone; the thread that reads the lane sees that
