"""A method that kills the process above it, which is the keeper that was to end it.

Expected: `sandbox_denied`; the keeper is outside, where no signal of the pod reaches, and both live on.
"""

import os
import signal
import time

import raw


class Pod:
    def run(self, input):
        raw.fired(__file__)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(3600)
