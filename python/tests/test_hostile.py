"""The hostile pods of tests/pods really do what their names say, so that the Rust tests test something."""

import json
import os
import signal
import struct
import time
import unittest

from .fake_host import Pod, alive, until

FOLDER = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", "tests", "pods"))


def kit():
    """Returns the text of each pod, by name: those with `#!` speak the protocol themselves, the runner runs
    the others."""
    texts = {}
    for name in os.listdir(FOLDER):
        if name.endswith(".py") and name != "raw.py":
            with open(os.path.join(FOLDER, name)) as file:
                texts[name[:-3]] = file.read()
    return texts


class Hostile(unittest.TestCase):
    def make(self, name):
        pod = Pod(command=[os.path.join(FOLDER, name + ".py")])
        pod.operations = {"run": False}
        self.addCleanup(pod.close)
        return pod

    def bytes_of(self, pod):
        """Returns the bytes on the data lane until half a second of silence or its end."""
        pod.data.socket.settimeout(0.5)
        raw = b""
        try:
            while True:
                piece = pod.data.socket.recv(1 << 20)
                if not piece:
                    return raw
                raw += piece
        except (TimeoutError, OSError):
            return raw

    def test_every_pod_but_those_listed_does_a_good_handshake(self):
        others = {
            "exits_before_hello", "exits_0_before_hello", "never_says_hello", "never_ready",
            "speaks_another_protocol", "answers_before_ready",
        }  # fmt: skip
        names = {name for name, text in kit().items() if text.startswith("#!")}
        self.assertLessEqual(others, names)
        for name in sorted(names - others):
            with self.subTest(name):
                self.make(name).ready().close()

    def test_every_pod_says_in_its_docstring_what_is_expected(self):
        for name, text in kit().items():
            self.assertIn("Expected: ", text, name)
            self.assertEqual(os.access(os.path.join(FOLDER, name + ".py"), os.X_OK), text.startswith("#!"), name)

    def test_those_that_do_not_get_ready(self):
        pod = self.make("exits_before_hello")
        self.assertIsNone(pod.control.receive())
        self.assertEqual(pod.wait(), 3)
        pod = self.make("speaks_another_protocol")
        self.assertEqual(pod.hello()["protocol"], [7, 9])
        pod = self.make("never_ready")
        pod.hello()
        self.assertEqual(pod.start().message, {"type": "started"})
        pod.control.send({"type": "load"})
        pod.control.send({"type": "ping", "seq": 5})
        self.assertEqual(pod.control.receive().message["type"], "pong")
        with open(os.path.join(FOLDER, "raw.py")) as file:
            pod = Pod(kit()["dies_at_import"], {"run": False}, files={"raw.py": file.read()})
        self.addCleanup(pod.close)
        pod.hello()
        fault = pod.start().message["fault"]
        self.assertEqual(fault["code"], "import_failed")
        self.assertIn("_open_device", fault["detail"]["traceback"])

    def test_broken_frames_are_broken_as_they_say(self):
        for name, check in (
            ("half_frame_then_hangs", lambda raw: 16 < len(raw) < 16 + struct.unpack(">I", raw[:4])[0]),
            ("dies_mid_frame", lambda raw: 16 < len(raw) < 16 + struct.unpack(">I", raw[:4])[0]),
            ("segfaults_mid_answer", lambda raw: 16 < len(raw) < 1016),
            ("lies_about_length", lambda raw: struct.unpack(">I", raw[:4])[0] == 2**32 - 1),
            ("unknown_message", lambda raw: json.loads(raw[16:])["type"] == "abracadabra"),
            ("not_json", lambda raw: raw[16:] == b"Loading weights: 100%"),
            ("nan_in_answer", lambda raw: b"NaN" in raw),
            ("integer_past_64_bits", lambda raw: b"18446744073709551616" in raw),
            ("wrong_incarnation", lambda raw: json.loads(raw[16:])["incarnation"] == "somebody-else"),
            ("answers_twice", lambda raw: raw.count(b'"answer"') >= 2),
            ("answers_unknown_ask", lambda raw: struct.unpack(">IIQ", raw[:16])[2] == 1_000_001),
            ("chunk_from_non_streaming", lambda raw: b'"chunk"' in raw and b'"answer"' in raw),
            ("unknown_fault_code", lambda raw: b"gremlins" in raw),
            ("closes_its_data_lane", lambda raw: raw == b""),
            ("closes_its_socket", lambda raw: raw == b""),
            ("never_answers", lambda raw: raw == b""),
            ("stops_itself", lambda raw: raw == b""),
        ):
            with self.subTest(name):
                pod = self.make(name).ready()
                pod.ask("run", {})
                raw = self.bytes_of(pod)
                self.assertTrue(check(raw), raw[:200])
                ends = name in ("dies_mid_frame", "segfaults_mid_answer")
                if ends:
                    pod.wait()
                self.assertEqual(pod.process.poll() is None, not ends, pod.output)
                pod.close()

    def test_ends_are_mirrored(self):
        for name, status in (("dies_mid_frame", 4), ("segfaults_mid_answer", -signal.SIGSEGV)):
            pod = self.make(name).ready()
            pod.ask("run", {})
            self.assertEqual(pod.wait(), status)

    def test_the_oversize_frame_is_one_byte_too_large_and_whole(self):
        pod = self.make("oversize_frame").ready(frame_bytes_max=100_000)
        pod.data.decoder.frame_bytes_max = 100_000
        pod.ask("run", {})
        self.assertEqual(pod.data.receive().too_large, 100_001)
        self.assertIn("pid", pod.call("run", {}))

    def test_those_that_only_make_noise_answer(self):
        for name, stream in (("prints_from_c", "stdout"), ("floods_stderr", "stderr")):
            pod = self.make(name).ready()
            for _ in range(2):
                self.assertEqual(pod.call("run", {}), {"ok": True})
            self.assertTrue(until(lambda pod=pod, stream=stream, name=name: name.encode() in pod.output[stream]))

    def test_cancel_is_answered_by_one_and_ignored_by_the_other(self):
        pod = self.make("never_answers").ready()
        ask = pod.ask("run", {})
        time.sleep(0.05)
        pod.control.send({"type": "cancel", "ask": ask})
        self.assertEqual(pod.answer(ask)[0].message["fault"]["code"], "cancelled")
        self.assertIn("pid", pod.call("run", {"answer": True}))
        pod = self.make("ignores_cancel").ready()
        ask = pod.ask("run", {})
        pod.control.send({"type": "cancel", "ask": ask})
        self.assertEqual(self.bytes_of(pod), b"")

    def test_the_deaf_one_outlives_everything_but_the_keepers_sweep(self):
        pod = self.make("ignores_sigterm_with_grandchild").ready()
        file = os.path.join(pod.folder, "pids")
        pod.ask("run", {"pids": file})
        self.assertTrue(until(lambda: os.path.exists(file)))
        with open(file) as lines:
            pids = list(map(int, lines.read().split()))
        os.killpg(pod.process.pid, signal.SIGTERM)
        pod.control.send({"type": "drain"})
        pod.control.socket.close()
        time.sleep(0.3)
        self.assertTrue(all(map(alive, pids)))
        os.kill(pod.process.pid, signal.SIGQUIT)
        self.assertEqual(pod.wait(), -signal.SIGKILL)
        self.assertFalse(any(map(alive, pids)))


if __name__ == "__main__":
    unittest.main()
