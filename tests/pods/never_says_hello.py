#!/usr/bin/env -S python3 -B
"""Starts and says nothing at all.

Expected: `start_timeout`.
"""

import time

time.sleep(3600)
