#!/usr/bin/env -S python3 -B
"""Ends with code 3 before it says anything.

Expected: `crashed` (exit code 3) for the call that started it.
"""

import sys

import raw

sys.stderr.write("exits_before_hello: no device found\n")
raw.fired(__file__)
sys.exit(3)
