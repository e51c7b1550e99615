#!/usr/bin/env -S python3 -B
"""Sends half of an answer's frame and dies of SIGSEGV.

Expected: `crashed` with signal 11; the next call gets a new pod.
"""

import ctypes
import sys

import raw

pod = raw.Pod()
pod.ready()
ask, _ = pod.ask()
sys.stderr.write("segfaults_mid_answer: about to read address 0\n")
sys.stderr.flush()
raw.fired(__file__)
pod.data.send_bytes(raw.HEADER.pack(1000, 0, ask) + b'{"type":"answer",')
ctypes.string_at(0)
