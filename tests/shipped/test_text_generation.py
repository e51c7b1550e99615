"""Text of tiny models that the test makes, from the recipe `text-generation`: it streams, stops, and says
what is wrong.

It needs an environment of 6 GB, so only `make test-torch` runs it: HOB_TEST_TORCH names the home where
`packages::torch` of the Rust tests has built it.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

from generator_texts import TEXTS
from harness import PATIENCE, ROOT, Failed, Hob, Server, alone, changed, interpreter, say

HOME = Path(os.environ.get("HOB_TEST_TORCH") or ROOT / "target/tmp/torch-home")
RECIPE = "hob/text-generation"

#: Tokens are drawn almost evenly from 257, so that with this seed the end comes after hundreds.
LONG = {"prompt": "a", "max_new_tokens": 400, "temperature": 100, "seed": 5}


class Generated(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not os.environ.get("HOB_TEST_TORCH"):
            say("SKIPPED: torch is large; `make test-torch` runs this")
            raise unittest.SkipTest("no torch")
        cls.place = Path(tempfile.mkdtemp(prefix="hob-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.place)
        # Of so little several threads only wait for each other, on a machine that is busy.
        words = {'"/srv/models"': json.dumps(str(cls.place)), "[pod]": "[pod]\nthreads = 1"}
        cls.recipe = changed("text-generation", **words)
        cls.addClassCleanup(shutil.rmtree, cls.recipe.parent)
        cls.hob = Hob(HOME)
        cls.hob.environment["TEXT_MODEL"] = str(cls.place / "learnt")
        # As if somebody had read nothing: no permission, no model. Builds the environment.
        with cls.assertRaises(cls(), Failed) as failed:
            cls.hob.call(cls.recipe, "describe", {})
        cls.nothing = failed.exception
        command = [interpreter("torch", HOME), Path(__file__).parent / "generator_model.py", cls.place]
        subprocess.run(command, check=True, timeout=PATIENCE, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
        cls.server = Server(cls.hob, cls.recipe)
        cls.addClassCleanup(lambda: cls.server.end())

    def generate(self, **input):
        chunks, output = self.hob.lines(RECIPE, "generate", input)
        self.assertEqual("".join(chunk["text"] for chunk in chunks), output["text"])
        counts = [chunk["tokens"] for chunk in chunks]
        self.assertEqual(counts, sorted(counts))
        self.assertLessEqual(max(counts, default=0), output["usage"]["completion_tokens"])
        return chunks, output

    def pods(self):
        return [pod["incarnation"] for pod in self.hob.run("pods", RECIPE)]

    def serve(self, model):
        """Another model, as an operator does it."""
        self.server.end()
        self.hob.environment["TEXT_MODEL"] = model
        self.server.begin()
        self.addCleanup(self.serve_learnt)

    def serve_learnt(self):
        self.server.end()
        self.hob.environment["TEXT_MODEL"] = str(self.place / "learnt")
        self.server.begin()

    def test_without_permission_it_says_what_to_do(self):
        self.assertEqual(self.nothing.code, "model_missing")
        self.assertIn("TEXT_MODEL", self.nothing.fault["message"])
        self.assertIn("hob grant", self.nothing.fault["hint"])

    def test_a_text_goes_on_character_by_character(self):
        begun, rest = TEXTS[0][:9], TEXTS[0][9:]
        chunks, output = self.generate(prompt=begun)
        self.assertEqual(output["text"], rest)
        # One chunk for each character, however many tokens it is; the last token is the end.
        self.assertEqual([chunk["text"] for chunk in chunks], list(rest))
        self.assertEqual(output["finish_reason"], "stop")
        usage = {"prompt_tokens": len(begun.encode()), "completion_tokens": len(rest.encode()) + 1}
        self.assertEqual(output["usage"], usage)
        self.assertEqual(set(output), {"text", "finish_reason", "usage"})

    def test_a_chat_is_answered(self):
        said = {"role": "user", "content": "Wie geht's?"}
        self.assertEqual(self.generate(messages=[said])[1]["text"], "Schön, danke 🙂")
        self.assertEqual(self.generate(messages=[{"role": "system", "content": "Kurz."}, said])[1]["text"], "Gut.")
        with self.assertRaises(Failed) as failed:
            self.generate(messages=[{"role": "parrot", "content": "Hello"}])
        self.assertEqual(failed.exception.code, "invalid_input")
        self.assertIn("no role parrot", failed.exception.fault["message"])

    def test_a_stop_ends_it_and_is_not_told(self):
        begun = TEXTS[1][:12]
        self.assertEqual(begun, "Once upon a ")
        for stop, wanted in [(["STOP"], "time "), (["STOPPED", " there"], "time STOP"), (["STOPPED"], "time STOP there was a host. ")]:
            chunks, output = self.generate(prompt=begun, stop=stop)
            self.assertEqual((output["text"], output["finish_reason"]), (wanted, "stop"))
        _, output = self.generate(prompt=begun, stop=["nowhere", "again.."])
        self.assertEqual(output["text"], TEXTS[1][12:])

    def test_length_is_kept_and_half_a_character_told_at_last(self):
        begun = TEXTS[0][:12]
        # `fährt 🚲`: what follows `fähr` is `t`, a space, and a character of four tokens.
        _, output = self.generate(prompt=begun, max_new_tokens=4)
        self.assertEqual((output["text"], output["finish_reason"]), (TEXTS[0][12:14] + "\N{REPLACEMENT CHARACTER}", "length"))
        self.assertEqual(output["usage"]["completion_tokens"], 4)
        # The context has 512 tokens.
        _, output = self.generate(prompt="x" * 509)
        self.assertLessEqual(output["usage"]["completion_tokens"], 3)
        with self.assertRaises(Failed) as failed:
            self.generate(prompt="x" * 512)
        self.assertEqual(failed.exception.code, "invalid_input")
        self.assertIn("512 tokens", failed.exception.fault["message"])

    def test_a_seed_draws_the_same_and_chance_does_not(self):
        drawn = {"prompt": "a", "max_new_tokens": 40, "temperature": 100}
        first = self.generate(**drawn, seed=1)
        self.assertEqual(self.generate(**drawn, seed=1), first)
        self.assertEqual(first[1]["seed"], 1)
        _, one = self.generate(**drawn)
        _, other = self.generate(**drawn)
        self.assertNotEqual(one["text"], other["text"])
        # What chance drew can be had again.
        self.assertEqual(self.generate(**drawn, seed=one["seed"])[1], one)
        # So hot everything is as likely; of one token there is no choice.
        likeliest = self.generate(prompt=TEXTS[0][:9])[1]["text"]
        for narrow in ({"top_k": 1}, {"top_p": 1e-9}):
            self.assertEqual(self.generate(prompt=TEXTS[0][:9], temperature=100, **narrow)[1]["text"], likeliest)

    def test_cancelled_it_stops_and_the_pod_goes_on(self):
        chunks, output = self.generate(**LONG)
        self.assertGreater(output["usage"]["completion_tokens"], 100)
        before = self.pods()
        process = self.hob.start("call", RECIPE, "generate", json.dumps(LONG), "--stream", "--json")
        self.assertEqual(json.loads(process.stdout.readline()), {"chunk": chunks[0]})
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, 9)
        told = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(told[-1]["fault"]["code"], "cancelled")
        # What came until then is what comes without a cancel, and not all of it.
        self.assertEqual([line["chunk"] for line in told[:-1]], chunks[1 : len(told)])
        self.assertLess(len(told), len(chunks))
        # It did not have to be ended for that: the model is still loaded.
        self.assertEqual(self.generate(prompt=TEXTS[0][:9])[1]["finish_reason"], "stop")
        self.assertEqual(self.pods(), before)

    def test_it_says_what_is_loaded(self):
        told = self.hob.call(RECIPE, "describe", {})
        self.assertGreater(told.pop("parameters"), 100_000)
        wanted = {"model": "learnt", "architecture": "GPT2LMHeadModel", "device": "cpu", "dtype": "float32", "context": 512, "chat": True}
        self.assertEqual(told, wanted)

    def test_another_model_or_a_broken_one(self):
        self.serve("/somewhere/else")
        with self.assertRaises(Failed) as failed:
            self.hob.call(RECIPE, "describe", {})
        self.assertEqual(failed.exception.code, "model_missing")
        self.assertIn("/somewhere/else", failed.exception.fault["message"])
        self.serve(str(self.place / "halved"))
        with self.assertRaises(Failed) as failed:
            self.hob.call(RECIPE, "describe", {})
        self.assertEqual(failed.exception.code, "recipe_failed")
        self.assertIn(str(self.place / "halved"), failed.exception.fault["message"])
        self.serve(str(self.place / "untaught"))
        self.assertFalse(self.hob.call(RECIPE, "describe", {})["chat"])
        with self.assertRaises(Failed) as failed:
            self.generate(messages=[{"role": "user", "content": "Hello"}])
        self.assertEqual(failed.exception.code, "invalid_input")
        self.assertIn("no chat template", failed.exception.fault["message"])

    def test_by_itself(self):
        said = alone("torch", "text-generation", "generator_alone.py", self.place, home=HOME)
        self.assertIn("Ran 9 tests", said)


if __name__ == "__main__":
    unittest.main()
