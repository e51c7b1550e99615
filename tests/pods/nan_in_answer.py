#!/usr/bin/env -S python3 -B
"""Answers with NaN in the JSON, as Python's own json does if nobody stops it.

Expected: `protocol_violation` (a frame that is not JSON; `hob_pod` itself would answer `invalid_output` with
the place).
"""

import raw

pod = raw.Pod()
pod.ready()
while True:
    ask, _ = pod.ask()
    raw.fired(__file__)
    pod.answer(ask, {"scores": [0.5, float("nan")]})
