"""A table of misdeeds that recipes commit by accident or on purpose: the pod lives, each caller has one
outcome, and the next caller is not affected.

Each misdeed is a few lines of a method, and ends with an output or with the named fault. After each one a
clean call finds the state of before.
"""

import unittest

from .fake_host import Pod

SOURCE = """
import asyncio, atexit, builtins, contextvars, decimal, gc, io, json, locale, multiprocessing, os, signal, socket, sys, threading, time
import types, warnings, weakref
import hob_pod

class Boom(BaseException):
    pass

class OddText(str):
    def encode(self, *_):
        raise Boom
    __len__ = __iter__ = __add__ = __radd__ = encode

class OddInt(int):
    def __index__(self):
        raise Boom
    __str__ = __repr__ = __int__ = __eq__ = __lt__ = __index__
    __hash__ = int.__hash__

class OddDict(dict):
    def items(self):
        raise Boom
    keys = values = __iter__ = __getitem__ = __len__ = items

class OddList(list):
    def __iter__(self):
        raise Boom
    __len__ = __getitem__ = __iter__

class OddBytes(bytes):
    def __len__(self):
        raise Boom
    __iter__ = __getitem__ = __len__

class Last:
    def __del__(self):
        raise Boom("in __del__")

class Revived:
    kept = []
    def __del__(self):
        Revived.kept.append(self)

class Pod:
    def load(self, models):
        self.began = self.state()

    def state(self):
        return [os.getcwd(), sys.getrecursionlimit(), sys.gettrace() is None, sys.getprofile() is None, type(sys.stdout).__name__,
                type(sys.stderr).__name__, signal.getitimer(signal.ITIMER_REAL)[0], decimal.getcontext().prec,
                threading.current_thread().name.partition(" ")[0]]

    def clean(self, input):
        now = self.state()
        print("said by clean")
        hob_pod.progress(clean=True)
        return [now[:-1] == self.began[:-1] or [now, self.began], input]

    def echo(self, input):
        hob_pod.progress(clean=True)
        return [True, input]

    def run(self, input):
        there = {}
        exec(compile(input, "<misdeed>", "exec"), globals(), there)
        return there.get("result")

    async def run_async(self, input):
        there = {}
        exec("async def run():\\n" + "".join(f"    {line}\\n" for line in input.split("\\n")), globals(), there)
        return await there["run"]()

    def steps(self, input):
        there = {}
        exec("def run():\\n" + "".join(f"    {line}\\n" for line in input.split("\\n")), globals(), there)
        return there["run"]()

    def steps_async(self, input):
        there = {}
        exec("async def run():\\n" + "".join(f"    {line}\\n" for line in input.split("\\n")), globals(), there)
        return there["run"]()
"""

