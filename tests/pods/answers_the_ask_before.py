#!/usr/bin/env -S python3 -B
"""Answers the first ask well, and the second one with one more answer to the first.

Expected: `{"answer": 1}` for the first call, `protocol_violation` for the second: the stray answer reaches
nobody.
"""

import time

import raw

pod = raw.Pod()
pod.ready()
first, _ = pod.ask()
pod.answer(first, {"answer": 1})
pod.ask()
raw.fired(__file__)
pod.answer(first, {"answer": 2})
time.sleep(3600)
