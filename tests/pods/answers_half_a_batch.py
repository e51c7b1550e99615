#!/usr/bin/env -S python3 -B
"""Answers the first half of a batch and nothing after that, not even when cancelled. It answers pings.

Expected: the first half of the calls has its answers at once, the others `deadline`; then the pod is killed.
"""

import time

import raw

pod = raw.Pod()
pod.ready()
items = pod.batch()
raw.fired(__file__)
for ask, given in items[: len(items) // 2]:
    pod.answer(ask, given)
time.sleep(3600)
