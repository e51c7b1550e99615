"""A caller does not find the leftovers of another caller's work, and a program finds nothing of Hob's own
where it looks."""

import os
import sys
import time
import unittest

from .fake_host import Pod, until

SOURCE = """
import argparse, asyncio, concurrent.futures, contextvars, decimal, io, os, queue, signal, sys, threading, time
import hob_pod

options = argparse.ArgumentParser().parse_args()
who = contextvars.ContextVar("who", default=None)

class Pod:
    def load(self, models):
        who.set("load")
        decimal.getcontext().prec = 11
        self.pool = concurrent.futures.ThreadPoolExecutor(1)
        self.pool.submit(int).result()          # its thread is from before all works
        self.go, self.told = queue.Queue(), queue.Queue()
        self.ticks = []

    def bind(self, input):
        found = [who.get(), decimal.getcontext().prec]
        who.set("bound")
        decimal.getcontext().prec = 4
        return found

    def steps(self, input):
        yield self.bind(input)
        return self.bind(input)

    async def bind_async(self, input):
        found = self.bind(input)
        await asyncio.sleep(0)
        return found

    def leave(self, input):
        found = [os.getcwd(), type(sys.stdout).__name__, type(sys.stderr).__name__, signal.getsignal(signal.SIGALRM) == signal.SIG_DFL,
                 signal.getitimer(signal.ITIMER_REAL)[0]]
        os.chdir("/")
        sys.stdout = sys.stderr = io.StringIO()
        signal.signal(signal.SIGALRM, lambda *_: 1 / 0)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        return found

    def rest(self, input):
        time.sleep(0.4)
        return "rested"

    def start(self, input):                      # a thread that reports when it is told to
        def watch():
            while self.go.get():
                hob_pod.progress(of=input)
                self.told.put([hob_pod.cancelled(), threading.current_thread().name])
        threading.Thread(target=watch, name="watch", daemon=True).start()
        self.go.put(True)
        return self.told.get()

    def again(self, input):
        self.go.put(True)
        told = self.told.get()
        hob_pod.progress(of="again")
        self.pool.submit(hob_pod.progress, of="pool").result()
        self.pool.submit(contextvars.copy_context().run, hob_pod.progress, of="context").result()
        return told

    async def task(self, input):
        async def later():
            for n in range(3):
                await asyncio.sleep(0.01)
                self.ticks.append(n)
                hob_pod.progress(of="task")
            sys.exit("from the background")
        self.kept = asyncio.create_task(later())

    async def executor(self, input):
        self.kept = asyncio.create_task(asyncio.to_thread(time.sleep, 0.05) if hasattr(asyncio, "to_thread") else asyncio.sleep(0.05))
        self.kept.add_done_callback(lambda _: self.ticks.append("slept"))

    def loops(self, input):
        async def two():
            return 2
        return [asyncio.run(two()), sorted(self.ticks, key=str)]

    def old_way(self, input):
        async def two():
            return 2
        return asyncio.get_event_loop().run_until_complete(two())

    async def close_loop(self, input):
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.stop)
        loop.call_soon(loop.call_soon, loop.stop)

    def wrong(self, input):
        argparse.ArgumentParser(prog="tool").parse_args(["--learning-rate"])

    def words(self, input):
        import __main__
        original = getattr(sys, "orig_argv", [sys.executable, sys.argv[0]])
        return [sys.argv, original, sorted(vars(__main__)), sys.excepthook is sys.__excepthook__,
                threading.excepthook is threading.__excepthook__ if hasattr(threading, "__excepthook__") else True,
                sys.unraisablehook is sys.__unraisablehook__, isinstance(sys.stderr, io.TextIOWrapper), sys.stderr.fileno(),
                [number.name for number in signal.valid_signals() if callable(signal.getsignal(number)) and hasattr(number, "name")]]
"""
STREAMING = {"steps"}
NAMES = ["bind", "steps", "bind_async", "leave", "rest", "start", "again", "task", "executor", "loops", "old_way", "close_loop"]
NAMES += ["wrong", "words"]


