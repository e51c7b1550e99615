#!/usr/bin/env -S python3 -B
"""Ends with code 0, as if all were well, before it says anything.

Expected: `crashed` (exit code 0, before it was ready) for the call that started it: a good exit code is no
answer.
"""

import sys

import raw

raw.fired(__file__)
sys.exit(0)
