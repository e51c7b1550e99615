"""A language model for tests: an OpenAI-compatible server on loopback whose answers follow from the request
alone.

It sorts letters of customers and knows what they are about. What it does not know, but for one, is how the
topics are called: it takes that from the instructions or from demonstrations, and otherwise says it in its
own words, which is wrong. Letters that mention two things it gets right only with two demonstrations or more.
So instructions and demonstrations both count, as they do with a real one. What has a riddle in it is beyond
it, and then it does not keep to the form. Asked for instructions it proposes some of different worth, which
one follows from the request.
"""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: What letters are about, by a word in them, and what that is called. The second of two is what it is taken
#: for if in doubt.
TOPICS = {"parcel": "delivery", "invoice": "billing", "password": "access", "crash": "defect"}

OPENINGS = ["Hello,", "Dear all,", "To whom it may concern:", "Hi there,", "Good morning,", "Please help:", "Once more:", "Sorry, but"]

PROPOSALS = [
    "Sort the letter.",
    "Name the topic of the letter as briefly as you can.",
    "Choose delivery or billing.",
    "Choose delivery, billing or access.",
    "Choose delivery, billing, access or defect.",
    "You are a careful clerk. Read the letter twice.",
]

#: Most requests that one server answers, and largest body: a test that runs away ends.
REQUESTS_MAX = 20_000
BODY_BYTES_MAX = 1 << 20

MARK = re.compile(r"\[\[ ## (\w+) ## \]\]")


def letters(count, first=0):
    """Examples: `letter` and its `topic`. The same numbers give the same letters."""
    made = []
    for number in range(first, first + count):
        word, topic = list(TOPICS.items())[number % len(TOPICS)]
        other = list(TOPICS)[(number + 1 + number // 4 % 3) % len(TOPICS)]
        # Every third one mentions another thing, after what it is about.
        also = f" It has nothing to do with the {other}." if number % 3 == 0 else ""
        made.append({"letter": f"{OPENINGS[number % 7]} number {number} is about the {word}.{also}", "topic": topic})
    return made


def answer(body):
    """The text that answers a request: a function of the request and nothing else."""
    messages = body["messages"]
    system = next((one["content"] for one in messages if one["role"] == "system"), "")
    asked = messages[-1]["content"]
    if "riddle" in asked:
        return "Who knows?"
    wanted = re.findall(r"`\[\[ ## (\w+) ## \]\]`", asked.rpartition("Respond with")[2])
    wanted = [name for name in wanted if name != "completed"]
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    texts = {}
    for name in wanted:
        if name == "topic":
            texts[name] = topic(field(asked, "letter"), system, messages[1:-1])
        elif name == "proposed_instruction":
            texts[name] = PROPOSALS[int(digest[:8], 16) % len(PROPOSALS)]
        else:
            texts[name] = f"Some words on {name} ({digest[:6]})."
    return "\n\n".join(f"[[ ## {name} ## ]]\n{text}" for name, text in texts.items()) + "\n\n[[ ## completed ## ]]"


def topic(letter, system, shown):
    """What it takes a letter for, having been told `system` and shown some."""
    objective = system.rpartition("your objective is:")[2]
    demonstrated = [field(one["content"], "topic") for one in shown if one["role"] == "assistant"]
    known = {"delivery"} | set(re.findall(r"[a-z]+", objective.lower())) | set(demonstrated)
    found = sorted((letter.find(word), name) for word, name in TOPICS.items() if word in letter)
    name = found[0][1] if len(demonstrated) >= 2 else found[-1][1]
    return name if name in known else f"It is about {name}."


def field(text, name):
    parts = MARK.split(text)
    return dict(zip(parts[1::2], parts[2::2]))[name].split("\n\nRespond with")[0].strip()


class LanguageModel:
    """The server. `asked` and `answered` count requests by digest."""

    def __init__(self):
        self.lock = threading.Lock()
        self.asked, self.answered = {}, {}
        self.held = threading.Event()  # a request waits
        self.free = threading.Event()
        self.free.set()
        self.hold_at = None
        self.fault = None  # (status, body) that all are answered with
        self.refused = 0  # how many were
        self.keys = set()  # what requests showed as `authorization`
        self.delay = 0.0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Two writes of an answer and the other end's late word that it has the first would make 40 ms.
            wbufsize = -1
            disable_nagle_algorithm = True

            def do_POST(self):
                owner.serve(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def hold(self, number):
        """The request after so many answers in all waits for `drop`; `held` is set when one does."""
        with self.lock:
            self.held.clear()
            self.free.clear()
            self.hold_at = number

    def drop(self):
        """Those that wait are not answered: whoever asked is gone. All others are from now on."""
        with self.lock:
            self.hold_at = None
            self.free.set()

    def count(self):
        """How many were answered."""
        with self.lock:
            return sum(self.answered.values())

    def forget(self):
        with self.lock:
            self.asked, self.answered = {}, {}
            self.keys = set()

    def twice(self):
        """Digests of requests that were answered more than once."""
        with self.lock:
            return [digest for digest, count in self.answered.items() if count > 1]

    def end(self):
        self.drop()
        self.server.shutdown()
        self.server.server_close()

    def serve(self, handler):
        size = int(handler.headers.get("content-length", 0))
        if handler.path != "/v1/chat/completions" or size > BODY_BYTES_MAX:
            return reply(handler, 404, {"error": {"message": f"no such thing: {handler.path} with {size} bytes"}})
        data = handler.rfile.read(size)
        body = json.loads(data)
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        with self.lock:
            if self.fault is not None:
                self.refused += 1
                return reply(handler, *self.fault)
            self.asked[digest] = self.asked.get(digest, 0) + 1
            self.keys.add(handler.headers.get("authorization"))
            waits = self.hold_at is not None and sum(self.answered.values()) >= self.hold_at
            if sum(self.asked.values()) > REQUESTS_MAX:
                return reply(handler, 500, {"error": {"message": "more requests than any test has"}})
        if waits:
            self.held.set()
            self.free.wait()
            handler.close_connection = True
            return None
        if self.delay:
            threading.Event().wait(self.delay)
        with self.lock:
            self.answered[digest] = self.answered.get(digest, 0) + 1
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer(body)}}
        return reply(handler, 200, {"id": digest[:12], "object": "chat.completion", "model": body["model"], "choices": [choice]})


def reply(handler, status, value):
    data = json.dumps(value).encode()
    try:
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)
        handler.wfile.flush()
    except OSError:
        pass  # whoever asked was killed
