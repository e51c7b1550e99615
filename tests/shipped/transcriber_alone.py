"""One object of the recipe's class hears the WAVs that are named, twice in other orders.

test_transcription.py runs this in the environment of the recipe: which pod of a host hears what is not for a
caller to say.
"""

import sys
from pathlib import Path

from hob_pod import Blob
from transcriber import Transcriber

transcriber = Transcriber()
transcriber.load({})


def hear(file):
    heard = []
    stream = transcriber.transcribe({}, {"audio": Blob(Path(file).read_bytes(), "audio/wav")})
    while True:
        try:
            heard.append(next(stream))
        except StopIteration as end:
            return [*heard, end.value]


first = {file: hear(file) for file in sys.argv[1:]}
for file in [*reversed(sys.argv[1:]), sys.argv[1], sys.argv[1]]:
    assert hear(file) == first[file], (hear(file), first[file])
# One that somebody stopped listening to leaves nothing behind either.
stream = transcriber.transcribe({}, {"audio": Blob(Path(sys.argv[1]).read_bytes(), "audio/wav")})
next(stream)
stream.close()
for file in sys.argv[2:]:
    assert hear(file) == first[file]
