"""A pod of a session: its initial state, the moments at which it gives its state, and failures of that."""

import json
import unittest

from .fake_host import Pod, until

SOURCE = """
import threading, time
import hob_pod

class Pod:
    def __init__(self):
        self.state, self.closed, self.given = {"count": 0}, False, 0

    def add(self, input):
        self.state["count"] += 1
        return {"count": self.state["count"], "session": hob_pod.session(), "due": hob_pod.checkpoint_due()}

    def give(self, input):
        return {"kept": hob_pod.checkpoint(force=input.get("force", False)), "given": self.given}

    def until_due(self, input):
        while not hob_pod.checkpoint_due():
            time.sleep(0.001)
        return [hob_pod.checkpoint(), hob_pod.checkpoint()]

    def become(self, input):
        self.state = eval(input)

    def spin(self, input):
        while True:
            self.state["count"] += 1
            hob_pod.checkpoint(force=True)

    def checkpoint(self):
        self.given += 1
        if isinstance(self.state, Exception):
            raise self.state
        return self.state

    def restore(self, data):
        self.state = data

    def close(self):
        print("closing", flush=True)
        if self.state is None:
            raise ValueError("not now")
"""
OPERATIONS = dict.fromkeys(("add", "give", "until_due", "become", "spin"), False)


