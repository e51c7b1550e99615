"""A method that closes every descriptor it did not open, as code that becomes a daemon does, and then goes on.

Expected: `crashed` or `protocol_violation` at once, not at the deadline; the process is ended.
"""

import os

import raw


class Pod:
    def run(self, input):
        raw.fired(__file__)
        os.closerange(3, 1024)
        return {}
