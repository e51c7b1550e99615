#!/usr/bin/env -S python3 -B
"""Answers the first ask twice, with different outputs.

Expected: the first call gets `{"answer": 1}`; the second answer is a `protocol_violation` that ends the pod.
It must never be taken for the answer of the next call: that one gets `{"answer": 1}` from a new pod, or the
violation.
"""

import time

import raw

pod = raw.Pod()
pod.ready()
ask, _ = pod.ask()
pod.answer(ask, {"answer": 1})
raw.fired(__file__)
pod.answer(ask, {"answer": 2})
time.sleep(3600)
