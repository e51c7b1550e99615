"""Speech that flite made, heard by the recipe `transcription`: how many words are wrong, and that it tells
while it listens."""

import json
import shutil
import signal
import struct
import subprocess
import tempfile
import unittest
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import PATIENCE, RECIPES, Failed, Hob, alone, say

RECIPE = RECIPES / "transcription"

#: Written down before any of them was tried; none was taken out.
SENTENCES = """\
The weather is fine today and we are going to the park.
She opened the window because the room was too warm.
My brother works in a small office near the station.
We need to buy some bread and milk before the shop closes.
The children played in the garden until it was dark.
He read the letter twice and put it back on the table.
The train to the city leaves at seven in the morning.
I would like a cup of coffee and a glass of water.
They built a new bridge across the river last year.
The doctor told him to rest for a few days.
There was a lot of snow on the mountain this winter.
Please close the door when you leave the house.
The teacher asked the students to write a short story.
We walked along the beach and watched the sun go down.
The company is looking for people who speak two languages.
Our neighbors have a large dog and three cats.
It took them four hours to drive to the lake.
The book on the desk belongs to my sister.
The old man sat on a bench and fed the birds.
You can pay for the tickets at the front desk.""".splitlines()

VOICES = ["slt", "rms", "awb"]

#: Most words that may be wrong, of all, in percent.
WRONG_MAX = 10


def words(text):
    return "".join(letter for letter in text.lower() if letter.isalpha() or letter in " '").split()


def distance(wanted, found):
    """Words to replace, add or leave out, at least, until `found` is `wanted` (Levenshtein)."""
    above = list(range(len(found) + 1))
    for row, word in enumerate(wanted, 1):
        here = [row]
        for column, other in enumerate(found, 1):
            here.append(min(above[column] + 1, here[-1] + 1, above[column - 1] + (word != other)))
        above = here
    return above[-1]


