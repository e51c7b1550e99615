"""Pieces of the recipe `prompt-optimizer` that know nothing of a host. Run by its tests, in its environment:
FILE, what `get_optimized` gave."""

import json
import random
import sys
import unittest

import dspy
import endpoints
import programs
from answers import Answers, Samples, digest
from hob_pod import Fault


class Kept(unittest.TestCase):
    def test_answers_are_counted_and_full_at_their_bound(self):
        answers = Answers(2 * len(b'["a", "four"]\n'))
        answers.put("a", "four")
        answers.put("b", "\n\u00fc")  # four bytes as JSON
        self.assertEqual(len(answers.lines), answers.most)
        with self.assertRaises(Fault) as raised:
            answers.put("c", "")
        self.assertEqual((raised.exception.code, raised.exception.detail["answers"]), ("too_large", 2))
        self.assertEqual((answers.get("b"), answers.get("c")), ("\n\u00fc", None))
        again = Answers(1000, bytes(answers.lines))
        self.assertEqual((again.texts, again.lines), (answers.texts, answers.lines))

    def test_a_key_is_of_all_and_of_no_order(self):
        self.assertEqual(digest({"a": 1, "b": [2]}), digest({"b": [2], "a": 1}))
        self.assertNotEqual(digest({"a": 1, "b": [2]}), digest({"a": 1, "b": [3]}))

    def test_samples_do_not_depend_on_who_comes_first_in_an_evaluation(self):
        def numbers(shuffled):
            samples, found = Samples(), []
            for evaluation in (None, None, 0, 1, None, 2):
                samples.evaluation = evaluation
                asked = ["a", "b", "a", "c"]
                shuffled.shuffle(asked)
                found.append(sorted((request, samples.next(request, 0.5)) for request in asked))
            return found

        wanted = numbers(random.Random(0))
        self.assertEqual(wanted[0], [("a", 0), ("a", 1), ("b", 0), ("c", 0)])
        self.assertEqual(wanted[2], [("a", 4), ("a", 4), ("b", 2), ("c", 2)])
        self.assertEqual(wanted[3], [("a", 5), ("a", 5), ("b", 3), ("c", 3)])
        for seed in range(1, 20):
            self.assertEqual(numbers(random.Random(seed)), wanted)
        samples = Samples()
        self.assertEqual([samples.next("a", 0), samples.next("a", 0.0)], [0, 0])


class Asked(unittest.TestCase):
    def test_what_a_recipe_is_asked(self):
        values = {"$messages": [1], "$prompt": "p", "$max_tokens": 5}
        template = {"chat": "$messages", "with": {"limit": "$max_tokens", "seed": "$seed"}, "plain": ["$prompt", "$", 3]}
        self.assertEqual(endpoints.fill(template, values), {"chat": [1], "with": {"limit": 5}, "plain": ["p", "$", 3]})

    def test_where_its_answer_is(self):
        value = {"a/b": [{"~": "x"}]}
        self.assertEqual(endpoints.pointed(value, "/a~1b/0/~0"), "x")
        self.assertEqual(endpoints.pointed("x", ""), "x")
        for nowhere in ("/a", "/a~1b/1", "/a~1b/z", "/a~1b/0/~0/y"):
            self.assertIsNone(endpoints.pointed(value, nowhere))


class Judged(unittest.TestCase):
    def test_metrics(self):
        for kind, wanted, found, score in [
            ("exact", "A  b", "a b ", 1),
            ("exact", "a b", "the a b", 0),
            ("words", "The cat.", "cat", 1),
            ("contains", "Paris", "It is paris.", 1),
            ("contains", "Paris", "Rome", 0),
            ("f1", "red cat", "the red dog", 0.5),
            ("f1", "red red cat", "red", 0.5),
            ("f1", "red", "blue", 0),
            ("f1", "", "", 1),
        ]:
            self.assertAlmostEqual(programs.METRICS[kind](wanted, found), score, msg=(kind, wanted, found))

    def test_fields(self):
        self.assertEqual(programs.fields("a,  b_2 -> c"), [["a", "b_2"], ["c"]])
        for wrong in ("a", "a -> b -> c", "a -> a", "-> a", "a -> B", "a -> class", "a -> demos", "a -> b: int", "a -> __import__('os')"):
            with self.assertRaises(Fault):
                programs.fields(wrong)


class Found(unittest.TestCase):
    def test_dspy_itself_takes_what_was_found(self):
        """A program of dspy's that loads the state asks as `render` does."""
        found = json.loads(open(FILE).read())
        program = dspy.Predict(found["program"]["signature"])
        program.load_state(found["dspy"])
        inputs = {"letter": "Hello, where is it?"}
        messages = dspy.ChatAdapter().format(program.signature, program.demos, inputs)
        self.assertEqual(messages, programs.messages(found["program"], inputs))
        self.assertIn(found["program"]["instructions"], messages[0]["content"])


if __name__ == "__main__":
    FILE = sys.argv.pop()
    unittest.main()
