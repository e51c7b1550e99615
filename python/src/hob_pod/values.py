"""Converts the author's values to JSON, by the table of docs/values.md, whose test is
python/tests/test_values.py.

`wire` knows only JSON; this module knows the other types of Python and its packages. Packages are recognised
by their types' appearance and never imported. A value that cannot be carried raises NotJson, which says what
to write instead; no value silently becomes another.

Code of the author's runs here (`tolist`, `model_dump`, the iteration of a mapping). Its result is converted
in turn, to the same depth and within the same number of values, and its exceptions propagate. For subclasses
of text, numbers, dicts and lists the value itself is used, whatever methods they override.
"""

import re
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, MappingView, Sequence, Set

from . import guard, tables

#: Deepest nesting of a frame. The host's parser refuses 128, and a frame that it refuses ends the pod.
DEPTH_MAX = 127
#: Most values in one document: the shortest value takes 2 bytes of a frame, which has 16 MB. A key counts as
#: the number of values that need the same room.
VALUES_MAX = 8 << 20
#: Types whose conversion is remembered. An author may make any number of types.
_TYPES_MAX = 1_024
#: Longest key or name in a message, in characters.
_SHOWN_CHARS_MAX = 80

_TEXT = frozenset((str,))
_SCALARS = frozenset((str, int, float, bool, type(None)))
_NEVER_LONG = _SCALARS - {int}

_BLOB = "bytes travel beside the JSON: return `hob_pod.Result(value, {name: hob_pod.Blob(data)})`"
_FINITE = "write None, or a text such as \"nan\", where there is no number"
#: Nanoseconds of numpy's units of time.
_UNITS = {
    "W": 604_800_000_000_000,
    "D": 86_400_000_000_000,
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "ns": 1,
}
_NUMPY_UNIT = re.compile(r"\[(\d*)([A-Za-z]+)\]$")
_NO_TIME = -(1 << 63)


class NotJson(Exception):
    """A value that strict JSON cannot carry. `pointer` is the JSON pointer of its place, `/` for the whole;
    `hint` says what to write instead."""

    def __init__(self, pointer, problem, hint=None):
        super().__init__(f"{problem} at `{pointer}`")
        self.pointer = pointer
        self.problem = problem
        self.hint = hint


def is_plain(value, depth=0):
    """Returns whether `value` consists only of the exact types that JSON has (and tuples), within the bounds.
    Fast."""
    return type(value) in _SCALARS or is_plain_within(value, depth, [VALUES_MAX, False])


def is_plain_within(value, depth, room):
    """`is_plain` for a dict, list or tuple; False for anything else.

    `room`: a list of the number of values that may still come, which this decreases, and whether any of them
    may be a long whole number.
    """
    kind = type(value)
    if kind is dict:
        if not _TEXT.issuperset(map(type, value)):
            return False
        items = value.values()
    elif kind is list or kind is tuple:
        items = value
    else:
        return False
    room[0] -= len(items)
    if depth >= DEPTH_MAX or room[0] < 0:
        return False
    if _NEVER_LONG.issuperset(map(type, items)):
        return True
    room[1] = True
    if _SCALARS.issuperset(map(type, items)):
        return True
    depth += 1
    for item in items:  # noqa: SIM110 - a generator would take twice as long
        if type(item) not in _SCALARS and not is_plain_within(item, depth, room):
            return False
    return True


def plain(value, depth=0):
    """Returns `value` converted to JSON's types. `depth`: its depth within a message. Raises NotJson, and
    what the author's code raises."""
    return _Conversion(depth).of(value)


