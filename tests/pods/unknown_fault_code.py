#!/usr/bin/env -S python3 -B
"""Answers with a fault whose code no table has, then with one whose parts have the wrong types.

Expected: a fault of the call each time (`protocol_violation`, or `recipe_failed` with the text), never a
panic.
"""

import time

import raw

pod = raw.Pod()
pod.ready()
for fault in ({"code": "gremlins", "message": "unheard of"}, {"code": 7, "message": ["not", "text"]}, "just text"):
    ask, _ = pod.ask()
    raw.fired(__file__)
    pod.reply(ask, fault=fault)
time.sleep(3600)
