"""`Blob`: bytes with a media type that travel beside the JSON, never in it.

Both the author's code and the runner make and read blobs.
"""

from . import regions

_OCTETS = "application/octet-stream"
#: Media type of an array; its `dtype` and `shape` follow as parameters.
_ARRAY = "application/x-hob-array"


class Blob:
    """Bytes with a media type. `data` is a memoryview of single bytes; `len(blob)` counts them.

    Made from anything with a contiguous buffer: bytes, bytearray, a numpy array. Without `media_type`, that
    of an array states its dtype and shape, and that of other data is `application/octet-stream`. Raises
    ValueError for data that is not contiguous, and TypeError for data without a buffer or a media type that
    is not text.

    Small blobs travel beside the JSON. Large ones lie in memory that host and pod share, so that nothing is
    copied: a blob of the input is read there, and a blob made by `Blob.empty` is filled there. A blob of the
    input cannot be written. An author may keep `data` and objects made from it: that memory is then not
    reused.
    """

    __slots__ = ("data", "media_type", "_region")

    def __init__(self, data, media_type=None):
        view = memoryview(data)
        if not view.c_contiguous:
            raise ValueError("a Blob needs contiguous data: use numpy.ascontiguousarray(...) first")
        if media_type is None:
            is_array = hasattr(data, "__array_interface__") and hasattr(data, "dtype")
            media_type = _array_type(data.dtype, data.shape) if is_array else _OCTETS
        if not isinstance(media_type, str):
            raise TypeError(f"the media type of a Blob is text, not a {type(media_type).__name__}")
        self.data = view if view.format == "B" and view.ndim == 1 else view.cast("B")
        self.media_type = media_type
        self._region = None

    @classmethod
    def empty(cls, shape, dtype=None, media_type=None):
        """Returns a blob to fill, through `data` or `numpy()`, and to return. Its bytes are not copied again.

        `shape`: a number of bytes; with `dtype` (anything that numpy takes as a dtype), the shape of an
        array. The content is not zeroed. Once the blob was returned or yielded, it belongs to the caller:
        make another blob for the next result. Raises Fault `too_large` if the host has no room for it.
        """
        if dtype is None:
            size = int(shape)
        else:
            import numpy

            dtype = numpy.dtype(dtype)
            shape = (shape,) if isinstance(shape, int) else tuple(shape)
            size = dtype.itemsize
            for length in shape:
                size *= length
            media_type = media_type or _array_type(dtype, shape)
        shared = regions.regions
        if shared is None or size <= shared.frame_bytes_max:
            return cls(bytearray(size), media_type or _OCTETS)
        region = shared.room_for_author(size)
        blob = cls(region.view(size), media_type or _OCTETS)
        blob._region = region, blob.data
        return blob

    def _take_region(self, data):
        """Returns the region with the bytes `data`, which were read off this blob, or None. From here on the
        blob no longer owns that region."""
        held, self._region = self._region, None
        if held is None or held[1] is data:
            return held and held[0]
        region, held = held[0], None
        regions.regions.unused(region)  # `data` was set to other bytes
        return None

    def __del__(self):
        held, shared = getattr(self, "_region", None), regions.regions
        if held is not None and shared is not None:
            region, held = held[0], None
            self.data = self._region = None
            shared.unused(region)

    def __len__(self):
        return len(self.data)

    def __bytes__(self):
        return bytes(self.data)

    def __repr__(self):
        return f"Blob({len(self.data)} bytes, {self.media_type})"

    def numpy(self, dtype=None, shape=None):
        """Returns the bytes as a numpy array of that dtype and shape, without a copy. Without both: with the
        dtype and shape that the media type states, else as flat `uint8`. Raises ValueError if the bytes do
        not fit them."""
        import numpy  # the author's own dependency; the runner has none

        if dtype is None and shape is None:
            dtype, shape = _read_array_type(self.media_type)
        array = numpy.frombuffer(self.data, dtype=dtype or "uint8")
        return array if shape is None else array.reshape(shape)

    def arrow(self):
        """Returns the bytes, an Arrow stream or file, as a `pyarrow.Table` without a copy. Needs pyarrow in
        the environment; raises its exceptions."""
        import pyarrow
        import pyarrow.ipc

        buffer = pyarrow.py_buffer(self.data)
        is_file = bytes(self.data[:6]) == b"ARROW1"
        return (pyarrow.ipc.open_file if is_file else pyarrow.ipc.open_stream)(buffer).read_all()

    @classmethod
    def of_arrow(cls, table):
        """Returns a blob with a `pyarrow.Table` as an Arrow stream, written straight into the memory that is
        sent. Raises Fault `too_large`."""
        import pyarrow
        import pyarrow.ipc

        def write(into):
            with pyarrow.ipc.new_stream(into, table.schema) as writer:
                writer.write_table(table)

        measure = pyarrow.MockOutputStream()
        write(measure)
        blob = cls.empty(measure.size(), media_type="application/vnd.apache.arrow.stream")
        with pyarrow.FixedSizeBufferWriter(pyarrow.py_buffer(blob.data)) as into:
            write(into)
        return blob

    def open(self):
        """Returns the bytes as a file to read, for code that needs one (`wave.open`, `PIL.Image.open`);
        nothing is copied ahead."""
        import io

        return io.BufferedReader(_raw_reader(self.data))

    def save(self, path):
        """Writes the bytes to a file, for code that needs a path; the folder in which the pod runs is its
        own. Returns `path`. Raises OSError."""
        with open(path, "wb") as file:
            file.write(self.data)
        return path

    @classmethod
    def from_file(cls, path, media_type=None):
        """Returns a blob with the bytes of a file, read straight into the memory that is sent. Raises
        OSError, EOFError if the file shrinks meanwhile, and Fault `too_large`."""
        import os

        with open(path, "rb", buffering=0) as file:
            blob = cls.empty(os.fstat(file.fileno()).st_size, media_type=media_type)
            at = 0
            while at < len(blob.data):
                count = file.readinto(blob.data[at:])
                if not count:
                    raise EOFError(f"{path} ended at byte {at} of {len(blob.data)}")
                at += count
        return blob


