#!/usr/bin/env -S python3 -B
"""Offers protocol versions 7 to 9 only.

Expected: `protocol_violation`, which names both ranges.
"""

import time

import raw

pod = raw.Pod()
raw.fired(__file__)
pod.hello([7, 9])
time.sleep(3600)
