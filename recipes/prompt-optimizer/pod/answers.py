"""The answers of the language models, by request: everything that a run cannot compute again by itself.

MIPROv2 keeps nothing of a run. But each of its choices follows from its seed and from the answers. So a run
that starts with the answers of an earlier run takes the same way, and asks nothing until it is where the
earlier run was.
"""

import hashlib
import json
import threading

from hob_pod import Fault

#: Most bytes of answers that a session keeps, in the form that checkpoints have: a checkpoint may have 256
#: MiB.
BYTES_MAX = 64 << 20


class Answers:
    """Texts by the digest of their request. Read from any thread, written by one.

    `lines` has all of them in the form for a checkpoint, a JSON `[key, text]` each; it only grows.
    """

    def __init__(self, most=BYTES_MAX, lines=b""):
        self.most = most
        self.lines = bytearray(lines)
        self.texts = dict(map(json.loads, lines.splitlines()))

    def get(self, key):
        return self.texts.get(key)

    def put(self, key, text):
        """Adds an answer. Raises Fault if the answers are full."""
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
    """Returns a key: the SHA-256 of a JSON value, independent of the order in its objects."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:40]


class Samples:
    """Chooses the sample of its answers that a request gets: on the first time the first, then the next, and
    so on.

    With a temperature of 0 there is only one. If a request is asked twice within one evaluation (two examples
    with the same inputs), both get the same sample, so that the number does not depend on which thread of an
    evaluation came first. Everything else happens in sequence.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.evaluation = None  # the evaluation that runs, or None
        self.seen = {}  # request -> (number of its last sample, its last evaluation)

    def next(self, request, temperature):
        if temperature == 0:
            return 0
        with self.lock:
            number, last = self.seen.get(request, (-1, None))
            if last is None or last != self.evaluation:
                number += 1
            self.seen[request] = (number, self.evaluation)
            return number