class _Conversion:
    """The conversion of one value."""

    def __init__(self, depth):
        self._depth = depth
        self._room = VALUES_MAX
        self._path = []  # keys and indexes of the current place

    def of(self, value):
        kind = type(value)
        if kind in _SCALARS:
            return value
        way = _ways.get(kind)
        if way is None:
            way = _way_of(kind)
            if len(_ways) >= _TYPES_MAX:
                _ways.clear()
            _ways[kind] = way
        if self._depth >= DEPTH_MAX:
            # Not only containers: the result of a `tolist` may have a `tolist` again.
            if way in _LEAVES:
                return way(self, value)
            raise self.wrong("nesting too deep (or a value that holds itself)", f"at most {DEPTH_MAX} levels are carried")
        self._depth += 1
        plain_value = way(self, value)
        self._depth -= 1
        return plain_value

    def wrong(self, problem, hint=None):
        """Returns the exception about the current place."""
        steps = [str(step).replace("~", "~0").replace("/", "~1")[:_SHOWN_CHARS_MAX] for step in self._path]
        return NotJson("/" + "/".join(steps), problem, hint)

    def named(self, value):
        """Returns the kind of `value`, for a message."""
        return _article(_name(type(value)))

    def refused(self, value, hint):
        """Returns the exception for a value whose kind cannot be carried."""
        return self.wrong(f"{_article(_name(type(value)))}, which JSON does not have,", hint)

    def _refused_array(self, value, hint):
        return self.wrong(f"{_article(_name(type(value)))} of {value.dtype.name}, which JSON does not have,", hint)

    def _take(self, count):
        self._room -= count
        if self._room < 0:
            raise self.wrong(f"more than {2 * VALUES_MAX} bytes", "give it in chunks (`streaming = true`), or as a blob")

    def sized(self, items):
        """`items` for a collection that knows its size."""
        if len(items) > self._room:
            self._take(len(items))
        return self.items(items)

    # --- containers

    def items(self, items):
        """Returns the list of an iteration's items."""
        if (type(items) is list or type(items) is tuple) and _SCALARS.issuperset(map(type, items)):
            self._take(len(items))
            return items
        found, path, of, way_of = [], self._path, self.of, _ways.get
        path.append(0)
        for item in items:
            self._take(1)
            if type(item) not in _SCALARS:
                way = way_of(type(item))
                item = way(self, item) if way in _LEAVES else of(item)
            found.append(item)
            path[-1] += 1
        path.pop()
        return found

    def entries(self, pairs):
        """Returns the dict of an iteration over (key, value)."""
        found, path = {}, self._path
        for key, item in pairs:
            text = key if type(key) is str else self._key(key)
            self._take(3 + len(text) // 2)
            if text in found:
                raise self.wrong(f"two keys that are both {_shown(text)} as text", "use keys that differ as text")
            path.append(text)
            found[text] = item if type(item) in _SCALARS else self.of(item)
            path.pop()
        return found

    def _key(self, key):
        kind = type(key)
        if kind is int:
            return str(key)
        if kind not in _SCALARS:
            text = self.of(key) if _way_of(kind) in _KEYS else None
            if type(text) is str or type(text) is int:
                return str(text)
        raise self.wrong(
            f"the key {_shown(key)} ({_article(_name(kind))}), which is not text,",
            "a key is text, or a whole number, date or UUID, which becomes one: write `str(key)`",
        )

    def fields(self, value, names):
        return self.entries((name, getattr(value, name)) for name in names)

    # --- what an array is made of

    def array(self, value):
        """Converts a numpy array or scalar, or an object with the same kinds of numbers."""
        dtype = value.dtype
        kind, size = dtype.kind, dtype.itemsize
        if kind == "M":
            return self._times(value, lambda found: self._dates(found.astype("U").tolist()))
        if kind == "m":
            return self._times(value, lambda found: self._durations(found.astype("i8").tolist(), dtype))
        if kind == "c":
            raise self._refused_array(value, "write the real and the imaginary part: `[x.real, x.imag]`")
        if kind == "f" and size > 8:
            raise self._refused_array(value, "JSON's numbers have 64 bits: write `float(x)` or `x.astype(\"float64\")`")
        if kind == "S":
            raise self._refused_array(value, "decode it, as by `numpy.char.decode(x)`, or return a blob")
        if getattr(dtype, "names", None):
            if value.shape == ():
                return self.entries((name, value[name]) for name in dtype.names)
            return self.items(value)
        found = value.tolist()
        # The list of a whole array of numbers is new, so it is checked and not copied.
        if is_plain(found, self._depth - 1):
            return found
        return self.of(found)

    def _times(self, value, texts):
        mask = getattr(value, "mask", None)
        if mask is None or not hasattr(mask, "tolist"):
            return texts(value)
        filled = value.filled(0) if hasattr(value, "filled") else value
        return _masked(texts(filled), mask.tolist())

    def _dates(self, found):
        if type(found) is list:
            return [self._dates(item) for item in found]
        if found == "NaT":
            raise self._no_time()
        return found.rstrip("0").rstrip(".") if "." in found else found

    def _durations(self, found, dtype):
        if type(found) is list:
            return [self._durations(item, dtype) for item in found]
        if found == _NO_TIME:
            raise self._no_time()
        unit = _NUMPY_UNIT.search(dtype.str)
        if unit is not None:
            count = found * int(unit[1] or 1)
            if unit[2] in _UNITS:
                return _duration(count * _UNITS[unit[2]])
            if unit[2] in ("Y", "M"):
                return f"{'-' * (count < 0)}P{abs(count)}{unit[2]}"
        raise self.wrong(f"a timedelta64 of `{dtype.str}`", "write it in nanoseconds or a longer unit")

    def _no_time(self):
        return self.wrong("NaT (a time that is none)", "write None where there is no time")


def _masked(values, mask):
    if type(mask) is list:
        return [_masked(item, hidden) for item, hidden in zip(values, mask)]
    return None if mask else values


# --- the ways, each from (conversion, value) to what JSON has


def _text(_conversion, value):
    return str.__str__(value)


def _int(_conversion, value):
    return int.__index__(value)


def _float(_conversion, value):
    return float.__float__(value)


def _dict(conversion, value):
    return conversion.entries(dict.items(value))


def _list(conversion, value):
    return conversion.items(value if type(value) is list else list.__iter__(value))


def _tuple(conversion, value):
    return conversion.items(value if type(value) is tuple else tuple.__iter__(value))


def _ordered(conversion, value):
    return conversion.entries(OrderedDict.items(value))  # its order may differ from that of a dict


def _sized(conversion, value):
    return conversion.sized(value)


def _iterated(conversion, value):
    return conversion.items(iter(value))


def _mapping(conversion, value):
    return conversion.entries((key, value[key]) for key in value)


def _set(conversion, value):
    # A set has no order: sorted, so that the order is the same in every process.
    found = conversion.items(iter(value))
    try:
        return sorted(found)
    except TypeError:
        return sorted(found, key=lambda item: (type(item).__name__, repr(item)))


def _enum(conversion, value):
    return conversion.of(value._value_)


def _iso(conversion, value):
    if value != value:
        raise conversion._no_time()
    return str.__str__(value.isoformat())


def _timedelta(conversion, value):
    if value != value:
        raise conversion._no_time()
    nanoseconds = getattr(value, "nanoseconds", 0)  # pandas
    return _duration(((value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds) * 1_000 + nanoseconds)


def _decimal(conversion, value):
    if not value.is_finite():
        raise conversion.wrong("a Decimal that is no number", _FINITE)
    return str(value)


def _own_text(_conversion, value):
    return str(value)


def _path(_conversion, value):
    return str.__str__(value.__fspath__())


def _user_string(conversion, value):
    return conversion.of(value.data)


def _missing(_conversion, _value):
    return None


def _array(conversion, value):
    return conversion.array(value)


def _by(method, *arguments, **named):
    """Returns the conversion by a method of the value itself."""

    def way(conversion, value):
        return conversion.of(getattr(value, method)(*arguments, **named))

    return way


def _fields(attribute, name_of=str):
    def way(conversion, value):
        return conversion.fields(value, [name_of(field) for field in getattr(type(value), attribute)])

    return way


def _dataclass(conversion, value):
    fields = type(value).__dataclass_fields__.values()
    # Besides fields there are class variables, and arguments that are not stored.
    return conversion.fields(value, [field.name for field in fields if field._field_type.name == "_FIELD"])


def _refusal(hint):
    def way(conversion, value):
        raise conversion.refused(value, hint)

    return way


_bytes = _refusal(_BLOB)
_unknown = _refusal("return what is in it, as a dict, list, text or number, or make it a dataclass")
_iterator = _refusal("write `list(...)` around it; to give results one by one, `yield` them and set `streaming = true`")
_awaited = _refusal("write `await` before it")
_raised = _refusal("`raise` it, or return `str(error)`")
_called = _refusal("call it, or return its name")
_complex = _refusal("write the real and the imaginary part: `[x.real, x.imag]`")
_fraction = _refusal("write `float(x)`, or `str(x)` for its exact text")

_LEAVES = frozenset((_text, _int, _float, _iso, _timedelta, _decimal, _own_text, _path, _missing))
_KEYS = frozenset((_text, _int, _enum, _iso, _own_text, _path, _decimal, _array))
_ways = {}


def _has(kind, *names):
    """Returns whether the class `kind` has those methods. Asks the class, because an instance's `__getattr__`
    may accept any name."""
    return all(callable(getattr(kind, name, None)) for name in names)


def _way_of(kind):
    """Returns the conversion for values of that type."""
    mro = type.__dict__["__mro__"].__get__(kind)
    named = {(base.__module__, base.__qualname__) for base in mro if type(base.__module__) is str}
    package = {base.__module__.partition(".")[0] for base in mro if type(base.__module__) is str}

    def is_a(module, *names):
        return any((module, name) in named for name in names)

    if "pandas" in package and kind.__name__ == "NAType":
        return _missing
    if is_a("enum", "Enum") and not {str, int, float} & set(mro):
        return _enum
    for base, way in (
        (str, _text), (int, _int), (float, _float), (OrderedDict, _ordered), (dict, _dict), (list, _list), (tuple, _tuple),
    ):  # fmt: skip
        if base in mro:
            return way
    if is_a("datetime", "datetime", "date", "time"):
        return _iso
    if is_a("datetime", "timedelta"):
        return _timedelta
    if is_a("decimal", "Decimal") or is_a("_pydecimal", "Decimal"):
        return _decimal
    if is_a("uuid", "UUID") or "ipaddress" in package:
        return _own_text
    if is_a("pathlib", "PurePath") or is_a("pathlib._local", "PurePath") or is_a("pathlib._abc", "PurePath"):
        return _path
    if {bytes, bytearray, memoryview} & set(mro) or is_a("mmap", "mmap") or is_a("hob_pod.blob", "Blob"):
        return _bytes
    if {set, frozenset} & set(mro):
        return _set
    if kind is range or kind is deque:
        return _sized
    if deque in mro:
        return _iterated
    if BaseException in mro:
        return _raised
    if type in mro or is_a("builtins", "function", "builtin_function_or_method", "method"):
        return _called
    if complex in mro:
        return _complex
    if is_a("fractions", "Fraction"):
        return _fraction
    if is_a("collections", "UserString"):
        return _user_string
    if "pydantic" in package or "pydantic_core" in package:
        if _has(kind, "model_dump"):
            return _by("model_dump", mode="json")
        if _has(kind, "dict") and hasattr(kind, "__fields__"):
            return _by("dict")
    if hasattr(kind, "__dataclass_fields__"):
        return _dataclass
    if hasattr(kind, "__attrs_attrs__"):
        return _fields("__attrs_attrs__", lambda field: field.name)
    if hasattr(kind, "__struct_fields__"):
        return _fields("__struct_fields__")
    return _way_of_data(kind, package)


def _way_of_data(kind, package):
    """Returns the conversion for tables, arrays and other collections."""
    if "pandas" in package:
        if _has(kind, "to_dict", "itertuples"):
            return tables.frame
        if _has(kind, "tolist", "to_dict"):
            return tables.series
    if "polars" in package:
        for method in ("to_dicts", "to_list"):
            if _has(kind, method):
                return tables.polars(method)
    if "pyarrow" in package:
        if _has(kind, "to_pylist"):
            return tables.arrow
        if _has(kind, "as_py"):
            return tables.arrow_scalar
    if _has(kind, "tolist"):
        return _array if "numpy" in package else _by("tolist")
    if _has(kind, "__await__") or kind.__name__ == "async_generator":
        return _awaited
    if issubclass(kind, Mapping):
        return _mapping
    # A view has the order of the mapping that it shows.
    if issubclass(kind, Set) and not issubclass(kind, MappingView):
        return _set
    if issubclass(kind, (Sequence, MappingView)):
        return _iterated
    return _iterator if issubclass(kind, Iterator) else _unknown


def _duration(nanoseconds):
    """Returns an ISO 8601 duration, in days and seconds."""
    days, rest = divmod(abs(nanoseconds), _UNITS["D"])
    seconds, fraction = divmod(rest, _UNITS["s"])
    text = f"{days}D" if days else ""
    if rest or not days:
        text += f"T{seconds}" + (f".{fraction:09d}".rstrip("0") if fraction else "") + "S"
    return ("-" if nanoseconds < 0 else "") + "P" + text


def _name(kind):
    return guard.name(kind)[:_SHOWN_CHARS_MAX]


def _article(name):
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _shown(key):
    """Returns a key's text for a message; its own text only if that runs no code of the author's."""
    if type(key) in _SCALARS:
        return repr(key)[:_SHOWN_CHARS_MAX]
    return f"of the type {_name(type(key))}"
