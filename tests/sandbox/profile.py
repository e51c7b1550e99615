#!/usr/bin/env python3
"""Runs a program under a seccomp profile of a container, as the runtime of one would put it on.

Usage: profile.py PROFILE.json [--forbid NAME,NAME] -- PROGRAM [ARGUMENTS]

Only what packaging/container/seccomp.json uses is understood: rules by name, without arguments of the call;
this machine's architecture.
"""

import ctypes
import json
import os
import platform
import re
import struct
import sys

HEADERS = {
    "x86_64": (0xC000003E, ["/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"]),
    "aarch64": (0xC00000B7, ["/usr/include/asm-generic/unistd.h"]),
}
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06


def numbers(paths):
    for path in filter(os.path.exists, paths):
        with open(path) as header:
            return {name: int(n) for name, n in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read())}
    sys.exit("no list of system calls: " + ", ".join(paths))


def program(profile, forbidden):
    arch, paths = HEADERS[platform.machine()]
    known = numbers(paths)
    steps = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, arch), (RETURN, 0, 0, ERRNO | 38), (LOAD, 0, 0, 0)]
    rules = [{"names": forbidden, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}, *profile["syscalls"]]
    for rule in rules:
        assert "args" not in rule, rule
        end = ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else ERRNO | rule["errnoRet"]
        for name in rule["names"]:
            if name in known:
                steps += [(EQUAL, 0, 1, known[name]), (RETURN, 0, 0, end)]
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO", profile["defaultAction"]
    return [*steps, (RETURN, 0, 0, ERRNO | profile["defaultErrnoRet"])]


def put_on(steps):
    libc = ctypes.CDLL(None, use_errno=True)
    raw = b"".join(struct.pack("=HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(raw, len(raw))
    header = struct.pack("@HP", len(steps), ctypes.addressof(buffer))
    for arguments in ((38, 1, 0, 0, 0), (22, 2, ctypes.create_string_buffer(header, len(header)), 0, 0)):
        if libc.prctl(*arguments) != 0:
            sys.exit(f"prctl {arguments[0]}: {os.strerror(ctypes.get_errno())}")


def main(words):
    here = words.index("--")
    options, command = words[1:here], words[here + 1 :]
    with open(words[0]) as file:
        profile = json.load(file)
    forbidden = options[1].split(",") if options[:1] == ["--forbid"] else []
    put_on(program(profile, forbidden))
    os.execvp(command[0], command)


main(sys.argv[1:])
