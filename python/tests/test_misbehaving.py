"""A property of the runner: whatever objects an author's code makes, each caller gets one outcome, and the
next caller is not affected.

Objects of random classes, whose special methods raise, recurse, lie or return nonsense, are returned, raised,
yielded, reported and returned in batches, by methods, threads and tasks. HOB_MISBEHAVING_ROUNDS says how many
(300); HOB_SEED repeats a run that failed.
"""

import os
import random
import unittest

from .fake_host import Pod

ROUNDS = int(os.environ.get("HOB_MISBEHAVING_ROUNDS", "300"))
# Each run of the default suite makes the same objects; each longer run makes others.
SEED = int(os.environ.get("HOB_SEED") or (random.SystemRandom().randrange(1 << 32) if "HOB_MISBEHAVING_ROUNDS" in os.environ else 5))

SOURCE = '''
import asyncio, contextvars, decimal, os, random, sys, threading
import hob_pod

METHODS = """
    "__str__ __repr__ __class__ __getattr__ __getattribute__ __eq__ __hash__ __bool__ __len__ __iter__
    __next__ __reduce__ __format__ __bytes__ __int__ __index__ __float__ __call__ __getitem__ __contains__
    __await__ __anext__ __aiter__ __del__ __dir__ __instancecheck__ __subclasscheck__ __fspath__ __buffer__
    tolist items keys values close aclose isoformat code message hint detail errno filename name __cause__
    __traceback__ __notes__ __suppress_context__ args data media_type __array__ __array_interface__ dtype
    shape
""".split()
BASES = [(), (Exception,), (BaseException,), (OSError,), (ImportError,), (SystemExit,), (StopIteration,), (KeyError,), (hob_pod.Fault,),
         (hob_pod.Cancelled,), (MemoryError,), (SyntaxError,), (dict,), (list,), (tuple,), (str,), (int,), (float,), (bytes,),
         (asyncio.CancelledError,), (GeneratorExit,), (KeyboardInterrupt,), (TimeoutError,), (UnicodeDecodeError,)]
RAISED = [SystemExit("exit"), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), hob_pod.Cancelled(), ValueError("plain"),
          RecursionError(), AttributeError("none"), StopIteration(1), MemoryError(), asyncio.CancelledError(), TypeError("\\udc80"),
          hob_pod.Fault("recipe_failed", "x")]
OF_CLASSES = ["__getattribute__", "__hash__", "__eq__", "__str__", "__call__", "__instancecheck__"]
where = contextvars.ContextVar("where", default="clean")


def deeds(chance):
    """What a special method does."""
    def raises(*_, **__):
        raise chance.choice(RAISED)

    def recurses(self, *_, **__):
        # Through C: Python 3.13 before 3.13.8 does not count what calls such a function from Python, and
        # never ends it.
        return next(map(recurses, [self]))

    given = chance.choice([None, b"bytes", 3, "text", (1, 2), float("nan"), object(), "\\udc80", NotImplemented, hob_pod.Fault, {1: 2}])
    constant = lambda *_, **__: given
    return chance.choice([raises, raises, recurses, constant, given, property(raises), property(constant)])


def odd(chance, depth=0):
    """An object of a random class."""
    bases = chance.choice(BASES)
    body = {name: deeds(chance) for name in chance.sample(METHODS, chance.randrange(1, 6))}
    kind = type
    if chance.random() < 0.2:
        kind = type("OddMeta", (type,), {name: deeds(chance) for name in chance.sample(OF_CLASSES, 2)})
    try:
        made = kind(chance.choice(["Odd", "O" * 1000]), bases, body)
        new = bases[0].__new__ if bases else object.__new__
        is_error = depth < 3 and bool(bases) and issubclass(bases[0], BaseException)
        arguments = [odd(chance, depth + 1) for _ in range(chance.randrange(2))] if is_error else []
        made = new(made, *arguments)
        if is_error and chance.random() < 0.4:
            cause = odd(chance, depth + 1)
            if issubclass(type(cause), BaseException):
                BaseException.__dict__[chance.choice(["__cause__", "__context__"])].__set__(made, cause)
    except BaseException:
        made = ValueError("a class that could not be made")
    shape = chance.random()
    if depth == 0 and shape < 0.5:
        made = chance.choice([[made], {"v": made}, {"a": [1, {"b": made}]}, (made, {}), (1, {"b": made}), (made, made)])
    return made


def throw(value):
    if issubclass(type(value), BaseException):
        raise value
    raise ValueError(value)


class Pod:
    def _begin(self, input):
        """The state that the last one left, if it did."""
        before = [where.get(), decimal.getcontext().prec, os.getcwd() == os.environ.get("HERE", os.getcwd())]
        where.set(str(input))
        decimal.getcontext().prec = 3
        assert before[:2] == ["clean", 28], before
        return random.Random(input)

    def give(self, input):
        return odd(self._begin(input))

    def fail(self, input):
        throw(odd(self._begin(input)))

    def report(self, input):
        hob_pod.progress(**{"done": 1, "odd": odd(self._begin(input))})
        return "reported"

    def chunks(self, input):
        chance = self._begin(input)
        for _ in range(3):
            yield odd(chance)
        if chance.random() < 0.5:
            throw(odd(chance))
        return odd(chance)

    async def give_async(self, input):
        return odd(self._begin(input))

    async def fail_async(self, input):
        throw(odd(self._begin(input)))

    async def chunks_async(self, input):
        chance = self._begin(input)
        for _ in range(2):
            yield odd(chance)
        throw(odd(chance))

    async def background(self, input):
        async def later(value):
            throw(value)
        self.kept = asyncio.get_running_loop().create_task(later(odd(self._begin(input))))
        return "left"

    def thread(self, input):
        chance = self._begin(input)
        value = odd(chance)
        def run():
            hob_pod.progress(of=str(input), odd=value)
            throw(value)
        thread = threading.Thread(target=run)
        thread.start()
        if chance.random() < 0.5:
            thread.join()
        return "started"

    def many(self, inputs):
        chance = self._begin(inputs[0])
        results = [odd(chance) for _ in inputs]
        return results if chance.random() < 0.8 else throw(results[0])

    def clean(self, input):
        return [where.get(), decimal.getcontext().prec]
'''
PLAIN = ("give", "fail", "report", "give_async", "fail_async", "background", "thread", "clean")
OPERATIONS = {**dict.fromkeys(PLAIN, False), "chunks": True, "chunks_async": True, "many": "batch"}


