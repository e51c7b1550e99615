#!/usr/bin/env -S python3 -B
"""Answers with an integer that 64 bits cannot hold, in otherwise good JSON.

Expected: `invalid_output` for the call (or `protocol_violation`, if the host reads documents with their
frame).
"""

import raw

pod = raw.Pod()
pod.ready()
while True:
    ask, _ = pod.ask()
    raw.fired(__file__)
    pod.answer(ask, {"count": 2**64})
