"""A method that wants more memory than it may have. The pod bounds itself first (RLIMIT_DATA), so no machine
suffers.

Expected: `out_of_memory` of the CPU for the call; the same process serves the next one.
"""

import os

import raw


class Pod:
    def load(self, models):
        raw.bound_memory()

    def run(self, input):
        if input.get("answer"):
            return {"pid": os.getpid()}
        raw.fired(__file__)
        kept = []
        while True:
            kept.append(bytearray(16 << 20))
