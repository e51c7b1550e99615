"""Interrupts that an author's code sets up may come at any moment: each caller still has one outcome, in
whole frames.

Signal handlers that raise, and exceptions that threads set in other threads, come thousands of times,
wherever the pod's code is at that moment.
"""

import os
import signal
import unittest

from .fake_host import Pod, until

SOURCE = """
import asyncio, ctypes, os, signal, threading, time
import hob_pod

class Boom(BaseException):
    pass

def throw(thread, kind=Boom):                # as libraries of timeouts do it
    return ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_long(thread), ctypes.py_object(kind))

class Pod:
    def load(self, models):
        self.came = [0, 0]
        self.misdeed = None
        self.kept = 0

    def _handler(self, number, frame):
        self.came[0] += 1
        if self.misdeed == "handlers_report":
            hob_pod.progress(at="handler")
            return
        raise Boom

    def begin(self, input):
        self.misdeed = input
        main = threading.get_ident()
        if input == "handlers_raise" or input == "handlers_report":
            signal.signal(signal.SIGUSR2, self._handler)
            self._thread(lambda: os.kill(os.getpid(), signal.SIGUSR2))
        elif input == "keyboard":
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._thread(lambda: os.kill(os.getpid(), signal.SIGINT))
        elif input == "threads_set_exceptions":
            self._thread(lambda: throw(main))
        return signal.getsignal(signal.SIGUSR2) == self._handler

    def _thread(self, deed):
        def run():
            while self.misdeed:
                deed()
                self.came[1] += 1
                time.sleep(0.0002)
        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def end(self, input):
        while True:
            try:
                self.misdeed = None
                self.thread.join()
                return self.came
            except (Boom, KeyboardInterrupt):
                pass

    def echo(self, input):
        return input

    def fail(self, input):
        raise ValueError("x")

    def report(self, input):
        for n in range(5):
            hob_pod.progress(n=n, text="p" * 20_000)
        return input

    def large(self, input):
        return "x" * 300_000

    def chunks(self, input):
        for n in range(5):
            yield "c" * 100_000
        return input

    async def nap(self, input):
        await asyncio.sleep(0.0005)
        return input

    async def chunks_async(self, input):
        for n in range(3):
            yield "c" * 100_000
            await asyncio.sleep(0)

    def blob(self, input, blobs):
        return {}, {"b": hob_pod.Blob(bytes(blobs["a"].data) * 2)}

    # one large answer
    def on_signal(self, input):
        signal.signal(signal.SIGUSR2, self._handler)
        return os.getpid()

    def huge(self, input):
        return "x" * 8_000_000

    def caught(self, input):
        import _thread
        threading.Timer(0.05, throw, (threading.get_ident(),)).start()
        try:
            while True:
                time.sleep(0.001)
        except Boom:
            return "caught"

    def bystander(self, input):              # a thread of its own, into which exceptions are set while it reports
        def run():
            while not self.over:
                try:
                    while True:
                        hob_pod.progress(text="b" * 50_000)
                except Boom:
                    self.kept += 1
        self.over = False
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        for n in range(300):
            throw(thread.ident)
            time.sleep(0.001)
        self.over = True
        while thread.is_alive():
            throw(thread.ident)
            thread.join(0.01)
        return self.kept
"""
STREAMING = ("chunks", "chunks_async")
CALLED = ("echo", "fail", "report", "large", "chunks", "nap", "chunks_async", "blob")
OPERATIONS = {name: name in STREAMING for name in (*CALLED, "begin", "end", "on_signal", "huge", "caught", "bystander")}
ROUNDS = 40


