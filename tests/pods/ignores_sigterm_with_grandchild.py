#!/usr/bin/env -S python3 -B
"""Busy, deaf to SIGTERM, SIGINT, SIGHUP, drain and the end of its lanes, with a grandchild that left the
process group and the session (double fork, setsid) and is as deaf.

The input's `pids` names a file: it receives `pid grandchild` in one line once both run. Expected: when the
host is killed, no process of the two is left within 2 s; when the call is cancelled, the same.
"""

import os
import signal
import time

import raw

for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
pod = raw.Pod()
pod.hello()
pod.receive_start()
pod.receive_load()
pod.control.send({"type": "ready"})
ask, given = pod.ask()
read, write = os.pipe()
middle = os.fork()
if middle == 0:
    os.setsid()
    grandchild = os.fork()
    if grandchild == 0:
        os.write(write, str(os.getpid()).encode())
        while True:
            time.sleep(3600)
    os._exit(0)
os.waitpid(middle, 0)
grandchild = int(os.read(read, 32))
raw.fired(__file__, grandchild)
with open(given["pids"] + ".new", "w") as file:
    file.write(f"{os.getpid()} {grandchild}\n")
os.rename(given["pids"] + ".new", given["pids"])
while True:
    pass
