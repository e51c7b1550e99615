#!/usr/bin/env -S python3 -B
"""Sends a message type that does not exist instead of an answer.

Expected: `protocol_violation`, which names the type.
"""

import time

import raw

pod = raw.Pod()
pod.ready()
ask, _ = pod.ask()
raw.fired(__file__)
pod.data.send({"type": "abracadabra"}, ask)
time.sleep(3600)