#: (the misdeed's name, how it is called, its lines, "output" or the fault's code)
MISDEEDS = [
    # Exceptions.
    ("raises_a_base_exception", "run", "raise Boom", "recipe_failed"),
    ("raises_a_keyboard_interrupt", "run", "raise KeyboardInterrupt", "recipe_failed"),
    ("raises_generator_exit", "run", "raise GeneratorExit", "recipe_failed"),
    ("raises_stop_iteration", "run", "raise StopIteration(5)", "recipe_failed"),
    ("raises_stop_async_iteration", "run_async", "raise StopAsyncIteration", "recipe_failed"),
    ("raises_stop_iteration_in_a_task", "run_async", "next(iter([]))", "recipe_failed"),
    ("raises_cancelled_error", "run_async", "raise asyncio.CancelledError", "recipe_failed"),
    ("cancels_itself", "run_async", "asyncio.current_task().cancel()\nawait asyncio.sleep(1)", "recipe_failed"),
    ("exits_with_an_object", "run", "sys.exit(object())", "recipe_failed"),
    ("exits_with_a_huge_code", "run", "sys.exit(10**5000)", "recipe_failed"),
    ("raises_a_class_that_raises", "run", "class E(Exception):\n    def __init__(self): raise Boom\nraise E", "recipe_failed"),
    ("raises_its_own_cause", "run", "e = ValueError(1)\ne.__cause__ = e\nraise e", "recipe_failed"),
    ("raises_an_error_of_a_megabyte", "run", "raise ValueError('x' * 1_000_000)", "recipe_failed"),
    ("raises_half_characters_and_nul", "run", "raise ValueError('\\udc80\\x00\\ud800')", "recipe_failed"),
    ("raises_with_a_name_of_half_characters", "run",
     "raise type('\\u0000'.join('ab').replace('\\x00', '_'), (Boom,), {})", "recipe_failed"),  # fmt: skip
    ("raises_deep_in_a_recursion", "run", "f = lambda n: f(n)\nglobals()['f'] = f\nf(1)", "recipe_failed"),
    ("raises_without_a_traceback", "run", "raise ValueError('x').with_traceback(None) from None", "recipe_failed"),
    ("raises_memory_error", "run", "b'x' * (1 << 60)", "out_of_memory"),
    # Values.
    ("gives_subclasses", "run", "result = [OddText('t'), OddInt(3), OddDict(a=1), OddList([1])]", "output"),
    ("gives_odd_bytes", "run", "result = OddBytes(b'x')", "invalid_output"),
    ("gives_a_huge_integer", "run", "result = 10 ** 5000", "invalid_output"),
    ("gives_nan", "run", "result = [float('nan'), float('inf')]", "invalid_output"),
    ("gives_half_a_character", "run", "result = {'\\ud800': 1}", "invalid_output"),
    ("gives_nul", "run", "result = {'a\\x00b': 'c\\x00'}", "output"),
    ("gives_itself", "run", "result = []\nresult.append(result)", "invalid_output"),
    ("gives_a_coroutine_inside", "run", "async def c(): pass\nr = c()\nr.close()\nresult = [r]", "invalid_output"),
    ("gives_a_module", "run", "result = sys", "invalid_output"),
    ("gives_a_lock", "run", "result = threading.Lock()", "invalid_output"),
    ("gives_a_dict_that_grows", "run", "class G(dict):\n    pass\nresult = G((str(n), n) for n in range(100))", "output"),
    ("gives_a_proxy_of_what_is_gone", "run", "class X: pass\nresult = [weakref.proxy(X())]", "invalid_output"),
    ("gives_an_empty_blob", "run", "result = hob_pod.Result(1, {'b': hob_pod.Blob(b'')})", "output"),
    # Chunks.
    ("yields_then_raises", "steps", "yield 1\nraise Boom", "recipe_failed"),
    ("yields_what_is_no_json", "steps", "yield object()", "invalid_output"),
    ("swallows_its_close", "steps", "try:\n    yield object()\nexcept GeneratorExit:\n    yield 2", "recipe_failed"),
    ("raises_in_its_finally", "steps", "try:\n    yield 1\nfinally:\n    raise Boom", "recipe_failed"),
    ("yields_nothing", "steps", "return 5\nyield", "output"),
    ("yields_itself_running", "steps", "g = (next(g) for _ in [1])\nyield next(g)", "recipe_failed"),
    ("yields_async_then_raises", "steps_async", "yield 1\nraise Boom", "recipe_failed"),
    ("yields_async_what_is_no_json", "steps_async", "try:\n    yield object()\nfinally:\n    await asyncio.sleep(0)", "invalid_output"),
    # The process.
    ("sets_no_stdout", "run", "sys.stdout = sys.stderr = None", "output"),
    ("closes_stdout", "run", "sys.stdout.close()", "output"),
    ("changes_the_folder", "run", "os.chdir('/')", "output"),
    ("takes_its_folder_away", "run", "os.makedirs('gone')\nos.chdir('gone')\nos.rmdir('../gone')", "output"),
    ("sets_a_locale", "run", "locale.setlocale(locale.LC_ALL, 'C')", "output"),
    ("sets_a_decimal_context", "run", "decimal.getcontext().prec = 2\ndecimal.setcontext(decimal.Context(prec=1))", "output"),
    ("warns_as_an_error", "run", "warnings.simplefilter('error')\nimport asyncio\nwarnings.warn('x')", "recipe_failed"),
    ("sets_a_small_recursion_limit", "run", "sys.setrecursionlimit(60)\nresult = [[[[[1]]]]]", "output"),
    ("sets_a_small_recursion_limit_and_fails", "run", "sys.setrecursionlimit(60)\nraise ValueError('x')", "recipe_failed"),
    ("sets_a_large_recursion_limit", "run", "sys.setrecursionlimit(100_000)", "output"),
    ("traces_and_raises", "run", "def t(*_):\n    raise Boom\nsys.settrace(t)", "recipe_failed"),
    ("profiles_and_raises", "run", "def t(frame, event, arg):\n    if event == 'call':\n        raise Boom\nsys.setprofile(t)", None),
    ("collects_and_raises", "run", "def c(*_):\n    raise Boom\ngc.callbacks.append(c)\ngc.collect()\ngc.callbacks.remove(c)", "output"),
    ("raises_in_del", "run", "Last()\nresult = 1", "output"),
    ("revives", "run", "Revived()\nresult = len(Revived.kept)", "output"),
    ("breaks_the_hooks", "run", "sys.excepthook = sys.unraisablehook = threading.excepthook = None\nLast()", "output"),
    ("audits_and_raises_once", "run",
     "globals()['once'] = [1]\ndef a(*_):\n"
     "    if once.pop() if once else 0: raise Boom\nsys.addaudithook(a)\nopen('/dev/null').close()", "recipe_failed"),  # fmt: skip
    ("sets_an_alarm", "run", "signal.signal(signal.SIGALRM, lambda *_: 1 / 0)\nsignal.setitimer(signal.ITIMER_REAL, 0.01)", "output"),
    ("ignores_child_signals", "run",
     "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
     "signal.signal(signal.SIGCHLD, signal.SIG_DFL)", "output"),  # fmt: skip
    ("prints_at_its_end", "run", "atexit.register(print, 'the end')", "output"),
    ("registers_an_end_that_raises", "run", "atexit.register(lambda: 1 / 0)", "output"),
    # Others' names.
    ("breaks_json", "run",
     "json.dumps = json.loads = json.JSONEncoder = json.JSONDecoder = None\n"
     "import json.encoder as e\ne.c_make_encoder = None", "output"),  # fmt: skip
    ("breaks_socket", "run", "socket.socket = socket.socketpair = None", "output"),
    ("breaks_threading", "run", "threading._shutdown = threading.Lock = None", "output"),
    ("breaks_time", "run", "old = time.sleep, time.monotonic\ntime.sleep = time.monotonic = lambda *_: 0", "output"),
    ("breaks_print", "run", "builtins.open = builtins.input = None", "output"),
    ("breaks_the_modules", "run",
     "for name in ('json', 'socket', 'faulthandler', 'traceback', 'linecache'):\n"
     "    sys.modules.pop(name, None)", "output"),  # fmt: skip
    ("breaks_os", "run", "os.write = os.getcwd = os.chdir = os.fstat = os.close = None", "output"),
    ("breaks_signals", "run", "signal.signal = signal.getsignal = None\nimport _signal\n_signal.pthread_kill = None", "output"),
    # Threads and processes.
    ("leaves_a_thread_that_raises", "run", "threading.Thread(target=lambda: 1 / 0).start()", "output"),
    ("leaves_a_thread_that_prints", "run",
     "threading.Thread(target=lambda: [time.sleep(0.01), print('late')], daemon=True).start()", "output"),  # fmt: skip
    ("leaves_a_thread_that_exits", "run", "threading.Thread(target=sys.exit).start()", "output"),
    ("forks_and_exits", "run", "child = os.fork()\nif not child:\n    os._exit(3)\nresult = os.waitpid(child, 0)[1]", "output"),
    ("forks_and_comes_back", "run", "result = os.fork() == 0", "output"),
    ("forks_and_raises", "run", "if os.fork() == 0:\n    raise Boom\nresult = 1", "output"),
    ("works_in_processes", "run", "with multiprocessing.get_context('fork').Pool(1) as pool:\n    result = pool.map(abs, [-1])", "output"),
    ("leaves_a_task_that_raises", "run_async",
     "asyncio.ensure_future(asyncio.sleep(0, 1 / 1))\n"
     "asyncio.get_running_loop().call_soon(lambda: 1 / 0)", "output"),  # fmt: skip
    ("leaves_a_callback_that_exits", "run_async", "asyncio.get_running_loop().call_soon(sys.exit, 3)\nawait asyncio.sleep(0.01)", "output"),
    ("stops_the_loop", "run_async", "asyncio.get_running_loop().stop()\nawait asyncio.sleep(0.01)", None),
    ("sets_another_loop", "run", "asyncio.set_event_loop(asyncio.new_event_loop())", "output"),
    ("runs_loops_within", "run", "result = asyncio.run(asyncio.sleep(0, 7))", "output"),
    ("sets_no_hash_of_its_class", "run", "class M(type):\n    __hash__ = None\nclass X(metaclass=M): pass\nresult = X()", "recipe_failed"),
    ("hides_behind_class", "run", "class X:\n    __class__ = property(lambda self: dict)\nresult = X()", "invalid_output"),
    ("says_it_has_everything", "run",
     "class X:\n"
     "    def __getattr__(self, name): return lambda *_, **__: self\nresult = X()", "invalid_output"),  # fmt: skip
    ("gives_a_blob_of_nothing", "run", "b = hob_pod.Blob(b'x')\nb.data = None\nresult = hob_pod.Result(1, {'b': b})", "recipe_failed"),
    ("raises_a_fault_of_a_strange_code", "run", "raise hob_pod.Fault('gremlins', 'x')", "recipe_failed"),
    ("raises_a_fault_with_a_strange_detail", "run", "raise hob_pod.Fault('recipe_failed', 'x', detail={'a': object()})", "recipe_failed"),
    ("reports_what_is_no_json", "run", "hob_pod.progress(a=object(), b=float('nan'), **{'\\ud800': 1})\nresult = 1", "output"),
]
#: Changes that are undone only if works come one at a time.
OF_THE_PROCESS = ("sets_no_stdout", "closes_stdout", "changes_the_folder", "takes_its_folder_away", "sets_a_large_recursion_limit")
KINDS = {"run": False, "run_async": False, "steps": True, "steps_async": True, "clean": False, "echo": False}


