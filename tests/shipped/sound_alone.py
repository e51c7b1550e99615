"""The recipe's `sound` by itself, against samples whose right values are known.

test_transcription.py runs this in the recipe's environment.
"""

import struct
import unittest

import numpy as np
import sound
from hob_pod import Fault


def wav(tag, bits, channels, rate, data, size=None, extensible=False):
    form = struct.pack("<HHIIHH", 0xFFFE if extensible else tag, channels, rate, 0, 0, bits)
    if extensible:
        form += struct.pack("<HHIH", 22, bits, 0, tag) + bytes(14)
    # A chunk that nobody knows, of an odd length, is between them.
    other = b"LIST" + struct.pack("<I", 3) + b"odd\0"
    size = len(data) if size is None else size
    return b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<I", len(form)) + form + other + b"data" + struct.pack("<I", size) + data


class Sound(unittest.TestCase):
    def test_each_kind_of_sample(self):
        for tag, bits, data in [
            (1, 8, bytes([128, 192, 64, 0])),
            (1, 16, struct.pack("<4h", 0, 1 << 14, -(1 << 14), -(1 << 15))),
            (1, 24, b"".join(number.to_bytes(3, "little", signed=True) for number in (0, 1 << 22, -(1 << 22), -(1 << 23)))),
            (1, 32, struct.pack("<4i", 0, 1 << 30, -(1 << 30), -(1 << 31))),
            (3, 32, struct.pack("<4f", 0, 0.5, -0.5, -1)),
            (3, 64, struct.pack("<4d", 0, 0.5, -0.5, -7)),
        ]:
            for more in ({}, {"extensible": True}, {"size": 0xFFFFFFFF}):
                samples, rate, channels = sound.read_wav(wav(tag, bits, 1, 16_000, data, **more))
                self.assertEqual((samples.tolist(), rate, channels), ([0, 0.5, -0.5, -1], 16_000, 1), (tag, bits, more))
            samples, _, channels = sound.read_wav(wav(tag, bits, 2, 16_000, data))
            self.assertEqual((samples.tolist(), channels), ([0.25, -0.75], 2), (tag, bits))

    def test_a_tone_keeps_its_height_and_loudness(self):
        for rate in (8_000, 11_025, 22_050, 44_100, 48_000, 96_000):
            tone = np.sin(2 * np.pi * 1_000 * np.arange(rate // 2) / rate).astype(np.float32)
            made = sound.resample(tone, rate, 16_000)
            self.assertAlmostEqual(len(made), 8_000, delta=1)
            wanted = np.sin(2 * np.pi * 1_000 * np.arange(len(made)) / 16_000)
            self.assertLess(np.abs(made - wanted)[200:-200].max(), 0.005, rate)

    def test_a_tone_too_high_for_the_decoder_is_silent_and_not_another_tone(self):
        tone = np.sin(2 * np.pi * 12_000 * np.arange(24_000) / 48_000).astype(np.float32)
        self.assertLess(np.abs(sound.resample(tone, 48_000, 16_000))[200:-200].max(), 0.005)

    def test_what_is_wrong_is_said(self):
        good = wav(1, 16, 1, 16_000, bytes(4))
        for data, said in [
            (b"", "0 bytes"),
            (good[:30], "10 bytes"),
            (good[:36], "without samples"),
            (good[:-1], "3 of the 4 bytes"),
            (wav(1, 12, 1, 16_000, bytes(4)), "12 bits"),
            (wav(1, 16, 0, 16_000, bytes(4)), "0 channels"),
            (wav(1, 16, 1, 100, bytes(4)), "100 samples a second"),
            (wav(3, 32, 1, 16_000, struct.pack("<f", float("nan"))), "no numbers"),
        ]:
            with self.assertRaises(Fault) as fault:
                sound.read_wav(data)
            self.assertIn(said, fault.exception.message)


if __name__ == "__main__":
    unittest.main()
