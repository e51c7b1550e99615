"""Regions: memory that the host shares with this pod, for blobs too large for a frame.

This module tracks the owner of each region; authors see `blob`. The control thread receives messages about
regions, the author's threads map and use them. A region of an ask is given back when nothing uses it any
more. A region that the author's code still uses (an array that it kept) is never reused, so that its content
does not change.
"""

import _thread
import os

from . import asks, faults, program


class Region:
    """One region. It is mapped on first use, and stays mapped."""

    __slots__ = ("number", "size", "writable", "_descriptor", "_map")

    def __init__(self, number, size, writable, descriptor):
        self.number = number
        self.size = size
        self.writable = writable
        self._descriptor = descriptor
        self._map = None

    def view(self, size):
        """Returns its first `size` bytes."""
        if self._map is None:
            mmap = program.of_python("mmap")  # takes a millisecond that most pods never need
            access = mmap.ACCESS_WRITE if self.writable else mmap.ACCESS_READ
            self._map = mmap.mmap(self._descriptor, self.size, access=access)
            self._close()
        return memoryview(self._map)[:size]

    def is_seen(self):
        """Returns whether any object still uses the memory."""
        if self._map is None:
            return False
        try:
            # `resize` fails in any case; a map with views raises BufferError, and a read-only map raises
            # another error.
            self._map.resize(self.size)
        except BufferError:
            return True
        except Exception:
            return False
        return False

    def forget(self):
        """Drops the region; objects that still use the memory keep it until they are gone."""
        self._map = None
        self._close()

    def _close(self):
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Regions:
    """The regions of this pod. `send` sends a control message; blobs of up to `frame_bytes_max` bytes need no
    region."""

    def __init__(self, send, frame_bytes_max):
        self.frame_bytes_max = frame_bytes_max
        self._send = send
        self._lock = _thread.allocate_lock()
        self._asks = {}  # number -> a region of the host's blobs
        self._free = []  # regions for results that are not in use
        self._sent = {}  # number -> a region with a result that the host has
        self._refused = []  # the reasons of refused requests, one for each thread that waits
        self._waiting = []  # locks of threads that wait for any change

    # --- what the control thread hears

    def given(self, message, descriptor):
        """Adds a new region."""
        region = Region(message["region"], message["bytes"], message["write"], descriptor)
        with self._lock:
            if region.writable:
                self._free.append(region)
            else:
                self._asks[region.number] = region
            self._changed()

    def refused(self, why):
        """The host refused a request for room."""
        with self._lock:
            self._refused.append(why)
            self._changed()

    def freed(self, number):
        """The host read a result: its region may be used again, unless the author's code still uses it."""
        with self._lock:
            region = self._sent.pop(number, None)
            if region is None:
                return
            seen = region.is_seen()
            if not seen:
                self._free.append(region)
            self._changed()
        if seen:
            region.forget()
            self._send({"type": "dropped", "regions": [number]})

    def forget(self, number):
        """The host does not use that region any more."""
        with self._lock:
            region = self._asks.pop(number, None) or self._sent.pop(number, None)
        if region is not None:
            region.forget()

    def _changed(self):
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.release()

    def _wait(self, find):
        """Calls `find` under the lock after each change until it returns something other than None; returns
        that. An interrupt leaves nothing behind."""
        while True:
            with self._lock:
                found = find()
                if found is not None:
                    return found
                waiter = _thread.allocate_lock()
                waiter.acquire()
                self._waiting.append(waiter)
            waiter.acquire()

    # --- what the author's threads use

    def view(self, number, size):
        """Returns the blob of `size` bytes in the region of that number. Waits for the region, which comes on
        another lane than its ask."""
        return self._wait(lambda: self._asks.get(number)).view(size)

    def done(self, numbers):
        """The ask of those regions is over: gives them back, or drops them if the author's code still uses
        them."""
        back, dropped = [], []
        with self._lock:
            for number in numbers:
                region = self._asks.get(number)
                if region is None:
                    continue
                if region.is_seen():
                    dropped.append(self._asks.pop(number))
                else:
                    back.append(number)
        for region in dropped:
            region.forget()
        if dropped:
            self._send({"type": "dropped", "regions": [region.number for region in dropped]})
        if back:
            self._send({"type": "back", "regions": back})

    def room(self, size):
        """Returns a region of at least `size` bytes for a result. Raises Fault `too_large`."""
        asked = False

        def find():
            nonlocal asked
            fit = [region for region in self._free if region.size >= size]
            if fit:
                region = min(fit, key=lambda region: region.size)
                self._free.remove(region)
                return region
            if self._refused and asked:
                return self._refused.pop(0)
            if not asked:
                asked = True
                self._send({"type": "room", "bytes": size})
            return None

        found = self._wait(find)
        if isinstance(found, Region):
            return found
        hint = "give it in chunks (`streaming = true`), or less of it; where others hold what it needs, call again a little later"
        raise faults.Fault("too_large", found, hint)

    def room_for_author(self, size):
        """`room` for code that a cancel may interrupt; a cancel does not interrupt this call."""
        work = asks.current()
        paused = work is not None and asks.pause(work)
        try:
            return self.room(size)
        finally:
            if work is not None:
                asks.resume(work, paused)

    def unused(self, region):
        """Takes back a region from `room` whose blob was not sent."""
        with self._lock:
            self._sent.pop(region.number, None)
            seen = region.is_seen()
            if not seen:
                self._free.append(region)
        if seen:
            region.forget()
            self._send({"type": "dropped", "regions": [region.number]})

    def sent(self, region):
        """Marks a region as sent to the host with a result."""
        with self._lock:
            self._sent[region.number] = region


#: The regions of this pod, once the lanes are set up.
regions = None
