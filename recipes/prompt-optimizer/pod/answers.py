"""What the language models answered, by request: all that a run cannot make again by itself.

MIPROv2 keeps nothing of a run. But each of its choices follows from its seed and from the answers, so a run
that begins anew with the answers of the one before goes the same way, and asks nothing until it is where that
one was.
"""

import hashlib
import json
import threading

from hob_pod import Fault

#: Most bytes of answers that a session keeps, as they are in its checkpoints: a checkpoint may have 256 MiB.
BYTES_MAX = 64 << 20


class Answers:
    """Texts by the digest of what was asked. Read from any thread, written by one.

    `lines` is them all as they go into a checkpoint, a JSON `[key, text]` each: only what is new is ever put
    into it.
    """

    def __init__(self, most=BYTES_MAX, lines=b""):
        self.most = most
        self.lines = bytearray(lines)
        self.texts = dict(map(json.loads, lines.splitlines()))

    def get(self, key):
        return self.texts.get(key)

    def put(self, key, text):
        """Raises Fault when they are full."""
        line = json.dumps([key, text], ensure_ascii=False).encode() + b"\n"
        size = len(self.lines)
        if size + len(line) > self.most:
            raise Fault(
                "too_large",
                f"the answers are full: {len(self.texts)} have {size} bytes, one more has {len(line)}, and at most {self.most} are kept",
                f"`configure` with more `answers_bytes` (at most {BYTES_MAX}), or with fewer trials, candidates or examples; "
                "what is there is kept and used",
                {"answers": len(self.texts), "bytes": size, "most": self.most},
            )
        self.lines += line
        self.texts[key] = text


def digest(value):
    """A key: the SHA-256 of a JSON value, however its objects were ordered."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:40]


class Samples:
    """Which sample of its answers a request wants: the first time it is asked the first, then the next, and
    so on.

    With a temperature of 0 there is one. A request that is asked twice within one evaluation (two examples
    with the same inputs) gets the same sample, so that the number does not depend on which of the threads of
    an evaluation came first; everything else happens one after the other.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.evaluation = None  # which one runs, if one does
        self.seen = {}  # request -> (how often it was asked before, in which evaluation last)

    def next(self, request, temperature):
        if temperature == 0:
            return 0
        with self.lock:
            number, last = self.seen.get(request, (-1, None))
            if last is None or last != self.evaluation:
                number += 1
            self.seen[request] = (number, self.evaluation)
            return number
