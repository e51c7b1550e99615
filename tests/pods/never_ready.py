#!/usr/bin/env -S python3 -B
"""Says hello and started, and then never `ready`. It answers pings.

Expected: `start_timeout` (or `deadline`, if the call's is shorter); with the last lines of stderr.
"""

import sys

import raw

pod = raw.Pod()
pod.hello()
pod.receive_start()
pod.receive_load()
sys.stderr.write("never_ready: waiting for a licence server\n")
sys.stderr.flush()
raw.fired(__file__)
pod.listen()