class Heard(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.hob = Hob()
        cls.place = Path(tempfile.mkdtemp(prefix="hob-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.place)

    def speak(self, voice, text):
        if shutil.which("flite") is None:
            say("SKIPPED: nothing can be said without flite; `make setup` installs it")
            self.skipTest("no flite")
        file = self.place / f"{voice}-{len(list(self.place.iterdir()))}.wav"
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", file], check=True)
        return file

    def hear(self, file):
        return self.hob.lines(RECIPE, "transcribe", {}, "--blob", f"audio={file}")

    def test_distance_is_that_of_words(self):
        for wanted, found, far in [("a b c", "a b c", 0), ("a b c", "a x c", 1), ("a b c", "b c d e", 3), ("a b", "", 2), ("", "a", 1)]:
            self.assertEqual(distance(wanted.split(), found.split()), far)

    def test_three_voices_are_understood(self):
        files = [(voice, text, self.speak(voice, text)) for voice in VOICES for text in SENTENCES]
        with ThreadPoolExecutor(2) as pool:
            heard = list(pool.map(self.hear, [file for _, _, file in files]))
        wrong, said = dict.fromkeys(VOICES, 0), dict.fromkeys(VOICES, 0)
        for (voice, text, _), (chunks, output) in zip(files, heard):
            wanted = words(text)
            wrong[voice] += distance(wanted, words(output["text"]))
            said[voice] += len(wanted)
            # It told what it heard so far, and only then what it heard.
            kinds = ["partial" if "partial" in chunk else "text" for chunk in chunks]
            self.assertGreaterEqual(kinds.count("partial"), 3, chunks)
            self.assertEqual(kinds.index("text"), len(kinds) - 1, chunks)
            self.assertEqual(chunks[-1]["text"], output["text"])
            self.assertEqual([word["word"] for word in output["words"]], output["text"].split())
            self.assertEqual(sorted(word["start"] for word in output["words"]), [word["start"] for word in output["words"]])
            self.assertLessEqual(output["words"][-1]["end"], output["seconds"])
        for voice in VOICES:
            say(f"word error rate of {voice}: {100 * wrong[voice] / said[voice]:.1f} % ({wrong[voice]} of {said[voice]} words)")
        total = 100 * sum(wrong.values()) / sum(said.values())
        say(f"word error rate in total: {total:.1f} %")
        self.assertLess(total, WRONG_MAX)

    def test_a_long_recording_is_told_in_parts_and_again_the_same(self):
        file = self.speak("rms", " ".join(SENTENCES[:6]))
        chunks, output = self.hear(file)
        self.assertGreater(output["seconds"], 15)
        self.assertGreater(len(output["segments"]), 1)
        self.assertEqual([chunk for chunk in chunks if "text" in chunk], output["segments"])
        # What is partial of the second part comes after what is final of the first.
        first = next(at for at, chunk in enumerate(chunks) if "text" in chunk)
        self.assertTrue(any("partial" in chunk for chunk in chunks[first + 1 :]))
        wanted = words(" ".join(SENTENCES[:6]))
        self.assertLess(distance(wanted, words(output["text"])), len(wanted) * WRONG_MAX / 100)
        self.assertEqual(self.hear(file), (chunks, output))

    def test_a_partial_text_is_there_before_the_end(self):
        """A call that is cancelled on its first partial text was not over when that was told."""
        file = self.speak("slt", " ".join(SENTENCES))
        process = self.hob.start("call", RECIPE, "transcribe", "{}", "--stream", "--json", "--blob", f"audio={file}")
        self.assertIn("partial", json.loads(process.stdout.readline())["chunk"])
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, 9)
        self.assertEqual(json.loads(out.splitlines()[-1])["fault"]["code"], "cancelled")

    def test_the_form_of_the_wav_does_not_matter(self):
        file = self.speak("rms", SENTENCES[2])
        with wave.open(str(file)) as audio:
            samples = struct.unpack(f"<{audio.getnframes()}h", audio.readframes(audio.getnframes()))
        plain = self.hear(file)[1]
        # The right channel is silent, so the average is half as loud.
        stereo = self.place / "stereo.wav"
        with wave.open(str(stereo), "wb") as audio:
            audio.setparams((2, 3, 48_000, 0, "NONE", ""))
            # Three times the rate, by straight lines between the samples; 24 bits.
            pairs = zip(samples, samples[1:] + (0,))
            between = [one + (other - one) * third // 3 for one, other in pairs for third in range(3)]
            audio.writeframes(b"".join((sample << 8).to_bytes(3, "little", signed=True) + bytes(3) for sample in between))
        other = self.hear(stereo)[1]
        self.assertEqual(other["audio"], {"rate": 48_000, "channels": 2})
        self.assertEqual(other["text"], plain["text"])

    def test_what_is_no_sound_is_refused(self):
        def refused(data):
            file = self.place / "bad.wav"
            file.write_bytes(data)
            with self.assertRaises(Failed) as failed:
                self.hear(file)
            self.assertEqual(failed.exception.code, "invalid_input")
            return failed.exception.fault["message"]

        head = b"RIFF\0\0\0\0WAVE"
        form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
        self.assertIn("is no WAV", refused(b"ID3\4 this is not one"))
        self.assertIn("without samples", refused(head + form))
        self.assertIn("100 bytes of samples", refused(head + form + b"data" + struct.pack("<I", 100) + bytes(10)))
        mp3 = b"fmt " + struct.pack("<IHHIIHH", 16, 0x55, 2, 44_100, 16_000, 1, 0)
        self.assertIn("0x55", refused(head + mp3 + b"data" + struct.pack("<I", 4) + bytes(4)))
        with self.assertRaises(Failed) as failed:
            self.hob.call(RECIPE, "transcribe", {})
        self.assertIn("wanted a blob `audio`", failed.exception.fault["message"])

    def test_silence_has_no_words(self):
        file = self.place / "silence.wav"
        with wave.open(str(file), "wb") as audio:
            audio.setparams((1, 1, 8_000, 0, "NONE", ""))
            audio.writeframes(b"\x80" * 8_000)
        chunks, output = self.hear(file)
        self.assertEqual(output, {"text": "", "segments": [], "words": [], "seconds": 1.0, "audio": {"rate": 8_000, "channels": 1}})

    def test_what_a_pod_heard_before_changes_nothing(self):
        files = [self.speak(voice, text) for voice, text in zip(VOICES, SENTENCES)]
        self.hob.call(RECIPE, "pronounce", {"words": ["hello"]})
        alone("pocketsphinx", "transcription", "transcriber_alone.py", *files)

    def test_samples_of_every_kind(self):
        self.hob.call(RECIPE, "pronounce", {"words": ["hello"]})
        self.assertIn("Ran 4 tests", alone("pocketsphinx", "transcription", "sound_alone.py"))


if __name__ == "__main__":
    unittest.main()