class One(unittest.TestCase):
    concurrency = 1

    def make(self, **rest):
        pod = Pod(SOURCE, {name: name in STREAMING for name in NAMES}, concurrency=self.concurrency, **rest).ready()
        self.addCleanup(pod.close)
        return pod

    def told(self, pod, operation, input=None):
        """Makes a call; returns its output, and the reports before it."""
        frame, before = pod.answer(pod.ask(operation, input))
        self.assertIn("output", frame.message, frame.message)
        return frame.message["output"], [frame.message["data"].get("of") for frame in before]

    def test_each_work_has_the_context_that_load_left(self):
        pod = self.make()
        for operation in ("bind", "bind_async", "steps", "bind", "bind_async", "steps"):
            frame, before = pod.answer(pod.ask(operation))
            found = before[0].message["data"] if before else frame.message["output"]
            self.assertEqual(found, ["load", 11], operation)

    def test_a_thread_reports_to_the_work_that_started_it_and_then_to_nobody(self):
        pod = self.make()
        self.assertEqual(self.told(pod, "start", "ada"), ([False, "watch"], ["ada"]))
        # Work that goes on after its answer belongs to no caller.
        pool = ["pool"] if self.concurrency == 1 else []
        self.assertEqual(self.told(pod, "again"), ([True, "watch"], ["again", *pool, "context"]))

    def test_what_a_work_held_is_gone_when_it_is_over(self):
        source = """
            import gc

            class Pod:
                def load(self, models):
                    gc.disable()

                def plain(self, input):
                    return input

                async def tasks(self, input):
                    return input

                async def stream(self, input):
                    yield input

                def held(self, input):
                    return sum(type(o).__name__ == "Work" for o in gc.get_objects())
        """
        operations = {"plain": False, "tasks": False, "stream": True, "held": False}
        for concurrency in (1, 2):
            pod = Pod(source, operations, concurrency=concurrency).ready()
            self.addCleanup(pod.close)
            for name in ("plain", "tasks", "stream"):
                for _ in range(20):
                    pod.answer(pod.ask(name, {"n": 1}))
                self.assertLess(pod.call("held"), 5, (name, concurrency))

    def test_what_a_failed_work_held_is_gone_when_it_is_over(self):
        source = """
            import asyncio, gc, hob_pod

            class Held:
                pass

            class Unsendable:
                pass

            def fails(held):
                raise ValueError("x")

            class Pod:
                def load(self, models):
                    gc.disable()

                def plain(self, input):
                    fails(Held())

                def exits(self, input):
                    held = Held()
                    raise SystemExit(1)

                def gives(self, input):
                    held = Held()
                    return {"held": Held()}

                async def tasks(self, input):
                    await asyncio.sleep(0)
                    fails(Held())

                def awaited(self, input):
                    return self.tasks(input)

                def chunks(self, input):
                    yield 1
                    fails(Held())

                async def chunks_async(self, input):
                    yield 1
                    fails(Held())

                async def gives_async(self, input):
                    return {"held": Held()}

                def chunk(self, input):
                    held = Held()
                    yield held

                def reports(self, input):
                    hob_pod.progress(held=Held())
                    fails(Held())

                def many(self, inputs):
                    return [self.failed() for _ in inputs]

                def failed(self):
                    try:
                        fails(Held())
                    except ValueError as error:
                        return error

                def many_fail(self, inputs):
                    fails(Held())

                def many_odd(self, inputs):
                    return [Held() for _ in inputs]

                def held(self, input):
                    return sum(type(o) is Held for o in gc.get_objects())
        """
        plain = ["plain", "exits", "gives", "tasks", "awaited", "gives_async", "reports"]
        operations = {**dict.fromkeys(plain, False), "chunks": True, "chunks_async": True, "chunk": True}
        batches = dict.fromkeys(("many", "many_fail", "many_odd"), "batch")
        for concurrency in (1, 2):
            pod = Pod(source, {**operations, **batches, "held": False}, concurrency=concurrency).ready()
            self.addCleanup(pod.close)
            for name in operations:
                for _ in range(5):
                    self.assertIn("fault", pod.answer(pod.ask(name))[0].message, name)
                self.assertLess(pod.call("held"), 2, (name, concurrency))
            for name in batches:
                for _ in range(5):
                    self.assertTrue(all("fault" in answer for answer in pod.answers(pod.batch(name, [1, 2])).values()), name)
                self.assertLess(pod.call("held"), 2, (name, concurrency))

    def test_tasks_in_the_background_go_on_and_their_exits_end_nothing(self):
        pod = self.make()
        self.assertEqual(self.told(pod, "task"), (None, []))
        self.assertTrue(until(lambda: b"from the background" in pod.output["stderr"]), pod.output)
        self.assertEqual(self.told(pod, "loops"), ([2, [0, 1, 2]], []))
        self.assertEqual(self.told(pod, "executor"), (None, []))
        time.sleep(0.3)
        self.assertEqual(self.told(pod, "loops"), ([2, [0, 1, 2, "slept"]], []))
        if self.concurrency == 1:
            self.assertEqual(self.told(pod, "old_way"), (2, []))
        pod.answer(pod.ask("close_loop"))
        self.assertEqual(self.told(pod, "bind_async"), (["load", 11], []))

    def test_an_exit_comes_with_what_was_printed(self):
        pod = self.make()
        fault = pod.call("wrong")["fault"]
        self.assertEqual((fault["code"], fault["detail"]["exit_code"]), ("recipe_failed", 2))
        self.assertIn("unrecognized arguments: --learning-rate", "".join(fault["detail"]["log"]))
        self.assertEqual(pod.call("bind"), ["load", 11])

    def test_the_words_of_the_host_are_not_there(self):
        pod = self.make(title="hob: test/pod")
        argv, original, main, *hooks, is_file, descriptor, handlers = pod.call("words")
        path = os.path.join(pod.folder, "pod", "pod.py")
        self.assertEqual((argv, original, is_file, descriptor), ([path], [sys.executable, path], True, 2))
        self.assertEqual(hooks, [True] * 3)
        self.assertEqual(main, ["__doc__", "__loader__", "__name__", "__package__", "__spec__"])
        self.assertEqual(handlers, ["SIGURG"])


