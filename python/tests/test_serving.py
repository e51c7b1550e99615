"""Asks and answers through the real keeper and runner."""

import hashlib
import os
import struct
import unittest

from .fake_host import Pod, alive, until

SOURCE = """
import asyncio, ctypes, datetime, functools, os, subprocess, sys, threading, time
import hob_pod

def wrapped(method):
    @functools.wraps(method)
    def outer(*arguments, **named):
        return method(*arguments, **named)
    return outer

class Custom(BaseException):
    pass

class OutOfMemoryError(RuntimeError):
    pass

class Odd:
    def tolist(self):
        raise LookupError(self)

    def __str__(self):
        raise SystemExit("a text that ends the pod")

class Pod:
    def load(self, models):
        self.models = models
        self.loop = None

    def echo(self, input):
        return input

    def declared(self, input):
        return input

    def with_dash(self, input):
        return "dash"

    @wrapped
    def blobs(self, input, blobs):
        audio = blobs["audio"]
        assert audio.data.readonly and audio.media_type == "application/octet-stream", audio
        return {"bytes": len(audio)}, {"back": hob_pod.Blob(bytes(audio)[::-1], "audio/reversed")}

    def many_blobs(self, input):
        return None, {str(n): hob_pod.Blob(b"x") for n in range(17)}

    def count(self, input):
        for n in range(input["to"]):
            yield {"n": n}
        return {"counted": input["to"]}

    def count_badly(self, input):
        yield 1
        yield float("nan")

    def chunk_blobs(self, input):
        yield {"n": 1}, {"pcm": hob_pod.Blob(b"12")}

    def an_iterator(self, input):
        return iter(["a", "b"])

    async def nap(self, input):
        await asyncio.sleep(0.001)
        assert self.loop in (None, asyncio.get_running_loop())
        self.loop = asyncio.get_running_loop()
        return {"slept": True}

    async def stream(self, input):
        for n in range(3):
            await asyncio.sleep(0)
            hob_pod.progress(done=n)
            yield n

    def steps(self, input):
        hob_pod.progress(done=0, total=2, note="\\u00fc")
        thread = threading.Thread(target=lambda: hob_pod.progress(done=1))
        thread.start(); thread.join()
        hob_pod.progress(done=2)
        return "done"

    def late_progress(self, input):
        def late():
            time.sleep(0.05)
            hob_pod.progress(late=True)
        threading.Thread(target=late).start()
        return "answered"

    def bad_progress(self, input):
        for _ in range(2):
            hob_pod.progress(done=1, loss=float("nan"), at=Odd(), of=datetime.date(2024, 2, 29))
        return "done"

    def value(self, input):
        return eval(input["code"], {"hob_pod": hob_pod, **globals()})

    def run(self, input):
        scope = {"hob_pod": hob_pod, **globals()}
        exec(input["code"], scope)
        return scope.get("result")

    def time_left(self, input):
        return hob_pod.time_left()

    def noise(self, input):
        print("from print", input["n"])
        c = ctypes.CDLL(None)
        c.puts(b"from puts")
        c.fflush(None)
        c.write(1, b"from write\\n", 11)
        os.write(2, b"from stderr\\n")
        subprocess.run(["sh", "-c", "echo from a child; cat"], check=True)   # cat: fd 0 is not the lane
        sys.stdin.read()
        return input["n"]

"""
WORKERS = """
import multiprocessing, os
import hob_pod

class Pod:
    def fork(self, input):
        child = os.fork()
        if child == 0:
            hob_pod.progress(from_child=True)
            links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
            lanes = [link for link in links if os.path.lexists(link) and "socket" in os.readlink(link)]
            os._exit(7 + len(lanes))
        return os.waitpid(child, 0)[1] >> 8

    def workers(self, input):
        with multiprocessing.get_context(input["how"]).Pool(2) as pool:
            return pool.map(abs, [-1, -2, -3])
"""
STREAMING = {"count", "count_badly", "chunk_blobs", "an_iterator", "stream"}
NAMES = [
    line.split("def ")[1].split("(")[0]
    for line in SOURCE.partition("class Pod:")[2].splitlines()
    if line.startswith(("    def ", "    async def "))
]
OPERATIONS = {name: name in STREAMING for name in NAMES if name not in ("load", "with_dash")}
OPERATIONS.update({"with-dash": False, "declared": "blobs"})


