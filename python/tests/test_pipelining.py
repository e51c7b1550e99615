"""Asks sent ahead: their answers share writes, and none waits for a long ask."""

import os
import signal
import struct
import time
import unittest

from .fake_host import Pod, until

SOURCE = """
import os, signal, time
import hob_pod

class Pod:
    def echo(self, input):
        if input == "progress":
            hob_pod.progress(n=1)
        elif input == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif isinstance(input, float):
            time.sleep(input)
        return input

    def stream(self, input):
        yield 1
        return 2
"""


class Pipelining(unittest.TestCase):
    def setUp(self):
        self.pod = Pod(SOURCE, {"echo": False, "stream": True}).ready()
        self.addCleanup(self.pod.close)
        for n in range(20):
            self.pod.call("echo", n)  # the operation has proved to be short

    def ahead(self, inputs, operation="echo"):
        """Sends asks in one write, so that one read gets them; returns their numbers."""
        ours, raw = self.pod.data.socket, b""

        class Kept:
            def sendall(self, piece):
                nonlocal raw
                raw += piece

        self.pod.data.socket = Kept()
        asks = [self.pod.ask(operation, input) for input in inputs]
        self.pod.data.socket = ours
        ours.sendall(raw)
        return asks

    def test_answers_of_short_asks_share_a_write(self):
        fewest = 64
        for _ in range(30):
            asks = self.ahead(list(range(64)))
            left, writes = 64, 0
            pending = b""
            while left:
                # The test's own read is slower than many writes, so the count is a lower bound of the writes.
                # The best of many rounds counts, because a busy machine makes asks long.
                os.sched_yield()
                pending += self.pod.data.socket.recv(1 << 16)
                writes += 1
                while len(pending) >= 16 and len(pending) >= 16 + struct.unpack_from(">I", pending)[0]:
                    size, _, ask = struct.unpack_from(">IIQ", pending)
                    self.assertEqual(ask, asks[64 - left])
                    pending = pending[16 + size :]
                    left -= 1
            fewest = min(fewest, writes)
        self.assertLess(fewest, 32)

    def test_no_answer_waits_for_a_long_ask(self):
        for _ in range(5):
            asks = self.ahead([1, 2, 3, 0.4, 5])
            start = time.monotonic()
            for ask in asks[:3]:
                self.pod.answer(ask)
            self.assertLess(time.monotonic() - start, 0.3)
            for ask in asks[3:]:
                self.pod.answer(ask)
            self.assertGreater(time.monotonic() - start, 0.35)
            for n in range(20):
                self.pod.call("echo", n)

    def test_what_an_ask_sends_comes_after_the_answers_before_it(self):
        asks = self.ahead([1, 2, "progress", 4])
        seen = [self.pod.data.receive() for _ in range(5)]
        order = [(frame.message["type"], frame.ask) for frame in seen]
        wanted = [("answer", asks[0]), ("answer", asks[1]), ("progress", asks[2])]
        self.assertEqual(order, [*wanted, ("answer", asks[2]), ("answer", asks[3])])
        asks = self.ahead([1, 2]) + self.ahead([None], "stream")
        order = [self.pod.data.receive().message["type"] for _ in range(4)]
        self.assertEqual(order, ["answer", "answer", "chunk", "answer"])

    def test_the_page_tells_which_asks_were_begun_when_the_pod_dies(self):
        asks = self.ahead([1, 2, "die", 4, 5])
        self.assertEqual(self.pod.wait(), -signal.SIGKILL)
        self.assertEqual(self.pod.word(0), asks[2])
        answered = 0
        while self.pod.data.receive() is not None:
            answered += 1
        self.assertLessEqual(answered, 2)

    def test_drain_begins_no_more_and_sends_what_was_held(self):
        asks = self.ahead([1, 2, 0.3, 4, 5])
        self.assertTrue(until(lambda: self.pod.in_hand() == [asks[2]]))
        self.pod.control.send({"type": "drain"})
        for ask in asks[:3]:
            self.pod.answer(ask)
        self.assertIsNone(self.pod.data.receive())
        self.assertEqual(self.pod.wait(), 0)
        self.assertEqual(self.pod.word(0), asks[2])

    def test_drains_at_any_moment_leave_no_begun_ask_unanswered(self):
        for n in range(12):
            pod = Pod(SOURCE, {"echo": False}).ready()
            self.pod, before = pod, self.pod
            for m in range(20):
                pod.call("echo", m)
            asks = self.ahead(list(range(300)))
            time.sleep(n * 0.0003)
            pod.control.send({"type": "drain"})
            answered = []
            while True:
                frame = pod.data.receive()
                if frame is None:
                    break
                answered.append(frame.ask)
            self.assertEqual(pod.wait(), 0)
            self.assertEqual(answered, asks[: len(answered)])
            self.assertEqual(pod.word(0), 20 + len(answered))
            pod.close()
            self.pod = before

    def test_an_ask_number_that_does_not_rise_ends_the_pod_loudly(self):
        self.pod.asked -= 1
        self.pod.ask("echo", 1)
        self.assertEqual(self.pod.wait(), 70)
        self.assertIn(b"came after ask", self.pod.output["stderr"])


if __name__ == "__main__":
    unittest.main()