class Misdeeds(unittest.TestCase):
    concurrency = 1

    def test_each_has_its_outcome_and_the_next_call_sees_nothing_of_it(self):
        self.assertEqual(len({name for name, *_ in MISDEEDS}), len(MISDEEDS))
        pod = Pod(SOURCE, KINDS, concurrency=self.concurrency).ready()
        self.addCleanup(lambda: pod.close() if pod.process.poll() is None else None)
        for n, (name, kind, lines, wanted) in enumerate(MISDEEDS):
            with self.subTest(name):
                if self.concurrency > 1 and "signal.signal(" in lines:
                    continue  # only the main thread can do that
                # It changed the process, and that stays.
                breaks = name.startswith("breaks_") or (self.concurrency > 1 and name in OF_THE_PROCESS)
                if pod.process.poll() is not None or breaks:
                    pod.close()
                    pod = Pod(SOURCE, KINDS, concurrency=self.concurrency).ready()
                try:
                    frame, _ = pod.answer(pod.ask(kind, lines))
                    outcome = frame.message.get("fault", {"code": "output"})["code"]
                    if wanted is not None:
                        self.assertEqual(outcome, wanted, frame.message)
                    if outcome != "output":
                        self.assertTrue(frame.message["fault"]["message"])
                    frame, before = pod.answer(pod.ask("echo" if breaks else "clean", n))
                    self.assertEqual(frame.message.get("output"), [True, n], frame.message)
                    self.assertEqual([told.message["data"] for told in before], [{"clean": True}])
                    if breaks:
                        pod.control.send({"type": "drain"})
                        self.assertEqual(pod.wait(), 0)
                        pod.close()
                        pod = Pod(SOURCE, KINDS, concurrency=self.concurrency).ready()
                except (AssertionError, OSError):
                    if pod.process.poll() is not None:
                        print(name, pod.output["stderr"][-1500:].decode())
                    raise
        self.assertIsNone(pod.process.poll())
        pod.control.send({"type": "drain"})
        self.assertEqual(pod.wait(), 0)


class MisdeedsAtOnce(Misdeeds):
    """The same in threads and tasks."""

    concurrency = 2


if __name__ == "__main__":
    unittest.main()
