#!/usr/bin/env -S python3 -B
"""Answers every second ask, from the first on, with a whole frame one byte above `frame_bytes_max`.

Expected: `too_large` for those calls only; the others get `{"pid": ...}`, from the same process.
"""

import json
import os

import raw

pod = raw.Pod()
pod.ready()
large = True
while True:
    ask, _ = pod.ask()
    if large:
        raw.fired(__file__)
        text = json.dumps({"type": "answer", "incarnation": pod.start["incarnation"], "output": ""}).encode()
        missing = pod.start["frame_bytes_max"] + 1 - len(text)
        pod.in_hand.remove(ask)
        pod.data.send_text(text[:-2] + b"x" * missing + text[-2:], ask)
    else:
        pod.answer(ask, {"pid": os.getpid()})
    large = not large