class Serving(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pod = Pod(SOURCE, OPERATIONS).ready()

    @classmethod
    def tearDownClass(cls):
        cls.pod.close()

    def fault(self, operation, input=None, **rest):
        return self.pod.call(operation, input, **rest)["fault"]

    def test_an_operation_answers_what_it_returns(self):
        value = {"text": "grüße 🐝\n", "list": [1, -2.5, None, True, {}], "big": (1 << 64) - 1}
        self.assertEqual(self.pod.call("echo", value), value)
        self.assertEqual(self.pod.call("with-dash"), "dash")

    def test_large_documents_pass_both_ways(self):
        value = {"text": "x" * 3_000_000, "numbers": list(range(100_000))}
        self.assertEqual(self.pod.call("echo", value), value)

    def test_many_asks_in_one_write_are_answered_in_order(self):
        asks = [self.pod.ask("echo", {"n": n}) for n in range(300)]
        for n, ask in enumerate(asks):
            self.assertEqual(self.pod.answer(ask)[0].message["output"], {"n": n})

    def test_blobs_travel_beside_the_json_small_and_large(self):
        for size in (0, 5, 70_000, 9_000_000):
            audio = hashlib.sha256(str(size).encode()).digest() * (size // 32 + 1)
            audio = audio[:size]
            frame, _ = self.pod.answer(self.pod.ask("blobs", {}, {"audio": audio}))
            self.assertEqual(frame.message["output"], {"bytes": size})
            self.assertEqual(frame.message["blobs"], [{"name": "back", "media_type": "audio/reversed", "bytes": size}])
            self.assertEqual(bytes(frame.tail), audio[::-1])

    def test_blobs_for_an_operation_without_any_are_refused(self):
        fault = self.fault("echo", blobs={"audio": b"1"})
        self.assertEqual(fault["code"], "invalid_input")
        self.assertIn("audio", fault["message"])
        self.assertIn("def echo(self, input, blobs)", fault["hint"])

    def test_blobs_that_are_declared_and_not_taken_are_the_recipes_mistake(self):
        fault = self.fault("declared", blobs={"audio": b"1"})
        self.assertEqual(fault["code"], "recipe_failed")
        self.assertIn("no parameter `blobs`", fault["message"])
        self.assertIn("def declared(self, input, blobs)", fault["hint"])

    def test_too_many_blobs_are_a_fault(self):
        self.assertEqual(self.fault("many_blobs")["code"], "too_large")

    def test_generators_stream_and_return(self):
        frame, before = self.pod.answer(self.pod.ask("count", {"to": 1000}))
        self.assertEqual([chunk.message for chunk in before], [{"type": "chunk", "data": {"n": n}} for n in range(1000)])
        self.assertEqual(frame.message["output"], {"counted": 1000})
        frame, before = self.pod.answer(self.pod.ask("an_iterator"))
        self.assertEqual([chunk.message["data"] for chunk in before], ["a", "b"])
        frame, before = self.pod.answer(self.pod.ask("chunk_blobs"))
        self.assertEqual((before[0].message["data"], bytes(before[0].tail)), ({"n": 1}, b"12"))
        frame, before = self.pod.answer(self.pod.ask("count_badly"))
        self.assertEqual(len(before), 1)
        self.assertEqual(frame.message["fault"]["code"], "invalid_output")

    def test_a_generator_of_an_operation_that_does_not_stream_is_a_fault(self):
        fault = self.fault("value", {"code": "(n for n in range(3))"})
        self.assertEqual(fault["code"], "recipe_failed")
        self.assertIn("streaming = true", fault["hint"])

    def test_async_operations_share_one_loop(self):
        for _ in range(3):
            self.assertEqual(self.pod.call("nap"), {"slept": True})
        frame, before = self.pod.answer(self.pod.ask("stream"))
        self.assertEqual([f.message["data"] for f in before], [{"done": 0}, 0, {"done": 1}, 1, {"done": 2}, 2])
        self.assertIsNone(frame.message["output"])

    def test_progress_comes_before_the_answer_from_any_thread(self):
        frame, before = self.pod.answer(self.pod.ask("steps"))
        self.assertEqual([f.message["data"] for f in before], [{"done": 0, "total": 2, "note": "ü"}, {"done": 1}, {"done": 2}])
        self.assertEqual(frame.message["output"], "done")

    def test_a_report_that_cannot_be_told_ends_nothing(self):
        frame, before = self.pod.answer(self.pod.ask("bad_progress"))
        self.assertEqual([f.message["data"] for f in before], [{"done": 1, "of": "2024-02-29"}] * 2)
        self.assertEqual(frame.message["output"], "done")
        # Reported once for each field, by code that runs none of the author's.
        until(lambda: self.pod.output["stderr"].count(b"progress is told without") == 2)
        self.assertIn(b"without `loss`: nan (JSON has no such number)", self.pod.output["stderr"])
        self.assertIn(b"without `at`: it raised LookupError", self.pod.output["stderr"])

    def test_nothing_of_an_ask_follows_its_answer(self):
        ask = self.pod.ask("late_progress")
        self.assertEqual(self.pod.answer(ask)[0].message["output"], "answered")
        slow = self.pod.ask("run", {"code": "time.sleep(0)"})
        self.pod.answer(slow)
        self.pod.call("run", {"code": "time.sleep(0.1)"})

    def test_what_json_cannot_carry_is_a_fault_with_its_place(self):
        for code, pointer in (
            ("{'a': [1, float('nan')]}", "/a/1"),
            ("float('inf')", "/"),
            ("['\\ud800']", "/0"),
            ("{'n': 2 ** 64}", "/n"),
            ("{'a': {None: 4}}", "/a"),
            ("b'bytes'", "/"),
            ("[object()]", "/0"),
        ):
            with self.subTest(code):
                fault = self.fault("value", {"code": code})
                self.assertEqual((fault["code"], fault["detail"]["pointer"]), ("invalid_output", pointer))
                self.assertIn("`value`", fault["message"])
        self.assertEqual(self.pod.call("echo", {"still": "there"}), {"still": "there"})

    def test_an_exception_becomes_a_fault_with_the_authors_frames_only(self):
        fault = self.fault("run", {"code": "def f():\n  raise KeyError('k')\nf()"})
        self.assertEqual((fault["code"], fault["detail"]["type"]), ("recipe_failed", "KeyError"))
        self.assertIn("`run` raised KeyError: 'k'", fault["message"])
        self.assertIn("pod.py", fault["detail"]["traceback"])
        self.assertNotIn("serving.py", fault["detail"]["traceback"])

    def test_exceptions_are_classified(self):
        for code, wanted in (
            ("raise MemoryError()", "out_of_memory"),
            ("raise OutOfMemoryError('CUDA out of memory. Tried to allocate')", "out_of_memory"),
            ("import a_package_that_nobody_has", "dependency_missing"),
            ("open('/there/is/no/such/file')", "recipe_failed"),
            ("raise Custom('x')", "recipe_failed"),
            ("raise asyncio.CancelledError", "recipe_failed"),
            (
                "raise hob_pod.Fault('invalid_input', 'unknown language `xx`', hint='try `en`', detail={'n': 1})",
                "invalid_input",
            ),
            ("raise hob_pod.Fault('gremlins', 'x')", "recipe_failed"),
            ("raise hob_pod.Fault('recipe_failed', 'x', detail={1: 2})", "recipe_failed"),
            ("raise ValueError('\\ud800' * 5000)", "recipe_failed"),
            ("def f(): f()\nf()", "recipe_failed"),
        ):
            with self.subTest(code):
                self.assertEqual(self.fault("run", {"code": code})["code"], wanted)
        self.assertEqual(self.fault("run", {"code": "raise OutOfMemoryError"})["detail"]["device"], "gpu")
        fault = self.fault("run", {"code": "import a_package_that_nobody_has.part"})
        self.assertEqual(fault["detail"]["package"], "a_package_that_nobody_has")

    def test_a_timeout_after_the_deadline_is_the_deadline(self):
        code = {"code": "time.sleep(0.01)\nraise TimeoutError('too slow')"}
        self.assertEqual(self.fault("run", code, left_ms=1)["code"], "deadline")
        self.assertEqual(self.fault("run", code)["code"], "recipe_failed")

    def test_time_left_counts_down_from_the_asks_own_budget(self):
        left = self.pod.call("time_left", left_ms=5_000)
        self.assertTrue(4.0 < left <= 5.0, left)

    def test_prints_from_everywhere_leave_the_lanes_alone(self):
        for n in range(20):
            self.assertEqual(self.pod.call("noise", {"n": n}), n)
        for text in (b"from print 19\n", b"from puts\n", b"from write\n", b"from a child\n"):
            self.assertTrue(until(lambda text=text: text in self.pod.output["stdout"]), self.pod.output)
        self.assertTrue(until(lambda: b"from stderr\n" in self.pod.output["stderr"]))

    def test_worker_processes_of_the_author_do_not_disturb_the_lanes(self):
        pod = Pod(WORKERS, {"fork": False, "workers": False}).ready()
        self.addCleanup(pod.close)
        frame, before = pod.answer(pod.ask("fork"))
        self.assertEqual((frame.message["output"], before), (7, []))
        for how in ("fork", "spawn"):
            self.assertEqual(pod.call("workers", {"how": how}), [1, 2, 3])

    def test_pings_are_answered_while_the_author_is_busy(self):
        ask = self.pod.ask("run", {"code": "time.sleep(0.5)"})
        self.assertTrue(until(lambda: self._ping(1) == [ask]))
        self.pod.answer(ask)
        # The answer is sent an instant before the ask leaves the list.
        self.assertTrue(until(lambda: self._ping(2) == []))

    def _ping(self, seq):
        self.pod.control.send({"type": "ping", "seq": seq})
        pong = self.pod.control.receive().message
        self.assertEqual((pong["type"], pong["seq"]), ("pong", seq))
        return pong["asks"]


class Limits(unittest.TestCase):
    def test_frames_above_the_limit_are_that_asks_fault_and_the_stream_stays_in_sync(self):
        pod = Pod(SOURCE, OPERATIONS).ready(frame_bytes_max=10_000)
        self.addCleanup(pod.close)
        fault = pod.call("echo", {"x": "y" * 20_000})["fault"]
        self.assertEqual(fault["code"], "too_large")
        fault = pod.call("value", {"code": "'x' * 20_000"})["fault"]
        self.assertEqual((fault["code"], fault["detail"]["limit"]), ("too_large", 10_000))
        self.assertEqual(pod.call("value", {"code": "hob_pod.Blob"})["fault"]["code"], "invalid_output")
        self.assertEqual(pod.call("echo", {"ok": 1}), {"ok": 1})

    def test_a_broken_frame_of_the_host_ends_the_pod_loudly(self):
        pod = Pod(SOURCE, OPERATIONS).ready()
        self.addCleanup(pod.close)
        pod.data.socket.sendall(struct.pack(">IIQ", 0xFFFFFFFF, 0, 1))
        self.assertEqual(pod.wait(), 70)
        self.assertIn(b"ProtocolError", pod.output["stderr"])

    def test_an_ask_for_another_incarnation_ends_the_pod_loudly(self):
        pod = Pod(SOURCE, OPERATIONS).ready()
        self.addCleanup(pod.close)
        ask = {
            "type": "ask",
            "incarnation": "other",
            "digest": "sha256:00",
            "operation": "echo",
            "input": {},
            "left_ms": 1,
        }
        pod.data.send(ask, 1)
        self.assertEqual(pod.wait(), 70)
        self.assertIn(b"another incarnation", pod.output["stderr"])


class Ending(unittest.TestCase):
    def make(self):
        pod = Pod(SOURCE, OPERATIONS)
        self.addCleanup(pod.close)
        return pod.ready()

    def test_drain_finishes_the_ask_in_hand_and_exits_0(self):
        pod = self.make()
        ask = pod.ask("run", {"code": "time.sleep(0.3); print('last words', end='')\nresult = 5"})
        self.assertTrue(until(lambda: pod.in_hand() == [ask]))
        pod.control.send({"type": "drain"})
        self.assertEqual(pod.answer(ask)[0].message["output"], 5)
        self.assertEqual(pod.wait(), 0)
        self.assertIn(b"last words", pod.output["stdout"])

    def test_drain_ends_an_idle_pod_although_a_thread_of_the_author_hangs(self):
        pod = self.make()
        pod.call("run", {"code": "threading.Thread(target=time.sleep, args=(3600,)).start()"})
        pod.control.send({"type": "drain"})
        self.assertEqual(pod.wait(), 0)

    def test_tasks_that_were_left_are_cancelled_and_clean_up_before_the_pod_ends(self):
        source = """
            import asyncio, atexit, hob_pod

            atexit.register(lambda: print("atexit", flush=True))

            async def forever(name):
                try:
                    await asyncio.sleep(3600)
                finally:
                    await asyncio.sleep(0.01)
                    print("cleaned", name, flush=True)

            async def fails():
                try:
                    await asyncio.sleep(3600)
                finally:
                    1 / 0

            async def steps():
                try:
                    yield 1
                    yield 2
                finally:
                    await asyncio.sleep(0.01)
                    print("cleaned steps", flush=True)

            async def deaf():
                while True:
                    try:
                        await asyncio.sleep(3600)
                    except asyncio.CancelledError:
                        pass

            class Pod:
                async def leave(self, input):
                    self.steps = steps()
                    await self.steps.__anext__()
                    self.kept = [asyncio.create_task(forever(n)) for n in range(3)] + [asyncio.create_task(fails())]
                    await asyncio.sleep(0)

                async def leave_a_deaf_one(self, input):
                    self.deaf = asyncio.create_task(deaf())
                    await asyncio.sleep(0)
        """
        for concurrency in (1, 2):
            pod = Pod(source, {"leave": False, "leave_a_deaf_one": False}, concurrency=concurrency).ready()
            self.addCleanup(pod.close)
            pod.call("leave")
            pod.control.send({"type": "drain"})
            self.assertEqual(pod.wait(), 0, pod.output)
            lines = pod.output["stdout"].decode().split("\n")
            self.assertEqual(sorted(lines[:4]), ["cleaned 0", "cleaned 1", "cleaned 2", "cleaned steps"])
            self.assertEqual(lines[4], "atexit")
            self.assertIn(b"ZeroDivisionError", pod.output["stderr"])
            pod = Pod(source, {"leave": False, "leave_a_deaf_one": False}, concurrency=concurrency).ready()
            self.addCleanup(pod.close)
            pod.call("leave_a_deaf_one")
            pod.control.send({"type": "drain"})
            self.assertEqual(pod.wait(), 0, pod.output)
            self.assertIn(b"its end took more than 2 s", pod.output["stderr"])

    def test_exit_ends_a_busy_pod(self):
        pod = self.make()
        pod.ask("run", {"code": "time.sleep(3600)"})
        pod.control.send({"type": "exit"})
        self.assertEqual(pod.wait(), 0)

    def test_the_end_of_the_control_lane_ends_a_busy_pod(self):
        pod = self.make()
        pod.ask("run", {"code": "while True: pass"})
        pod.control.socket.close()
        self.assertEqual(pod.wait(), 0)

    def test_a_pod_that_is_left_alone_uses_no_cpu(self):
        pod = self.make()
        pid = pod.call("run", {"code": "result = os.getpid()"})
        before = [self._cpu(pid), self._cpu(pod.process.pid)]
        until(lambda: False, 1.0)
        self.assertEqual([self._cpu(pid), self._cpu(pod.process.pid)], before)
        self.assertTrue(alive(pid))

    def _cpu(self, pid):
        with open(f"/proc/{pid}/stat") as file:
            return sum(map(int, file.read().rpartition(")")[2].split()[11:13]))

    def test_an_exit_is_one_callers_failure_and_the_pod_goes_on(self):
        pod = self.make()
        for code, number, said in (
            ("sys.exit(9)", 9, "called sys.exit with code 9"),
            ("sys.exit()", 0, "called sys.exit with code 0"),
            ("sys.exit('no licence')", 1, "called sys.exit: no licence"),
            ("raise SystemExit(type('Odd', (), {'__str__': lambda self: sys.exit(3)})())", 1, "__str__ raised SystemExit"),
        ):
            fault = pod.call("run", {"code": code})["fault"]
            self.assertEqual((fault["code"], fault["detail"]["exit_code"]), ("recipe_failed", number), fault)
            self.assertIn(said, fault["message"])
        for error in ("KeyboardInterrupt", "GeneratorExit", "__import__('asyncio').CancelledError"):
            self.assertEqual(pod.call("run", {"code": f"raise {error}"})["fault"]["code"], "recipe_failed")
        self.assertEqual(pod.call("run", {"code": "result = 1"}), 1)
        pod.ask("run", {"code": "os._exit(9)"})
        self.assertEqual(pod.wait(), 9)

    def test_a_stack_is_printed_on_request_while_native_code_runs(self):
        pod = self.make()
        pid = pod.call("run", {"code": "result = os.getpid()"})
        pod.ask("run", {"code": "time.sleep(3600)"})
        self.assertTrue(until(lambda: pod.in_hand() == [2]))
        os.kill(pid, 10)  # SIGUSR1
        self.assertTrue(until(lambda: b"pod.py" in pod.output["stderr"]), pod.output)


if __name__ == "__main__":
    unittest.main()
