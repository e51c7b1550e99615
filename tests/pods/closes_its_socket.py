#!/usr/bin/env -S python3 -B
"""Closes both lanes on the first ask and lives on.

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
pod.control.socket.shutdown(socket.SHUT_WR)
time.sleep(3600)
