"""A pod to be killed and cancelled while a benchmark looks at the clock.

It stands apart from `recipes/echo` because nobody should ship what does not listen.
"""

import os
import time


class Unruly:
    """The operations of `hob/unruly`."""

    def once(self, input):
        return {"length": len(input["text"])}

    def again(self, input):
        return {"length": len(input["text"])}

    def process(self, input):
        return {"pid": os.getpid()}

    def wait(self, input):
        time.sleep(input["seconds"])
        return {}

    def deaf(self, input):
        end = time.monotonic() + input["seconds"]
        while time.monotonic() < end:
            try:
                time.sleep(0.01)
            except BaseException:  # noqa: B036 - to swallow the cancel is the point
                pass
        return {}
