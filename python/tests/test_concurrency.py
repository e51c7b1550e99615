"""Several asks at once: threads and tasks, each with its own progress, its own time and its own cancel."""

import random
import time
import unittest

from .fake_host import Pod, until

SOURCE = """
import asyncio, functools, threading, time
import hob_pod

class Pod:
    def __init__(self):
        self.barrier = threading.Barrier(3)
        self.cleaned = 0
        self.stray = 0

    def meet(self, input):
        return self.barrier.wait(10) >= 0 and threading.current_thread() is not threading.main_thread()

    async def meet_async(self, input):
        self.here = getattr(self, "here", 0) + 1
        while self.here < 3:
            await asyncio.sleep(0.001)
        return [id(asyncio.get_running_loop()), threading.get_ident()]

    def meet_lambda(self, input):
        return self.meet_async(input)       # no `async def`, but what it gives is awaited

    def own(self, input):
        for n in range(20):
            hob_pod.progress(who=input, left=hob_pod.time_left())
            time.sleep(0.001)
        return input

    async def own_async(self, input):
        def inner():
            hob_pod.progress(who=input, left=hob_pod.time_left())
        for n in range(20):
            inner()
            await asyncio.sleep(0.001)
        await asyncio.gather(asyncio.sleep(0), asyncio.to_thread(inner) if hasattr(asyncio, "to_thread") else asyncio.sleep(0))
        return input

    def stream(self, input):
        for n in range(50):
            yield [input, n]
        return input

    def lost(self, input):
        thread = threading.Thread(target=lambda: hob_pod.progress(lost=True))
        thread.start(); thread.join()
        return [hob_pod.cancelled(), hob_pod.time_left() > 1]

    def spin(self, input):
        try:
            while True:
                pass
        finally:
            self.cleaned += 1

    def chatty(self, input):
        try:
            while True:
                hob_pod.progress(text="p" * 200_000)
        finally:
            self.cleaned += 1

    def swallow(self, input):
        try:
            while True:
                time.sleep(0.001)
        except BaseException:
            self.cleaned += 1
        return "of a cancelled ask"

    def cooperate(self, input):
        while True:
            try:
                while not hob_pod.cancelled():
                    time.sleep(0.001)
                self.cleaned += 1
                return "gave up"
            except hob_pod.Cancelled:
                pass

    async def nap(self, input):
        try:
            await asyncio.sleep(3600)
        finally:
            self.cleaned += 1

    async def nap_stream(self, input):
        try:
            while True:
                yield 1
                await asyncio.sleep(0.001)
        finally:
            self.cleaned += 1

    def nap_lambda(self, input):
        return self.nap(input)

    def short(self, input):
        end = time.perf_counter() + input["us"] / 1e6
        while time.perf_counter() < end:
            time.sleep(0)       # lets the control thread run; it would wait 5 ms for a busy one
        return input["n"]

    def short_stream(self, input):
        end = time.perf_counter() + input["us"] / 1e6
        while time.perf_counter() < end:
            time.sleep(0)
            yield "x" * 100
        return input["n"]

    def short_lambda(self, input):
        return self.short_async(input)

    async def short_async(self, input):
        await asyncio.sleep(input["us"] / 1e6)
        return input["n"]

    def raising(self, input):
        try:
            self.short(input)
        finally:
            raise hob_pod.Cancelled     # by hand, while the real one may be on its way

    def cleaned_up(self, input):
        return self.cleaned

    def leave(self, input):
        raise SystemExit(5)

    async def leave_async(self, input):
        raise SystemExit(6)

    def deaf(self, input):
        time.sleep(input)
        return input
"""
STREAMS = ("stream", "nap_stream", "short_stream")
OPERATIONS = {
    line.split("def ")[1].split("(")[0]: line.split("def ")[1].split("(")[0] in STREAMS
    for line in SOURCE.splitlines()
    if line.startswith(("    def ", "    async def ")) and "__init__" not in line
}


