"""Blobs in memory that host and pod share, and the credit of chunks."""

import array
import os
import re
import socket
import unittest

from tests.fake_host import Pod, until

SOURCE = """
import hob_pod
kept = []

class Pod:
    def sum(self, input, blobs):
        return {"sum": sum(blobs["x"].data), "readonly": blobs["x"].data.readonly}

    def keep(self, input, blobs):
        kept.append(blobs["x"].data[:3])
        return {"seen": [bytes(view).decode() for view in kept]}

    def seen(self, input):
        return {"seen": [bytes(view).decode() for view in kept]}

    def fail(self, input, blobs):
        raise ValueError(f"{len(blobs['x'])} bytes")

    def give(self, input):
        blob = hob_pod.Blob.empty(input["bytes"])
        blob.data[:3] = input["text"].encode()
        return {}, {"y": blob}

    def copy(self, input):
        return {}, {"y": hob_pod.Blob(b"x" * input["bytes"])}

    def set_other(self, input):
        "Other bytes in the place of those that were made in shared memory."
        blob = hob_pod.Blob.empty(input["bytes"])
        blob.data = memoryview(b"o" * input["bytes"])
        return {}, {"y": blob}

    def set_to(self, input):
        import array
        blob = hob_pod.Blob(b"abc", "text/plain")
        if input["what"] == "numbers":
            blob.data = memoryview(array.array("H", [1, 2]))
        elif input["what"] == "bytes":
            blob.data = b"xy"
        elif input["what"] == "moves":
            class Moves(hob_pod.Blob):
                __slots__ = ("n",)
                @property
                def data(self):
                    self.n = getattr(self, "n", 0) + 1
                    return b"x" * self.n
                @data.setter
                def data(self, value):
                    pass
            blob = Moves(b"")
        elif input["what"] == "a type that is none":
            blob.media_type = {"a": 1}
        else:
            blob.data = 3
        return {}, {"y": blob}

    def let_go(self, input):
        hob_pod.Blob.empty(input["bytes"])
        return {}

    def stream(self, input):
        try:
            for n in range(input["count"]):
                yield {"n": n, "pad": "x" * input.get("pad", 0)}
        finally:
            print("closed at", n, flush=True)
        return {"done": True}

    async def stream_async(self, input):
        for n in range(input["count"]):
            yield {"n": n}
"""
OPERATIONS = {
    "sum": False,
    "keep": False,
    "seen": False,
    "fail": False,
    "give": False,
    "copy": False,
    "set_other": False,
    "set_to": False,
    "let_go": False,
    "stream": True,
    "stream_async": True,
}
SIZE = 1 << 20


