"""Tests of the code inside a pod: `python3 -m unittest discover -s python/tests -t python`.

They test the Python half alone, in seconds, with any interpreter from 3.9 on.
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "src"))
