"""Tracebacks: what was raised and where, as text.

This replaces Python's `traceback`, which takes milliseconds to import, asks the author's objects and module
loaders without a guard, and is not Python's if a recipe has a file of that name. `faults` decides what an
error means. Everything here is bounded: a chain of errors, a group, a stack, a source file may be of any
length.
"""

import _socket
import os
import stat

from . import guard, own

#: Frames of one error that are kept, the innermost ones; and the most that are counted.
FRAMES_MAX, FRAMES_COUNTED_MAX = 60, 200_000
#: Most errors of one chain, errors of one group, and nested groups.
CHAIN_MAX, GROUP_MAX, GROUPS_DEEP_MAX = 8, 8, 3
NOTES_MAX = 10
#: Longest source file that is read, in bytes, and most files that are read for one text.
SOURCE_BYTES_MAX, SOURCES_MAX = 4 << 20, 30
LINE_CHARS_MAX = 500
#: Frames of the same line that are shown; further ones are only counted.
REPEATED_MAX = 3

_open, _stat = open, os.stat  # taken now: an author may replace them
_FIELDS = {name: BaseException.__dict__[name].__get__ for name in ("__cause__", "__context__", "__suppress_context__", "__traceback__")}
_SYNTAX = {name: SyntaxError.__dict__[name].__get__ for name in ("filename", "lineno", "offset", "text", "msg")}
try:
    _members_of = BaseExceptionGroup.__dict__["exceptions"].__get__
except NameError:  # before Python 3.11
    BaseExceptionGroup = _members_of = None

_CAUSE = "\nThe above exception was the direct cause of the following exception:\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n"
_HEAD = "Traceback (most recent call last):"


def cause(error):
    """Returns the error that `error` was raised from."""
    return _FIELDS["__cause__"](error)


def context(error):
    """Returns the error that was handled when `error` was raised, unless `error` was raised from
    something."""
    return None if _FIELDS["__suppress_context__"](error) else _FIELDS["__context__"](error)


def members(error):
    """Returns the first errors of a group; nothing for any other error."""
    if BaseExceptionGroup is None or not guard.is_a(error, BaseExceptionGroup):
        return ()
    return _members_of(error)[:GROUP_MAX]


def went_through(error, functions):
    """Returns whether `error` came out of a function with one of these names, within the frames that are
    counted."""
    frame = stack(error)
    for _ in range(FRAMES_MAX):
        if frame is None:
            return False
        if frame.tb_frame.f_code.co_name in functions:
            return True
        frame = frame.tb_next
    return False


def wanted_a_number(error):
    """Returns whether `error` came out of a `socket.getaddrinfo` that only had to read an address, and looked
    nothing up (`AI_NUMERICHOST`)."""
    frame = stack(error)
    for _ in range(FRAMES_MAX):
        if frame is None:
            return False
        if frame.tb_frame.f_code.co_name == "getaddrinfo":
            flags = frame.tb_frame.f_locals.get("flags")
            return guard.is_a(flags, int) and bool(int.__and__(flags, _socket.AI_NUMERICHOST))
        frame = frame.tb_next
    return False


def stack(error):
    """Returns the traceback object of `error`."""
    return _FIELDS["__traceback__"](error)


def told(error, without=()):
    """Returns the traceback of `error` and of the errors behind it, as text. If a stack begins with frames
    whose paths begin with one of `without`, these frames are left out."""
    return guard.together(_told, error, without)


def say(what, error=None):
    """Writes a line to stderr, with the traceback of `error`, whatever the author did to `sys.stderr`."""
    text = f"hob_pod: {what}\n"
    if error is not None:
        text += told(error)
    own.write(text.encode("utf-8", "replace"))


def _told(error, without):
    return "\n".join(_Text(without).chain(error, 0)) + "\n"


