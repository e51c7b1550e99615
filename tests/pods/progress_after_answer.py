#!/usr/bin/env -S python3 -B
"""Answers the first ask well, and sends progress of it when the second one is in hand.

Expected: `{"answer": 1}` for the first call, `protocol_violation` for the second, which sees no progress.
"""

import time

import raw

pod = raw.Pod()
pod.ready()
first, _ = pod.ask()
pod.answer(first, {"answer": 1})
pod.ask()
raw.fired(__file__)
pod.data.send({"type": "progress", "data": {"done": 99}}, first)
time.sleep(3600)