class Concurrency(unittest.TestCase):
    def make(self, concurrency=3):
        pod = Pod(SOURCE, OPERATIONS, concurrency=concurrency).ready()
        self.addCleanup(pod.close)
        return pod

    def test_threads_and_tasks_run_at_the_same_time(self):
        pod = self.make()
        found = pod.answers([pod.ask("meet") for _ in range(3)])
        self.assertEqual([m.get("output") for m in found.values()], [True] * 3, found)
        found = pod.answers([pod.ask(name) for name in ("meet_async", "meet_lambda", "meet_async")])
        outputs = [message["output"] for message in found.values()]
        self.assertEqual(outputs, [outputs[0]] * 3)  # one loop, one thread

    def test_no_more_than_the_places_are_begun_and_in_their_order(self):
        pod = self.make(2)
        asks = [pod.ask("deaf", 0.2) for _ in range(6)]
        self.assertTrue(until(lambda: len(pod.in_hand()) == 2))
        for n in range(0, 6, 2):
            self.assertTrue(until(lambda n=n: pod.word(0) == asks[n + 1], 5))
            self.assertEqual(pod.in_hand(), asks[n : n + 2])
            pod.answers(asks[n : n + 2])

    def test_progress_and_time_left_are_those_of_the_calling_ask(self):
        pod = self.make(4)
        budgets = {}
        for name in ("own", "own_async"):
            for n in (1, 2):
                ask = pod.ask(name, f"{name} {n}", left_ms=n * 100_000)
                budgets[ask] = (f"{name} {n}", n * 100)
        seen, answered = dict.fromkeys(budgets, 0), 0
        while answered < 4:
            frame = pod.data.receive()
            who, most = budgets[frame.ask]
            if frame.message["type"] == "answer":
                self.assertEqual(frame.message["output"], who)
                answered += 1
            else:
                self.assertEqual(frame.message["data"]["who"], who)
                self.assertTrue(most - 50 < frame.message["data"]["left"] <= most)
                seen[frame.ask] += 1
        self.assertGreaterEqual(min(seen.values()), 20)

    def test_a_thread_belongs_to_the_ask_that_started_it(self):
        pod = self.make()
        frame, before = pod.answer(pod.ask("lost"))
        self.assertEqual(frame.message["output"], [False, True])
        self.assertEqual([frame.message["data"] for frame in before], [{"lost": True}])

    def test_streams_interleave_whole_frames(self):
        pod = self.make()
        asks = [pod.ask("stream", n) for n in range(3)]
        counts, answered = dict.fromkeys(asks, 0), 0
        while answered < 3:
            frame = pod.data.receive()
            if frame.message["type"] == "answer":
                self.assertEqual((counts[frame.ask], frame.message["output"]), (50, asks.index(frame.ask)))
                answered += 1
            else:
                self.assertEqual(frame.message["data"], [asks.index(frame.ask), counts[frame.ask]])
                counts[frame.ask] += 1

    def test_every_kind_of_operation_is_cancelled_within_a_second_and_its_neighbour_goes_on(self):
        pod = self.make()
        neighbour = pod.ask("deaf", 4.0)
        for name in ("spin", "swallow", "cooperate", "chatty", "nap", "nap_stream", "nap_lambda"):
            with self.subTest(name):
                before = pod.call_among("cleaned_up", neighbour)
                ask = pod.ask(name)
                self.assertTrue(until(lambda ask=ask: ask in pod.in_hand()))
                time.sleep(0.05)  # the author's code runs; if it sends much, the lane is full
                start = time.monotonic()
                pod.control.send({"type": "cancel", "ask": ask})
                message = pod.answer_among(ask, neighbour)
                self.assertLess(time.monotonic() - start, 1.0)
                self.assertEqual(message["fault"]["code"], "cancelled")
                self.assertEqual(pod.call_among("cleaned_up", neighbour), before + 1)
        self.assertEqual(pod.answers([neighbour])[neighbour], {"type": "answer", "incarnation": "incarnation-1", "output": 4.0})

    def test_a_cancel_never_hits_another_ask(self):
        chance = random.Random(5)
        pod = self.make(3)
        kinds = ("short", "short_async", "short_stream", "short_lambda", "raising")
        cancelled = dict.fromkeys(kinds, 0)
        answered = dict.fromkeys(kinds, 0)
        for n in range(600):
            name = kinds[n % len(kinds)]
            victim = pod.ask(name, {"us": 700, "n": n})
            # Later asks take over the victim's thread; the cancel arrives before, during or after the change.
            others = [pod.ask("short", {"us": 200, "n": -n}) for _ in range(3)]
            time.sleep(chance.random() * 0.002)
            pod.control.send({"type": "cancel", "ask": victim})
            found = pod.answers([victim, *others])
            for ask in others:
                self.assertEqual(found[ask].get("output"), -n, found[ask])
            if "fault" in found[victim]:
                self.assertEqual(found[victim]["fault"]["code"], "cancelled")
                cancelled[name] += 1
            else:
                self.assertEqual(found[victim]["output"], n)
                answered[name] += 1
        # Both outcomes of the race must occur, or this test shows nothing. (Asks that raise by hand never
        # give an output.)
        for name in kinds:
            self.assertGreater(cancelled[name], 10, (cancelled, answered))
            self.assertTrue(answered[name] > 5 or name == "raising", (cancelled, answered))

    def test_waiting_asks_are_cancelled_before_they_start(self):
        pod = self.make(2)
        busy = [pod.ask("deaf", 0.3) for _ in range(2)]
        waiting = [pod.ask("spin"), pod.ask("nap")]
        for ask in waiting:
            pod.control.send({"type": "cancel", "ask": ask})
        found = pod.answers(busy + waiting)
        self.assertEqual([found[ask]["fault"]["code"] for ask in waiting], ["cancelled"] * 2)
        self.assertEqual(pod.call("cleaned_up"), 0)

    def test_an_exit_in_a_thread_or_task_leaves_its_neighbours_alone(self):
        pod = self.make()
        for name, status in (("leave", 5), ("leave_async", 6)):
            neighbour, leaving = pod.ask("deaf", 0.3), pod.ask(name)
            found = pod.answers([neighbour, leaving])
            self.assertEqual(found[neighbour]["output"], 0.3)
            fault = found[leaving]["fault"]
            self.assertEqual((fault["code"], fault["detail"]["exit_code"]), ("recipe_failed", status))

    def test_drain_waits_for_all_in_hand_and_begins_no_more(self):
        pod = self.make(2)
        asks = [pod.ask("deaf", seconds) for seconds in (0.1, 0.4, 0.1)]
        self.assertTrue(until(lambda: len(pod.in_hand()) == 2))
        pod.control.send({"type": "drain"})
        found = pod.answers(asks[:2])
        self.assertEqual([found[ask]["output"] for ask in asks[:2]], [0.1, 0.4])
        self.assertIsNone(pod.data.receive())
        self.assertEqual((pod.wait(), pod.word(0)), (0, asks[1]))

    def test_an_idle_pod_uses_no_cpu(self):
        pod = self.make()
        pod.answers([pod.ask(name, {"us": 100, "n": 1}) for name in ("short", "short_async", "short_lambda")])
        pod.control.send({"type": "exit"})
        pod.wait()
        busy = pod.word(2)
        pod = self.make()
        pod.answers([pod.ask(name, {"us": 100, "n": 1}) for name in ("short", "short_async", "short_lambda")])
        time.sleep(1.0)
        pod.control.send({"type": "exit"})
        pod.wait()
        self.assertLess(pod.word(2) - busy, 100)


if __name__ == "__main__":
    unittest.main()