class Misbehaving(unittest.TestCase):
    concurrency = 1

    def test_each_caller_gets_one_outcome_and_the_next_sees_nothing_of_it(self):
        chance = random.Random(SEED)
        pod = Pod(SOURCE, OPERATIONS, concurrency=self.concurrency).ready()
        self.addCleanup(pod.close)
        outcomes = {}
        for number in range(ROUNDS):
            name, input = chance.choice([name for name in OPERATIONS if name != "clean"]), chance.randrange(1 << 32)
            said = f"HOB_SEED={SEED}, round {number}: {name}({input})"
            try:
                asks = pod.batch(name, [input, 1, 2]) if name == "many" else [pod.ask(name, input)]
                asks.append(pod.ask("clean"))
                told = self.told(pod, asks)
            except (AssertionError, TimeoutError) as error:
                self.fail(f"{said}: {error}: {pod.output}")
            self.assertEqual(told[asks[-1]]["output"], ["clean", 28], said)
            for ask in asks[:-1]:
                outcome = told[ask].get("fault", {}).get("code", "output")
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
                self.assertNotIn("AssertionError", str(told[ask].get("fault")), said)
        # A run in which nothing fails would show nothing.
        self.assertTrue({"output", "recipe_failed", "invalid_output"} <= set(outcomes), outcomes)
        self.assertIsNone(pod.process.poll())

    def told(self, pod, asks):
        """Receives the answer of each ask: exactly one, and no message of that ask follows it."""
        found = {}
        while len(found) < len(asks):
            frame = pod.data.receive()
            assert frame is not None
            self.assertIn(frame.ask, asks)
            self.assertNotIn(frame.ask, found)
            if frame.message["type"] == "answer":
                found[frame.ask] = frame.message
            elif frame.message["type"] == "progress" and "of" in frame.message["data"]:
                self.assertEqual(frame.ask, asks[0])
        return found


class MisbehavingAtOnce(Misbehaving):
    """The same with threads and tasks."""

    concurrency = 3


if __name__ == "__main__":
    unittest.main()
