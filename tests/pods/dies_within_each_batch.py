#!/usr/bin/env -S python3 -B
"""Answers the first half of a batch (the one item of a small one) and exits with code 6.

Expected: every call of an idempotent operation has its answer, the ones that were cut off from other pods;
what was answered is not run again.
"""

import os

import raw

pod = raw.Pod()
pod.ready()
items = pod.batch()
raw.fired(__file__)
for ask, given in items[: (len(items) + 1) // 2]:
    pod.answer(ask, given)
os._exit(6)
