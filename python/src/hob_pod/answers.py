"""Answers: what the author's code gave or raised, as frames.

Apart from serving because this needs no lane and no thread: a result goes in, bytes come out, and whatever is wrong
with the result is the fault of the ask that it belongs to.
"""

from . import faults, guard, wire
from .blob import Blob


class Answers:
    """Makes the frames of one pod."""

    def __init__(self, start, pod_folder):
        self._frame_bytes_max = start["frame_bytes_max"]
        self._models = start["models"]
        self._regions = None  # memory that is shared with the host; set by the runner
        self._pod_folder = pod_folder
        # All of a frame but the author's value, made once.
        self._incarnation = wire.dump(start["incarnation"])
        self._output = b'{"type":"answer","incarnation":' + self._incarnation + b',"output":'

    def share(self, regions):
        """From now on large blobs go into regions."""
        self._regions = regions

    def output(self, ask, value, outgoing=None):
        """The answer that carries `value`. Raises what `fault_of` takes. `outgoing` gets the regions with its blobs."""
        return self._frame(ask, self._output, value, outgoing)[0]

    def chunk(self, ask, value, outgoing):
        """A chunk that carries `value`, and what it counts against the ask's credit."""
        return self._frame(ask, b'{"type":"chunk","data":', value, outgoing)

    def progress(self, ask, fields):
        """Progress that carries the dict `fields`."""
        return self._frame(ask, b'{"type":"progress","data":', fields, None)[0]

    def fault(self, ask, fault, whole_batch=False):
        """The answer that carries a fault."""
        message = {"type": "answer", "fault": fault}
        if whole_batch:
            message["whole_batch"] = True
        text = wire.dump(message)
        return wire.pack(ask, text[:-1] + b',"incarnation":' + self._incarnation + b"}")

    def fault_of(self, error, operation, overdue=False, printed=""):
        """The fault that `error` is. `overdue`: the time of the ask was up when it came; `printed`: what was printed before."""
        return faults.of(error, f"`{operation}`", self._models, self._pod_folder, overdue, printed)

    def outputs(self, work, value):
        """The answers (parts of frames) of a batch whose method gave `value`: each item its own."""
        name = work.frame.message["operation"]
        value = value.tolist() if hasattr(value, "tolist") else value
        wrong = None
        if not isinstance(value, (list, tuple)):
            wrong = f"`{name}` gave a {guard.kind(value)}"
        elif len(value) != len(work.items):
            wrong = f"`{name}` gave {len(value)} results for {len(work.items)} inputs"
        if wrong is not None:
            hint = "a batch operation returns a list with one result for each input, in their order"
            fault = {"code": "recipe_failed", "message": f"{wrong}; wanted a list of {len(work.items)}", "hint": hint}
            return self.faults(work, fault, False)
        parts = []
        for item, result in zip(work.items, value):
            ask = item["ask"]
            try:
                if guard.is_a(result, BaseException):
                    raise result
                if _has_blobs(result) and result[1]:
                    raise faults.Fault("recipe_failed", f"`{name}` gave blobs, which a batch does not carry")
                parts += self.output(ask, result)
            except BaseException as error:
                # One item's own, also what is no Exception. That the work was cancelled is seen by whoever sends this.
                parts += self.fault(ask, self.fault_of(error, name, printed=work.printed))
        return parts

    def faults(self, work, fault, whole_batch):
        """The same fault for every item of a batch."""
        parts = []
        for item in work.items:
            parts += self.fault(item["ask"], fault, whole_batch)
        return parts

    def _frame(self, ask, before, value, outgoing):
        """The frame of the message that begins with the text `before`, then `value` (which may come with blobs); and its weight."""
        if type(value) is not tuple or not _has_blobs(value):
            data = wire.dump(value, 1)
            text = before + data + b"}"
            if len(text) <= self._frame_bytes_max:
                return wire.pack(ask, text), wire.weight(len(data))
            blobs, size = [], 0
        else:
            value, blobs = value
            if len(blobs) > wire.BLOBS_MAX:
                raise faults.Fault("too_large", f"{len(blobs)} blobs at once; at most {wire.BLOBS_MAX} are carried")
            data = wire.dump(value, 1)
            size = sum(len(blob.data) for blob in blobs.values())
            described, blobs = self._places(blobs, outgoing)
            text = before + data + b',"blobs":' + wire.dump(described) + b"}"
        parts = wire.pack(ask, text, blobs)
        in_frame = sum(map(len, parts)) - wire.HEADER.size
        if in_frame > self._frame_bytes_max:
            raise faults.Fault(
                "too_large",
                f"the result has {in_frame} bytes; at most {self._frame_bytes_max} are carried",
                "give it in chunks (`streaming = true`), or less of it",
                {"bytes": in_frame, "limit": self._frame_bytes_max},
            )
        return parts, wire.weight(len(data) + size)

    def _places(self, blobs, outgoing):
        """What the message says of each blob, and the bytes of those that go in the frame."""
        described, in_frame = [], []
        for name, blob in blobs.items():
            place = {"name": name, "media_type": blob.media_type, "bytes": len(blob.data)}
            if self._regions is None or outgoing is None or len(blob.data) <= self._regions.frame_bytes_max:
                in_frame.append(blob.data)
            else:
                place["region"] = self._in_region(blob, outgoing)
            described.append(place)
        return described, in_frame

    def _in_region(self, blob, outgoing):
        """The number of the region that the bytes are in: where the author made them, or where they are copied now."""
        region, blob._region = blob._region, None  # from here on it is not the blob's to give away
        if region is None:
            region = self._regions.room(len(blob.data))
            try:
                region.view(len(blob.data))[:] = blob.data
            except BaseException:
                self._regions.unused(region)
                raise
        self._regions.sent(region)
        outgoing.append(region)
        return region.number


def _has_blobs(value):
    """Whether an author gave `(value, {name: Blob})`."""
    if type(value) is not tuple or len(value) != 2 or not isinstance(value[1], dict):
        return False
    return all(isinstance(blob, Blob) for blob in value[1].values())
