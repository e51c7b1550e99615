"""A method in C that aborts when it gets no more memory, as C++ does. The pod bounds itself first
(RLIMIT_DATA).

Expected: `crashed` by SIGABRT, with the last words and the stack in the log; the next call gets a new pod.
"""

import ctypes
import os

import raw


class Pod:
    def load(self, models):
        raw.bound_memory()

    def run(self, input):
        c = ctypes.CDLL(None)
        c.malloc.restype = ctypes.c_void_p
        while c.malloc(ctypes.c_size_t(16 << 20)):
            pass
        raw.fired(__file__)
        os.write(2, b"dies_of_memory: std::bad_alloc\n")
        c.abort()
