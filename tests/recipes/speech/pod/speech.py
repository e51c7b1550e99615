"""Ordinary pocketsphinx, as it is written for no sandbox at all.

Apart from the tests that run it, because it is a recipe: nothing here knows where it runs.
"""

import io
import wave

from hob_pod import Fault
from pocketsphinx import Decoder

RATE = 16_000


class Speech:
    """The operations of `test/speech`."""

    def load(self, models):
        self.decoder = Decoder(samprate=RATE, loglevel="ERROR")

    def listen(self, input, blobs):
        with wave.open(io.BytesIO(bytes(blobs["audio"].data))) as audio:
            kind = audio.getnchannels(), audio.getsampwidth(), audio.getframerate()
            if kind != (1, 2, RATE):
                raise Fault("invalid_input", f"audio of (channels, bytes, rate) {kind}, wanted (1, 2, {RATE})")
            samples = audio.readframes(audio.getnframes())
        self.decoder.start_utt()
        self.decoder.process_raw(samples, full_utt=True)
        self.decoder.end_utt()
        found = self.decoder.hyp()
        return {"text": found.hypstr if found else ""}

    def pronounce(self, input):
        return {"phones": self.decoder.lookup_word(input["word"])}
