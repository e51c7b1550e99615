#!/usr/bin/env -S python3 -B
"""Double-forks a grandchild that holds both lanes and both pipes open, then exits with code 5 in the middle
of an ask.

Expected: `crashed` (exit code 5) at once, not at the deadline, although no lane and no pipe ended; the
grandchild is killed with the rest of the tree.
"""

import os
import time

import raw

pod = raw.Pod()
pod.ready()
pod.ask()
read, write = os.pipe()
middle = os.fork()
if middle == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(write, str(os.getpid()).encode())
        while True:
            time.sleep(3600)
    os._exit(0)
os.waitpid(middle, 0)
raw.fired(__file__, int(os.read(read, 32)))
os._exit(5)