class Blobs(unittest.TestCase):
    def setUp(self):
        self.pod = Pod(SOURCE, OPERATIONS, shares=True, concurrency=self.concurrency()).ready()
        self.addCleanup(self.pod.close)
        self.regions = {}

    def concurrency(self):
        return 1

    def lend(self, number, size, write):
        """Sends a region; returns its descriptor."""
        descriptor = os.memfd_create("region")
        self.addCleanup(os.close, descriptor)
        os.truncate(descriptor, size)
        from hob_pod import wire

        (frame,) = wire.encode(0, {"type": "region", "region": number, "bytes": size, "write": write})
        given = descriptor if write else os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [given]))]
        sent = self.pod.control.socket.sendmsg([frame], rights)
        self.pod.control.socket.sendall(frame[sent:])
        if not write:
            os.close(given)
        return descriptor

    def ask(self, operation, number, size):
        """Sends an ask with a blob in a region."""
        self.pod.asked += 1
        blob = {"name": "x", "media_type": "application/octet-stream", "bytes": size, "region": number}
        message = {
            "type": "ask",
            "incarnation": "incarnation-1",
            "digest": "sha256:00",
            "operation": operation,
            "input": {},
            "left_ms": 60000,
        }
        self.pod.data.send({**message, "blobs": [blob]}, self.pod.asked)
        return self.pod.asked

    def said(self):
        return self.pod.control.receive().message

    def test_a_region_is_read_given_back_and_used_again(self):
        descriptor = self.lend(1, SIZE, False)
        for text in (b"abc", b"xyz"):
            os.pwrite(descriptor, text, 0)
            frame, _ = self.pod.answer(self.ask("sum", 1, 3))
            self.assertEqual(frame.message["output"], {"sum": sum(text), "readonly": True})
            self.assertEqual(self.said(), {"type": "back", "regions": [1]})

    def test_an_ask_that_comes_before_its_region_waits_for_it(self):
        ask = self.ask("sum", 1, 3)
        self.assertTrue(until(lambda ask=ask: self.pod.in_hand() == [ask]))
        self.lend(1, SIZE, False)
        self.assertEqual(self.pod.answer(ask)[0].message["output"]["sum"], 0)

    def test_what_the_author_keeps_is_never_written_again(self):
        os.pwrite(self.lend(1, SIZE, False), b"abc", 0)
        self.pod.answer(self.ask("keep", 1, 3))
        self.assertEqual(self.said(), {"type": "dropped", "regions": [1]})
        self.assertEqual(self.pod.call("seen"), {"seen": ["abc"]})

    def test_a_failed_ask_gives_its_region_back(self):
        self.lend(1, SIZE, False)
        frame, _ = self.pod.answer(self.ask("fail", 1, 77))
        self.assertIn("77 bytes", frame.message["fault"]["message"])
        self.assertEqual(self.said()["regions"], [1])

    def test_results_are_made_where_they_are_sent_from(self):
        for operation in ("give", "copy"):
            ask = self.pod.ask(operation, {"bytes": SIZE, "text": "abc"})
            if operation == "give":
                self.assertEqual(self.said(), {"type": "room", "bytes": SIZE})
                descriptor = self.lend(5, 2 * SIZE, True)
            frame, _ = self.pod.answer(ask)
            self.assertEqual(frame.message["blobs"], [{"name": "y", "media_type": "application/octet-stream", "bytes": SIZE, "region": 5}])
            self.assertEqual(os.pread(descriptor, 3, 0), b"abc" if operation == "give" else b"xxx")
            self.pod.control.send({"type": "free", "region": 5})

    def test_what_an_author_sets_in_place_of_the_bytes_is_what_is_sent_or_a_fault(self):
        for what, sent in {"numbers": b"\1\0\2\0", "bytes": b"xy", "moves": b"x"}.items():
            with self.subTest(what):
                frame, _ = self.pod.answer(self.pod.ask("set_to", {"what": what}))
                self.assertEqual([bytes(data) for _, _, data in frame.blobs()], [sent])
        for what, said in {"a type that is none": "is a dict, not text", "no bytes": "cannot be sent"}.items():
            fault = self.pod.call("set_to", {"what": what})["fault"]
            self.assertEqual(fault["code"], "recipe_failed")
            self.assertIn(said, fault["message"])
        ask = self.pod.ask("set_other", {"bytes": SIZE})
        self.said()
        descriptor = self.lend(5, 2 * SIZE, True)
        frame, _ = self.pod.answer(ask)
        self.assertEqual((frame.message["blobs"][0]["region"], os.pread(descriptor, 3, 0)), (5, b"ooo"))

    def test_room_that_is_not_used_is_used_later(self):
        ask = self.pod.ask("let_go", {"bytes": SIZE})
        self.assertEqual(self.said()["type"], "room")
        self.lend(5, 2 * SIZE, True)
        self.pod.answer(ask)
        for _ in range(3):
            self.pod.call("let_go", {"bytes": SIZE})
        # No further message about room came: the next message is the pong.
        self.assertTrue(until(lambda: self.pod.in_hand() == []))

    def test_no_room_is_a_fault(self):
        for operation in ("give", "copy"):
            ask = self.pod.ask(operation, {"bytes": SIZE, "text": "abc"})
            self.said()
            self.pod.control.send({"type": "no_room", "why": "too much of it"})
            fault = self.pod.answer(ask)[0].message["fault"]
            self.assertEqual((fault["code"], fault["message"]), ("too_large", "too much of it"))

    def chunks(self, count):
        return [self.pod.data.receive().message for _ in range(count)]

    def test_a_stream_stops_without_credit_and_goes_on_with_it(self):
        for operation in ("stream", "stream_async"):
            ask = self.pod.ask(operation, {"count": 100})
            self.assertEqual([chunk["data"]["n"] for chunk in self.chunks(64)], list(range(64)))
            self.assertTrue(until(lambda ask=ask: self.pod.in_hand() == [ask]))
            self.pod.data.socket.settimeout(0.2)
            with self.assertRaises(TimeoutError):
                self.pod.data.receive()
            self.pod.data.socket.settimeout(20)
            self.pod.control.send({"type": "credit", "ask": ask, "chunks": 32})
            self.assertEqual(self.chunks(32)[-1]["data"]["n"], 95)
            self.pod.control.send({"type": "credit", "ask": ask, "chunks": 32})
            self.assertEqual(self.pod.answer(ask)[0].message["type"], "answer")

    def test_large_chunks_weigh_more(self):
        ask = self.pod.ask("stream", {"count": 10, "pad": 40 << 16})
        self.assertEqual(len(self.chunks(2)), 2)
        self.pod.data.socket.settimeout(0.2)
        with self.assertRaises(TimeoutError):
            self.pod.data.receive()
        self.pod.data.socket.settimeout(20)
        self.pod.control.send({"type": "cancel", "ask": ask})
        self.assertEqual(self.pod.answer(ask)[0].message["fault"]["code"], "cancelled")

    def test_a_cancel_reaches_a_stream_that_waits_for_credit(self):
        for operation in ("stream", "stream_async"):
            ask = self.pod.ask(operation, {"count": 1000})
            self.chunks(64)
            self.pod.control.send({"type": "cancel", "ask": ask})
            frame, before = self.pod.answer(ask)
            self.assertEqual((frame.message["fault"]["code"], before), ("cancelled", []))
        # The cancel came while it waited with the 65th chunk, or before.
        self.assertTrue(until(lambda: re.search(rb"closed at 6[34]\b", self.pod.output["stdout"]), 5), self.pod.output)


class InPlaces(Blobs):
    """The same with threads and tasks."""

    def concurrency(self):
        return 3
