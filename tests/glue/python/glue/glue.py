"""Glue in Python: finds the words of a text and lets the pod count them."""

import json
import os
import random
import socket
import sys
import time

import wit_world
from componentize_py_types import Err
from split import split
from wit_world.imports import faults, log, output, pod


def prints():
    print("said on stdout")
    print("said on stderr", file=sys.stderr)


def throws():
    print("about to fail", file=sys.stderr)
    raise ValueError("it went wrong")


def refuses():
    raise Err(faults.Fault("too_many_words", "more words than there may be", "send fewer", '{"most": 3}'))


def spins():
    while True:
        pass


def fills():
    kept = []
    while True:
        kept.append(bytearray(1 << 20))


def sleeps():
    before = time.monotonic()
    time.sleep(3600)
    return time.monotonic() - before


def system():
    def tried(deed):
        try:
            return repr(deed())
        except OSError as error:
            return type(error).__name__

    return {
        "variables": len(os.environ),
        "arguments": sys.argv[1:],
        "passwd": tried(lambda: open("/etc/passwd").read()),
        "write": tried(lambda: open("/tmp/x", "w")),
        "socket": tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)),
        "name": tried(lambda: socket.getaddrinfo(b"localhost", 80)),
    }


DEEDS = {
    "print": prints,
    "throw": throws,
    "refuse": refuses,
    "spin": spins,
    "fill": fills,
    "sleep": sleeps,
    "clock": lambda: [time.time(), time.time()],
    "random": lambda: [random.random(), os.urandom(4).hex()],
    "environment": system,
}


class WitWorld(wit_world.WitWorld):
    def run(self, request):
        given = json.loads(request.input)
        if request.operation == "run":
            return wit_world.Response(json.dumps(DEEDS[given]()), [])
        words = split(given["text"])
        log.write("info", f"{len(words)} words")
        call = pod.start(request.operation, json.dumps({"words": words}), [])
        event = output.forward(call) if request.operation == "kinds" else call.next()
        return wit_world.Response(event.data, event.blobs)
