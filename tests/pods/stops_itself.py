#!/usr/bin/env -S python3 -B
"""Stops itself (SIGSTOP) in the middle of an ask: alive, but no thread of it runs.

Expected: `deadline` for the call; the pod is killed after the grace period and the next call gets a new one.
"""

import os
import signal

import raw

pod = raw.Pod()
pod.ready()
pod.ask()
raw.fired(__file__)
os.kill(os.getpid(), signal.SIGSTOP)
