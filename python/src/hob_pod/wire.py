"""Frames of the pod protocol and the strict JSON in them; no input or output.

The byte vectors in tests/vectors/frames.json test this file and its Rust twin alone: a frame must not depend
on sockets, threads or the author's code.
"""

import json
import re
import struct

from .values import DEPTH_MAX, VALUES_MAX, NotJson, plain
from .values import is_plain_within as is_plain

PROTOCOL = 1
#: Longest frame until the host has said its own limit in `start`, in bytes.
FRAME_BYTES_DEFAULT = 16 << 20
#: A frame that claims more than this is not skipped: reading that much to stay in sync would be the attack
#: itself.
FRAME_SKIP_BYTES_MAX = 256 << 20
#: Size of the kept receive buffer, in bytes. A larger frame gets a buffer of its own, so that its blobs are
#: not copied.
BUFFER_BYTES = 64 << 10
#: Most blobs that one message may carry.
BLOBS_MAX = 16
INTEGER_MIN, INTEGER_MAX = -(1 << 63), (1 << 64) - 1

#: Weight that the chunks of one ask may have which were sent and not yet read. A chunk weighs 1, plus 1 for
#: each CHUNK_WEIGHT_BYTES.
CHUNK_CREDIT, CHUNK_WEIGHT_BYTES = 64, 64 << 10

HEADER = struct.Struct(">IIQ")
_HEADER_BYTES = HEADER.size
_unpack, _pack = HEADER.unpack_from, HEADER.pack

# A number of 19 digits may exceed 64 bits. Searching a translated copy for a run of zeros costs a twentieth
# of a regular expression over the whole text; the expression (which knows fractions) runs only after a match.
_DIGITS_TO_ZERO = bytes(48 if 48 <= byte <= 57 else byte for byte in range(256))
_ZEROS = b"0" * 19
_SURROGATE = "such text comes of undecodable bytes: `text.encode(\"utf-8\", \"surrogateescape\")` are they, and travel as a blob"
_LONG = "write `str(n)`, or `float(n)` where it need not be exact"
_NO_NUMBER = "write None, or a text such as \"nan\", where there is no number"
_LONG_INTEGER = rb"(?<![\d.])\d{19}"
_SCALARS = frozenset((str, int, float, bool, type(None)))


class ProtocolError(Exception):
    """The other side broke the protocol; there is no way to go on."""


class Frame:
    """One frame: the ask that it belongs to (0 for none), message and tail; `too_large` is the size of a
    frame that was skipped."""

    __slots__ = ("ask", "message", "tail", "too_large")

    def __init__(self, ask, message, tail=b"", too_large=0):
        self.ask = ask
        self.message = message
        self.tail = tail
        self.too_large = too_large

    def blobs(self):
        """Returns the blobs of the message as (name, media type, bytes); a blob in a region as (name, media
        type, None, region, its size)."""
        blobs, start = [], 0
        view = memoryview(self.tail)
        for blob in self.message.get("blobs", ()):
            if blob.get("region") is not None:
                blobs.append((blob["name"], blob["media_type"], None, blob["region"], blob["bytes"]))
                continue
            end = start + blob["bytes"]
            blobs.append((blob["name"], blob["media_type"], view[start:end]))
            start = end
        return blobs


