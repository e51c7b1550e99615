"""Describing an author's object always ends in a text, whatever the object's methods do. A table, without a
pod."""

import builtins
import threading
import time
import unittest

from hob_pod import Fault, faults, guard, tracebacks, wire


def misbehaving(method, does, *bases):
    """Returns an instance whose `method` behaves as given."""
    return type("Odd", bases or (Exception,), {method: does})()


def exits(*_):
    raise SystemExit(3)


def recurses(self, *_):
    return repr([self]) + str(self)


def is_late(*_):
    while True:
        try:
            time.sleep(0.01)
        except BaseException:  # not even an interrupt ends it at once
            time.sleep(0.3)
            raise


class Lies(Exception):
    __class__ = Fault


class OddMeta(type):
    __name__ = property(exits)
    __module__ = property(exits)
    __mro__ = property(exits)
    __hash__ = exits
    __eq__ = exits
    __instancecheck__ = __subclasscheck__ = exits

    def __getattribute__(cls, name):
        raise KeyboardInterrupt


class OddError(Exception, metaclass=OddMeta):
    def __getattribute__(self, name):
        raise GeneratorExit


class TextOfItsOwn(str):
    __slots__ = ()
    __len__ = __getitem__ = __format__ = encode = __str__ = __repr__ = __eq__ = exits
    __hash__ = str.__hash__