class _Text:
    """The lines of one traceback."""

    def __init__(self, without):
        self._without = without
        self._sources = {}  # path -> lines

    def chain(self, error, depth):
        chain, seen = [(error, None)], {id(error)}
        while len(chain) < CHAIN_MAX:
            error = chain[-1][0]
            before, said = _FIELDS["__cause__"](error), _CAUSE
            if before is None and not _FIELDS["__suppress_context__"](error):
                before, said = _FIELDS["__context__"](error), _CONTEXT
            if before is None or id(before) in seen:
                break
            seen.add(id(before))
            chain.append((before, said))
        lines = ["(what came before is left out)\n"] if len(chain) == CHAIN_MAX else []
        for index in range(len(chain) - 1, -1, -1):
            lines += self._one(chain[index][0], depth)
            if index > 0:
                lines.append(chain[index][1])
        return lines

    def _one(self, error, depth):
        frames = stack(error)
        while frames is not None and guard.plain(frames.tb_frame.f_code.co_filename).startswith(self._without):
            frames = frames.tb_next
        lines = [_HEAD, *self._frames(frames)] if frames is not None else []
        if guard.is_a(error, SyntaxError):
            lines += _syntax(error)
        else:
            text = guard.text(error)
            lines.append(f"{guard.full_name(type(error))}: {text}" if text else guard.full_name(type(error)))
        notes = guard.attribute(error, "__notes__")
        if type(notes) is list:
            lines += [guard.text(note) for note in notes[:NOTES_MAX]]
        if _members_of is not None and guard.is_a(error, BaseExceptionGroup):
            lines += self._group(_members_of(error), depth)
        return lines

    def _group(self, members, depth):
        if depth >= GROUPS_DEEP_MAX:
            return [f"  (a group of {len(members)}, left out)"]
        lines = []
        for number, member in enumerate(members[:GROUP_MAX], 1):
            lines.append(f"  +---------------- {number} ----------------")
            within = "\n".join(self.chain(member, depth + 1))
            lines += ["  | " + line for line in within.split("\n")]
        if len(members) > GROUP_MAX:
            lines.append(f"  +---- and {len(members) - GROUP_MAX} more")
        return lines

    def _frames(self, frames):
        kept, count = [], 0
        while frames is not None and count < FRAMES_COUNTED_MAX:
            code = frames.tb_frame.f_code
            kept.append((guard.plain(code.co_filename), frames.tb_lineno, guard.plain(code.co_name), code, frames.tb_lasti))
            count += 1
            if len(kept) > 2 * FRAMES_MAX:
                del kept[:FRAMES_MAX]
            frames = frames.tb_next
        lines = []
        if count > FRAMES_MAX:
            lines.append(f"  ({count - FRAMES_MAX} calls left out)")
        last, repeated = None, 0
        for path, number, name, code, instruction in kept[-FRAMES_MAX:]:
            repeated = repeated + 1 if (path, number, name) == last else 1
            last = (path, number, name)
            if repeated > REPEATED_MAX:
                if repeated > REPEATED_MAX + 1:
                    lines.pop()
                lines.append(f"  (the same {repeated - REPEATED_MAX} more times)")
                continue
            lines.append(f'  File "{guard.cut(path, LINE_CHARS_MAX)}", line {number}, in {guard.cut(name, LINE_CHARS_MAX)}')
            lines += self._source(path, number, code, instruction)
        return lines

    def _source(self, path, number, code, instruction):
        """Returns the line of source, and a line that marks the part that was running."""
        text = self._lines_of(path)
        if not isinstance(number, int) or not 0 < number <= len(text):
            return []
        line = text[number - 1]
        shown = line.strip()
        if not shown:
            return []
        lines = ["    " + guard.cut(shown, LINE_CHARS_MAX)]
        first = len(line) - len(line.lstrip())
        where = _columns(code, instruction, number, line)
        if where is not None and len(shown) <= LINE_CHARS_MAX and (where[0] > first or where[1] < first + len(shown)):
            lines.append("    " + " " * (where[0] - first) + "^" * (where[1] - where[0]))
        return lines

    def _lines_of(self, path):
        if path in self._sources:
            return self._sources[path]
        if path.startswith("<") or len(self._sources) >= SOURCES_MAX:
            return ()
        lines = ()
        try:
            about = _stat(path)
            # Opening a FIFO of that name would block.
            if stat.S_ISREG(about.st_mode) and about.st_size <= SOURCE_BYTES_MAX:
                with _open(path, "rb") as file:
                    lines = file.read(SOURCE_BYTES_MAX).decode("utf-8", "replace").split("\n")
        except (OSError, ValueError):
            pass
        self._sources[path] = lines
        return lines


def _columns(code, instruction, number, line):
    """Returns the columns of that line that the instruction comes from; None if unknown, or if it spans more
    than this line."""
    if not hasattr(code, "co_positions"):
        return None  # before Python 3.11
    for index, (first, last, start, end) in enumerate(code.co_positions()):
        if index == instruction // 2:
            if first != number or last != number or start is None or end is None:
                return None
            raw = line.encode("utf-8", "replace")  # the columns count bytes
            start, end = (len(raw[:column].decode("utf-8", "replace")) for column in (start, end))
            return (start, end) if len(line) - len(line.lstrip()) <= start < end else None
    return None


def _syntax(error):
    filename, number, offset, text, said = (_SYNTAX[name](error) for name in ("filename", "lineno", "offset", "text", "msg"))
    lines = []
    if type(number) is int:
        lines.append(f'  File "{guard.text(filename, LINE_CHARS_MAX)}", line {number}')
    if type(text) is str and text.strip():
        line = text.split("\n")[0]
        first = len(line) - len(line.lstrip())
        lines.append("    " + guard.cut(line.strip(), LINE_CHARS_MAX))
        if type(offset) is int and first < offset <= LINE_CHARS_MAX:
            lines.append("    " + " " * (offset - 1 - first) + "^")
    lines.append(f"{guard.full_name(type(error))}: {guard.text(said)}")
    return lines
