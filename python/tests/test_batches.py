"""Batches: one run of the method for many asks, and each ask's own answer."""

import unittest

from .fake_host import Pod, until

SOURCE = """
import asyncio, time
import hob_pod

class Numbers(list):
    "Stands for an array: it is converted by its `tolist`."
    def tolist(self):
        return list(self)

class Liar(list):
    "Says of itself that it has two items, and gives one."
    def __len__(self):
        return 2
    def __iter__(self):
        return iter(["said"])

class LiarInTuples(tuple):
    __len__, __iter__ = Liar.__len__, Liar.__iter__

class SaysItIsOne:
    __class__ = list
    def __len__(self):
        return 2

class Pod:
    calls = 0

    def double(self, inputs):
        self.calls += 1
        return [2 * n for n in inputs]

    def picky(self, inputs):
        results = []
        for n in inputs:
            if n == 13:
                results.append(ValueError(f"{n} is unlucky"))
            elif n == 14:
                results.append(hob_pod.Fault("invalid_input", "no fourteens", hint="try 15"))
            elif n == 15:
                results.append(float("nan"))
            elif n == 16:
                results.append("x" * 20_000)
            elif n == 17:
                results.append((None, {"a": hob_pod.Blob(b"1")}))
            else:
                results.append(n)
        return results

    def brittle(self, inputs):
        if 13 in inputs:
            raise KeyError("13")
        return inputs

    def strange(self, inputs):
        return {"short": inputs[1:], "text": "text", "none": None, "dict": {}, "generator": (n for n in inputs),
                "tuple": tuple(inputs), "array": Numbers(inputs), "liar": Liar(inputs), "liar, a tuple": LiarInTuples(inputs),
                "shorter than it says": Liar(inputs[1:]), "longer than it says": Liar(inputs * 2),
                "says it is one": SaysItIsOne()}[inputs[0]]

    async def nap(self, inputs):
        await asyncio.sleep(0.001)
        if 13 in inputs:
            raise KeyError("13")
        return inputs

    def slow(self, inputs):
        try:
            hob_pod.progress(size=len(inputs))
            time.sleep(inputs[0])
        finally:
            self.last = [hob_pod.cancelled(), hob_pod.time_left()]
        return inputs

    async def slow_async(self, inputs):
        await asyncio.sleep(inputs[0])
        return inputs

    def leave(self, inputs):
        raise SystemExit(9)

    def alone(self, input):
        return [self.calls, getattr(self, "last", None)]
"""
OPERATIONS = {
    **dict.fromkeys(("double", "picky", "brittle", "strange", "nap", "slow", "slow_async", "leave"), "batch"),
    "alone": False,
}


