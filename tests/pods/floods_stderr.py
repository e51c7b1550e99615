#!/usr/bin/env -S python3 -B
"""Writes 8 MiB to stderr (one line of 1 MiB among them, no newline at the end) before each answer.

Expected: every call gets `{"ok": true}`; the log stays bounded and says how much it dropped.
"""

import sys

import raw

pod = raw.Pod()
pod.ready()
while True:
    ask, _ = pod.ask()
    raw.fired(__file__)
    for number in range(70_000):
        sys.stderr.write(f"floods_stderr: line {number} " + "." * 80 + "\n")
    sys.stderr.write("x" * (1 << 20))
    sys.stderr.flush()
    pod.answer(ask, {"ok": True})
