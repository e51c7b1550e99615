"""The tables of docs/values.md, row by row; objects that misbehave while they are inspected; pairs and
`Result`."""

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import importlib
import json
import pathlib
import re
import types
import unittest
import uuid

import hob_pod
from hob_pod import answers, faults, values, wire

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "values.md"


class Label(str, enum.Enum):
    CAT = "cat"


class Rank(enum.IntEnum):
    FIRST = 1


class Plain(enum.Enum):
    A = "a"


@dataclasses.dataclass
class Box:
    x: int
    y: int


class Tensor:
    """Stands for objects that are not of numpy and convert like its arrays."""

    def __init__(self, found):
        self.found = found

    def tolist(self):
        return self.found


endless = []
endless.append(endless)
moved = collections.OrderedDict(a=1, b=2)
moved.move_to_end("a")
NAMES = {
    **vars(collections),
    **vars(datetime),
    "Decimal": decimal.Decimal,
    "Fraction": fractions.Fraction,
    "Path": pathlib.Path,
    "UUID": uuid.UUID,
    "Point": collections.namedtuple("Point", "x y"),
    "moved": moved,
    **{name: globals()[name] for name in ("Box", "Label", "Plain", "Rank", "Tensor", "endless", "hob_pod")},
}
#: The packages that rows need. A row whose package is missing is skipped, and counted.
PACKAGES = ("numpy", "pandas", "polars", "pyarrow", "pydantic")


def rows():
    """Returns (the expression, its JSON) of every row of the page's tables."""
    for line in PAGE.read_text().splitlines():
        cells = re.split(r"(?<!\\) \| ", line.strip().removeprefix("| ").removesuffix(" |"))
        if line.startswith("|") and len(cells) == 3 and cells[1].startswith("`"):
            yield cells[1].strip("`"), cells[2]


def found_of_pydantic(names):
    import pydantic

    names["Found"] = pydantic.create_model("Found", label=(Label, ...), at=(datetime.date, ...))


class Table(unittest.TestCase):
    def test_each_row_of_the_page_is_what_happens(self):
        names, missing = dict(NAMES), []
        for package in PACKAGES:
            try:
                names[package] = importlib.import_module(package)
            except ImportError:
                missing.append({"pydantic": "Found"}.get(package, package))
        if "pydantic" in names:
            found_of_pydantic(names)
        held = left_out = 0
        for expression, becomes in rows():
            if any(re.search(rf"\b{package}\b", expression) for package in missing):
                left_out += 1
                continue
            with self.subTest(expression):
                value = eval(expression, names)
                if not becomes.startswith("fault: "):
                    # Compared as text: 1 and 1.0 differ in JSON, and so do two orders of keys.
                    wanted = json.dumps(json.loads(becomes.strip("`")), ensure_ascii=False, separators=(",", ":"))
                    self.assertEqual(wire.dump(value).decode(), wanted)
                    self.assertEqual(wire.dump({"deeper": [value]}).decode(), f'{{"deeper":[{wanted}]}}')
                else:
                    with self.assertRaises(values.NotJson) as caught:
                        wire.dump(value)
                    self.assertIn(becomes.removeprefix("fault: ").strip("`"), caught.exception.hint)
                held += 1
        self.assertGreaterEqual(held, 29, f"{left_out} rows left out")

    def test_more_of_the_same_kinds(self):
        @dataclasses.dataclass
        class Kept:
            a: object
            kind: dataclasses.InitVar[int] = 3
            shared = 4

        class Bits(enum.Flag):
            A = 1
            B = 2

        for value, wanted in (
            (Kept([Box(1, 2)]), {"a": [{"x": 1, "y": 2}]}),
            (Bits.A | Bits.B, 3),
            (array.array("d", [1, 2]), [1.0, 2.0]),
            (types.MappingProxyType({"a": range(2)}), {"a": [0, 1]}),
            (collections.UserString("text"), "text"),
            (collections.deque([(1,)]), [[1]]),
            ({2: {3}, Label.CAT: frozenset()}, {"2": [3], "cat": []}),
            ({1, "a", None, (1, 2)}, [None, 1, "a", [1, 2]]),
            ({"b": 1}.items(), [["b", 1]]),
            (datetime.timedelta(microseconds=-5), "-PT0.000005S"),
            (datetime.timedelta(0), "PT0S"),
            (datetime.time(1, 2), "01:02:00"),
        ):
            with self.subTest(repr(value)):
                self.assertEqual(json.loads(wire.dump(value)), wanted)

    def test_the_place_is_named_by_the_keys_of_the_answer(self):
        for value, pointer in (
            ({"a": [Box(1, {"~/": 1j})]}, "/a/0/y/~0~1"),
            (collections.deque([1, float("nan")]), "/1"),
            ({7: [object()]}, "/7/0"),
            ({"s": Tensor([0.5, float("nan")])}, "/s/1"),
        ):
            with self.subTest(pointer), self.assertRaises(values.NotJson) as caught:
                wire.dump(value)
            self.assertEqual(caught.exception.pointer, pointer)

    def test_a_mended_copy_is_given_and_the_value_stays_as_it_was(self):
        value = {"a": [Label.CAT, {1}], "b": [1, 2]}
        wire.dump(value)
        self.assertEqual(value, {"a": [Label.CAT, {1}], "b": [1, 2]})


class Liar(dict):
    """A dict whose methods lie, and raise."""

    def items(self):
        return [("a", "another value")]

    __iter__ = keys = values = __getitem__ = __len__ = None


class Text(str):
    __str__ = __repr__ = encode = None


class Whole(int):
    __int__ = __index__ = __str__ = __repr__ = None