class Telling(unittest.TestCase):
    def fault(self, error):
        fault = faults.of(error, "`run`", {"net": "/models/net"}, "/recipe/pod", True)
        wire.dump(fault)  # all of it is plain data
        return fault

    def test_any_exception_is_one_fault(self):
        for name, error in {
            "exits": misbehaving("__str__", exits),
            "exits on repr": misbehaving("__repr__", exits),
            "bytes": misbehaving("__str__", lambda self: b"bytes"),
            "number": misbehaving("__str__", lambda self: 3),
            "recurses": misbehaving("__str__", recurses),
            "is cancelled": misbehaving("__str__", lambda self: (_ for _ in ()).throw(faults.Cancelled())),
            "text of its own": misbehaving("__str__", lambda self: TextOfItsOwn("text")),
            "surrogates": ValueError("\udcff"),
            "attributes exit": misbehaving("__getattribute__", exits),
            "attributes exit, of a system error": misbehaving("__getattr__", exits, OSError),
            "class lies": Lies("x"),
            "metaclass": OddError("x"),
            "argument": ValueError(misbehaving("__repr__", exits, object), misbehaving("__str__", recurses, object)),
            "key": KeyError(misbehaving("__repr__", exits, object)),
            "import": ImportError(misbehaving("__str__", exits, object), name=misbehaving("__bool__", exits, object)),
            "missing": ModuleNotFoundError("x", name=TextOfItsOwn("tensors")),
            "system": OSError(misbehaving("__hash__", exits, object), misbehaving("__str__", exits, object)),
            "file": FileNotFoundError(2, "no", misbehaving("__fspath__", exits, object)),
            "exit": SystemExit(misbehaving("__str__", exits, object)),
            "exit by a number of its own": SystemExit(type("N", (int,), {"__and__": exits, "__int__": exits, "__index__": exits})(4)),
            "syntax": SyntaxError(misbehaving("__str__", exits, object), (TextOfItsOwn("f"), 1, exits, TextOfItsOwn("t"))),
            "unicode": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"),
        }.items():
            for way in ("itself", "cause", "context"):
                with self.subTest(name, way=way):
                    outer = error if way == "itself" else RuntimeError("outer")
                    if way == "cause":
                        outer.__cause__ = error
                    elif way == "context":
                        outer.__context__ = error
                    fault = self.fault(outer)
                    self.assertIn(fault["code"], ("recipe_failed", "model_missing", "dependency_missing"))
                    self.assertIn("traceback", fault["detail"])

    def test_any_fault_of_the_authors_is_one(self):
        for attributes in (
            {"code": exits}, {"message": misbehaving("__str__", exits, object)}, {"hint": 3, "code": TextOfItsOwn("recipe_failed")},
            {"detail": {"n": float("nan")}}, {"detail": misbehaving("tolist", exits, object)}, {"detail": {"x": "x" * 1_000_000}},
            {"detail": type("D", (dict,), {"items": exits, "values": exits})(a=[1])},
        ):  # fmt: skip
            fault = Fault("recipe_failed", "said")
            fault.__dict__.update(attributes)
            self.assertEqual(self.fault(fault)["code"], "recipe_failed")
        fault = Fault.__new__(Fault)
        self.assertEqual(self.fault(fault)["code"], "recipe_failed")

    def test_what_never_ends_is_ended_and_costs_one_telling_once(self):
        chain = [misbehaving("__str__", is_late) for _ in range(8)]
        for outer, inner in zip(chain, chain[1:]):
            outer.__cause__ = inner
        for run in (lambda: self.fault(chain[0]), lambda: None):
            done = []
            thread = threading.Thread(target=lambda run=run, done=done: done.append(run()))
            thread.start()
            thread.join(30)
            self.assertEqual(len(done), 1)
        fault = self.fault(chain[0])
        self.assertIn("its __str__ took too long", fault["message"])
        self.assertIn("no time was left", fault["detail"]["traceback"])
        self.assertFalse(guard._watches)

    def test_what_the_interpreters_own_errors_hold_is_asked_under_guard(self):
        def of(error, **attributes):
            for name, value in attributes.items():
                setattr(error, name, value)
            return error

        for error in (
            OSError(2, "x", misbehaving("__repr__", is_late, object)),
            of(OSError(2, "x"), strerror=misbehaving("__str__", is_late, object)),
            of(SyntaxError("x"), msg=misbehaving("__str__", is_late, object)),
            of(UnicodeDecodeError("utf-8", b"x", 0, 1, "why"), reason=misbehaving("__str__", is_late, object)),
        ):
            self.assertFalse(guard.runs_nothing(error, "__str__"), error.__class__)
        self.assertIn("its __str__ took too long", self.fault(error)["message"])
        for error in (ValueError("x"), KeyError("x"), RuntimeError(1, 2)):
            self.assertTrue(guard.runs_nothing(error, "__str__"), error)

    def test_a_traceback_whose_first_file_has_a_name_of_its_own_kind(self):
        def fails():
            raise ValueError("x")

        fails.__code__ = fails.__code__.replace(co_filename=type("Name", (str,), {"startswith": exits})("/recipe/pod/x.py"))
        try:
            fails()
        except ValueError as error:
            error.__traceback__ = error.__traceback__.tb_next
            self.assertIn('"/recipe/pod/x.py"', self.fault(error)["detail"]["traceback"])

    def test_texts_and_tracebacks_are_bounded(self):
        self.assertLess(len(guard.text("x" * 1_000_000)), 5_000)
        self.assertLess(len(guard.shown("x" * 1_000_000)), 5_000)
        self.assertLess(len(guard.text(misbehaving("__str__", lambda self: "x" * 1_000_000))), 5_000)
        self.assertLess(len(guard.text(1 << 100_000)), 5_000)

        def deep(n):
            return deep(n - 1) + 1

        def two(n):
            return three(n)

        def three(n):
            return two(n)

        for recursive in (deep, two):
            try:
                recursive(10**9)
            except RecursionError as error:
                text = tracebacks.told(error)
            self.assertLess(len(text), 20_000)
            self.assertIn("calls left out", text)
            self.assertIn("RecursionError", text)
        first, second = ValueError("1"), ValueError("2")
        first.__context__, second.__context__ = second, first
        self.assertEqual(tracebacks.told(first).count("ValueError"), 2)
        chain = [ValueError(n) for n in range(100)]
        for outer, inner in zip(chain, chain[1:]):
            outer.__cause__ = inner
        self.assertLess(tracebacks.told(chain[0]).count("ValueError"), 20)

    def test_a_traceback_says_where_and_what_led_to_it(self):
        try:
            try:
                1 / 0  # noqa: B018
            except ZeroDivisionError as error:
                raise RuntimeError("outer") from error
        except RuntimeError as error:
            text = tracebacks.told(error)
        self.assertIn("ZeroDivisionError: division by zero\n\nThe above exception was the direct cause", text)
        self.assertIn('test_guard.py", line', text)
        self.assertIn("    1 / 0  # noqa: B018", text)
        self.assertTrue(text.endswith("RuntimeError: outer\n"))

    @unittest.skipUnless(hasattr(builtins, "ExceptionGroup"), "no groups before Python 3.11")
    def test_groups_tell_of_their_members(self):
        ExceptionGroup = builtins.ExceptionGroup
        group = ExceptionGroup("both", [ValueError("first"), misbehaving("__str__", exits)])
        for _ in range(20):
            group = ExceptionGroup("outer", [group, *map(ValueError, range(20))])
        text = tracebacks.told(group)
        self.assertIn("and 13 more", text)
        self.assertIn("left out", text)
        self.assertIn("| ValueError: first", tracebacks.told(ExceptionGroup("both", [ValueError("first")])))


if __name__ == "__main__":
    unittest.main()