def weight(size):
    """Returns the weight of a chunk whose data and blobs have `size` bytes. The host computes the same."""
    return min(1 + size // CHUNK_WEIGHT_BYTES, CHUNK_CREDIT // 2)


class Decoder:
    """Turns received bytes into frames: receive into `space()`, then pass the number of bytes to
    `received()`."""

    def __init__(self, frame_bytes_max=FRAME_BYTES_DEFAULT):
        self.frame_bytes_max = frame_bytes_max
        self._raw = bytearray(BUFFER_BYTES)
        self._kept = memoryview(self._raw)
        self._end = 0  # bytes in the kept buffer, always from its start
        self._large = None  # a large frame that is still incomplete, in a buffer of its own
        self._large_end = 0
        self._skip = 0  # bytes of a frame that is too large, still to be skipped

    def space(self):
        """Returns the buffer for the next bytes; never empty."""
        if self._large is not None:
            return self._large[self._large_end :]
        return self._kept[self._end :] if self._end else self._kept

    @property
    def inside_frame(self):
        """Returns whether the bytes so far end inside a frame."""
        return bool(self._end or self._skip or self._large is not None)

    def received(self, count):
        """Returns the frames that are now complete. Raises ProtocolError."""
        frames = []
        if self._large is not None:
            self._large_end += count
            if self._large_end == len(self._large):
                frame, self._large = self._large, None
                frames.append(_decode(frame))
            return frames
        end = self._end + count
        start, kept = 0, self._kept
        while True:
            if self._skip:
                skipped = min(self._skip, end - start)
                self._skip -= skipped
                start += skipped
            if end - start < _HEADER_BYTES:
                break
            json_bytes, tail_bytes, ask = _unpack(kept, start)
            body = json_bytes + tail_bytes
            whole = _HEADER_BYTES + body
            if body > self.frame_bytes_max:
                if body > FRAME_SKIP_BYTES_MAX:
                    raise ProtocolError(f"a frame claims {body} bytes; {FRAME_SKIP_BYTES_MAX} at most are read past")
                frames.append(Frame(ask, None, too_large=body))
                start += _HEADER_BYTES
                self._skip = body
            elif end - start >= whole:
                # The kept buffer is reused, so the tail of the frame is copied; the text is parsed now.
                tail_at = start + _HEADER_BYTES + json_bytes
                start += whole
                tail = kept[tail_at:start].tobytes() if tail_bytes else b""
                frames.append(Frame(ask, _message(self._raw[tail_at - json_bytes : tail_at], tail_bytes), tail))
                if start == end:
                    self._end = 0
                    return frames
            elif whole > len(kept):
                self._large = memoryview(bytearray(whole))
                self._large_end = end - start
                self._large[: self._large_end] = kept[start:end]
                start = end
                break
            else:
                break
        left = end - start
        if start and left:
            kept[:left] = kept[start:end].tobytes()
        self._end = left
        return frames


def _decode(frame):
    """Returns the frame in `frame` (exactly one, with its header); its blobs are not copied. Raises
    ProtocolError."""
    json_bytes, tail_bytes, ask = _unpack(frame, 0)
    tail_at = _HEADER_BYTES + json_bytes
    return Frame(ask, _message(frame[_HEADER_BYTES:tail_at].tobytes(), tail_bytes), frame[tail_at:])


def _message(text, tail_bytes):
    """Returns the message of a frame whose tail has `tail_bytes` bytes. Raises ProtocolError."""
    try:
        message = parse(text)
    except ValueError as error:
        raise ProtocolError(f"a frame is not JSON that Hob carries: {error}") from None
    if type(message) is not dict or type(message.get("type")) is not str:
        raise ProtocolError("a frame is not a JSON object with a text `type`")
    blobs = message.get("blobs", ())
    if blobs == [] and not tail_bytes:
        return message
    declared = 0
    if type(blobs) not in (list, tuple):
        raise ProtocolError("`blobs` of a frame is not a list")
    for blob in blobs:
        if (
            type(blob) is not dict
            or type(blob.get("name")) is not str
            or type(blob.get("media_type")) is not str
            or type(blob.get("bytes")) is not int
            or blob["bytes"] < 0
        ):
            raise ProtocolError("a blob of a frame lacks `name`, `media_type` or `bytes`")
        region = blob.get("region")
        if region is not None:
            if type(region) is not int or region < 0:
                raise ProtocolError("the `region` of a blob is no number of one")
            continue
        declared += blob["bytes"]
    if declared != tail_bytes:
        raise ProtocolError(f"the blobs of a frame declare {declared} bytes, its tail has {tail_bytes}")
    return message


def _no_constant(name):
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_no_constant)
_scan = _decoder.scan_once  # the part of `decode` between its two searches for white space


