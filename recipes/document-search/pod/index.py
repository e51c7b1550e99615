"""Documents with their vectors, in memory: exact cosines of all of them, and the whole state as bytes.

It uses numpy and the standard library, and knows neither the model nor the host. Multiplying a hundred
thousand vectors, the most that fit into a checkpoint, takes some 20 ms, so that an approximate index would
gain nothing noticeable.
"""

import json
import signal
import struct
from contextlib import contextmanager

import numpy as np

#: A state begins with this: its format, and the lengths of the documents' JSON and of the whole.
MAGIC = b"hobdocs1"
HEAD = struct.Struct("<8sQQQ")

#: Largest state, in bytes; the host keeps 256 MiB at most.
STATE_BYTES_MAX = 250 << 20

#: Rows that an empty index has room for.
ROWS_MIN = 256


class Damaged(ValueError):
    """Bytes that are no state of an index."""


@contextmanager
def undisturbed():
    """A context in which a cancel, which is a signal, does not interrupt; it arrives right after."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Index:
    """Rows of vectors, and for each row the document's record `[id, text, metadata]`, as JSON and as an
    object."""

    def __init__(self, dimensions):
        self.vectors = np.empty((ROWS_MIN, dimensions), np.float32)
        self.records, self.documents, self.rows = [], [], {}
        self.record_bytes = 0
        self.revision = 0

    def __len__(self):
        return len(self.records)

    @property
    def row_bytes(self):
        return self.vectors.shape[1] * 4

    @property
    def bytes(self):
        """The size of the state in bytes."""
        return HEAD.size + self.record_bytes + len(self) * self.row_bytes

    def grown_by(self, records):
        """Returns the size in bytes of the state with these documents, given by id: some are new, some
        replace another."""
        size = self.bytes
        for id, record in records.items():
            row = self.rows.get(id)
            size += len(record) + 1 + self.row_bytes if row is None else len(record) - len(self.records[row])
        return size

    def put(self, records, documents, vectors):
        """Adds or replaces documents; if it raises, it changes nothing."""
        fresh = sum(document[0] not in self.rows for document in documents)
        with undisturbed():
            self._make_room(len(self) + fresh)
            for record, document, vector in zip(records, documents, vectors):
                row = self.rows.get(document[0])
                if row is None:
                    row = self.rows[document[0]] = len(self)
                    self.records.append(b"")
                    self.documents.append(None)
                    self.record_bytes += 1
                self.record_bytes += len(record) - len(self.records[row])
                self.records[row], self.documents[row], self.vectors[row] = record, document, vector
            self.revision += 1

    def remove(self, ids):
        """Removes documents, all of which must be there. The last row moves into each gap."""
        with undisturbed():
            for id in ids:
                row, last = self.rows.pop(id), len(self) - 1
                self.record_bytes -= len(self.records[row]) + 1
                if row != last:
                    self.records[row], self.documents[row] = self.records[last], self.documents[last]
                    self.vectors[row] = self.vectors[last]
                    self.rows[self.documents[row][0]] = row
                self.records.pop()
                self.documents.pop()
            self.revision += 1

    def search(self, vector, count, wanted):
        """Returns at most `count` pairs (score, document), best first, of the documents for which
        `wanted(metadata)` is true."""
        rows = np.fromiter((row for row, document in enumerate(self.documents) if wanted(document[2])), np.int64)
        if not len(rows):
            return []
        # If all are wanted, copying all vectors would be a waste.
        among = self.vectors[: len(self)] if len(rows) == len(self) else self.vectors[rows]
        scores = (among @ vector).clip(-1, 1)
        best = np.argpartition(-scores, count)[:count] if count < len(rows) else np.arange(len(rows))
        found = [(float(scores[at]), self.documents[rows[at]]) for at in best]
        # Of two equally close documents the one with the smaller id is first, whichever was added first.
        return sorted(found, key=lambda item: (-item[0], item[1][0]))

    def dump(self):
        """Returns the state as bytes: documents and vectors."""
        state = bytearray(HEAD.pack(MAGIC, self.vectors.shape[1], self.record_bytes, self.revision))
        for record in self.records:
            state += record
            state += b"\n"
        state += self.vectors[: len(self)].astype("<f4", copy=False).tobytes()
        return state

    @classmethod
    def parse(cls, data, dimensions):
        """Returns the index of a state. Raises Damaged."""
        if len(data) < HEAD.size:
            raise Damaged(f"it has {len(data)} bytes, wanted {HEAD.size} or more")
        magic, found, record_bytes, revision = HEAD.unpack_from(data)
        if (magic, found) != (MAGIC, dimensions):
            raise Damaged(f"it begins with {magic!r} and vectors of {found} numbers, wanted {MAGIC!r} and {dimensions}")
        records = bytes(data[HEAD.size : HEAD.size + record_bytes]).split(b"\n")[:-1]
        index = cls(dimensions)
        if len(data) != HEAD.size + record_bytes + len(records) * index.row_bytes:
            raise Damaged(f"{len(data)} bytes are not {len(records)} documents with their vectors")
        index._make_room(len(records))
        vectors = np.frombuffer(data, "<f4", offset=HEAD.size + record_bytes).reshape(len(records), dimensions)
        index.vectors[: len(records)] = vectors
        index.records, index.documents = records, [json.loads(record) for record in records]
        index.rows = {document[0]: row for row, document in enumerate(index.documents)}
        index.record_bytes, index.revision = record_bytes, revision
        if len(index.rows) != len(records):
            raise Damaged("an id is in it twice")
        return index

    def _make_room(self, rows):
        if rows > len(self.vectors):
            larger = np.empty((max(rows, 2 * len(self.vectors)), self.vectors.shape[1]), np.float32)
            larger[: len(self)] = self.vectors[: len(self)]
            self.vectors = larger


def filtering(filter):
    """Returns a function that tells whether metadata have each value of a filter; for a list, one of its
    values."""
    wanted = {key: value if isinstance(value, list) else [value] for key, value in filter.items()}

    def matches(metadata):
        return all(key in metadata and any(same(metadata[key], value) for value in values) for key, values in wanted.items())

    return matches


def same(one, other):
    """Compares as JSON does: 1 equals 1.0, and true does not equal 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)