class Real(float):
    __float__ = __repr__ = None


class Row(list):
    __iter__ = __len__ = __getitem__ = None


class Misbehaviour(unittest.TestCase):
    def test_of_subclasses_the_value_itself_is_taken(self):
        value = {"d": Liar(a=1), "s": Text("s"), "i": Whole(3), "f": Real(0.5), "l": Row([1]), Text("k"): None}
        self.assertEqual(wire.dump(value), b'{"d":{"a":1},"s":"s","i":3,"f":0.5,"l":[1],"k":null}')

    def test_what_says_yes_to_everything_is_no_array(self):
        class Everything:
            def __getattr__(self, name):
                return lambda *arguments, **named: self

        for value in (Everything(), [Everything()], {Everything(): 1}):
            with self.assertRaises(values.NotJson):
                wire.dump(value)

    def test_what_gives_itself_or_has_no_end_is_refused(self):
        class Itself:
            def tolist(self):
                return self

        class Endless(collections.UserList):
            def __iter__(self):
                while True:
                    yield 1

        twice = [Box(1, 2)]
        twice += [twice, twice]
        before, values.VALUES_MAX = values.VALUES_MAX, 10_000
        try:
            wide = [Box(1, 2)]
            for _ in range(60):
                wide = [wide, wide]
            for value, words in ((Itself(), "too deep"), (twice, "too deep"), (Endless(), "more than"), (wide, "more than")):
                with self.assertRaises(values.NotJson) as caught:
                    wire.dump(value)
                self.assertIn(words, caught.exception.problem)
        finally:
            values.VALUES_MAX = before

    def test_mappings_and_collections_without_end_are_given_up_by_count(self):
        class Endless(collections.abc.Mapping):
            count = 0

            def __iter__(self):
                while True:
                    self.count += 1
                    yield f"{self.count:09}"

            def __getitem__(self, key):
                return {}

            def __len__(self):
                return 3

        endless = Endless()
        with self.assertRaisesRegex(values.NotJson, "more than 16777216 bytes"):
            wire.dump(endless)
        self.assertLessEqual(endless.count, 2 * values.VALUES_MAX // 14 + 1)  # an entry is `"000000001":{},`
        with self.assertRaisesRegex(values.NotJson, "more than 16777216 bytes"):
            wire.dump({"a": range(10**18)})
        wire.dump({str(n): n for n in range(100_000)})

    def test_what_the_authors_code_raises_comes_out(self):
        class Broken:
            def tolist(self):
                raise LookupError("mine")

        class Unhashable(type):
            def __getattribute__(cls, name):
                raise LookupError("mine")

        class Odd(metaclass=Unhashable):
            pass

        for value in (Broken(), {"a": [Odd()]}):
            with self.assertRaises(LookupError):
                wire.dump(value)

    def test_types_without_end_are_not_remembered_without_end(self):
        for n in range(3_000):
            self.assertEqual(wire.dump([type(f"T{n}", (str,), {})("x")]), b'["x"]')
        self.assertLessEqual(len(values._ways), 1_024)

    def test_a_faults_detail_is_converted_once(self):
        class Once:
            count = 0

            def tolist(self):
                Once.count += 1
                if Once.count > 1:
                    raise LookupError("again")
                return [1]

        fault = faults.of(faults.Fault("recipe_failed", "x", detail={"a": Once(), "b": {2}}), "`run`")
        self.assertEqual(json.loads(wire.dump(fault))["detail"], {"a": [1], "b": [2]})
        fault = faults.of(faults.Fault("recipe_failed", "x", detail={"a": Once()}), "`run`")
        self.assertEqual(fault["detail"], {"dropped": "the fault's detail could not be read: reading it raised LookupError"})


class Pairs(unittest.TestCase):
    def message(self, value):
        start = {"frame_bytes_max": 1 << 20, "models": {}, "incarnation": "x"}
        parts = answers.Answers(start, None).output(1, value)
        frame = wire.Decoder()
        raw = b"".join(map(bytes, parts))
        frame.space()[: len(raw)] = raw
        return frame.received(len(raw))[0]

    def test_a_pair_is_a_value_unless_its_dict_holds_blobs(self):
        for value in (("cat", {}), ("cat", {"sure": True}), ("cat", [], {}), collections.namedtuple("P", "x y")(1, {"b": 2})):
            frame = self.message(value)
            self.assertEqual(frame.message["output"], list(value))
            self.assertNotIn("blobs", frame.message)
        blob = hob_pod.Blob(b"bytes")
        for value in (({"n": 1}, {"b": blob}), hob_pod.Result({"n": 1}, {"b": blob})):
            frame = self.message(value)
            self.assertEqual((frame.message["output"], bytes(frame.tail)), ({"n": 1}, b"bytes"))

    def test_a_result_without_blobs_is_its_value(self):
        for blobs in ({}, ()):
            self.assertEqual(self.message(hob_pod.Result(("cat", {}), blobs)).message["output"], ["cat", {}])

    def test_what_is_mixed_is_said(self):
        blob = hob_pod.Blob(b"bytes")
        for value in (("cat", {"b": blob, "n": 1}), ("cat", {1: blob})):
            with self.assertRaises(hob_pod.Fault) as caught:
                self.message(value)
            self.assertIn("among the blobs", caught.exception.message)
        for blobs in ({"b": b"bytes"}, {1: blob}):
            with self.assertRaises(TypeError):
                hob_pod.Result("cat", blobs)
        changed = hob_pod.Result("cat", {"b": blob})
        changed.blobs["c"] = 3
        with self.assertRaises(hob_pod.Fault):
            self.message(changed)


if __name__ == "__main__":
    unittest.main()