class Several(One):
    concurrency = 3


class Alone(One):
    """State that the runner restores only if works come one at a time."""

    def test_folder_streams_and_alarm_are_as_load_left_them(self):
        pod = self.make()
        here = os.path.realpath(pod.scratch)
        for _ in range(2):
            self.assertEqual(pod.call("leave"), [here, "TextIOWrapper", "TextIOWrapper", True, 0.0])
            self.assertEqual(pod.call("rest"), "rested")

    def test_a_session_is_one_caller_and_keeps_them(self):
        pod = self.make(session="s")
        pod.call("leave")
        self.assertEqual(pod.call("rest")["fault"]["detail"]["type"], "ZeroDivisionError")
        self.assertEqual(pod.call("leave")[:2], ["/", "StringIO"])

    def test_a_handler_that_raises_between_two_works_ends_nothing(self):
        source = "import signal\nclass Pod:\n    def run(self, input):\n        signal.signal(signal.SIGUSR2, lambda *_: input)\n"
        pod = Pod(source.replace("_: input", "_: 1 / 0"), {"run": False}).ready()
        self.addCleanup(pod.close)
        pod.call("run")
        with open(f"/proc/{pod.process.pid}/task/{pod.process.pid}/children") as file:
            child = int(file.read().split()[0])

        def sleeps():
            with open(f"/proc/{child}/stat", "rb") as file:
                return file.read().rpartition(b")")[2].split()[0] == b"S"

        for number in range(1, 4):
            self.assertTrue(until(sleeps))
            os.kill(child, 12)  # SIGUSR2
            self.assertTrue(until(lambda number=number: pod.output["stderr"].count(b"ZeroDivisionError") == number), pod.output)
            self.assertIsNone(pod.call("run"))


class Shadows(unittest.TestCase):
    """A recipe with a file named like each module of Python: it gets its own files, the runner does not."""

    SOURCE = """
import sys
import hob_pod
import {own}

class Pod:
    def unload(self): pass
    def load(self, models): pass
    def run(self, input):
        print("run", file=sys.stderr)
        hob_pod.progress(done=object())
        if input:
            raise ValueError("this text is to be told")
        return [{own}.OWN, sorted(name for name in READ if name in sys.modules and hasattr(sys.modules[name], "OWN"))]
    def stream(self, input):
        yield hob_pod.Blob.empty(300000).media_type
    async def nap(self, input):
        return 3
    def leave(self, input):
        sys.exit("left")

READ = {names!r}
"""

    def test_nothing_of_it_is_taken_for_pythons(self):
        few = ("json", "traceback", "tokenize", "ctypes", "string")
        names = sorted(set(getattr(sys, "stdlib_module_names", (*few, "mmap", "types"))) - {"sys"})
        names = [name for name in names if not name.startswith("_")]
        for own in few:
            for concurrency in (1, 2):
                with self.subTest(own, concurrency=concurrency):
                    files = {f"{name}.py": "OWN = 1\n" if name == own else "raise SystemExit('not this one')\n" for name in names}
                    operations = {"run": False, "stream": True, "leave": False}
                    source = self.SOURCE.format(own=own, names=names).replace("async def nap", "def nap")
                    pod = Pod(source, operations, files=files, concurrency=concurrency)
                    self.addCleanup(pod.close)
                    pod.hello()
                    self.assertEqual(pod.start().message["type"], "started", pod.output)
                    pod.control.send({"type": "load"})
                    self.assertEqual(pod.control.receive().message, {"type": "ready"})
                    frame, before = pod.answer(pod.ask("run", []))
                    self.assertEqual((frame.message.get("output"), len(before)), ([1, [own]], 1), frame.message)
                    fault = pod.answer(pod.ask("run", [1]))[0].message["fault"]
                    self.assertIn("this text is to be told", fault["message"])
                    self.assertIn("pod.py", fault["detail"]["traceback"])
                    self.assertIn("output", pod.answer(pod.ask("stream"))[0].message)
                    self.assertIn("left", pod.call("leave")["fault"]["message"])
                    pod.control.send({"type": "drain"})
                    self.assertEqual(pod.wait(), 0)


if __name__ == "__main__":
    unittest.main()