class Interrupts(unittest.TestCase):
    concurrency = 1

    def make(self):
        pod = Pod(SOURCE, OPERATIONS, concurrency=self.concurrency).ready()
        self.addCleanup(pod.close)
        return pod

    def storm(self, misdeed):
        pod = self.make()
        pod.call("begin", misdeed)
        outcomes = []
        for _ in range(ROUNDS):
            for name in CALLED:
                blobs = {"a": b"a" * 100_000} if name == "blob" else None
                # `answer` refuses messages of other asks, and the decoder refuses bytes that are no frame.
                frame, _before = pod.answer(pod.ask(name, {"n": 1}, blobs))
                self.assertIn(frame.message.get("fault", {"code": "recipe_failed"})["code"], ("recipe_failed", "cancelled"))
                outcomes.append("fault" in frame.message)
            # Several at once: their answers wait for each other.
            asks = [pod.ask("echo", n) for n in range(20)]
            outcomes += ["fault" in answer for answer in pod.answers(asks).values()]
        came = pod.call("end")
        self.assertEqual(pod.call("echo", 5), 5)
        return outcomes, came, pod

    def test_what_interrupts_an_import_interrupts_nothing_of_what_its_host_is_told(self):
        source = """
import signal

def comes(number, frame):
    raise TimeoutError("between")

signal.signal(signal.SIGALRM, comes)
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0001)

class Pod:
    def run(self, input):
        return input
"""
        outcomes = set()
        for _ in range(12):
            pod = Pod(source, {"run": False})
            self.addCleanup(pod.close)
            self.assertEqual(pod.hello()["type"], "hello")
            said = pod.start(16 << 20)
            while said is not None and said.message["type"] == "started":
                pod.control.send({"type": "load"})
                said = pod.control.receive()
            self.assertIsNotNone(said, pod.output)
            outcomes.add(said.message["type"])
            if said.message["type"] == "failed":
                fault = said.message["fault"]
                self.assertEqual(fault["code"], "import_failed")
                self.assertIn("TimeoutError", fault["message"])
                self.assertNotIn("untold", fault["detail"])
                self.assertEqual(pod.wait(), 1, pod.output)
        self.assertIn("failed", outcomes)

    def test_a_handler_that_always_comes_again_holds_up_nothing(self):
        # Like a handler that takes longer than its timer's interval. An interrupt that comes while the gate
        # is shut waits for the end of the work.
        source = """
import signal
import threading
import time

came = 0
runs = False
over = threading.Event()

def comes(number, frame):
    global came, runs
    came += 1
    if not runs:
        runs = True
        signal.raise_signal(number)
        runs = False

def send(thread):
    while not over.wait(0.0001):
        signal.pthread_kill(thread, signal.SIGUSR2)

class Pod:
    def load(self, models):
        signal.signal(signal.SIGUSR2, comes)
        threading.Thread(target=send, args=(threading.get_ident(),), daemon=True).start()

    def echo(self, input):
        return input

    def end(self, input):
        over.set()
        return came
"""
        pod = Pod(source, {"echo": False, "end": False}, concurrency=self.concurrency).ready()
        self.addCleanup(pod.close)
        for n in range(2000):
            self.assertEqual(pod.call("echo", n), n)
        self.assertGreater(pod.call("end"), 10)

    def test_handlers_of_signals_that_raise_anywhere(self):
        outcomes, came, _ = self.storm("handlers_raise")
        self.assertGreater(came[0], 50)
        if self.concurrency == 1:
            self.assertIn(True, outcomes)  # some interrupts hit the author's code

    def test_handlers_of_signals_that_report(self):
        outcomes, came, _ = self.storm("handlers_report")
        self.assertGreater(came[0], 50)
        self.assertEqual(outcomes.count(True), ROUNDS)  # `fail`

    def test_a_keyboard_that_interrupts_anywhere(self):
        _, came, _ = self.storm("keyboard")
        self.assertGreater(came[1], 50)

    def test_exceptions_that_a_thread_sets_anywhere(self):
        _, came, _ = self.storm("threads_set_exceptions")
        self.assertGreater(came[1], 50)

    def test_a_thread_that_reports_may_be_interrupted_anywhere(self):
        pod = self.make()
        frame, before = pod.answer(pod.ask("bystander"))
        self.assertGreater(frame.message["output"], 0)
        self.assertGreater(len(before), 0)
        self.assertEqual(pod.call("echo", 1), 1)

    def test_what_is_set_comes_where_it_is_meant_to(self):
        self.assertEqual(self.make().call("caught"), "caught")


class InterruptsOfOne(Interrupts):
    def test_a_handler_that_raises_while_a_frame_is_half_sent(self):
        pod = self.make()
        pid = pod.call("on_signal")
        for name in ("huge", "large"):
            ask = pod.ask(name)
            # Nobody reads, so the pod stops in the middle of its answer.
            self.assertTrue(until(lambda: b"sock" in self.waits_in(pid) or b"unix" in self.waits_in(pid)), self.waits_in(pid))
            os.kill(pid, signal.SIGUSR2)
            until(lambda: False, 0.1)
            frame, _ = pod.answer(ask)
            self.assertEqual(set(frame.message["output"]), {"x"})
            self.assertEqual(pod.call("echo", 1), 1)
        self.assertIn(b"Boom", pod.output["stderr"])  # the interrupt came, and was reported

    def waits_in(self, pid):
        with open(f"/proc/{pid}/wchan", "rb") as file:
            return file.read()


class InterruptsOfSeveral(Interrupts):
    concurrency = 2

    # The main thread handles signals, and no method runs on it: only `load` could set a handler.
    test_handlers_of_signals_that_raise_anywhere = test_handlers_of_signals_that_report = None
    test_a_keyboard_that_interrupts_anywhere = None


del Interrupts


if __name__ == "__main__":
    unittest.main()
