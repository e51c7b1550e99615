#!/usr/bin/env -S python3 -B
"""Speaks at full speed and reads nothing but its asks: the input names the message, how many of it, and a
file to write.

Expected: whatever it says, what the host keeps for it stays small. When all is said, or nothing of it was
taken for a while, it writes how many were into the file, and goes on. Messages that the host answers end it
as `protocol_violation`; all others are taken, or wait in this process.
"""

import json
import os
import select
import sys

import raw

#: Nothing taken for so long, in seconds: the host has stopped reading.
STUCK = 1
#: A report or a chunk of so many bytes, which is a hundred times as large for who makes values of it.
TREE = '[{"":0}' + ',{"":0}' * 500_000 + "]"
SMALL_TREE = '[{"":0}' + ',{"":0}' * 7_000 + "]"


def message(say, n, ask):
    """Lane, frames."""
    control, data = "control", "data"
    if say == "rooms":
        return control, [frame({"type": "room", "bytes": 1}), frame({"type": "dropped", "regions": [n + 1]})]
    if say == "refused rooms":
        return control, [frame({"type": "room", "bytes": 1 << 60})]
    if say == "logs":
        return control, [frame({"type": "log", "level": "info", "message": "x" * 100_000})]
    if say == "pongs":
        return control, [frame({"type": "pong", "seq": n, "asks": list(range(50_000))})]
    if say == "progress":
        return data, [text(f'{{"type":"progress","data":{SMALL_TREE}}}', ask)]
    if say == "large progress":
        return data, [text(f'{{"type":"progress","data":{{"a":{TREE}}}}}', ask)]
    if say == "chunks":
        return data, [text('{"type":"chunk","data":"%s"}' % ("x" * (7 << 19)), ask)]
    if say == "chunks of many values":
        return data, [text(f'{{"type":"chunk","data":{TREE}}}', ask)]
    if say == "small chunks":
        return data, [text(f'{{"type":"chunk","data":{n}}}', ask)]
    if say == "padded chunks":
        blobs = [{"name": "b", "media_type": "x/y", "bytes": 1}]
        return data, [text(json.dumps({"type": "chunk", "data": 0, "blobs": blobs, "pad": "x" * (8 << 20)}), ask, b"b")]
    if say == "deep faults":
        fault = f'{{"code":"recipe_failed","message":"no","detail":{TREE}}}'
        who = '"incarnation":"{}"'.format(pod.start["incarnation"])
        return data, [text(f'{{"type":"answer",{who},"fault":{fault}}}', ask)]
    if say == "long lists":
        return control, [text('{"type":"dropped","regions":[0%s]}' % (",0" * 7_000_000), 0)]
    raise SystemExit(say)


def text(words, ask, tail=b""):
    words = words.encode()
    return raw.HEADER.pack(len(words), len(tail), ask) + words + tail


def frame(words):
    return text(json.dumps(words), 0)


def push(lane, piece):
    """Whether all of it was taken."""
    view = memoryview(piece)
    while view:
        if not select.select([], [lane.socket], [], STUCK)[1]:
            return False
        view = view[lane.socket.send(view, 0x40) :]  # MSG_DONTWAIT
    return True


pod = raw.Pod()
features = ["fds", "regions"] + (["credit"] if os.environ.get("CREDIT") else [])
pod.control.send({"type": "hello", "protocol": (1, 1), "features": features, "pid": os.getpid(), "runtime": "raw " + sys.argv[0]})
pod.receive_start()
pod.receive_load()
pod.control.send({"type": "ready"})

def hoard(ask, count):
    """Asks for so many rooms, one after the other, and lets go of none: how many came, and what was said of
    the others."""
    told = {"region": 0, "no_room": 0, "why": None}
    for _ in range(count):
        pod.control.send({"type": "room", "bytes": 1})
        kind = None
        while kind not in ("region", "no_room"):
            message = pod.control.receive()[1]
            kind = message["type"]
            if kind == "ping":
                pod.control.send({"type": "pong", "seq": message["seq"], "asks": [ask]})
        told[kind] += 1
        if kind == "no_room":
            told["why"] = message["why"]
    return told


while True:
    ask, wanted = pod.ask()
    raw.fired(__file__)
    if wanted["say"] == "hoard":
        pod.answer(ask, hoard(ask, wanted["count"]))
        continue
    sent, stuck = 0, False
    while sent < wanted["count"] and not stuck:
        lane, frames = message(wanted["say"], sent, ask)
        stuck = not all(push(getattr(pod, lane), piece) for piece in frames)
        sent += 0 if stuck else 1
    with open(wanted["file"] + ".half", "w") as mark:
        mark.write(f"{sent} {'stuck' if stuck else 'all'}")
    os.rename(wanted["file"] + ".half", wanted["file"])
    if stuck:
        select.select([], [], [])  # for ever, in the middle of a frame
    if wanted["say"] != "deep faults":
        pod.answer(ask, {"sent": sent})
