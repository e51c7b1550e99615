#!/usr/bin/env -S python3 -B
"""Works in C for ever with the interpreter's lock held, so that its control thread answers neither ping nor
cancel.

Expected: `deadline` for the call; the pod is killed after the grace period. (A pod that speaks the protocol
by itself; `spins_with_the_gil_held` does the same below the real runner.)
"""

import itertools

import raw

pod = raw.Pod()
pod.ready()
pod.ask()
raw.fired(__file__)
sum(itertools.repeat(1))
