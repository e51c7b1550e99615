#!/usr/bin/env -S python3 -B
"""Starts and says nothing at all.

Expected: `start_timeout`.
"""

import time

import raw

raw.fired(__file__)
time.sleep(3600)
