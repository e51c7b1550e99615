#!/usr/bin/env -S python3 -B
"""Answers the first item of a batch twice, the second time with another item's output, and then all the
others well.

Expected: each call has its own answer or `protocol_violation`, and none has the stray one; the pod is killed.
"""

import time

import raw

pod = raw.Pod()
pod.ready()
items = pod.batch()
pod.answer(*items[0])
raw.fired(__file__)
pod.answer(items[0][0], items[-1][1])
for ask, given in items[1:]:
    pod.answer(ask, given)
time.sleep(3600)
