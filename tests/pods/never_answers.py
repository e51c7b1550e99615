#!/usr/bin/env -S python3 -B
"""Takes the ask and never answers, but answers when cancelled, as a good pod does.

Expected: `deadline` or `cancelled` for the call; the same process serves the next one.
"""

import os

import raw

pod = raw.Pod()
fault = {"code": "cancelled", "message": "`run` was cancelled"}


def cancelled(ask):
    pod.reply(ask, fault=fault)


pod.ready(cancelled)
while True:
    ask, given = pod.ask()
    if given.get("answer"):
        pod.answer(ask, {"pid": os.getpid()})
    else:
        raw.fired(__file__)
