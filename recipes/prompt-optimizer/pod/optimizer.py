"""A session that improves a prompt: takes examples, runs MIPROv2 over them, and returns instructions and
demonstrations.

The state is small and complete: the examples, the configuration, the answers of the language models so far,
and the result once there is one. Everything else of a run follows from these (`answers`), so a pod that
begins with them and is asked to optimize again ends where the earlier pod would have.
"""

import json

import dspy
import programs
from answers import BYTES_MAX, Answers
from endpoints import Endpoint
from hob_pod import Fault, checkpoint
from programs import listed, wrong
from runs import Run, language_model

#: The version of the state's form.
FORM = 1

#: Most bytes of all examples, as JSON: they are in each checkpoint.
EXAMPLES_BYTES_MAX = 32 << 20

#: Most examples of either kind.
EXAMPLES_MAX = 10_000

#: Share of all examples that MIPROv2 takes for validation if none were set aside for it: its own rule.
VALIDATION_SHARE = 0.8
VALIDATION_MAX = 1000

DEFAULTS = {
    "metric": "exact",
    "candidates": 6,
    "trials": 10,
    "bootstrapped_demos": 4,
    "labeled_demos": 4,
    "demo_score": 1.0,
    "minibatch": 35,
    "full_every": 5,
    "seed": 9,
    "threads": 1,
    "answers_bytes": BYTES_MAX,
}

# dspy's cache would be on a disk that is deleted with the pod, and would answer requests whose answers must
# be kept.
dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)


class Optimizer:
    """The operations of `hob/prompt-optimizer`."""

    def __init__(self):
        self.examples = self.validation = self.settings = self.result = None
        self.answers = Answers()
        # the part of the last checkpoint before the answers, and the objects that it was made of
        self.head = None

    # --- the session's operations, in the order in which they are called

    def load_trainset(self, input, blobs):
        """Takes the examples. The configuration for earlier examples is dropped; answers are kept."""
        rows = {}
        for name in ("examples", "validation"):
            if name in input and name in blobs:
                raise wrong(f"`{name}` is in the input and a blob, wanted one of them")
            rows[name] = read_lines(blobs[name].data, name) if name in blobs else input.get(name)
        examples, validation = rows["examples"], rows["validation"]
        if examples is None:
            raise wrong(f"no `examples` in the input, and of blobs {listed(blobs)}", "`hob call ... --blob examples=FILE.jsonl`")
        for name, rows in (("examples", examples), ("validation", validation or [])):
            for number, row in enumerate(rows):
                if sorted(row) != sorted(examples[0]):
                    text = f"`{name}/{number}` has {listed(row)}; the first example has {listed(examples[0])}"
                    raise wrong(text, "give all the same fields")
        size = len(json.dumps([examples, validation], ensure_ascii=False).encode())
        if size > EXAMPLES_BYTES_MAX:
            raise too_large(f"{size} bytes as JSON")
        if validation is None and len(examples) < 2:
            raise wrong("1 example without `validation`; wanted 2 or more, of which some are set aside to judge by")
        self.examples, self.validation, self.settings, self.result = examples, validation, None, None
        checkpoint(force=True)
        trained, judged = self._split()
        return {"examples": len(trained), "validation": len(judged), "fields": sorted(examples[0])}

    def configure(self, input):
        """Sets what to optimize, with which language models and how. A result is dropped unless nothing
        changed."""
        if self.examples is None:
            raise self._order("configure", "load_trainset")
        settings = {**DEFAULTS, **input}
        program = {name: settings.pop(name) for name in ("signature", "style", "instructions") if name in settings}
        settings["program"] = program
        programs.check_examples(program["signature"], self.examples, "examples")
        programs.check_examples(program["signature"], self.validation or [], "validation")
        if settings["labeled_demos"] and not settings["bootstrapped_demos"]:
            raise wrong("`bootstrapped_demos` of 0 with `labeled_demos`: MIPROv2 wants 1 or more, or 0 of both")
        for name in ("language_model", "prompt_model"):
            check_place(settings.get(name), name)
        there = len(self.answers.lines)
        if there > settings["answers_bytes"]:
            raise wrong(f"`answers_bytes` of {settings['answers_bytes']} is less than the {there} that are there")
        if settings != self.settings:
            self.settings, self.result = settings, None
        self.answers.most = settings["answers_bytes"]
        checkpoint(force=True)
        return self.status({})

    def optimize(self, input):
        """Yields each candidate as a chunk, unless `chunks` is false; returns the result."""
        if self.settings is None:
            raise self._order("optimize", "configure")
        asked = replayed = 0
        if self.result is None:
            trained, judged = self._split()
            run = Run(self.settings, self._endpoints(), (trained, judged, len(judged)), self.answers)
            steps = run.go()
            while True:
                try:
                    candidate = next(steps)
                except StopIteration as ended:
                    program, score, state = ended.value
                    break
                if input.get("chunks", True):
                    yield candidate
            self.result = {"program": program, "score": score, "dspy": state, "candidates": run.candidates}
            asked, replayed = run.asked, run.replayed
            checkpoint(force=True)
        elif input.get("chunks", True):
            yield from self.result["candidates"]
        return {**self._scores(), "asked": asked, "replayed": replayed}

    def get_optimized(self, input):
        """Returns the program that was found."""
        if self.result is None:
            raise self._order("get_optimized", "optimize")
        return {"program": self.result["program"], "dspy": self.result["dspy"], **self._scores(), "seed": self.settings["seed"]}

    def predict(self, input):
        """Returns the outputs for some inputs, of the program that was found or of the one that it began
        with."""
        if self.settings is None:
            raise self._order("predict", "configure")
        if self.result is None and not input.get("original"):
            raise self._order("predict", "optimize")
        program = self.settings["program"] if input.get("original") else self.result["program"]
        programs.check_inputs(program["signature"], input["inputs"])
        outputs = programs.fields(program["signature"])[1]
        model = language_model(self._endpoints()[0], _ask)
        try:
            with dspy.context(lm=model, disable_history=True):
                found = programs.build(program)(**input["inputs"])
        except _Failed as failed:
            raise failed.fault from None
        except Exception as error:
            text = f"the answer of the language model cannot be read: {type(error).__name__}: {str(error)[:1000]}"
            raise Fault("recipe_failed", text, "a more able one, or more `max_tokens`") from None
        answer = {"outputs": {name: str(found.get(name) or "") for name in outputs}}
        if program.get("style") == "chain_of_thought":
            answer["reasoning"] = str(found.get("reasoning") or "")
        return answer

    def status(self, input):
        """Returns how far the session is, and what it keeps."""
        stage = "empty" if self.examples is None else "loaded" if self.settings is None else "optimized" if self.result else "configured"
        answers = {"count": len(self.answers.texts), "bytes": len(self.answers.lines), "most": self.answers.most}
        status = {"stage": stage, "answers": answers}
        if self.examples is not None:
            trained, judged = self._split()
            status |= {"examples": len(trained), "validation": len(judged)}
        if self.settings is not None:
            status["configuration"] = self.settings
        return status | (self._scores() if self.result else {})

    # --- without a session

    def render(self, input):
        """Returns the messages with which a program asks a language model: a caller who can send these needs
        no dspy."""
        return {"messages": programs.messages(input["program"], input["inputs"])}

    # --- its state

    def checkpoint(self):
        """Returns a line of JSON with everything but the answers, then a line for each answer."""
        parts = (self.examples, self.validation, self.settings, self.result)
        # None of these objects is ever changed in place, and the examples may be long.
        if self.head is None or any(one is not other for one, other in zip(parts, self.head[0])):
            names = ("examples", "validation", "settings", "result")
            self.head = parts, json.dumps({"form": FORM, **dict(zip(names, parts))}, ensure_ascii=False).encode() + b"\n"
        return self.head[1] + self.answers.lines

    def restore(self, state):
        head, _, lines = bytes(state).partition(b"\n")
        head = json.loads(head)
        if head["form"] != FORM:
            raise Fault("recipe_failed", f"the session's state has the form {head['form']}, wanted {FORM}")
        self.examples, self.validation = head["examples"], head["validation"]
        self.settings, self.result = head["settings"], head["result"]
        self.answers = Answers(self.settings["answers_bytes"] if self.settings else BYTES_MAX, lines)

    # --- apart

    def _split(self):
        """Returns the examples to learn from, and the examples to judge by."""
        if self.validation is not None:
            return self.examples, self.validation
        judged = min(VALIDATION_MAX, max(1, int(len(self.examples) * VALIDATION_SHARE)))
        return self.examples[:-judged], self.examples[-judged:]

    def _endpoints(self):
        places = [self.settings["language_model"], self.settings.get("prompt_model")]
        return [Endpoint(place) for place in places if place]

    def _scores(self):
        candidates = self.result["candidates"]
        return {"score": self.result["score"], "baseline": candidates[0]["score"], "candidates": len(candidates)}

    def _order(self, operation, before):
        return wrong(f"`{operation}` before `{before}`: this session has {self.status({})['stage']!r}", f"call `{before}` first")


