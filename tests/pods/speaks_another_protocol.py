#!/usr/bin/env -S python3 -B
"""Offers protocol versions 7 to 9 only.

Expected: `protocol_violation`, which names both ranges.
"""

import os
import time

import raw

pod = raw.Pod()
pod.control.send({"type": "hello", "protocol": [7, 9], "features": ["fds"], "pid": os.getpid(), "runtime": "raw"})
time.sleep(3600)
