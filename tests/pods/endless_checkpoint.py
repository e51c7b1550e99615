#!/usr/bin/env -S python3 -B
"""Sends a checkpoint piece by piece, as it should, and never the last; answers with what the host said when
it had enough.

Expected: the host refuses it as `too_large`, keeps nothing of it, and the call is answered.
"""

import queue

import raw

PIECE = b"x" * (4 << 20)


class Pod(raw.Pod):
    def __init__(self):
        super().__init__()
        self.kept = queue.Queue()

    def handle(self, message):
        if message["type"] == "kept":
            self.kept.put(message["fault"])
        super().handle(message)


pod = Pod()
pod.ready()
ask, _ = pod.ask()
blob = {"name": "state", "media_type": "application/octet-stream", "bytes": len(PIECE)}
while True:
    pod.control.send({"type": "checkpoint", "last": False, "blobs": [blob]}, tail=PIECE)
    fault = pod.kept.get()
    if fault is not None:
        break
pod.answer(ask, {"fault": fault})
while True:
    pod.ask()
