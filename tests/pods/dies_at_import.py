"""A pod in Python (`runtime = "python"`, copied to `pod/`; `entry = "dies_at_import:Pod"`) that fails at
import.

Expected: `import_failed` with the traceback, which names this file and `_open_device`, and nothing of the
runner.
"""

import raw


def _open_device():
    raw.fired(__file__)
    raise RuntimeError("no accelerator on this machine")


_open_device()


class Pod:
    def run(self, input):
        return {}
