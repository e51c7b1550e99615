"""Encodes the results and exceptions of the author's code as frames.

This needs no lane and no thread: a result goes in, bytes come out, and an error in the result is the fault of
the ask that it belongs to.
"""

import sys

from . import faults, guard, values, wire
from .blob import Blob, Result

#: Most names of fields of progress that are remembered as reported missing; an author may make a new name for
#: each report.
_SAID_MAX = 64
_MAKE = "make another one: `hob_pod.Blob(data, media_type)`"


class Answers:
    """Makes the frames of one pod."""

    def __init__(self, start, pod_folder):
        self._frame_bytes_max = start["frame_bytes_max"]
        self._models = start["models"]
        self._regions = None  # memory shared with the host; set by the runner
        self._pod_folder = pod_folder
        self._said = set()  # fields left out of progress that the log already names
        # The parts of a frame around the author's value, made once.
        self._incarnation = wire.dump(start["incarnation"])
        self._output = b'{"type":"answer","incarnation":' + self._incarnation + b',"output":'

    def share(self, regions):
        """From now on large blobs go into regions."""
        self._regions = regions

    def output(self, ask, value, outgoing=None):
        """Returns the frame of the answer that carries `value`. Appends the regions with its blobs to
        `outgoing`. Raises what `fault_of` takes."""
        if type(value) is tuple or type(value) is Result:
            return self._frame(ask, self._output, value, outgoing)[0]
        data = wire.dump(value, 1)
        text = self._output + data + b"}"
        return wire.pack(ask, text) if len(text) <= self._frame_bytes_max else self._whole(ask, text)

    def chunk(self, ask, value, outgoing):
        """Returns the frame of a chunk that carries `value`, and its weight against the ask's credit."""
        return self._frame(ask, b'{"type":"chunk","data":', value, outgoing)

    def progress(self, asks, fields):
        """Returns the frames of progress for those asks, with the fields of the dict `fields` that JSON can
        carry; a report ends no work."""
        data = None
        if values.is_plain(fields, 1):
            try:
                data = wire.dump(fields, 1)
            except values.NotJson:
                pass
        if data is None:
            data = guard.together(self._report, fields)
        text = b'{"type":"progress","data":' + data + b"}"
        if len(text) > self._frame_bytes_max:
            self._left_out("all of a report", f"it has {len(text)} bytes; at most {self._frame_bytes_max} are carried")
            return []
        return [part for ask in asks for part in wire.pack(ask, text)]

    def _report(self, fields):
        """Returns the fields that JSON can carry. For each other field, the log says so once."""
        told = {}
        for name, value in fields.items():
            name = guard.plain(name)
            given, problem = guard.call(_field, name, value)
            field, why = (None, f"it {problem}") if problem is not None else given
            if field is None:
                self._left_out(f"`{name}`", why)
            else:
                told.update(field)
        return wire.dump(told, 1)

    def _left_out(self, what, why):
        if what in self._said or len(self._said) >= _SAID_MAX:
            return
        self._said.add(what)
        # `sys.stderr` may be the author's own, or None.
        guard.call(lambda: sys.stderr.write(faults.printable(f"hob_pod: progress is told without {what}: {why}\n")))

    def fault(self, ask, fault, whole_batch=False):
        """Returns the frame of the answer that carries a fault."""
        message = {"type": "answer", "fault": fault}
        if whole_batch:
            message["whole_batch"] = True
        text = wire.dump(message)
        return wire.pack(ask, text[:-1] + b',"incarnation":' + self._incarnation + b"}")

    def fault_of(self, error, operation, overdue=False, printed=""):
        """Returns the fault for `error`. `overdue`: the time of the ask was up when `error` came; `printed`:
        the text printed before."""
        return faults.of(error, f"`{operation}`", self._models, self._pod_folder, overdue, printed)

    def outputs(self, work, value):
        """Returns the answers (parts of frames) of a batch whose method returned `value`, one for each
        item."""
        name = work.frame.message["operation"]
        if not guard.is_a(value, (list, tuple)) and hasattr(type(value), "tolist"):
            value = values.plain(value)  # an array of results
        wrong = None
        if not guard.is_a(value, (list, tuple)):
            wrong = f"`{name}` gave a {guard.kind(value)}"
        else:
            # Reads the items themselves, whatever the value's length and iteration say, so that each caller
            # has an answer. Reads them once, because another thread may change the value.
            value = tuple((list if guard.is_a(value, list) else tuple).__iter__(value))
            if len(value) != len(work.items):
                wrong = f"`{name}` gave {len(value)} results for {len(work.items)} inputs"
        if wrong is not None:
            hint = "a batch operation returns a list with one result for each input, in their order"
            fault = {"code": "recipe_failed", "message": f"{wrong}; wanted a list of {len(work.items)}", "hint": hint}
            return self.faults(work, fault, False)
        parts = []
        for item, result in zip(work.items, value):
            ask = item["ask"]
            if guard.is_a(result, BaseException):
                parts += self.fault(ask, self.fault_of(result, name, printed=work.printed))
                continue
            try:
                if _parted(result)[1]:
                    raise faults.Fault("recipe_failed", f"`{name}` gave blobs, which a batch does not carry")
                parts += self.output(ask, result)
            except BaseException as error:
                # The error of one item alone, even if it is no Exception. The sender checks whether the work
                # was cancelled.
                parts += self.fault(ask, self.fault_of(error, name, printed=work.printed))
        return parts

    def faults(self, work, fault, whole_batch):
        """Returns the same fault for every item of a batch."""
        parts = []
        for item in work.items:
            parts += self.fault(item["ask"], fault, whole_batch)
        return parts

    def _frame(self, ask, before, value, outgoing):
        """Returns the frame of the message made of the text `before` and `value` (which may have blobs), and
        its weight."""
        blobs = None
        if type(value) is tuple or type(value) is Result:
            value, blobs = _parted(value)
        if not blobs:
            data = wire.dump(value, 1)
            text = before + data + b"}"
            return self._whole(ask, text), wire.weight(len(data))
        if len(blobs) > wire.BLOBS_MAX:
            raise faults.Fault("too_large", f"{len(blobs)} blobs at once; at most {wire.BLOBS_MAX} are carried")
        data = wire.dump(value, 1)
        described, blobs = self._places(blobs, outgoing)
        size = sum(place["bytes"] for place in described)
        text = before + data + b',"blobs":' + wire.dump(described) + b"}"
        return self._whole(ask, text, blobs), wire.weight(len(data) + size)

    def _whole(self, ask, text, blobs=()):
        """Returns the parts of the frame. Raises Fault if it is too large."""
        parts = wire.pack(ask, text, blobs)
        in_frame = sum(map(len, parts)) - wire.HEADER.size
        if in_frame > self._frame_bytes_max:
            raise faults.Fault(
                "too_large",
                f"the result has {in_frame} bytes; at most {self._frame_bytes_max} are carried",
                "give it in chunks (`streaming = true`), or less of it",
                {"bytes": in_frame, "limit": self._frame_bytes_max},
            )
        return parts

    def _places(self, blobs, outgoing):
        """Returns the message's entry for each blob, and the bytes of the blobs that go in the frame."""
        described, in_frame = [], []
        for name, blob in blobs.items():
            data, media_type = _content(name, blob)
            place = {"name": name, "media_type": media_type, "bytes": len(data)}
            if self._regions is None or outgoing is None or len(data) <= self._regions.frame_bytes_max:
                in_frame.append(data)
            else:
                place["region"] = self._in_region(blob, data, outgoing)
            described.append(place)
        return described, in_frame

    def _in_region(self, blob, data, outgoing):
        """Returns the number of the region that has the bytes `data`: the one in which the author made them,
        or a new one with a copy."""
        region = Blob._take_region(blob, data)  # from here on the blob no longer owns the region
        if region is None:
            region = self._regions.room(len(data))
            try:
                region.view(len(data))[:] = data
            except BaseException:
                self._regions.unused(region)
                raise
        self._regions.sent(region)
        outgoing.append(region)
        return region.number


