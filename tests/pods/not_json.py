#!/usr/bin/env -S python3 -B
"""Sends a frame whose JSON part is a line of text.

Expected: `protocol_violation`.
"""

import time

import raw

pod = raw.Pod()
pod.ready()
ask, _ = pod.ask()
raw.fired(__file__)
pod.data.send_text(b"Loading weights: 100%", ask)
time.sleep(3600)
