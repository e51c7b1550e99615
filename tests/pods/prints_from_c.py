#!/usr/bin/env -S python3 -B
"""Writes to fd 1 from C (puts and write) before, while and after it answers, also things that look like
frames.

Expected: every call gets `{"ok": true}`; the lines are in the log.
"""

import ctypes

import raw

c = ctypes.CDLL(None)
pod = raw.Pod()
c.puts(b"prints_from_c: before hello")
pod.ready()
while True:
    ask, _ = pod.ask()
    c.puts(b"prints_from_c: puts")
    c.write(1, b"prints_from_c: write\n", 21)
    raw.fired(__file__)
    lie = raw.HEADER.pack(2, 0, ask) + b"{}"
    c.write(1, lie, len(lie))
    c.fflush(None)
    pod.answer(ask, {"ok": True})
