"""The recipe `prompt-optimizer` against a deterministic language model: it improves a prompt, and a run that
is killed ends as one that is not, without asking again what it was answered."""

import json
import os
import shutil
import signal
import socket
import tempfile
import time
import unittest
from pathlib import Path

from harness import PATIENCE, RECIPES, Failed, Hob, Server, alone, changed, say
from language_model import LanguageModel, answer, letters

RECIPE = "hob/prompt-optimizer"

#: What every run is, unless a test says otherwise. Small, but with all that MIPROv2 does.
SETTINGS = {
    "signature": "letter -> topic",
    "instructions": "What is it about?",
    "candidates": 5,
    "trials": 8,
    "minibatch": 10,
    "full_every": 3,
}
EXAMPLES = {"examples": letters(12), "validation": letters(24, first=100)}

#: Letters that no run has seen.
UNSEEN = letters(16, first=500)

#: After how many answers a run is stopped that is to be killed in the middle.
MIDDLE = 90


def free_port():
    """A port that nothing listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def until(what, seconds=60):
    """Waits until `what()` is true, and gives it."""
    end = time.monotonic() + seconds
    while not (found := what()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s")
        time.sleep(0.02)
    return found


def clerk(place):
    """A recipe that is the same language model: what the optimizer asks through the host."""
    folder = place / "clerk"
    (folder / "pod").mkdir(parents=True)
    shutil.copy(Path(__file__).parent / "language_model.py", folder / "pod")
    (folder / "recipe.toml").write_text("""\
name = "hob/clerk"
version = "0.1.0"
license = "Apache-2.0"
summary = "Sorts letters"
hob = "0.1"
[pod]
runtime = "python"
entry = "clerk:Clerk"
python = ">=3.9"
[operations.reply]
summary = "What follows a chat"
input = { type = "object", required = ["chat"] }
output = { type = "object", required = ["said"] }
""")
    (folder / "pod/clerk.py").write_text("""\
from language_model import answer
class Clerk:
    def reply(self, input):
        return {"said": [answer({"messages": input["chat"], "seed": input.get("seed")})]}
