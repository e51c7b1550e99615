"""A pod that needs nothing: no packages, no model, no glue.

Tests and benchmarks of the host use it: the cost of its answer is the cost of the way there and back.
"""

import time

from hob_pod import Fault, cancelled, progress

# How long a cancelled `sleep` or `repeat` may go on before it notices, in seconds.
NOTICE_SECONDS = 0.02

# Between two progress reports of `sleep`, in seconds.
REPORT_SECONDS = 0.25


class Echo:
    """The operations of `hob/echo`; it has no model, so it needs no `load`."""

    def echo(self, input):
        """Returns the number of characters in `text`."""
        return {"length": len(input["text"])}

    def repeat(self, input):
        """Yields `text` as `count` chunks; returns how many there were."""
        count = input["count"]
        pause = input.get("pause_ms", 0) / 1000
        for index in range(count):
            _wait(pause)
            yield {"index": index, "text": input["text"]}
        return {"count": count}

    def sleep(self, input):
        """Waits for `seconds`, and returns nothing else."""
        began = time.monotonic()
        left = seconds = input["seconds"]
        while left > 0:
            progress(slept=round(seconds - left, 3), seconds=seconds)
            _wait(min(left, REPORT_SECONDS))
            left = began + seconds - time.monotonic()
        return {"slept": round(time.monotonic() - began, 6)}


def _wait(seconds):
    """Sleeps that long, in steps short enough to notice a cancel."""
    end = time.monotonic() + seconds
    while True:
        if cancelled():
            raise Fault("cancelled", "stopped waiting because the call was cancelled")
        left = end - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, NOTICE_SECONDS))