class Sessions(unittest.TestCase):
    def make(self, source=SOURCE, operations=None, **more):
        pod = Pod(source, OPERATIONS if operations is None else operations, **{"session": "box", **more})
        self.addCleanup(pod.close)
        return pod

    def pieces(self, pod, keep=lambda piece: None):
        """Receives one checkpoint: (its bytes, its last message)."""
        data = b""
        while True:
            frame = pod.control.receive()
            message = frame.message
            self.assertEqual(message["type"], "checkpoint")
            if not message.get("blobs"):
                return None, message
            ((_, piece, _),) = [(name, bytes(view), media) for name, media, view in frame.blobs()]
            self.assertLessEqual(len(piece), 1000)
            data += piece
            fault = keep(len(data))
            pod.control.send({"type": "kept", "number": 3 if message["last"] and not fault else None, "fault": fault})
            if message["last"] or fault:
                return data, message

    def test_without_a_session_there_is_none(self):
        pod = self.make(session=None).ready()
        self.assertEqual(pod.call("add"), {"count": 1, "session": None, "due": False})
        self.assertEqual(pod.call("give", {"force": True}), {"kept": False, "given": 0})

    def test_it_begins_with_what_was_kept(self):
        pod = self.make(restore=b'{"count":41}').ready()
        self.assertEqual(pod.call("add"), {"count": 42, "session": "box", "due": False})

    def test_the_state_goes_out_in_pieces_each_after_the_one_before_was_kept(self):
        pod = self.make().ready()
        pod.call("become", "bytes(range(250)) * 10")
        ask = pod.ask("give", {"force": True})
        first = pod.control.receive()
        self.assertEqual((first.message["last"], first.message["json"]), (False, False))
        # No further message comes before the answer, however long it takes; a ping is answered meanwhile.
        pod.control.send({"type": "ping", "seq": 4})
        self.assertEqual(pod.control.receive().message, {"type": "pong", "seq": 4, "asks": [ask]})
        pod.control.send({"type": "kept", "number": None, "fault": None})
        data, last = self.pieces(pod)
        self.assertEqual(bytes(first.tail) + data, bytes(range(250)) * 10)
        self.assertTrue(last["last"])
        self.assertEqual(pod.answer(ask)[0].message["output"], {"kept": True, "given": 1})

    def test_an_empty_state_is_one_piece_and_a_dict_is_json(self):
        pod = self.make().ready()
        for state, wanted in (("b''", b""), ("{'count': 3}", b'{"count":3}')):
            pod.call("become", state)
            ask = pod.ask("give", {"force": True})
            data, message = self.pieces(pod)
            self.assertEqual((data, message["json"], message["last"]), (wanted, state[0] == "{", True))
            self.assertTrue(pod.answer(ask)[0].message["output"]["kept"])

    def test_what_the_host_could_not_keep_is_not_kept(self):
        pod = self.make().ready()
        pod.call("become", "b'x' * 2500")
        ask = pod.ask("give", {"force": True})
        data, _ = self.pieces(pod, lambda size: "no space left" if size > 1000 else None)
        self.assertEqual(len(data), 2000)
        self.assertFalse(pod.answer(ask)[0].message["output"]["kept"])
        self.assertEqual(pod.call("add", {})["fault"]["code"], "recipe_failed")  # bytes have no count; the pod stays

    def test_what_is_due_is_given_inside_an_operation_or_between_two(self):
        pod = self.make().ready()
        self.assertEqual(pod.call("give"), {"kept": False, "given": 0})
        ask = pod.ask("until_due")
        pod.control.send({"type": "checkpoint", "seq": 1})
        self.pieces(pod)
        self.assertEqual(pod.answer(ask)[0].message["output"], [True, False])
        # This state was given already; the next one was not, whichever lane is read first.
        pod.data.send({"type": "give", "seq": 1})
        self.assertEqual(pod.call("give"), {"kept": False, "given": 1})
        for seq in (2, 3):
            lanes = [(pod.control, "checkpoint"), (pod.data, "give")]
            for lane, kind in lanes if seq == 2 else lanes[::-1]:
                lane.send({"type": kind, "seq": seq})
            self.assertEqual(self.pieces(pod)[0], b'{"count":0}')
        self.assertEqual(pod.call("give"), {"kept": False, "given": 3})

    def test_what_it_cannot_give_is_said_and_the_author_hears_it_too(self):
        pod = self.make().ready()
        cases = [
            ("ValueError('broken')", "recipe_failed", "ValueError: broken"),
            ("3", "recipe_failed", "gave a int"),
            ("{'a': float('nan')}", "invalid_output", ""),
        ]
        for state, code, text in cases:
            pod.call("become", state)
            ask = pod.ask("give", {"force": True})
            none, message = self.pieces(pod)
            self.assertIsNone(none)
            self.assertEqual(message["fault"]["code"], code)
            self.assertIn(text, message["fault"]["message"])
            self.assertIn("fault", pod.answer(ask)[0].message)
            # Between two asks no caller is affected: the pod continues.
            pod.data.send({"type": "give", "seq": cases.index((state, code, text)) + 1})
            self.assertEqual(self.pieces(pod)[1]["fault"]["code"], code)
        pod.call("become", "b'x' * 10001")
        ask = pod.ask("give", {"force": True})
        self.assertEqual(self.pieces(pod)[1]["fault"]["code"], "too_large")
        self.assertFalse(pod.answer(ask)[0].message["output"]["kept"])
        self.assertTrue(until(lambda: b"`checkpoint` failed" in pod.output["stderr"]))

    def test_a_class_without_checkpoint_says_so_at_once(self):
        source = SOURCE[: SOURCE.index("    def checkpoint")]
        pod = self.make(source).ready()
        ask = pod.ask("until_due")
        pod.control.send({"type": "checkpoint", "seq": 1})
        self.assertEqual(pod.control.receive().message, {"type": "checkpoint"})
        pod.control.send({"type": "cancel", "ask": ask})
        self.assertEqual(pod.answer(ask)[0].message["fault"]["code"], "cancelled")
        pod.data.send({"type": "give", "seq": 2})
        pod.data.send({"type": "close"})
        self.assertEqual(pod.control.receive().message, {"type": "closed"})

    def test_a_cancel_does_not_come_between_a_piece_and_its_answer(self):
        pod = self.make().ready()
        ask = pod.ask("spin")
        self.assertEqual(pod.control.receive().message["type"], "checkpoint")
        pod.control.send({"type": "cancel", "ask": ask})
        pod.control.send({"type": "ping", "seq": 1})
        self.assertEqual(pod.control.receive().message["asks"], [ask], "it waits")
        pod.control.send({"type": "kept", "number": 1, "fault": None})
        self.assertEqual(pod.answer(ask)[0].message["fault"]["code"], "cancelled")
        ask = pod.ask("give", {"force": True})
        data, _ = self.pieces(pod)
        self.assertGreaterEqual(json.loads(data)["count"], 1)
        self.assertTrue(pod.answer(ask)[0].message["output"]["kept"])

    def test_close_is_called_and_may_fail(self):
        for state in ("{}", "None"):
            pod = self.make().ready()
            pod.call("become", state)
            pod.data.send({"type": "close"})
            self.assertEqual(pod.control.receive().message, {"type": "closed"})
            pod.control.send({"type": "drain"})
            self.assertEqual(pod.wait(), 0)
            self.assertIn(b"closing", pod.output["stdout"])
            self.assertEqual(state == "None", b"not now" in pod.output["stderr"])

    def test_what_cannot_be_a_session_does_not_start(self):
        half = SOURCE.replace("def restore", "def restored")
        not_plain = SOURCE.replace("def checkpoint", "async def checkpoint")
        fails = SOURCE.replace("self.state = data", "raise KeyError('old')")
        tries = [
            (self.make(half), "has a method `checkpoint` and no `restore`"),
            (self.make(not_plain), "`checkpoint` of `pod:Pod` is async"),
            (self.make(operations={"close": False}), "the runner uses `close` itself"),
            (self.make(fails, restore=b"{}"), "`restore` of `pod:Pod` raised KeyError"),
        ]
        for pod, says in tries:
            pod.hello()
            said = pod.start().message
            if said["type"] == "started":
                pod.control.send({"type": "load"})
                said = pod.control.receive().message
            self.assertEqual((said["type"], said["fault"]["code"]), ("failed", "import_failed"))
            self.assertIn(says, said["fault"]["message"])

    def test_a_word_to_a_session_that_is_none_ends_the_pod(self):
        pod = self.make(session=None).ready()
        pod.data.send({"type": "give", "seq": 1})
        self.assertEqual(pod.wait(), 70)
        self.assertIn(b"the host sent `give` on the data lane", pod.output["stderr"])
