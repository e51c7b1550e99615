#!/usr/bin/env -S python3 -B
"""Answers an ask before it says `ready`.

Expected: `protocol_violation`.
"""

import time

import raw

pod = raw.Pod()
pod.hello()
pod.receive_start()
pod.receive_load()
raw.fired(__file__)
pod.answer(1, {})
time.sleep(3600)
