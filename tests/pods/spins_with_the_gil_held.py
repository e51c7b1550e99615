"""A method that works in C for ever with the interpreter's lock held: no signal handler and no other thread
runs.

Expected: `deadline` for the call; the pod heeds no cancel and is killed after the grace period.
"""

import itertools

import raw


class Pod:
    def run(self, input):
        raw.fired(__file__)
        return sum(itertools.repeat(1))