class Result:
    """What a method returns or yields: a value, and blobs beside it, which may be none.

    `return value, {"name": blob}` means the same if the dict holds blobs. A pair whose dict is empty is a
    value (a list of two), so an operation that sometimes has no blobs returns `hob_pod.Result(value, blobs)`.
    Raises TypeError unless `blobs` are {name: Blob}.
    """

    __slots__ = ("value", "blobs")

    def __init__(self, value, blobs=()):
        self.value = value
        self.blobs = dict(blobs)
        for name, blob in self.blobs.items():
            if not isinstance(name, str) or not isinstance(blob, Blob):
                found = type(name).__name__ if not isinstance(name, str) else type(blob).__name__
                raise TypeError(f"`blobs` of a Result are {{name: Blob}}, not with a {found}")

    def __repr__(self):
        return f"Result({type(self.value).__name__}, {len(self.blobs)} blobs)"


def _array_type(dtype, shape):
    return f"{_ARRAY}; dtype={dtype.str}; shape={','.join(map(str, shape))}"


def _read_array_type(media_type):
    """Returns the (dtype, shape) that the media type states, or (None, None)."""
    kind, *parameters = [part.strip() for part in media_type.split(";")]
    if kind != _ARRAY:
        return None, None
    told = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
    try:
        shape = tuple(int(length) for length in told["shape"].split(",") if length)
        return told["dtype"], shape
    except (KeyError, ValueError):
        return None, None


def _raw_reader(data):
    import io

    class Raw(io.RawIOBase):
        """Reads `data` from its start; seekable."""

        at = 0

        def readable(self):
            return True

        def seekable(self):
            return True

        def readinto(self, into):
            part = data[self.at : self.at + len(into)]
            into[: len(part)] = part
            self.at += len(part)
            return len(part)

        def seek(self, offset, whence=0):
            start = (0, self.at, len(data))[whence]
            if start + offset < 0:
                raise ValueError("a place before the start")
            self.at = start + offset
            return self.at

        def tell(self):
            return self.at

    return Raw()
