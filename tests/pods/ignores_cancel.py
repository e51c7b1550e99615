#!/usr/bin/env -S python3 -B
"""Takes the ask and never answers, not even when cancelled. It answers pings.

Expected: `deadline` or `cancelled` for the call, without waiting for the pod; the pod is killed after the
grace period and the next call gets a new one.
"""

import os

import raw


def cancelled(_ask):
    raw.fired(__file__)


pod = raw.Pod()
pod.ready(cancelled)
while True:
    ask, given = pod.ask()
    if given.get("answer"):
        pod.answer(ask, {"pid": os.getpid()})
