"""If an author's code cannot be interrupted, the runner answers for it and the pod ends: no caller waits for
ever."""

import unittest

from .fake_host import Pod

SOURCE = """
import asyncio, sys, threading, time
import hob_pod

def deaf(*_):
    while True:
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            pass

class DeafText(Exception):
    __str__ = deaf

class DeafAttribute(hob_pod.Fault):
    __getattribute__ = deaf

class DeafArray:
    tolist = deaf

class Pod:
    if MISDEED == "construct":
        def __init__(self):
            raise DeafText

    def text(self, input):
        raise DeafText("x")

    def attribute(self, input):
        raise DeafAttribute("recipe_failed", "x")

    def cause(self, input):
        raise ValueError("x") from DeafText("x")

    def report(self, input):
        hob_pod.progress(array=DeafArray())

    async def text_async(self, input):
        raise DeafText("x")

    def chunks(self, input):
        yield 1
        raise DeafText("x")

    def many(self, inputs):
        raise DeafText("x")

    def between(self, input):
        sys.stderr = None

    def echo(self, input):
        return input

    def nap(self, input):
        time.sleep(input)
        return input
"""
ONES = ("text", "attribute", "cause", "report", "text_async", "chunks")
OPERATIONS = {**{name: name == "chunks" for name in (*ONES, "echo", "nap")}, "many": "batch"}


class Stuck(unittest.TestCase):
    concurrency = 1

    def make(self, misdeed=None):
        pod = Pod(f"MISDEED = {misdeed!r}\n" + SOURCE, OPERATIONS, concurrency=self.concurrency)
        self.addCleanup(pod.close)
        return pod

    def test_its_caller_is_answered_and_the_pod_ends_with_the_reason(self):
        pods = {}
        for name in ONES:
            pod = pods[name] = self.make().ready()
            pod.last = pod.ask(name)
        for name, pod in pods.items():
            frame, _ = pod.answer(pod.last)
            fault = frame.message["fault"]
            self.assertEqual(fault["code"], "recipe_failed", name)
            self.assertIn("went on although it was interrupted", fault["message"])
            self.assertIn(fault["detail"]["type"], ("DeafText", "DeafAttribute", "DeafArray", "str", "dict"), name)
            self.assertEqual(pod.wait(), 70)
            self.assertIn(b"this pod ends", pod.output["stderr"])
            self.assertIn(b"in deaf", pod.output["stderr"])

    def test_a_batch_is_told_as_one_that_failed_as_a_whole(self):
        pod = self.make().ready()
        asks = pod.batch("many", [1, 2])
        self.assertTrue(all(answer["whole_batch"] for answer in pod.answers(asks).values()))
        self.assertEqual(pod.wait(), 70)


class StuckAmongOthers(Stuck):
    concurrency = 2

    def test_a_neighbour_is_waited_for(self):
        pod = self.make().ready()
        deaf, neighbour = pod.ask("text"), pod.ask("nap", 8)
        found = pod.answers([deaf, neighbour])
        self.assertEqual(found[deaf]["fault"]["code"], "recipe_failed")
        self.assertEqual(found[neighbour]["output"], 8)
        self.assertEqual(pod.wait(), 70)


class StuckAtItsStart(unittest.TestCase):
    def test_the_start_fails_and_is_told(self):
        pod = Pod("MISDEED = 'construct'\n" + SOURCE, OPERATIONS)
        self.addCleanup(pod.close)
        pod.hello()
        fault = pod.start().message["fault"]
        self.assertEqual(fault["code"], "import_failed")
        self.assertIn("went on although it was interrupted", fault["message"])
        self.assertEqual(pod.wait(), 70)


if __name__ == "__main__":
    unittest.main()