class Batches(unittest.TestCase):
    concurrency = 1

    def setUp(self):
        self.pod = Pod(SOURCE, OPERATIONS, concurrency=self.concurrency).ready(frame_bytes_max=10_000)
        self.addCleanup(self.pod.close)

    def run_batch(self, operation, inputs):
        """Runs a batch; returns the messages that answer its items, in their order."""
        asks = self.pod.batch(operation, inputs)
        found = self.pod.answers(asks)
        return [found[ask] for ask in asks]

    def test_one_call_answers_every_item(self):
        for size in (1, 2, 200):
            answers = self.run_batch("double", list(range(size)))
            self.assertEqual([answer["output"] for answer in answers], [2 * n for n in range(size)])
        self.assertEqual(self.pod.call("alone")[0], 3)
        answers = self.run_batch("nap", [1, 2])
        self.assertEqual([answer["output"] for answer in answers], [1, 2])

    def test_a_bad_item_is_that_items_fault(self):
        answers = self.run_batch("picky", [1, 13, 2, 14, 15, 16, 17, 3])
        codes = [answer.get("fault", {}).get("code", answer.get("output")) for answer in answers]
        wanted = [1, "recipe_failed", 2, "invalid_input", "invalid_output", "too_large", "recipe_failed", 3]
        self.assertEqual(codes, wanted)
        self.assertFalse([answer for answer in answers if "whole_batch" in answer])
        self.assertIn("`picky` raised ValueError: 13 is unlucky", answers[1]["fault"]["message"])
        self.assertEqual(answers[3]["fault"]["hint"], "try 15")

    def test_what_the_method_raises_is_the_fault_of_the_whole_batch(self):
        for operation in ("brittle", "nap"):
            answers = self.run_batch(operation, [1, 13, 2])
            for answer in answers:
                self.assertEqual((answer["fault"]["code"], answer["whole_batch"]), ("recipe_failed", True))
                self.assertEqual(answer["fault"]["detail"]["type"], "KeyError")
            self.assertEqual([a["output"] for a in self.run_batch(operation, [1, 2])], [1, 2])

    def test_a_result_that_is_no_list_of_the_same_length_is_everybodys_fault_but_not_to_bisect(self):
        for kind in (
            "short", "text", "none", "dict", "generator", "shorter than it says", "longer than it says", "says it is one"
        ):  # fmt: skip
            answers = self.run_batch("strange", [kind, 2])
            for answer in answers:
                self.assertEqual(answer["fault"]["code"], "recipe_failed", kind)
                self.assertIn("wanted a list of 2", answer["fault"]["message"])
                self.assertNotIn("whole_batch", answer)
        for kind in ("tuple", "array", "liar", "liar, a tuple"):
            self.assertEqual([a["output"] for a in self.run_batch("strange", [kind, 2])], [kind, 2])

    def test_an_operation_that_is_not_there_is_no_reason_to_bisect(self):
        for answer in self.run_batch("nothing", [1, 2]):
            self.assertEqual(answer["fault"]["code"], "operation_not_found")
            self.assertNotIn("whole_batch", answer)

    def test_a_batch_is_cancelled_only_when_all_its_items_are(self):
        for operation in ("slow", "slow_async"):
            asks = self.pod.batch(operation, [0.3, 1, 2])
            self.assertTrue(until(lambda asks=asks: self.pod.in_hand() == asks))
            self.pod.control.send({"type": "cancel", "ask": asks[1]})
            found = self.pod.answers(asks)
            self.assertEqual(found[asks[1]]["fault"]["code"], "cancelled")
            self.assertEqual([found[asks[0]]["output"], found[asks[2]]["output"]], [0.3, 2])
        # A thread that sleeps in native code cannot be interrupted, so its batch is short.
        for operation, seconds in (("slow", 3600 if self.concurrency == 1 else 2), ("slow_async", 3600)):
            asks = self.pod.batch(operation, [seconds, 1, 2])
            self.assertTrue(until(lambda asks=asks: self.pod.in_hand() == asks))
            if operation == "slow":  # its first line runs
                self.assertEqual([self.pod.data.receive().message["type"] for _ in asks], ["progress"] * 3)
            for ask in asks:
                self.pod.control.send({"type": "cancel", "ask": ask})
            for answer in self.pod.answers(asks).values():
                self.assertEqual(answer["fault"]["code"], "cancelled")
                self.assertNotIn("whole_batch", answer)
        self.assertIs(self.pod.call("alone")[1][0], True)

    def test_an_item_that_was_cancelled_before_its_batch_began_is_left_out(self):
        first = self.pod.batch("slow", [0.2])
        second = self.pod.batch("double", [1, 2, 3])
        third = self.pod.batch("double", [4])
        for ask in (second[1], *third):
            self.pod.control.send({"type": "cancel", "ask": ask})
        found = self.pod.answers(first + second + third)
        if self.concurrency == 1:  # otherwise they began before the cancel
            self.assertEqual(found[second[0]]["output"], 2)
            self.assertEqual(found[second[2]]["output"], 6)
            for ask in (second[1], *third):
                self.assertEqual(found[ask]["fault"]["code"], "cancelled")
            self.assertEqual(self.pod.call("alone")[0], 1)
        self.assertEqual(self.pod.word(0), self.pod.asked)

    def test_progress_is_told_to_every_item_and_the_time_left_is_the_nearest(self):
        asks = self.pod.batch("slow", [0, 1])
        seen = [self.pod.data.receive() for _ in range(4)]
        self.assertEqual([(f.message["type"], f.ask) for f in seen[:2]], [("progress", ask) for ask in asks])
        self.assertEqual({f.message["type"] for f in seen[2:]}, {"answer"})
        left = self.pod.call("alone")[1]
        self.assertFalse(left[0])
        self.assertTrue(50 < left[1] <= 60, left)

    def test_a_batch_by_another_name_or_without_items_ends_the_pod_loudly(self):
        self.pod.ask("double", 1)
        self.assertEqual(self.pod.wait(), 70)
        self.assertIn(b"`ask` is not how the operation `double` is asked", self.pod.output["stderr"])
        pod = Pod(SOURCE, OPERATIONS, concurrency=self.concurrency).ready()
        self.addCleanup(pod.close)
        pod.batch("alone", [1])
        self.assertEqual(pod.wait(), 70)

    def test_an_exit_in_a_batch_is_every_callers_fault_and_ends_nothing(self):
        for answer in self.pod.answers(self.pod.batch("leave", [1, 2])).values():
            self.assertEqual((answer["fault"]["code"], answer["fault"]["detail"]["exit_code"]), ("recipe_failed", 9))
        self.assertIsNotNone(self.pod.call("alone", 1))


class BatchesAtOnce(Batches):
    """The same with threads and tasks."""

    concurrency = 3


class Declared(unittest.TestCase):
    def test_a_batch_operation_with_blobs_is_refused_at_the_start(self):
        pod = Pod("class Pod:\n    def run(self, inputs, blobs): pass\n", {"run": "batch"})
        self.addCleanup(pod.close)
        pod.hello()
        message = pod.start().message
        self.assertEqual((message["type"], message["fault"]["code"]), ("failed", "import_failed"))
        self.assertIn("takes blobs", message["fault"]["message"])


if __name__ == "__main__":
    unittest.main()
