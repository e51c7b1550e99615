"""A method that sleeps in C with the interpreter's lock held: as deaf as one that spins, but it uses no CPU.

Expected: `deadline` for the call; the pod heeds no cancel and is killed after the grace period.
"""

import ctypes

import raw


class Pod:
    def run(self, input):
        raw.fired(__file__)
        while True:
            ctypes.PyDLL(None).pause()  # unlike CDLL, PyDLL keeps the lock
