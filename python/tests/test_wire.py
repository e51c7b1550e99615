"""The byte vectors that the Rust tests read too, and the strictness of JSON."""

import json
import os
import random
import unittest

from hob_pod import wire

VECTORS = os.path.join(os.path.dirname(__file__), "..", "..", "tests", "vectors", "frames.json")


def feed(decoder, raw, sizes=None):
    """Feeds `raw` to the decoder in pieces (of `sizes`, or as much as it takes)."""
    frames, at = [], 0
    while at < len(raw):
        space = decoder.space()
        count = min(len(space), len(raw) - at, next(sizes) if sizes else len(space))
        space[:count] = raw[at : at + count]
        at += count
        frames += decoder.received(count)
    return frames


class Vectors(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with open(VECTORS, encoding="utf-8") as file:
            cls.vectors = json.load(file)

    def test_good_frames_decode_to_what_they_say(self):
        self.assertGreater(len(self.vectors["good"]), 15)
        for vector in self.vectors["good"]:
            with self.subTest(vector["name"]):
                (frame,) = feed(wire.Decoder(), bytes.fromhex(vector["frame"]))
                self.assertEqual(frame.ask, vector["ask"])
                self.assertEqual(frame.message, vector["message"])
                self.assertEqual(bytes(frame.tail), bytes.fromhex(vector["tail"]))

    def test_what_is_encoded_decodes_to_the_same(self):
        for vector in self.vectors["good"]:
            with self.subTest(vector["name"]):
                raw = b"".join(wire.encode(vector["ask"], vector["message"], [bytes.fromhex(vector["tail"])]))
                (frame,) = feed(wire.Decoder(), raw)
                self.assertEqual((frame.ask, frame.message), (vector["ask"], vector["message"]))

    def test_bad_frames_are_refused_or_incomplete(self):
        self.assertGreater(len(self.vectors["bad"]), 20)
        for vector in self.vectors["bad"]:
            with self.subTest(vector["name"]):
                decoder = wire.Decoder()
                raw = bytes.fromhex(vector["frame"])
                if vector["outcome"] == "incomplete":
                    self.assertEqual(feed(decoder, raw), [])
                    self.assertTrue(decoder.inside_frame)
                else:
                    with self.assertRaises(wire.ProtocolError):
                        feed(decoder, raw)

    def test_streams_give_their_frames_however_they_are_cut(self):
        chance = random.Random(7)
        for vector in self.vectors["streams"]:
            for most in (1, 3, 20, 1000):
                with self.subTest(vector["name"], most=most):
                    decoder = wire.Decoder(vector["frame_bytes_max"])
                    sizes = iter(lambda most=most: chance.randint(1, most), None)
                    frames = feed(decoder, bytes.fromhex(vector["bytes"]), sizes)
                    self.assertFalse(decoder.inside_frame)
                    for frame, wanted in zip(frames, vector["frames"]):
                        self.assertEqual(frame.ask, wanted["ask"])
                        self.assertEqual(frame.message, wanted.get("message"))
                        self.assertEqual(frame.too_large, wanted.get("too_large", 0))
                    self.assertEqual(len(frames), len(vector["frames"]))

    def test_frames_of_any_size_survive_any_cut(self):
        chance = random.Random(11)
        for _ in range(30):
            sent, raw = [], b""
            for ask in range(1, 8):
                tail = chance.randbytes(chance.choice([0, 5, 5000, 60_000, 70_000, 300_000]))
                message = {"type": "chunk", "data": "y" * chance.choice([0, 10, 70_000])}
                message["blobs"] = [{"name": "a", "media_type": "b", "bytes": len(tail)}]
                sent.append((ask, message, tail))
                raw += b"".join(wire.encode(ask, message, [tail]))
            frames = feed(wire.Decoder(), raw, iter(lambda: chance.randint(1, 200_000), None))
            self.assertEqual([(frame.ask, frame.message, bytes(frame.tail)) for frame in frames], sent)


class Array:
    """Stands for numpy and torch, which are converted by their `tolist`."""

    def __init__(self, value):
        self.value = value

    def tolist(self):
        return self.value


class Strictness(unittest.TestCase):
    def test_good_values_pass_unchanged(self):
        for value in (
            None,
            {"a": [1, -2.5, "ü\u2028", True]},
            [-(1 << 63), (1 << 64) - 1],
            {"id": "9" * 40},
            0.0012345678901234567,
            1e300,
            [[[]], {}],
        ):
            self.assertEqual(json.loads(wire.dump(value)), value)
        self.assertEqual(json.loads(wire.dump({"v": Array([[1.5, 2]]), "s": Array(3)})), {"v": [[1.5, 2]], "s": 3})
        self.assertEqual(wire.dump((1, 2)), b"[1,2]")

    def test_what_json_cannot_carry_is_named_by_its_place(self):
        loop = []
        loop.append(loop)
        deep = value = []
        for _ in range(200):
            value.append([])
            value = value[0]
        for value, pointer, problem in (
            (float("nan"), "/", "nan"),
            ({"a": [1, float("inf")]}, "/a/1", "inf"),
            ({"a/b": {"~": float("-inf")}}, "/a~1b/~0", "-inf"),
            ({"x": Array([0.5, float("nan")])}, "/x/1", "nan"),
            ({"t": ["ok", "\ud800"]}, "/t/1", "surrogate"),
            ({"\udfff": 1}, "/", "surrogate"),
            ([1, 1 << 64], "/1", "64 bits"),
            ({"n": -(1 << 63) - 1}, "/n", "64 bits"),
            ({"n": int("9" * 500)}, "/n", "64 bits"),
            ({"a": {1.5: 2}}, "/a", "key 1.5"),
            ({"a": [{None: 2}]}, "/a/0", "key None"),
            ({True: 1}, "/", "key True"),
            ({"a": b"bytes"}, "/a", "bytes"),
            ({"a": object()}, "/a", "object"),
        ):
            with self.subTest(repr(value)[:60]), self.assertRaises(wire.NotJson) as caught:
                wire.dump(value)
            self.assertEqual(caught.exception.pointer, pointer)
            self.assertIn(problem, caught.exception.problem)
        for value in (loop, deep, {"a": deep}):
            with self.assertRaises(wire.NotJson) as caught:
                wire.dump(value)
            self.assertIn("too deep", caught.exception.problem)

    def test_nesting_is_carried_up_to_the_depth_that_the_host_parses(self):
        def nested(levels):
            value = "x"
            for _ in range(levels):
                value = [value]
            return value

        wire.dump(nested(wire.DEPTH_MAX))
        with self.assertRaises(wire.NotJson):
            wire.dump(nested(wire.DEPTH_MAX + 1))

    def test_deep_input_is_a_protocol_error_and_no_crash(self):
        raw = b'{"type":"x","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        with self.assertRaises(wire.ProtocolError):
            feed(wire.Decoder(), wire.HEADER.pack(len(raw), 0, 0) + raw)


if __name__ == "__main__":
    unittest.main()
