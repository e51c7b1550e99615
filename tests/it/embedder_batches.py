"""The pod's class of recipes/sentence-embeddings, called as the runner calls it: with the inputs of several
callers at once.

Apart from tests/it/embeddings.rs, which goes through the host and cannot choose what ends up in one batch;
that file runs this one with the recipe's own environment. Arguments: the folder of the models, the file of
reference vectors.
"""

import json
import sys
import unittest
from pathlib import Path
from unittest import mock

import embedder
import numpy as np

MODELS, REFERENCE = Path(sys.argv[1]), Path(sys.argv[2])

# What two runs may differ by that pad a text differently; README.md of the recipe says the same of machines.
SAME = 2e-6


class Batches(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = embedder.Embedder()
        cls.model.load({name: str(MODELS / name) for name in ("all-MiniLM-L6-v2.onnx", "tokenizer.json")})
        cls.reference = json.loads(REFERENCE.read_text())["texts"]

    def check(self, entries, vectors):
        self.assertEqual(len(vectors), len(entries))
        for entry, vector in zip(entries, vectors):
            wanted, found = np.array(entry["vector"]), np.array(vector)
            cosine = wanted @ found / (np.linalg.norm(wanted) * np.linalg.norm(found))
            self.assertGreaterEqual(cosine, 0.9999, entry["text"])

    def test_each_caller_gets_its_own_vectors_in_its_own_order(self):
        # Long and short ones mixed, one caller with many, one with the same text twice.
        shares = [self.reference[:1], self.reference[1:12], self.reference[30:31], self.reference[12:30][::-1], self.reference[3:4] * 2]
        results = self.model.embed([{"texts": [entry["text"] for entry in share]} for share in shares])
        self.assertEqual(len(results), len(shares))
        for share, result in zip(shares, results):
            self.assertEqual(list(result), ["embeddings"])
            self.check(share, result["embeddings"])

    def test_a_text_gives_the_same_alone_and_among_others(self):
        texts = [entry["text"] for entry in self.reference]
        (alone,) = self.model.embed([{"texts": texts[9:10]}])
        among = self.model.embed([{"texts": [text]} for text in texts])[9]
        self.assertLess(np.abs(np.array(alone["embeddings"]) - np.array(among["embeddings"])).max(), SAME)

    def test_callers_with_one_text_each_share_a_run(self):
        widths = []
        run = self.model._run
        with mock.patch.object(self.model, "_run", lambda texts: widths.append([len(text) for text in texts]) or run(texts)):
            self.model.embed([{"texts": [entry["text"]]} for entry in self.reference[:26] + self.reference[:6]])
        self.assertEqual([len(run) for run in widths], [32])
        self.assertEqual(widths[0], sorted(widths[0]))

    def test_no_run_is_longer_than_a_cancel_may_wait(self):
        sizes = []
        fake = [[0.0] * 384] * 32
        with mock.patch.object(self.model, "_run", lambda texts: sizes.append((len(texts), max(map(len, texts)))) or fake[: len(texts)]):
            self.model.embed([{"texts": ["word " * 500] * 5}, {"texts": ["word " * 500] * 12}, {"texts": ["word"] * 70}])
        self.assertEqual(sum(count for count, _ in sizes), 87)
        for count, width in sizes:
            self.assertLessEqual(count, embedder.RUN_TEXTS)
            self.assertLessEqual(count * width, embedder.RUN_TOKENS)

    def test_only_a_caller_alone_is_told_how_far_it_is(self):
        with mock.patch.object(embedder, "progress") as progress:
            self.model.embed([{"texts": ["one"] * 20}, {"texts": ["two"] * 20}])
            self.assertEqual(progress.call_count, 0)
            self.model.embed([{"texts": ["one"] * 40}])
            self.assertEqual([call.kwargs["done"] for call in progress.call_args_list], [32, 40])

    def test_a_batch_that_nobody_waits_for_stops_before_its_next_run(self):
        with (
            mock.patch.object(embedder, "cancelled", side_effect=[False, True]),
            mock.patch.object(self.model, "_run", wraps=self.model._run) as run,
            self.assertRaises(embedder.Fault) as raised,
        ):
            self.model.embed([{"texts": ["one"] * 40}])
        self.assertEqual((raised.exception.code, run.call_count), ("cancelled", 1))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
