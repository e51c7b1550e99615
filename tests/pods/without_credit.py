#!/usr/bin/env -S python3 -B
"""Streams without the feature `credit`: the input says how many chunks, of how many bytes.

Expected: its chunks are read while its caller takes them, or while others wait and they can be kept; it sends
all of them and answers.
"""

import raw

pod = raw.Pod()
pod.ready()
while True:
    ask, wanted = pod.ask()
    for n in range(wanted["chunks"]):
        if n == 1:
            raw.fired(__file__)
        pod.data.send({"type": "chunk", "data": {"n": n, "pad": "x" * wanted["bytes"]}}, ask)
    pod.answer(ask, {"sent": wanted["chunks"]})
