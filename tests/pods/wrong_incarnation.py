#!/usr/bin/env -S python3 -B
"""Answers in the name of another incarnation, as a pod would that was mixed up with another.

Expected: `protocol_violation`.
"""

import time

import raw

pod = raw.Pod()
pod.ready()
ask, _ = pod.ask()
raw.fired(__file__)
pod.data.send({"type": "answer", "incarnation": "somebody-else", "output": {}}, ask)
time.sleep(3600)
