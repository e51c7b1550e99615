"""Reads WAV and makes samples for the decoder: one channel of 16 bits at the decoder's rate.

The standard library's `wave` reads neither floats nor the extensible format before Python 3.12, and the rest
of the library has no resampling.
"""

import struct
from math import ceil, gcd

import numpy as np
from hob_pod import Fault

#: Accepted rates. Below the first one speech is unintelligible; nothing records above the second.
RATE_MIN, RATE_MAX = 4_000, 384_000
CHANNELS_MAX = 64

#: The `fmt ` tags for plain samples; with the third, bytes of the chunk say which of the other two applies.
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE

#: The length of `data` that a program writes if it cannot know how much will follow.
UNKNOWN_LENGTH = 0xFFFFFFFF

#: Zero crossings on each side of the filter that changes the rate, and samples that it makes at a time.
CROSSINGS, BLOCK = 16, 16_384


def read_wav(data):
    """Returns the samples of a WAV as one channel of float32 in -1..1, its rate, and how many channels it
    had."""
    if len(data) < 12 or bytes(data[:4]) != b"RIFF" or bytes(data[8:12]) != b"WAVE":
        begins = bytes(data[:12]).hex(" ") or "nothing"
        raise wrong(f"`audio` is no WAV: it has {len(data)} bytes and begins with {begins}", "convert it, e.g. with `ffmpeg -i FILE x.wav`")
    form, at = None, 12
    while at + 8 <= len(data):
        name, size = bytes(data[at : at + 4]), struct.unpack_from("<I", data, at + 4)[0]
        at += 8
        if name == b"data":
            if form is None:
                raise wrong("the WAV has its samples before it says what they are (`data` before `fmt `)")
            if size == UNKNOWN_LENGTH:
                size = len(data) - at
            if at + size > len(data):
                raise wrong(f"the WAV ends after {len(data) - at} of the {size} bytes of samples that it announces", "send the whole file")
            return mix(data[at : at + size], *form)
        if name == b"fmt ":
            form = read_format(data[at : at + size])
        at += size + size % 2
    raise wrong(f"the WAV ends without {'samples (`data`)' if form else 'saying what its samples are (`fmt `)'}", "send the whole file")


def read_format(data):
    if len(data) < 16:
        raise wrong(f"the WAV's `fmt ` has {len(data)} bytes, wanted 16 or more")
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", data)
    if tag == EXTENSIBLE and len(data) >= 26:
        tag = struct.unpack_from("<H", data, 24)[0]
    if (tag, bits) not in [(PCM, 8), (PCM, 16), (PCM, 24), (PCM, 32), (FLOAT, 32), (FLOAT, 64)]:
        raise wrong(
            f"the WAV has samples of {bits} bits in format {tag:#x}; wanted PCM (8, 16, 24 or 32 bits) or floats (32 or 64)",
            "convert it, e.g. with `ffmpeg -i FILE -c:a pcm_s16le x.wav`",
        )
    if not 1 <= channels <= CHANNELS_MAX:
        raise wrong(f"the WAV has {channels} channels, wanted 1 to {CHANNELS_MAX}")
    if not RATE_MIN <= rate <= RATE_MAX:
        raise wrong(f"the WAV has {rate} samples a second, wanted {RATE_MIN} to {RATE_MAX}")
    return tag, bits, channels, rate


def mix(data, tag, bits, channels, rate):
    """Returns the samples as numbers, with the channels averaged."""
    frames = len(data) // (bits // 8 * channels)
    data = data[: frames * (bits // 8) * channels]
    if tag == FLOAT:
        samples = np.frombuffer(data, f"<f{bits // 8}").astype(np.float32)
        if not np.isfinite(samples).all():
            raise wrong("the WAV has samples that are no numbers (NaN or infinite)")
        # A recorder also clips beyond full scale.
        samples = samples.clip(-1, 1)
    elif bits == 8:
        samples = (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
    elif bits == 24:
        three = np.frombuffer(data, np.uint8).reshape(-1, 3).astype(np.int32)
        samples = (three[:, 0] | three[:, 1] << 8 | (three[:, 2] ^ 0x80) - 0x80 << 16).astype(np.float32) / (1 << 23)
    else:
        samples = np.frombuffer(data, f"<i{bits // 8}").astype(np.float32) / (1 << bits - 1)
    return samples.reshape(-1, channels).mean(axis=1, dtype=np.float32), rate, channels


def resample(samples, rate, wanted):
    """Returns the same sound at another rate, through a windowed sinc that keeps what both rates can
    carry."""
    if rate == wanted or not len(samples):
        return samples
    up, down = wanted // gcd(rate, wanted), rate // gcd(rate, wanted)
    # In samples of the source: the filter is wider if the target cannot carry the source's high tones.
    stretch = max(1.0, rate / wanted)
    reach = ceil(CROSSINGS * stretch)
    offsets = np.arange(-reach, reach + 1)
    padded = np.pad(samples, reach + 1)
    made = np.empty(len(samples) * up // down, np.float32)
    for start in range(0, len(made), BLOCK):
        # Positions of this block's samples in the source: a whole number and a fraction of `up` parts.
        whole, part = np.divmod(np.arange(start, min(start + BLOCK, len(made)), dtype=np.int64) * down, up)
        parts, which = np.unique(part, return_inverse=True)
        distance = (offsets[None, :] - parts[:, None] / up) / stretch
        window = np.cos(np.clip(distance / CROSSINGS, -1, 1) * np.pi / 2) ** 2
        filters = (np.sinc(distance) * window / stretch).astype(np.float32)
        around = padded[whole[:, None] + (offsets + reach + 1)[None, :]]
        made[start : start + len(whole)] = np.einsum("ij,ij->i", around, filters[which])
    return made


def to_16_bits(samples):
    """Returns 16-bit samples. Sound that came with 16 bits, at the decoder's rate and on one channel, is
    unchanged."""
    return np.round(samples * 32_768).clip(-32_768, 32_767).astype("<i2")


def wrong(message, hint=""):
    return Fault("invalid_input", message, hint)
