"""The two ways to a language model: an OpenAI-compatible server, or a recipe behind the HTTP door of a host
of Hob.

It handles only requests and texts. Every failure is a Fault that names the server, its answer, and the next
step.
"""

import json
import os
import time

import requests
from hob_pod import Fault

#: Largest answer that is read, in bytes.
ANSWER_BYTES_MAX = 1 << 20

#: Statuses that pass by themselves: the server is busy, or is starting.
PASSING = (408, 429, 500, 502, 503, 504)

#: Longest wait before another try, in seconds, whatever the server asks for.
WAIT_MAX = 30

#: How a recipe is asked and where its answer is, unless the configuration says otherwise.
RECIPE_ASK = {"messages": "$messages"}
RECIPE_ANSWER = "/text"

#: Fields of a request besides model and messages.
PARAMETERS = ("temperature", "max_tokens", "seed", "top_p", "stop", "response_format")


class Endpoint:
    """One language model, as `configure` names it."""

    def __init__(self, place):
        self.place = place
        self.url = place["url"].rstrip("/")
        self.kind = place.get("kind", "openai")
        self.model = place.get("model") or place["recipe"]
        #: The fields that distinguish its answers from those of another endpoint; the key is not one of them.
        self.identity = {name: value for name, value in place.items() if name not in ("key", "tries", "timeout_s")}
        self.http = requests.Session()

    def fresh(self):
        """Returns the same endpoint with a connection of its own, for another thread."""
        return Endpoint(self.place)

    def ask(self, body, stopped=lambda: False):
        """Returns the text of an answer. Raises Fault."""
        tries = self.place.get("tries", 4)
        for attempt in range(tries):
            try:
                # A text that UTF-8 cannot represent (half of a pair of surrogates) can be neither kept nor
                # sent.
                return self._ask(body).encode(errors="replace").decode()
            except _Passing as passing:
                if attempt + 1 == tries or stopped():
                    raise passing.fault from None
                wait = min(passing.wait if passing.wait is not None else 0.25 * 2**attempt, WAIT_MAX)
            _sleep(wait, stopped)
        raise AssertionError("`tries` is 1 or more")

    def _ask(self, body):
        if self.kind == "recipe":
            filled = {"$" + name: value for name, value in body.items()}
            filled["$prompt"] = "\n\n".join(message["content"] for message in body["messages"])
            call = {"recipe": self.place["recipe"], "operation": self.place["operation"]}
            call["input"] = fill(self.place.get("ask", RECIPE_ASK), filled)
            return self._outcome(self._post("/v1/calls", call))
        return self._completion(self._post("/chat/completions", body))

    def _post(self, path, body):
        url = self.url + path
        headers = {"content-type": "application/json"}
        name = self.place.get("key")
        if name:
            if name not in os.environ:
                raise self._wrong(
                    "unauthorized",
                    f"the variable `{name}`, which has the key of {self.url}, is not there",
                    f"`hob grant hob/prompt-optimizer env={name}`, and set it where the host runs",
                )
            headers["authorization"] = f"Bearer {os.environ[name]}"
        try:
            seconds = self.place.get("timeout_s", 120)
            with self.http.post(
                url, data=json.dumps(body).encode(), headers=headers, timeout=(10, seconds), stream=True, allow_redirects=False
            ) as answer:
                data = _read(answer)
        except requests.exceptions.RequestException as error:
            raise _Passing(self._wrong("unreachable", f"{url} cannot be reached: {_short(error)}", _way_out(url))) from None
        if data is None:
            raise self._wrong("malformed", f"{url} answered with more than {ANSWER_BYTES_MAX} bytes")
        if answer.status_code == 200:
            return data
        said = " ".join(data.decode(errors="replace").split())[:300] or answer.reason
        text = f"{url} answered {answer.status_code}: {said}"
        detail = {"status": answer.status_code}
        if answer.status_code in PASSING:
            after = answer.headers.get("retry-after", "")
            fault = self._wrong("busy", text, "call again later: what was answered is kept", **detail)
            raise _Passing(fault, int(after) if after.isdigit() else None)
        if answer.status_code in (401, 403, 407):
            raise self._wrong("unauthorized", text, f"look at `key` and at what it may do; {_way_out(url)}", **detail)
        raise self._wrong("refused", text, "look at `url`, `model` and the settings, then call again: what was answered is kept", **detail)

    def _completion(self, data):
        try:
            choice = json.loads(data)["choices"][0]
            text = choice["message"]["content"]
        except (ValueError, LookupError, TypeError):
            text = None
        if not isinstance(text, str):
            raise self._wrong(
                "malformed", f"{self.url} gave no text at `choices[0].message.content`: {data[:200].decode(errors='replace')}"
            )
        return text

    def _outcome(self, data):
        lines = data.decode(errors="replace").strip().splitlines()
        try:
            last = json.loads(lines[-1]) if lines else {}
        except ValueError:
            last = {}
        if last.get("event") == "fault":
            fault = last["fault"]
            passes = fault.get("retry_after") is not None or fault.get("code") in ("crashed", "overloaded", "cooling_down")
            wrong = self._wrong("refused", f"{self.place['recipe']} at {self.url} failed: {fault.get('code')}: {fault.get('message')}")
            raise _Passing(wrong) if passes else wrong
        if last.get("event") != "outcome":
            raise _Passing(self._wrong("malformed", f"{self.url} broke off before the outcome of its call"))
        at = self.place.get("answer", RECIPE_ANSWER)
        text = pointed(last["output"], at)
        if not isinstance(text, str):
            raise self._wrong("malformed", f"the answer of {self.place['recipe']} has no text at `{at}`", "say where it is in `answer`")
        return text

    def _wrong(self, why, message, hint=None, **detail):
        return Fault("recipe_failed", message, hint, {"language_model": why, "url": self.url, **detail})


class _Passing(Exception):
    """A failure that may be over at the next try."""

    def __init__(self, fault, wait=None):
        self.fault = fault
        self.wait = wait


def fill(template, values):
    """Returns a copy of a JSON value in which each text that is a key of `values` is replaced by its value; a
    field without a value is left out."""
    if isinstance(template, dict):
        return {name: fill(value, values) for name, value in template.items() if not _is_empty(value, values)}
    if isinstance(template, list):
        return [fill(value, values) for value in template]
    return values.get(template, template) if isinstance(template, str) else template


def _is_empty(value, values):
    return isinstance(value, str) and value[:1] == "$" and value[1:] in PARAMETERS and value not in values


def pointed(value, pointer):
    """Returns the value that a JSON pointer leads to, or None."""
    for part in pointer.split("/")[1:]:
        try:
            value = value[int(part) if isinstance(value, list) else part.replace("~1", "/").replace("~0", "~")]
        except (LookupError, ValueError, TypeError):
            return None
    return value


def _read(answer):
    data = bytearray()
    for piece in answer.iter_content(65536):
        data += piece
        if len(data) > ANSWER_BYTES_MAX:
            return None
    return bytes(data)


def _short(error):
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return str(error)[:200] or type(error).__name__


def _way_out(url):
    host = requests.utils.urlparse(url)
    port = host.port or (443 if host.scheme == "https" else 80)
    return f"is it there, and may this recipe reach it? `hob grant hob/prompt-optimizer network={host.hostname}:{port}`"


def _sleep(seconds, stopped):
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not stopped():
        time.sleep(min(left, 0.2))
