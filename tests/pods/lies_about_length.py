#!/usr/bin/env -S python3 -B
"""Claims a frame of 4 GB, sends a few bytes of it, and keeps the lane open.

Expected: `protocol_violation` at once (no buffer of that size, no wait for the rest).
"""

import time

import raw

pod = raw.Pod()
pod.ready()
ask, _ = pod.ask()
raw.fired(__file__)
pod.data.send_bytes(raw.HEADER.pack(0xFFFFFFFF, 0, ask) + b'{"type":"answer"')
time.sleep(3600)
