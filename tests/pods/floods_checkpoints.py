#!/usr/bin/env -S python3 -B
"""Sends one piece of a checkpoint after the other, without waiting to be told that the one before is kept.

Expected: `protocol_violation`: the pod is ended.
"""

import raw

PIECE = b"x" * (1 << 20)

pod = raw.Pod()
pod.ready()
pod.ask()
raw.fired(__file__)
while True:
    blobs = [{"name": "state", "media_type": "application/octet-stream", "bytes": len(PIECE)}]
    pod.control.send({"type": "checkpoint", "last": False, "blobs": blobs}, tail=PIECE)
