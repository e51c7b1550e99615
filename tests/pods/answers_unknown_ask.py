#!/usr/bin/env -S python3 -B
"""Answers an ask that was never asked.

Expected: `protocol_violation`.
"""

import time

import raw

pod = raw.Pod()
pod.ready()
ask, _ = pod.ask()
raw.fired(__file__)
pod.answer(ask + 1_000_000, {})
time.sleep(3600)
