#!/usr/bin/env -S python3 -B
"""Closes the data lane alone on the first ask; the control lane still answers pings.

Expected: `crashed` (or `protocol_violation`) at once, not at the deadline; the process is ended.
"""

import socket
import time

import raw

pod = raw.Pod()
pod.ready()
pod.ask()
raw.fired(__file__)
pod.data.socket.shutdown(socket.SHUT_RDWR)
pod.data.socket.close()
time.sleep(3600)
