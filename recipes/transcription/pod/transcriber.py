"""Speech to text with pocketsphinx: partial text while it listens, then the final text.

Each part of the audio is decoded twice: quickly and block by block for the partial text, then as a whole. The
best decoding subtracts the average of all that was said: on the voices that the recipe is tested with, this
halves the number of wrong words.
"""

import numpy as np
import sound
from hob_pod import Fault, cancelled, progress
from pocketsphinx import Decoder

#: Samples per second of the acoustic model's training data.
RATE = 16_000

#: Samples between two partial texts: 0.2 s of sound, some 20 ms of work.
BLOCK = RATE // 5

#: A longer recording is cut at its quietest moment between these two lengths, in samples. Decoding a part as
#: a whole cannot be stopped and takes an eighth of its length, and a cancelled call gets two seconds.
PART_MIN, PART_MAX = 6 * RATE, 12 * RATE

#: Length of that quiet moment, in samples.
QUIET = RATE // 5

#: A part with no sample louder than this, of 32767 (-60 dB), is silent: the decoder hears a word in almost
#: nothing.
SILENT = 32

#: The decoder's frames per second.
FRAMES = 100


class Transcriber:
    """The operations of `hob/transcription`."""

    def load(self, models):
        """Loads the acoustic model, the language model and the dictionary, which are in the package."""
        self.quick = Decoder(samprate=RATE, loglevel="FATAL", fwdflat=False, bestpath=False)
        self.whole = Decoder(samprate=RATE, loglevel="FATAL")

    def pronounce(self, input):
        """Returns the phones of each word: a word that the dictionary lacks is never recognised."""
        return {"phones": {word: self.whole.lookup_word(word.lower()) for word in input["words"]}}

    def transcribe(self, input, blobs):
        """Yields chunks `{"partial"}` and, at the end of each part, `{"text", "start", "end"}`; returns the
        whole."""
        if "audio" not in blobs:
            found = ", ".join(f"`{name}`" for name in blobs) or "none"
            raise Fault("invalid_input", f"wanted a blob `audio`, found {found}", "`hob call ... --blob audio=FILE.wav`")
        samples, rate, channels = sound.read_wav(blobs["audio"].data)
        samples = sound.to_16_bits(sound.resample(samples, rate, RATE))
        # Each call begins like the first one, so that the same sound gives the same text: the decoders forget
        # what they took for average sound and for noise in the call before.
        for decoder in (self.quick, self.whole):
            decoder.reinit_feat()
        segments, words = [], []
        for begin, end in parts(samples):
            if np.abs(samples[begin:end].astype(np.int32)).max() <= SILENT:
                continue
            yield from self._partials(samples, begin, end)
            segment, heard = self._final(samples[begin:end], begin / RATE)
            progress(done=round(end / RATE, 2), total=round(len(samples) / RATE, 2), unit="seconds")
            if segment is not None:
                segments.append(segment)
                words += heard
                yield segment
        return {
            "text": " ".join(segment["text"] for segment in segments),
            "segments": segments,
            "words": words,
            "seconds": round(len(samples) / RATE, 2),
            "audio": {"rate": rate, "channels": channels},
        }

    def _partials(self, samples, begin, end):
        said = ""
        self.quick.start_utt()
        try:
            for at in range(begin, end, BLOCK):
                if cancelled():
                    raise Fault("cancelled", f"stopped after {at / RATE:.1f} s of the audio because the call was cancelled")
                self.quick.process_raw(samples[at : min(at + BLOCK, end)].tobytes())
                found = self.quick.hyp()
                text = found.hypstr if found else ""
                if text and text != said:
                    said = text
                    yield {"partial": text, "start": round(begin / RATE, 2), "at": round(min(at + BLOCK, end) / RATE, 2)}
        finally:
            self.quick.end_utt()

    def _final(self, samples, offset):
        self.whole.start_utt()
        try:
            self.whole.process_raw(samples.tobytes(), full_utt=True)
        finally:
            self.whole.end_utt()
        found = self.whole.hyp()
        if not found or not found.hypstr:
            return None, []
        words = [
            {
                # Variants of a pronunciation, such as `to(3)`, are a detail of the dictionary.
                "word": heard.word.partition("(")[0],
                "start": round(offset + heard.start_frame / FRAMES, 2),
                "end": round(offset + (heard.end_frame + 1) / FRAMES, 2),
                "probability": round(heard.prob, 4),
            }
            for heard in self.whole.seg()
            # Leaves out silence and noises.
            if heard.word[0] not in "<["
        ]
        if not words:
            return None, []
        return {"text": found.hypstr, "start": words[0]["start"], "end": words[-1]["end"]}, words


def parts(samples):
    """Returns where each part of the audio begins and ends."""
    begin = 0
    while len(samples) - begin > PART_MAX:
        first = begin + PART_MIN
        loudness = np.cumsum(np.square(samples[first : begin + PART_MAX].astype(np.float64)))
        quiet = first + int(np.argmin(loudness[QUIET:] - loudness[:-QUIET])) + QUIET // 2
        yield begin, quiet
        begin = quiet
    if begin < len(samples):
        yield begin, len(samples)
