"""The operations on the index of a session.

Each `add` here is short, because no other call gets in before it ends: the glue splits long lists of callers.
"""

import json
import secrets

from encoder import DIMENSIONS, MODEL, Encoder
from hob_pod import Fault, progress
from index import STATE_BYTES_MAX, Damaged, Index, filtering

#: Number of results, unless the caller says otherwise.
RESULTS = 10

#: Largest document, as JSON, in bytes: the 50 of an answer stay below the 4 MiB that an answer may have.
RECORD_BYTES_MAX = 64 << 10

#: Decimals of a score.
DECIMALS = 6


class Searcher:
    """The operations of `hob/document-search`."""

    def load(self, models):
        self.encoder = Encoder(models["all-MiniLM-L6-v2.onnx"], models["tokenizer.json"])
        self.index = Index(DIMENSIONS)
        # The glue recognises by it that the pod was replaced; the new pod may have begun with less than the
        # old one had.
        self.life = secrets.token_hex(8)

    def add(self, input):
        """Adds `{"documents"}`. For a part of a longer list, `{"before", "total"}` say how many came before
        and how many there are."""
        documents = [[given["id"], given["text"], given.get("metadata", {})] for given in input["documents"]]
        records = {document[0]: record_of(document) for document in documents}
        size = self.index.grown_by(records)
        if size > STATE_BYTES_MAX:
            text = f"with these {len(documents)} documents the index would have {size} bytes; it has {len(self.index)} documents"
            text += f", and {STATE_BYTES_MAX} bytes at most"
            raise Fault("too_large", text, "take some out with `remove`, or put these into another session")
        counts = {"added": 0, "replaced": 0, "unchanged": 0}
        changed = []
        for document in documents:
            row = self.index.rows.get(document[0])
            kind = "added" if row is None else "unchanged" if self.index.records[row] == records[document[0]] else "replaced"
            counts[kind] += 1
            if kind != "unchanged":
                changed.append(document)
        if changed:
            vectors = self.encoder.encode([text for _, text, _ in changed])
            self.index.put([records[document[0]] for document in changed], changed, vectors)
        progress(done=input.get("before", 0) + len(documents), total=input.get("total", len(documents)), unit="documents")
        return {**counts, "documents": len(self.index), "life": self.life}

    def search(self, input):
        """Returns the closest documents."""
        vector = self.encoder.encode([input["query"]])[0]
        found = self.index.search(vector, input.get("k", RESULTS), filtering(input.get("filter", {})))
        results = [{"id": id, "score": round(score, DECIMALS), "text": text, "metadata": metadata} for score, (id, text, metadata) in found]
        return {"results": results, "documents": len(self.index), "revision": self.index.revision}

    def remove(self, input):
        """Removes the documents that are there."""
        ids = list(dict.fromkeys(input["ids"]))
        there = [id for id in ids if id in self.index.rows]
        if there:
            self.index.remove(there)
        return {"removed": len(there), "missing": [id for id in ids if id not in set(there)], "documents": len(self.index)}

    def status(self, input):
        """Returns how full the index is."""
        return {
            "documents": len(self.index),
            "bytes": self.index.bytes,
            "bytes_max": STATE_BYTES_MAX,
            "revision": self.index.revision,
            "model": MODEL,
            "dimensions": DIMENSIONS,
        }

    def checkpoint(self):
        """Returns the whole state."""
        return self.index.dump()

    def restore(self, data):
        """Takes the state that `checkpoint` returned."""
        try:
            self.index = Index.parse(data, DIMENSIONS)
        except Damaged as error:
            text = f"what was kept is no index of this recipe: {error}"
            raise Fault("recipe_failed", text, "close the session, and add its documents anew") from error


def record_of(document):
    """Returns a document as JSON on one line."""
    record = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    if len(record) > RECORD_BYTES_MAX:
        text = f"the document `{document[0][:100]}` has {len(record)} bytes as JSON, wanted {RECORD_BYTES_MAX} at most"
        raise Fault("too_large", text, "split it; of a text the first 256 tokens are searched anyway")
    return record
