"""Cancelling: it ends the cancelled ask, at once where Python can, and never the next one."""

import random
import time
import unittest

from .fake_host import Pod, until

SOURCE = """
import asyncio, time
import hob_pod

class Pod:
    def __init__(self):
        self.cleaned = 0

    def sleep(self, input):
        try:
            time.sleep(3600)
        finally:
            self.cleaned += 1

    def spin(self, input):
        n = 0
        while True:
            n += 1

    def fail_slowly(self, input):
        class Slow(Exception):
            def __str__(self):
                hob_pod.progress(telling=True)
                while not hob_pod.cancelled():
                    time.sleep(0.001)
                return "told"
        raise Slow()

    async def fail_slowly_async(self, input):
        return self.fail_slowly(input)

    def cooperate(self, input):
        while True:
            try:
                while not hob_pod.cancelled():
                    time.sleep(0.001)
                self.cleaned += 1
                return "gave up"
            except hob_pod.Cancelled:
                pass        # deaf to the interrupt, as native code is

    def swallow(self, input):
        try:
            time.sleep(3600)
        except BaseException:
            pass
        return {"result": "of a cancelled ask"}

    def stream(self, input):
        try:
            while True:
                yield "c" * 1_000_000
        finally:
            self.cleaned += 1

    def chatty(self, input):
        while True:
            hob_pod.progress(text="p" * 1_000_000)

    async def nap(self, input):
        try:
            await asyncio.sleep(3600)
        finally:
            self.cleaned += 1

    async def nap_stream(self, input):
        try:
            while True:
                await asyncio.sleep(0.001)
                yield 1
        finally:
            self.cleaned += 1

    def short(self, input):
        end = time.perf_counter() + input["us"] / 1e6
        while time.perf_counter() < end:
            time.sleep(0)       # lets the control thread run; it would wait 5 ms for a busy one
        return input["n"]

    async def short_async(self, input):
        await asyncio.sleep(input["us"] / 1e6)
        return input["n"]

    def short_stream(self, input):
        end = time.perf_counter() + input["us"] / 1e6
        while time.perf_counter() < end:
            yield "x" * 100
        return input["n"]

    def cleaned_up(self, input):
        return self.cleaned
"""
OPERATIONS = {
    **dict.fromkeys(("sleep", "spin", "cooperate", "swallow", "chatty", "nap", "short", "short_async", "cleaned_up"), False),
    **dict.fromkeys(("fail_slowly", "fail_slowly_async"), False),
    **dict.fromkeys(("stream", "nap_stream", "short_stream"), True),
}


class Cancel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pod = Pod(SOURCE, OPERATIONS).ready()

    @classmethod
    def tearDownClass(cls):
        cls.pod.close()

    def cancel(self, ask):
        self.pod.control.send({"type": "cancel", "ask": ask})

    def test_every_kind_of_operation_is_cancelled_within_a_second(self):
        for name in ("sleep", "spin", "cooperate", "swallow", "stream", "chatty", "nap", "nap_stream"):
            with self.subTest(name):
                before = self.pod.call("cleaned_up")
                ask = self.pod.ask(name)
                self.assertTrue(until(lambda ask=ask: self.pod.in_hand() == [ask]))
                if name in ("stream", "chatty"):
                    time.sleep(0.2)  # the lane is full by now, and the pod waits within a frame
                start = time.monotonic()
                self.cancel(ask)
                frame, _ = self.pod.answer(ask)
                self.assertLess(time.monotonic() - start, 1.0)
                self.assertEqual(frame.message["fault"]["code"], "cancelled")
                cleans_up = name in ("sleep", "cooperate", "stream", "nap", "nap_stream")
                self.assertEqual(self.pod.call("cleaned_up"), before + cleans_up)

    def test_an_ask_that_waits_behind_another_is_cancelled_before_it_starts(self):
        first, second, third = self.pod.ask("sleep"), self.pod.ask("sleep"), self.pod.ask("short", {"us": 0, "n": 3})
        self.cancel(second)
        self.assertTrue(until(lambda: self.pod.in_hand() == [first]))
        self.cancel(first)
        for ask in (first, second):
            self.assertEqual(self.pod.answer(ask)[0].message["fault"]["code"], "cancelled")
        self.assertEqual(self.pod.answer(third)[0].message["output"], 3)

    def test_what_is_cancelled_while_its_fault_is_told_was_cancelled(self):
        for name in ("fail_slowly", "fail_slowly_async"):
            ask = self.pod.ask(name)
            self.assertEqual(self.pod.data.receive().message["data"], {"telling": True})
            self.cancel(ask)
            self.assertEqual(self.pod.answer(ask)[0].message["fault"]["code"], "cancelled")

    def test_a_cancel_for_an_ask_that_is_over_or_unknown_does_nothing(self):
        ask = self.pod.ask("short", {"us": 0, "n": 1})
        self.pod.answer(ask)
        for gone in (ask, 10**12, 0):
            self.cancel(gone)
        self.assertEqual(self.pod.call("short", {"us": 2000, "n": 2}), 2)

    def test_a_cancel_never_hits_the_next_ask(self):
        chance = random.Random(3)
        cancelled = answered = 0
        for n in range(500):
            name = ("short", "short_async", "short_stream")[n % 3]
            victim = self.pod.ask(name, {"us": 300, "n": n})
            # The next ask has been sent already: the cancel arrives before, during or after the change from
            # one to the other.
            following = self.pod.ask("short", {"us": 300, "n": -n})
            time.sleep(chance.random() * 0.0012)
            self.cancel(victim)
            message = self.pod.answer(victim)[0].message
            if "fault" in message:
                self.assertEqual(message["fault"]["code"], "cancelled")
                cancelled += 1
            else:
                self.assertEqual(message["output"], n)
                answered += 1
            self.assertEqual(self.pod.answer(following)[0].message.get("output"), -n)
        # Both outcomes of the race must occur, or this test shows nothing.
        self.assertGreater(cancelled, 20)
        self.assertGreater(answered, 20)


if __name__ == "__main__":
    unittest.main()
