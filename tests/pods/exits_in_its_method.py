"""A method that ends the process with code 0, as a library does that was written as a program.

Expected: `crashed` (exit code 0, during the operation) for the call: a good exit code is no answer.
"""

import os

import raw


class Pod:
    def run(self, input):
        raw.fired(__file__)
        os._exit(0)
