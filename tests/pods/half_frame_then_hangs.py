#!/usr/bin/env -S python3 -B
"""Sends half of an answer's frame and then nothing more; stays alive and answers pings.

Expected: `deadline` for the call (then the pod is killed: after the cancel it still does not answer).
"""

import json
import time

import raw

pod = raw.Pod()
pod.ready()
ask, _ = pod.ask()
text = json.dumps({"type": "answer", "incarnation": pod.start["incarnation"], "output": {"x": "y" * 100}}).encode()
frame = raw.HEADER.pack(len(text), 0, ask) + text
raw.fired(__file__)
pod.data.send_bytes(frame[: len(frame) // 2])
time.sleep(3600)
