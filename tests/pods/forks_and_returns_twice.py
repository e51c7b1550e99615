"""A method that forks and returns in both processes, as multiprocessing code without its `__main__` guard
does.

Expected: one answer, the parent's; the child can write nothing and is gone before long, and the pod serves
on.
"""

import os

import raw


class Pod:
    def run(self, input):
        child = os.fork()
        if child:
            raw.fired(__file__, child)
            os.waitpid(child, 0)
        return {"pid": os.getpid(), "child": child}
