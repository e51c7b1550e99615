"""The index of `document-search` by itself, against numbers that were counted in another way.

test_document_search.py runs this in the recipe's environment.
"""

import json
import random
import signal
import threading
import unittest
from unittest import mock

import index
import numpy as np
import searcher
from hob_pod import Fault

WIDE = 8


def vector(number):
    made = np.random.default_rng(number).standard_normal(WIDE).astype(np.float32)
    return made / np.linalg.norm(made)


def put(into, *numbers, text="text {}"):
    documents = [[f"id{number}", text.format(number), {"even": number % 2 == 0}] for number in numbers]
    records = [json.dumps(document).encode() for document in documents]
    into.put(records, documents, [vector(number) for number in numbers])


class Many(unittest.TestCase):
    def test_whatever_happens_it_is_what_a_dict_would_be(self):
        chance, made, wanted = random.Random(4), index.Index(WIDE), {}
        for step in range(400):
            if wanted and chance.random() < 0.4:
                gone = chance.sample(sorted(wanted), min(len(wanted), chance.randint(1, 9)))
                made.remove([f"id{number}" for number in gone])
                for number in gone:
                    del wanted[number]
            else:
                numbers = chance.sample(range(900), chance.randint(1, 20))
                put(made, *numbers, text=f"{{}} at {step}")
                wanted.update({number: f"{number} at {step}" for number in numbers})
            if step % 40 == 0:
                made = index.Index.parse(bytes(made.dump()), WIDE)
            self.assertEqual(made.bytes, len(made.dump()))
            self.assertEqual(made.revision, step + 1)
        self.assertEqual([document[1] for document in made.documents], [wanted[int(document[0][2:])] for document in made.documents])
        self.assertEqual({document[0] for document in made.documents}, {f"id{number}" for number in wanted})
        query = vector(-1 % 2**32)
        scores = sorted(((float(vector(number) @ query), f"id{number}") for number in wanted), key=lambda item: (-item[0], item[1]))
        for count in (1, 7, len(wanted), len(wanted) + 1):
            found = made.search(query, count, index.filtering({}))
            self.assertEqual([document[0] for _, document in found], [id for _, id in scores[:count]])
            np.testing.assert_allclose([score for score, _ in found], [score for score, _ in scores[:count]], atol=1e-6)
        found = made.search(query, 5, index.filtering({"even": True}))
        self.assertEqual([document[0] for _, document in found], [id for _, id in scores if int(id[2:]) % 2 == 0][:5])

    def test_filters_compare_as_json(self):
        metadata = {"a": 1, "b": True, "c": None, "d": "x"}
        for filter, matches in [
            ({}, True),
            ({"a": 1.0}, True),
            ({"a": True}, False),
            ({"b": 1}, False),
            ({"b": True, "d": "x"}, True),
            ({"b": True, "d": "y"}, False),
            ({"c": None}, True),
            ({"e": None}, False),
            ({"d": ["y", "x"]}, True),
            ({"d": ["y", 1]}, False),
        ]:
            self.assertEqual(index.filtering(filter)(metadata), matches, filter)

    def test_a_damaged_state_is_refused(self):
        made = index.Index(WIDE)
        put(made, 1, 2, 3)
        state = bytes(made.dump())
        twice = bytes(made.dump()).replace(b"id2", b"id1")
        for damaged in [b"", state[:-1], state + b"x", b"X" + state[1:], state[: index.HEAD.size], twice]:
            with self.assertRaises(index.Damaged):
                index.Index.parse(damaged, WIDE)
        with self.assertRaises(index.Damaged):
            index.Index.parse(state, WIDE + 1)
        self.assertEqual(bytes(index.Index.parse(state, WIDE).dump()), state)

    def test_a_cancel_leaves_all_or_nothing(self):
        """The signal of a cancel comes in the middle of a change, and interrupts right after it."""

        class Interrupted(BaseException):
            pass

        class Strikes(bytes):
            def __len__(self):
                signal.pthread_kill(threading.main_thread().ident, signal.SIGURG)
                return super().__len__()

        def interrupt(*_):
            raise Interrupted

        before = signal.signal(signal.SIGURG, interrupt)
        try:
            made = index.Index(WIDE)
            documents = [["a", "one", {}], ["b", "two", {}]]
            records = [Strikes(json.dumps(document).encode()) for document in documents]
            with self.assertRaises(Interrupted):
                made.put(records, documents, [vector(1), vector(2)])
            self.assertEqual((len(made), sorted(made.rows), made.revision), (2, ["a", "b"], 1))
            with self.assertRaises(Interrupted):
                made.remove(["a", "b"])
            self.assertEqual((len(made), made.rows, made.record_bytes), (0, {}, 0))
        finally:
            signal.signal(signal.SIGURG, before)


class Model:
    """Stands for the encoder: what is asked here is not what texts mean."""

    def __init__(self):
        self.encoded = []

    def encode(self, texts):
        self.encoded += texts
        return np.stack([np.resize(vector(len(text)), searcher.DIMENSIONS) for text in texts])


class Bounds(unittest.TestCase):
    def setUp(self):
        self.searcher = searcher.Searcher()
        self.searcher.encoder, self.searcher.index, self.searcher.life = Model(), index.Index(searcher.DIMENSIONS), "life"

    def test_a_full_index_refuses_and_stays_as_it_is(self):
        one = {"documents": [{"id": "a", "text": "x" * 100}]}
        self.searcher.add(one)
        size = self.searcher.index.bytes
        state = bytes(self.searcher.checkpoint())
        with mock.patch.object(searcher, "STATE_BYTES_MAX", size):
            with self.assertRaises(Fault) as fault:
                self.searcher.add({"documents": [{"id": "b", "text": "y"}]})
            self.assertEqual(fault.exception.code, "too_large")
            self.assertIn("has 1 documents", fault.exception.message)
            self.assertEqual(bytes(self.searcher.checkpoint()), state)
            # In place of the one that is there it has room, and not if it is longer.
            self.assertEqual(self.searcher.add({"documents": [{"id": "a", "text": "z" * 100}]})["replaced"], 1)
            with self.assertRaises(Fault):
                self.searcher.add({"documents": [{"id": "a", "text": "z" * 101}]})

    def test_what_is_there_is_not_computed_again(self):
        first = [{"id": "a", "text": "one"}, {"id": "b", "text": "two", "metadata": {"n": 1}}]
        self.assertEqual(self.searcher.add({"documents": first})["added"], 2)
        told = self.searcher.add({"documents": [*first, {"id": "c", "text": "three"}]})
        self.assertEqual((told["unchanged"], told["added"], told["documents"]), (2, 1, 3))
        self.assertEqual(self.searcher.encoder.encoded, ["one", "two", "three"])

    def test_a_document_too_long_for_an_answer(self):
        with self.assertRaises(Fault) as fault:
            self.searcher.add({"documents": [{"id": "a", "text": "x" * 70_000}]})
        self.assertEqual(fault.exception.code, "too_large")


if __name__ == "__main__":
    unittest.main()
