#!/usr/bin/env -S python3 -B
"""Answers the first ask twice, with different outputs, in one write: the host reads both before it does
anything else.

Expected: the call gets `{"answer": 1}`, and who called is told that the pod ended as a `protocol_violation`.
"""

import time

import raw

pod = raw.Pod()
pod.ready()
ask, _ = pod.ask()
written = []
send, pod.data.send_bytes = pod.data.send_bytes, written.append
pod.answer(ask, {"answer": 1})
pod.answer(ask, {"answer": 2})
raw.fired(__file__)
send(b"".join(written))
time.sleep(3600)
