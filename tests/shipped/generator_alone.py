"""The recipe's class by itself: what cannot be seen from outside, or only slowly. Words: the folder of the
models.

test_text_generation.py runs this in the recipe's environment.
"""

import os
import sys
import threading
import unittest
from pathlib import Path
from unittest import mock

import folder
import generator
import torch
from generator_texts import TEXTS
from hob_pod import Fault, faults
from words import Stops, Words

PLACE = Path(sys.argv.pop())
torch.set_num_threads(1)


def load(name):
    made = generator.Generator()
    with mock.patch.dict(os.environ, {"TEXT_MODEL": str(PLACE / name)}):
        made.load({})
    return made


def read(stream):
    chunks = []
    while True:
        try:
            chunks.append(next(stream))
        except StopIteration as end:
            return chunks, end.value


class Characters:
    """A tokenizer for `Words`: each token is a byte."""

    def decode(self, tokens, **more):
        return bytes(tokens).decode("utf-8", "replace")


class Texts(unittest.TestCase):
    def test_no_character_is_told_in_parts(self):
        for text in [*TEXTS, "é" * 5, "👩‍👩‍👧‍👦", "\n\n", "a"]:
            words = Words(Characters())
            said = [words.push(byte) for byte in text.encode()]
            self.assertEqual("".join(said), text)
            self.assertEqual([piece for piece in said if piece], list(text))
            self.assertEqual(words.rest(), "")

    def test_what_is_no_character_is_told_at_last(self):
        for data in [b"\xff\xfea", b"a\xe2\x82", b"\xe2\x82\xe2\x82\xacb\xff", b"\x80" * 9]:
            words = Words(Characters())
            said = "".join([words.push(byte) for byte in data])
            self.assertEqual(said + words.rest(), data.decode("utf-8", "replace"))

    def test_a_stop_never_leaks_however_it_is_cut(self):
        text, stops = "one STOPP two STxSTO STOPPED three", ["STOPPED", "zzz", "ED t"]
        for size in range(1, 12):
            held = Stops(stops)
            said = ""
            for at in range(0, len(text), size):
                said += held.push(text[at : at + size])
                self.assertTrue("one STOPP two STxSTO ".startswith(said), (size, said))
                if held.stopped:
                    break
            self.assertTrue(held.stopped)
            self.assertEqual(said, "one STOPP two STxSTO ")

    def test_what_only_looked_like_a_stop_is_told(self):
        held = Stops(["STOP"])
        self.assertEqual(held.push("go on STO"), "go on ")
        self.assertEqual((held.rest(), held.stopped), ("STO", False))


class Model(unittest.TestCase):
    def test_a_stream_that_is_left_stops_within_one_token(self):
        made = load("untaught")
        passes = []
        made.model.register_forward_hook(lambda *_: passes.append(1))
        for wanted in (1, 7):
            passes.clear()
            stream = made.generate({"prompt": "a", "max_new_tokens": 400, "temperature": 1, "seed": 3})
            told = [next(stream) for _ in range(wanted)]
            stream.close()
            self.assertFalse([thread for thread in threading.enumerate() if thread.name == "model"])
            # One that was made before it was asked for, and one in the making.
            self.assertLessEqual(len(passes), told[-1]["tokens"] + 2)

    def test_it_says_what_transformers_says(self):
        made = load("learnt")
        prompt = made.tokenizer(TEXTS[0][:9], return_tensors="pt")
        given = made.model.generate(**prompt, max_new_tokens=40, do_sample=False, pad_token_id=0)
        _, output = read(made.generate({"prompt": TEXTS[0][:9], "max_new_tokens": 40}))
        self.assertEqual(output["text"], made.tokenizer.decode(given[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))

    def test_out_of_memory_keeps_its_name(self):
        made = load("untaught")
        words = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        with mock.patch.object(made.model, "forward", side_effect=RuntimeError(words)), self.assertRaises(RuntimeError) as failed:
            read(made.generate({"prompt": "a"}))
        self.assertEqual(faults.of(failed.exception, "`generate`")["code"], "out_of_memory")
        full = mock.patch.object(folder.AutoModelForCausalLM, "from_pretrained", side_effect=torch.OutOfMemoryError("CUDA out of memory"))
        with full, self.assertRaises(torch.OutOfMemoryError):
            load("untaught")
        read(made.generate({"prompt": "a", "max_new_tokens": 1}))

    def test_a_folder_that_will_not_do_is_told(self):
        for name, code, said in [
            ("none", "model_missing", "no folder"),
            ("pickled", "model_missing", "lacks *.safetensors"),
            ("halved", "recipe_failed", "Safetensor"),
            ("lacking", "recipe_failed", "lack 12 of the weights"),
            ("strange", "recipe_failed", "custom code"),
        ]:
            with self.assertRaises(Fault) as fault:
                load(name)
            self.assertEqual(fault.exception.code, code)
            self.assertIn(said, fault.exception.message)
            self.assertTrue(fault.exception.hint)

    def test_a_name_is_below_the_folder_that_is_granted(self):
        with mock.patch.object(folder, "MODELS", str(PLACE)):
            with mock.patch.dict(os.environ, {"TEXT_MODEL": "learnt"}):
                self.assertEqual(folder.find(), PLACE / "learnt")
            with mock.patch.dict(os.environ):
                os.environ.pop("TEXT_MODEL", None)
                with self.assertRaises(Fault) as fault:
                    folder.find()
        self.assertIn(f"{PLACE}/text-generation", fault.exception.message)


if __name__ == "__main__":
    unittest.main()
