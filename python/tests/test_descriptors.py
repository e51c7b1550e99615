"""If an author's code misuses descriptors that it did not open, no pod ends without a reason."""

import os
import unittest

from .fake_host import Pod, until

SOURCE = """
import asyncio, ctypes, errno, os, resource, socket, sys

class Pod:
    async def nap(self, input):
        await asyncio.sleep(0)
        return "napped"

    def close_range(self, input):
        os.closerange(3, 4096)

    def close_each(self, input):
        import posix
        for number in range(3, 256):
            for close in (os.close, posix.close):
                try:
                    close(number)
                except OSError as error:
                    assert error.errno == errno.EBADF, error

    def take_each(self, input):
        taken = []
        for number in range(3, 64):
            try:
                os.dup2(1, number)
                taken.append(number)
            except OSError as error:
                assert error.errno == errno.EBUSY, error
        for number in taken:
            os.close(number)

    def close_own(self, input):              # the streams are the author's
        os.closerange(0, 4096)

    def close_from(self, input):             # as a daemon's child does it
        child = os.fork()
        if child == 0:
            os.closerange(0, 4096)
            os._exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if hasattr(os, "waitstatus_to_exitcode") else 7

    def close_natively(self, input):
        libc = ctypes.CDLL(None)
        for number in range(3, 256):
            libc.close(number)

    def close_streams_too(self, input):
        os.close(2)
        os.open("mine", os.O_CREAT | os.O_WRONLY)
        self.close_natively(input)

    def take_natively(self, input):
        libc = ctypes.CDLL(None)
        for number in range(3, 256):
            if number != sys.stderr.fileno():
                libc.dup2(1, number)

    def come_back(self, input):
        child = os.fork()
        if child:
            os.waitpid(child, 0)  # it has told by then
        return child == 0

    def mine(self, input):
        with open("mine") as file:
            return file.read()

    def echo(self, input):
        return input
"""
NAMES = ("nap", "close_range", "close_each", "take_each", "close_own", "close_from", "close_natively", "close_streams_too")
NAMES += ("take_natively", "come_back", "mine", "echo")


class Descriptors(unittest.TestCase):
    def make(self, concurrency=1):
        pod = Pod(SOURCE, dict.fromkeys(NAMES, False), concurrency=concurrency).ready()
        self.addCleanup(pod.close)
        return pod

    def test_what_python_closes_leaves_the_lanes_and_the_loop(self):
        for concurrency in (1, 2):
            pod = self.make(concurrency)
            self.assertEqual(pod.call("nap"), "napped")
            for misdeed in ("close_range", "close_each", "take_each", "close_own"):
                self.assertIsNone(pod.call(misdeed), misdeed)
                self.assertEqual(pod.call("nap"), "napped", misdeed)
                self.assertTrue(until(lambda pod=pod: pod.in_hand() == []), misdeed)  # answered on both lanes
            self.assertEqual(pod.call("close_from"), 7)
            self.assertEqual(pod.call("echo", 1), 1)

    def test_what_native_code_closes_is_said(self):
        for misdeed in ("close_natively", "take_natively"):
            pod = self.make()
            ask = pod.ask(misdeed)
            pod.control.send({"type": "ping", "seq": 1})  # one of the two lanes notices
            with self.assertRaises((AssertionError, OSError)):
                pod.answer(ask)
            self.assertEqual(pod.wait(), 70, pod.output)
            self.assertIn(b"the recipe closed a descriptor that its pod speaks to the host by", pod.output["stderr"], misdeed)

    def test_it_is_said_where_the_authors_streams_are_gone(self):
        pod = self.make()
        pod.call("close_own")
        fault = pod.call("mine")["fault"]
        self.assertEqual(fault["code"], "recipe_failed")
        os.kill(int(self.pid(pod)), 10)  # SIGUSR1: print the stacks
        pod.control.send({"type": "drain"})
        self.assertEqual(pod.wait(), 0)
        self.assertIn(b"most recent call first", pod.output["stderr"])

    def pid(self, pod):
        with open(f"/proc/{pod.process.pid}/task/{pod.process.pid}/children") as file:
            return file.read().split()[0]

    def test_a_forked_process_that_comes_back_ends_alone_and_is_told(self):
        for concurrency in (1, 2):
            pod = self.make(concurrency)
            self.assertIs(pod.call("come_back"), False)
            for n in range(3):
                self.assertEqual(pod.call("echo", n), n)
            pod.control.send({"type": "drain"})
            self.assertEqual(pod.wait(), 0)
            self.assertIn(b"forked came out of its method", pod.output["stderr"])
            self.assertNotIn(b"at its end", pod.output["stderr"])


if __name__ == "__main__":
    unittest.main()