def read_lines(data, name):
    """Returns the examples of a text with lines of JSON. Raises Fault."""
    if len(data) > EXAMPLES_BYTES_MAX:
        raise too_large(f"{len(data)} bytes in the blob `{name}`")
    rows = []
    for number, line in enumerate(bytes(data).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise wrong(f"line {number} of the blob `{name}` is no JSON: {error}", "wanted an object in each line") from None
        if not isinstance(row, dict) or len(row) < 2 or not all(isinstance(value, str) for value in row.values()):
            raise wrong(f"line {number} of the blob `{name}` is {line[:80]!r}; wanted an object of two texts or more")
        rows.append(row)
        if len(rows) > EXAMPLES_MAX:
            raise too_large(f"more than {EXAMPLES_MAX} lines in the blob `{name}`")
    if not rows:
        raise wrong(f"the blob `{name}` has no examples", "wanted an object of texts in each line")
    return rows


def too_large(found):
    return Fault("too_large", f"the examples have {found}; at most {EXAMPLES_MAX} with {EXAMPLES_BYTES_MAX} bytes are taken")


class _Failed(BaseException):
    """A language model cannot be asked. Not an Exception, which dspy would try to work around."""

    def __init__(self, fault):
        self.fault = fault


def _ask(endpoint, body):
    try:
        return endpoint.ask(body)
    except Fault as fault:
        raise _Failed(fault) from None


def check_place(place, name):
    """Raises Fault if the settings of a language model are incomplete."""
    if place is None:
        return
    wanted = ("recipe", "operation") if place.get("kind") == "recipe" else ("model",)
    for key in wanted:
        if key not in place:
            kind = place.get("kind", "openai")
            raise wrong(f"`{name}` of kind `{kind}` lacks `{key}`", f"wanted {listed(('url', *wanted))}")
