#!/usr/bin/env -S python3 -B
"""Sends half of an answer's frame and exits with code 4.

Expected: `crashed` (exit code 4) for the call; the next call gets a new pod.
"""

import json
import os

import raw

pod = raw.Pod()
pod.ready()
ask, _ = pod.ask()
text = json.dumps({"type": "answer", "incarnation": pod.start["incarnation"], "output": {"x": "y" * 100}}).encode()
frame = raw.HEADER.pack(len(text), 0, ask) + text
raw.fired(__file__)
pod.data.send_bytes(frame[: len(frame) // 2])
os._exit(4)
