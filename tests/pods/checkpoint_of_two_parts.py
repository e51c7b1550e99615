#!/usr/bin/env -S python3 -B
"""Sends a checkpoint that has two blobs.

Expected: `protocol_violation`: the pod is ended.
"""

import time

import raw

pod = raw.Pod()
pod.ready()
pod.ask()
raw.fired(__file__)
blob = {"name": "state", "media_type": "application/octet-stream", "bytes": 1}
pod.control.send({"type": "checkpoint", "last": True, "blobs": [blob, blob]}, tail=b"ab")
time.sleep(60)
