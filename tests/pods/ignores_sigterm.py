#!/usr/bin/env -S python3 -B
"""Takes the ask and goes on for ever; deaf to SIGTERM and to what the control lane says.

Expected: its call ends with a fault when the host shuts down; the pod is killed by the last rungs of the stop
ladder. It fires when the SIGTERM came and was ignored.
"""

import signal
import time

import raw


def ignored(_number, _frame):
    raw.fired(__file__)


signal.signal(signal.SIGTERM, ignored)
pod = raw.Pod()
pod.hello()
pod.receive_start()
pod.receive_load()
pod.control.send({"type": "ready"})
pod.ask()
while True:
    time.sleep(3600)
