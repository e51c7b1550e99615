#!/usr/bin/env -S python3 -B
"""Answers with a fault whose code no table has, then with one whose parts have the wrong types.

Expected: a fault of the call each time (`protocol_violation`, or `recipe_failed` with the text), never a panic.
"""

import time

import raw

pod = raw.Pod()
pod.ready()
for fault in ({"code": "gremlins", "message": "unheard of"}, {"code": 7, "message": ["not", "text"]}, "just text"):
    ask, _ = pod.ask()
    pod.data.send({"type": "answer", "incarnation": pod.start["incarnation"], "fault": fault}, ask)
time.sleep(3600)
