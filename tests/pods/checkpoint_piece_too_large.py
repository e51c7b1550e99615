#!/usr/bin/env -S python3 -B
"""Sends a checkpoint in one piece that is larger than a piece may be.

Expected: `protocol_violation`: the pod is ended.
"""

import time

import raw

pod = raw.Pod()
pod.ready()
pod.ask()
raw.fired(__file__)
piece = b"x" * ((4 << 20) + 1)
blob = {"name": "state", "media_type": "application/octet-stream", "bytes": len(piece)}
pod.control.send({"type": "checkpoint", "last": True, "blobs": [blob]}, tail=piece)
time.sleep(60)
