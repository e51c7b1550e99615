#!/usr/bin/env -S python3 -B
"""Sends a chunk although `run` is not declared as streaming, then a good answer.

Expected: `protocol_violation`, which names the operation.
"""

import raw

pod = raw.Pod()
pod.ready()
while True:
    ask, _ = pod.ask()
    raw.fired(__file__)
    pod.data.send({"type": "chunk", "data": {"part": 1}}, ask)
    pod.answer(ask, {})