def _content(name, blob):
    """Returns (bytes, media type) of a blob. Each is read once: the author may set these attributes at any
    time, and the message must match the bytes."""
    data, media_type = blob.data, blob.media_type
    try:
        view = data if type(data) is memoryview else memoryview(data)
        if view.format != "B" or view.ndim != 1 or not view.c_contiguous:
            view = view.cast("B")
    except (TypeError, ValueError) as error:
        raise faults.Fault("recipe_failed", f"the `data` of the blob `{name}` cannot be sent: {guard.text(error)}", _MAKE) from None
    if not guard.is_a(media_type, str):
        raise faults.Fault("recipe_failed", f"the media type of the blob `{name}` is a {guard.kind(media_type)}, not text", _MAKE)
    return view, guard.plain(media_type)


def _field(name, value):
    """Returns ({name: JSON value}, None) for a field of progress, or (None, why JSON cannot carry it)."""
    try:
        field = {name: values.plain(value, 2)}
        wire.dump(field, 1)
        return field, None
    except values.NotJson as error:
        return None, str(error)


def _parted(value):
    """Splits an author's result into (value, {name: Blob}); the latter is None or empty if there are no
    blobs.

    A pair is split only if its dict holds blobs. A pair with an empty dict may be meant either way: it is a
    value, and an author who means blobs returns `Result`.
    """
    if type(value) is Result:
        value, named = value.value, value.blobs
    elif type(value) is tuple and len(value) == 2 and isinstance(value[1], dict):
        if not any(isinstance(blob, Blob) for blob in dict.values(value[1])):
            return value, None
        value, named = value
    else:
        return value, None
    blobs = {}
    for name, blob in dict.items(named):
        if not isinstance(name, str) or not isinstance(blob, Blob):
            what = f"the name of a blob is a {type(name).__name__}" if not isinstance(name, str) else f"`{name}` is a {type(blob).__name__}"
            hint = "beside a result stand blobs alone, {name: hob_pod.Blob(data)}; everything else goes into the result"
            raise faults.Fault("recipe_failed", f"{what} among the blobs of a result", hint)
        blobs[str.__str__(name)] = blob
    return value, blobs