""")
    case = folder / "cases/greeting"
    case.mkdir(parents=True)
    chat = [{"role": "user", "content": "Hello"}]
    (case / "input.json").write_text(json.dumps({"operation": "reply", "input": {"chat": chat}}))
    (case / "output.json").write_text(json.dumps({"said": [answer({"messages": chat, "seed": None})]}))
    return folder


class Optimizer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        place = Path(tempfile.mkdtemp(prefix="hob-test-"))
        cls.addClassCleanup(shutil.rmtree, place)
        cls.model = LanguageModel()
        cls.addClassCleanup(cls.model.end)
        cls.door, cls.nobody = free_port(), free_port()
        ports = {"localhost:8000": cls.model.port, "localhost:8080": cls.door, "localhost:11434": cls.nobody}
        recipe = changed("prompt-optimizer", **{old: f"localhost:{port}" for old, port in ports.items()})
        cls.addClassCleanup(shutil.rmtree, recipe.parent)
        cls.hob = Hob()
        cls.hob.environment |= {"OPENAI_API_KEY": "the key"}
        cls.server = Server(cls.hob, recipe, clerk(place), listen=f"127.0.0.1:{cls.door}")
        cls.addClassCleanup(lambda: cls.server.end())
        # Those of a run that was cut short count as well.
        for session in cls.hob.run("sessions"):
            if session["recipe"] == RECIPE:
                cls.hob.run("sessions", "close", RECIPE, session["name"])
        cls.run_ = f"{os.getpid()}-{int(time.time())}"
        cls.chunks, cls.output, cls.optimized = cls.unbroken()
        cls.total = cls.model.count()

    @classmethod
    def unbroken(cls):
        one = Session(cls, "unbroken")
        cls.addClassCleanup(one.close)
        one.prepare()
        begun = time.monotonic()
        chunks, output = one.optimize()
        say(f"an unbroken run: {time.monotonic() - begun:.1f} s, {cls.model.count()} requests, {one.kept_number()} checkpoints")
        return chunks, output, one.optimized()

    def setUp(self):
        self.model.drop()
        self.model.forget()
        self.model.fault = None
        self.model.delay = 0
        self.session = Session(self, self._testMethodName.removeprefix("test_"))
        self.addCleanup(self.session.close)

    def test_the_program_that_is_found_is_better(self):
        """By the examples that it was judged by, and by others."""
        self.assertGreater(self.output["score"], self.output["baseline"])
        self.assertEqual(self.optimized["score"], max(chunk["score"] for chunk in self.chunks if chunk["kind"] != "minibatch"))
        self.assertEqual(self.chunks[0]["kind"], "baseline")
        self.assertEqual({"baseline", "minibatch", "full"}, {chunk["kind"] for chunk in self.chunks})
        self.assertEqual(sum(chunk["kind"] == "minibatch" for chunk in self.chunks), SETTINGS["trials"])
        self.assertEqual([chunk["candidate"] for chunk in self.chunks], list(range(self.output["candidates"])))
        unbroken = Session(self, "unbroken")
        right = {False: 0, True: 0}
        for original in right:
            for example in UNSEEN:
                outputs = unbroken.call("predict", {"inputs": {"letter": example["letter"]}, "original": original})["outputs"]
                right[original] += outputs["topic"] == example["topic"]
        say(f"of {len(UNSEEN)} letters that it had not seen {right[True]} were sorted right before and {right[False]} after")
        self.assertGreaterEqual(right[False], right[True] + len(UNSEEN) // 3)
        # What `render` makes of the program is what a pod asks with it.
        messages = unbroken.call("render", {"program": self.optimized["program"], "inputs": {"letter": UNSEEN[0]["letter"]}})["messages"]
        self.assertIn(UNSEEN[0]["topic"], answer({"messages": messages}))
        # Optimized again it has nothing to do.
        self.model.forget()
        self.assertEqual(unbroken.optimize(), (self.chunks, {**self.output, "asked": 0, "replayed": 0}))
        self.assertEqual(self.model.count(), 0)
        self.assertEqual(unbroken.optimized(), self.optimized)

    def test_threads_change_nothing(self):
        self.session.prepare(threads=4)
        chunks, _ = self.session.optimize()
        self.assertEqual((chunks, self.session.optimized()), (self.chunks, self.optimized))
        self.assertEqual(self.model.twice(), [])

    def test_another_seed_is_another_run(self):
        self.session.prepare(seed=10)
        chunks, _ = self.session.optimize()
        self.assertNotEqual(chunks, self.chunks)

    def test_samples_are_distinct_and_come_again(self):
        """With a temperature the same letter is asked anew in each evaluation; a run over the same answers
        gives the same."""
        self.session.prepare(threads=3, language_model=self.session.place(temperature=0.7))
        first = self.session.optimize()
        count = self.model.count()
        self.assertGreater(count, self.total)
        self.assertEqual(self.model.twice(), [])
        # Configured otherwise and back: the result is gone, the answers are there.
        self.session.call("configure", self.session.settings(trials=1))
        again = self.session.call("configure", self.session.settings(threads=1, language_model=self.session.place(temperature=0.7)))
        self.assertEqual(again["stage"], "configured")
        chunks, output = self.session.optimize()
        self.assertEqual(chunks, first[0])
        self.assertEqual((output["asked"], self.model.count()), (0, count))

    def test_a_pod_that_is_killed(self):
        process = self.session.halfway(self)
        self.kill_pod()
        chunks, fault = self.session.ended(process)
        self.assertEqual(fault["code"], "crashed")
        self.assertEqual(chunks, self.chunks[: len(chunks)])
        self.assertGreater(len(chunks), 1)
        self.assertLess(len(chunks), len(self.chunks) - 1)
        self.goes_on_to_the_same()

    def test_a_host_that_is_killed(self):
        process = self.session.halfway(self)
        pod = self.pod()
        self.server.kill()
        process.communicate(timeout=PATIENCE)
        self.assertNotEqual(process.returncode, 0)
        until(lambda: not Path(f"/proc/{pod}").exists())
        self.server.begin()
        self.goes_on_to_the_same()

    def test_a_run_without_chunks_is_run_again_by_the_host(self):
        process = self.session.halfway(self, {"chunks": False})
        self.kill_pod()
        self.model.drop()
        chunks, output = self.session.ended(process)
        self.assertEqual(chunks, [])
        self.assertEqual(output["asked"], self.total - MIDDLE)
        self.assertEqual(self.session.optimized(), self.optimized)
        self.assertEqual(self.model.twice(), [])

    def test_a_kill_at_any_time_loses_next_to_nothing(self):
        """Three pods of a run are killed as soon as each has told of two further candidates, with nothing
        held back for them."""
        self.session.prepare(threads=2)
        # Long enough that a run is not over before it is killed.
        self.model.delay = 0.02
        chunks = []
        for kill in (2, 4, 6):
            process = self.session.start({})
            for _ in range(kill):
                chunks.append(json.loads(process.stdout.readline())["chunk"])
            self.kill_pod()
            self.assertEqual(self.session.ended(process)[1]["code"], "crashed")
            self.assertEqual(chunks[-kill:], self.chunks[:kill])
        chunks, _ = self.session.optimize()
        self.assertEqual((chunks, self.session.optimized()), (self.chunks, self.optimized))
        twice = len(self.model.twice())
        say(f"three kills at any time: {twice} of {self.total} requests were answered twice")
        # Between the last candidate and the kill there is one evaluation at most, each time.
        self.assertLess(twice, 3 * len(EXAMPLES["validation"]))

    def test_a_cancelled_run_goes_on(self):
        process = self.session.halfway(self)
        process.send_signal(signal.SIGINT)
        self.assertEqual(self.session.ended(process)[1]["code"], "cancelled")
        self.goes_on_to_the_same()

    def test_through_the_host(self):
        """The language model is a recipe, asked through the HTTP door of the host that the optimizer runs
        in."""
        place = {
            "kind": "recipe",
            "url": f"http://localhost:{self.door}",
            "recipe": "hob/clerk",
            "operation": "reply",
            "ask": {"chat": "$messages", "seed": "$seed"},
            "answer": "/said/0",
            "key": "HOST_TOKEN",
        }
        self.session.prepare(language_model=place)
        self.assertIn("`HOST_TOKEN`", self.session.refused("optimize", {})["message"])
        self.server.end()
        self.hob.environment["HOST_TOKEN"] = (self.hob.home / "state/serve/token").read_text().strip()
        self.server.begin()
        chunks, output = self.session.optimize()
        self.assertGreater(output["score"], output["baseline"])
        self.assertEqual(output["baseline"], self.output["baseline"])
        self.session.call("configure", self.session.settings(language_model={**place, "answer": "/said/1"}))
        self.assertIn("no text at `/said/1`", self.session.refused("optimize", {})["message"])
        self.session.call("configure", self.session.settings(language_model={**place, "recipe": "hob/nobody"}))
        self.assertIn("recipe_not_found", self.session.refused("optimize", {})["message"])

    def test_a_language_model_that_fails(self):
        def failing(place, **more):
            self.session.call("configure", self.session.settings(language_model={**self.session.place(tries=2), **place}, **more))
            fault = self.session.refused("optimize", {})
            self.assertEqual(fault["code"], "recipe_failed")
            return fault["detail"]["language_model"], fault["message"], fault.get("hint", "")

        self.session.call("load_trainset", EXAMPLES)
        why, message, hint = failing({"url": f"http://localhost:{self.nobody}/v1"})
        self.assertIn(why, ("unreachable", "busy"), message)
        self.assertIn(f":{self.nobody}", message + hint)
        why, message, hint = failing({"url": "http://localhost:1/v1"})
        self.assertIn(why, ("unreachable", "unauthorized"), message)
        self.assertIn("network=localhost:1", hint)
        for status, why in [(500, "busy"), (429, "busy"), (401, "unauthorized"), (404, "refused")]:
            self.model.fault = (status, {"error": {"message": "no letters today"}})
            self.assertEqual(failing({})[0], why)
            self.assertIn("no letters today", failing({})[1])
        self.model.fault = (200, {"choices": []})
        self.assertEqual(failing({})[0], "malformed")
        self.assertEqual(self.model.count(), 0)
        # Then it is there again, and nothing has to be said twice.
        self.model.fault = None
        self.session.call("configure", self.session.settings(language_model=self.session.place(key="OPENAI_API_KEY")))
        self.session.optimize()
        self.assertEqual(self.model.keys, {"Bearer the key"})

    def test_a_language_model_that_fails_in_the_middle(self):
        """Nothing is taken for a wrong answer that was none: the run ends, and goes on later."""
        process = self.session.halfway(self)
        self.model.fault = (503, {"error": {"message": "full"}})
        self.model.drop()
        chunks, fault = self.session.ended(process)
        self.assertEqual((fault["code"], fault["detail"]["status"]), ("recipe_failed", 503))
        self.model.fault = None
        self.goes_on_to_the_same()

    def test_what_is_wrong_is_said(self):
        def refused(operation, input, *words):
            fault = self.session.refused(operation, input)
            self.assertEqual(fault["code"], "invalid_input")
            for word in words:
                self.assertIn(word, fault["message"])

        # Not in order.
        self.assertEqual(self.session.call("status", {})["stage"], "empty")
        refused("configure", self.session.settings(), "`configure` before `load_trainset`")
        refused("optimize", {}, "`optimize` before `configure`")
        refused("get_optimized", {}, "`get_optimized` before `optimize`")
        # Examples.
        refused("load_trainset", {"examples": []})
        refused("load_trainset", {"examples": letters(1)}, "1 example without `validation`")
        refused("load_trainset", {"examples": [{"letter": "a", "topic": 1}, {"letter": "a", "topic": "b"}]})
        refused("load_trainset", {"examples": [*letters(2), {"letter": "a", "subject": "b"}]}, "`examples/2`", "`subject`", "`topic`")
        self.session.call("load_trainset", EXAMPLES)
        for lines, words in [
            (b"", "no examples"),
            (b'{"letter": "a", "topic": "b"}\n{"letter": ', "line 2 of the blob `examples` is no JSON"),
            (b'["a", "b"]', "line 1"),
            (b'{"letter": "a", "topic": 3}', "line 1"),
        ]:
            with self.assertRaises(Failed) as failed:
                self.session.load_lines(lines)
            self.assertEqual(failed.exception.code, "invalid_input")
            self.assertIn(words, failed.exception.fault["message"])
        refused("load_trainset", {}, "no `examples`")
        # A configuration.
        refused("configure", self.session.settings(signature="letter -> subject"), "`examples/0`", "lacks `subject`")
        refused("configure", self.session.settings(signature="letter, topic"), "0 `->`")
        refused("configure", self.session.settings(signature="letter -> topic, lm"), "a field `lm`")
        refused("configure", self.session.settings(bootstrapped_demos=0), "`bootstrapped_demos` of 0")
        refused("configure", self.session.settings(language_model={"url": "http://localhost:1"}), "lacks `model`")
        refused("configure", self.session.settings(language_model={"url": "http://localhost:1", "kind": "recipe"}), "lacks `recipe`")
        self.session.call("configure", self.session.settings())
        refused("predict", {"inputs": {"letter": "a"}}, "`predict` before `optimize`")
        refused("predict", {"inputs": {"text": "a"}, "original": True}, "`text`", "wanted `letter`")

    def test_answers_are_bounded(self):
        self.session.prepare(answers_bytes=9_000)
        fault = self.session.refused("optimize", {})
        self.assertEqual(fault["code"], "too_large")
        self.assertIn("at most 9000 are kept", fault["message"])
        status = self.session.call("status", {})
        self.assertLessEqual(status["answers"]["bytes"], 9_000)
        self.assertEqual(status["answers"]["count"], fault["detail"]["answers"])
        # With more room it goes on.
        self.session.call("configure", self.session.settings())
        chunks, output = self.session.optimize()
        self.assertEqual((chunks, self.session.optimized()), (self.chunks, self.optimized))
        self.assertEqual(output["asked"], self.total - status["answers"]["count"])

    def test_reasoning_without_demonstrations(self):
        self.session.prepare(style="chain_of_thought", bootstrapped_demos=0, labeled_demos=0, minibatch=0, trials=6)
        chunks, output = self.session.optimize()
        self.assertEqual([chunk["kind"] for chunk in chunks], ["baseline"] + ["full"] * 6)
        self.assertGreater(output["score"], output["baseline"])
        found = self.session.optimized()
        self.assertEqual((found["program"]["demos"], found["program"]["style"]), ([], "chain_of_thought"))
        said = self.session.call("predict", {"inputs": {"letter": UNSEEN[0]["letter"]}})
        self.assertIn("Some words on reasoning", said["reasoning"])

    def test_examples_come_as_lines_too(self):
        """And more of them than an input may have: each checkpoint is of megabytes then, and there are
        fewer."""
        padding = " And so on." * 2_000
        rows = [{**row, "letter": row["letter"] + padding} for row in letters(300, first=1_000)]
        lines = "\n".join(map(json.dumps, rows)).encode()
        self.assertEqual(self.session.load_lines(lines), {"examples": 60, "validation": 240, "fields": ["letter", "topic"]})
        settings = {"candidates": 3, "trials": 2, "bootstrapped_demos": 1, "labeled_demos": 1, "threads": 2}
        self.session.call("configure", self.session.settings(**settings))
        begun, number = time.monotonic(), self.session.kept_number()
        _, output = self.session.optimize()
        took, number = time.monotonic() - begun, self.session.kept_number() - number
        size = next(one["checkpoint"]["bytes"] for one in self.hob.run("sessions") if one["name"] == self.session.name)
        say(f"{output['asked']} answers of a session of {size / 1e6:.1f} MB: {took:.1f} s, {number} checkpoints")
        self.assertGreater(output["asked"], 240)
        self.assertGreater(size, len(lines))
        # Not one for each answer: that is what their cost decides.
        self.assertLess(number, output["asked"] // 4)

    def test_what_a_language_model_cannot_do_counts_as_wrong(self):
        """However often: the other half of the letters is what the trials are judged by."""
        riddles = [{**row, "letter": row["letter"] + " This is a riddle."} for row in EXAMPLES["validation"]]
        self.session.call("load_trainset", {**EXAMPLES, "validation": EXAMPLES["validation"] + riddles})
        self.session.call("configure", self.session.settings(minibatch=0, trials=4))
        _, output = self.session.optimize()
        self.assertGreater(output["score"], output["baseline"])
        self.assertEqual(output["score"], 50)
        fault = self.session.refused("predict", {"inputs": {"letter": "It is a riddle."}})
        self.assertEqual(fault["code"], "recipe_failed")
        self.assertIn("cannot be read", fault["message"])
        # Instructions that cannot be read are another thing: there is nothing to try.
        self.session.call("configure", self.session.settings(instructions="Solve the riddle."))
        fault = self.session.refused("optimize", {})
        self.assertEqual(fault["code"], "recipe_failed")
        self.assertIn("MIPROv2 ended with", fault["message"])

    def test_cases(self):
        cases = sorted((RECIPES / "prompt-optimizer/cases").iterdir())
        self.assertGreaterEqual(len(cases), 2)
        for case in cases:
            asked = json.loads((case / "input.json").read_text())
            if (case / "fault.json").exists():
                wanted = json.loads((case / "fault.json").read_text())
                self.assertEqual(self.session.refused(asked["operation"], asked["input"])["code"], wanted["code"])
            else:
                wanted = json.loads((case / "output.json").read_text())
                self.assertEqual(self.session.call(asked["operation"], asked["input"]), wanted)

    def test_pieces(self):
        file = self.hob.home / "optimized.json"
        file.write_text(json.dumps(self.optimized))
        said = alone("dspy", "prompt-optimizer", "optimizer_alone.py", file)
        self.assertRegex(said, r"Ran \d+ tests[^\n]*\n\nOK")

    def goes_on_to_the_same(self):
        """What was cut short ends as if it had not been, and nothing that had been answered is asked
        again."""
        self.model.drop()
        before = self.model.count()
        self.assertEqual(before, MIDDLE)
        chunks, output = self.session.optimize()
        self.assertEqual(chunks, self.chunks)
        self.assertEqual(json.dumps(self.session.optimized()), json.dumps(self.optimized))
        self.assertEqual((output["asked"], self.model.count()), (self.total - MIDDLE, self.total))
        self.assertEqual(self.model.twice(), [])

    def pod(self):
        pods = [pod["pid"] for pod in self.hob.run("pods", RECIPE) if pod["in_hand"]]
        self.assertEqual(len(pods), 1)
        return pods[0]

    def kill_pod(self):
        pod = self.pod()
        os.kill(pod, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{pod}").exists())


class Session:
    """One session of the recipe. `of` has `hob`, `model` and `run_`."""

    def __init__(self, of, name):
        self.hob, self.model = of.hob, of.model
        self.name = f"{name[:30]}-{of.run_}"
        self.words = ["--session", self.name]

    def call(self, operation, input):
        return self.hob.call(RECIPE, operation, input, *([] if operation == "render" else self.words))

    def load_lines(self, lines):
        with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
            file.write(lines)
            file.flush()
            return self.hob.run("call", RECIPE, "load_trainset", "{}", *self.words, "--blob", f"examples={file.name}")["output"]

    def place(self, **more):
        return {"url": f"http://localhost:{self.model.port}/v1", "model": "clerk", **more}

    def settings(self, **more):
        return {**SETTINGS, "language_model": self.place(), **more}

    def prepare(self, **more):
        self.call("load_trainset", EXAMPLES)
        self.call("configure", self.settings(**more))

    def optimize(self, **input):
        return self.hob.lines(RECIPE, "optimize", input, *self.words)

    def optimized(self):
        return self.call("get_optimized", {})

    def refused(self, operation, input):
        try:
            found = self.call(operation, input)
        except Failed as failed:
            return failed.fault
        raise AssertionError(f"{operation} gave {found}")

    def start(self, input):
        words = ["call", RECIPE, "optimize", json.dumps(input), "--stream", "--json", *self.words]
        return self.hob.start(*words)

    def halfway(self, test, input=None):
        """A run that waits for its answer number MIDDLE + 1, with all before in a checkpoint."""
        self.prepare()
        self.model.hold(MIDDLE)
        process = self.start(input or {})
        test.addCleanup(process.stdout.close)
        test.addCleanup(process.stderr.close)
        test.assertTrue(self.model.held.wait(60))
        until(lambda: self.kept() == MIDDLE)
        test.assertIsNone(process.poll())
        return process

    def ended(self, process):
        """The chunks that were not read yet, and the output or the fault."""
        out, err = process.communicate(timeout=PATIENCE)
        lines = [json.loads(line) for line in out.splitlines()]
        assert lines, err
        return [line["chunk"] for line in lines[:-1]], lines[-1].get("output", lines[-1].get("fault"))

    def kept(self):
        """Answers in the newest checkpoint on the disk."""
        while True:
            folder, number = self.checkpoint()
            try:
                return len((folder / f"{number}.checkpoint").read_bytes().splitlines()) - 1
            except FileNotFoundError:
                pass  # two more came meanwhile

    def kept_number(self):
        return self.checkpoint()[1]

    def checkpoint(self):
        """Where they are, and the number of the newest."""
        for file in (self.hob.home / "state/sessions").glob("*/session.json"):
            kept = json.loads(file.read_bytes())
            if kept["name"] == self.name:
                return file.parent, kept["checkpoints"][-1]["number"]
        raise AssertionError(f"no session {self.name}")

    def close(self):
        try:
            self.hob.run("sessions", "close", RECIPE, self.name)
        except Failed as failed:
            assert failed.code == "session_not_found", failed


if __name__ == "__main__":
    unittest.main()
