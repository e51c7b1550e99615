"""Converts tables and series of packages to JSON through their own methods, unless those would silently leave
something out.

`values` passes its conversion in; this module only calls methods of the value.
"""

_NANOSECONDS_POLARS = "`.dt.to_string(\"iso\")` makes it their exact text, `.dt.cast_time_unit(\"us\")` of dates and spans leaves them out"
_NANOSECONDS_ARROW = "`.cast(\"time64[us]\", safe=False)` leaves them out, `.cast(\"string\")` makes it their exact text"
_INDEX_TABLE = "`.reset_index()` makes it a column, `.reset_index(drop=True)` leaves it out"
_INDEX_SERIES = "`.to_dict()` keeps it as keys, `.tolist()` leaves it out"


def series(conversion, value):
    """Converts pandas' Series."""
    _check_index(conversion, value, _INDEX_SERIES)
    return conversion.of(value.tolist())


def frame(conversion, value):
    """Converts pandas' DataFrame."""
    _check_index(conversion, value, _INDEX_TABLE)
    if not value.columns.is_unique:
        raise conversion.wrong(f"{conversion.named(value)} with two columns of one name", "give each column a name of its own")
    return conversion.of(value.to_dict("records"))


def _check_index(conversion, value, hint):
    index = value.index
    if index.name is not None or getattr(index.dtype, "kind", None) not in ("i", "u") or not _counts(index):
        raise conversion.wrong(f"{conversion.named(value)} whose index is not just the numbers of its rows", hint)


def _counts(index):
    """Returns whether the index just counts the rows."""
    if hasattr(index, "start") and hasattr(index, "step"):
        return index.start == 0 and index.step == 1
    return index.tolist() == list(range(len(index)))


def polars(method):
    """Returns the conversion of objects that have that method."""

    def way(conversion, value):
        if method == "to_dicts":
            for name, column in zip(value.columns, value.iter_columns()):
                _check_nanoseconds(conversion, column, value.schema[name], f"the column {name!r:.80}")
        else:
            _check_nanoseconds(conversion, value, value.dtype, "a Series")
        return conversion.of(getattr(value, method)())

    return way


def _check_nanoseconds(conversion, column, dtype, what):
    if _is_lossy(column, dtype):
        raise conversion.wrong(f"{what} of nanoseconds, of which Python's times have but microseconds,", _NANOSECONDS_POLARS)


def _is_lossy(column, dtype):
    """Returns whether a time in the column is finer than Python's times."""
    name = getattr(dtype, "__name__", None) or type(dtype).__name__
    if name in ("List", "Array"):
        return _has_times(dtype) and _is_lossy(column.explode(), dtype.inner)
    if name == "Struct":
        return any(_has_times(field.dtype) and _is_lossy(column.struct.field(field.name), field.dtype) for field in dtype.fields)
    return _has_times(dtype) and bool((column.to_physical() % 1000 != 0).any())


def _has_times(dtype):
    """Returns whether the type contains times in nanoseconds."""
    name = getattr(dtype, "__name__", None) or type(dtype).__name__
    if name in ("List", "Array"):
        return _has_times(dtype.inner)
    if name == "Struct":
        return any(_has_times(field.dtype) for field in dtype.fields)
    return name == "Time" or (name in ("Datetime", "Duration") and dtype.time_unit == "ns")


def arrow_scalar(conversion, value):
    """Converts pyarrow's scalars."""
    _check_times(conversion, value, value.type)
    return conversion.of(value.as_py())


def _check_times(conversion, value, kind):
    """Checks `time64[ns]`, the only type whose times pyarrow silently cuts; for others in nanoseconds it
    keeps everything, or raises."""
    text = str(kind)
    if "time64[ns]" not in text:
        return
    if text == "time64[ns]":
        numbers = value.cast("int64")
        numbers = numbers.to_pylist() if hasattr(numbers, "to_pylist") else [numbers.as_py()]
        if not any(number is not None and number % 1000 for number in numbers):
            return
    raise conversion.wrong(f"{text}, of which Python's times have but microseconds,", _NANOSECONDS_ARROW)


def arrow(conversion, value):
    """Converts pyarrow's tables and arrays."""
    names = getattr(value, "column_names", ())
    if len(set(names)) != len(names):
        raise conversion.wrong(f"{conversion.named(value)} with two columns of one name", "give each column a name of its own")
    for part in value.columns if hasattr(value, "columns") else (value,):
        _check_times(conversion, part, part.type)
    return conversion.of(value.to_pylist())