def parse(raw):
    """Returns the value of strict JSON in UTF-8 (bytes or bytearray). Raises ValueError."""
    text = raw.decode()
    try:
        try:
            value, end = _scan(text, 0)
            if end != len(text):
                value = _decoder.decode(text)  # there is white space around it, or `decode` names the error
        except StopIteration:
            value = _decoder.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if (_ZEROS in raw.translate(_DIGITS_TO_ZERO) and _has_long_integer(raw)) or ("\\u" in text and ("\\ud" in text or "\\uD" in text)):
        try:
            _check(value, "", 0)
        except NotJson as error:
            raise ValueError(str(error)) from None
    return value


def _has_long_integer(raw):
    """Returns whether the text has a whole number of 19 digits or more."""
    return re.search(_LONG_INTEGER, raw) is not None


def _unknown(value):
    """Called by the encoder for a type that JSON does not have; a plain value has none."""
    raise TypeError(f"a {type(value).__name__}")


_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_unknown)
if json.encoder.c_make_encoder is None:
    _encode = _encoder.encode
else:
    # `encode` would make one of these for every value. Without markers against cycles: all threads would
    # share them, and the depth is checked before.
    _chunks = json.encoder.c_make_encoder(None, _unknown, json.encoder.encode_basestring, None, ":", ",", False, False, False)

    def _encode(value):
        return "".join(_chunks(value, 0))


def dump(value, depth=0):
    """Returns `value` as strict JSON in UTF-8, converted by `values`. Raises NotJson with the place, and what
    the author's code raises.

    `depth`: its depth within a message.
    """
    room = [VALUES_MAX, True]
    if type(value) not in _SCALARS:
        room[1] = False
        if not is_plain(value, depth, room):
            value = plain(value, depth)
            room[1] = True
    try:
        raw = _encode(value).encode()
        if not room[1] or len(raw) < 19 or _ZEROS not in raw.translate(_DIGITS_TO_ZERO) or not _has_long_integer(raw):
            return raw
        _check(value, "", depth)
        return raw
    except NotJson:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        # The encoder says what is wrong but not where.
        _check(value, "", depth)
        raise NotJson("/", str(error)) from None


def encode(ask, message, tail=()):
    """Returns the parts of one frame: header with JSON, then the blobs' bytes unchanged. Raises NotJson."""
    return pack(ask, dump(message), tail)


def pack(ask, text, tail=()):
    """`encode` for a message that is JSON already."""
    if not tail:
        return [_pack(len(text), 0, ask) + text]
    return [_pack(len(text), sum(map(len, tail)), ask) + text, *tail]


def _step(pointer, key):
    """Returns the pointer of `key` below `pointer` (RFC 6901)."""
    text = str(key).replace("~", "~0").replace("/", "~1")
    return f"{pointer}/{text}"


def _check(value, pointer, depth):
    """Raises NotJson at the first part of `value`, which is plain, that strict JSON cannot carry. Slow, so it
    runs only on suspicion."""
    if value is None or value is True or value is False:
        return
    kind = type(value)
    if kind is str:
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise NotJson(pointer or "/", "text with a lone surrogate", _SURROGATE) from None
    elif kind is int:
        if not INTEGER_MIN <= value <= INTEGER_MAX:
            raise NotJson(pointer or "/", "an integer past 64 bits", _LONG)
    elif kind is float:
        if value != value or value in (float("inf"), float("-inf")):
            raise NotJson(pointer or "/", f"{value} (JSON has no such number)", _NO_NUMBER)
    elif depth >= DEPTH_MAX:
        raise NotJson(pointer or "/", "nesting too deep")
    elif kind is dict:
        for key, item in value.items():
            _check(key, pointer, depth)
            _check(item, _step(pointer, key), depth + 1)
    else:
        for index, item in enumerate(value):
            _check(item, f"{pointer}/{index}", depth + 1)
