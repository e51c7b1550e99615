"""Tokens in, text out that is certain: no half characters, and nothing of a text that ends the answer.

Apart from the model, which knows only tokens.
"""

#: What a decoder writes for bytes that are not, or not yet, a character.
UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Words:
    """The text of tokens that come one by one.

    A token may be a part of a character, and how it is written may depend on the one before (a space at the
    beginning). So the last tokens that became text are decoded again with each new one, and what is not a
    character yet is held back.
    """

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.tokens = []
        # From the first on tokens are decoded; those before the second are text already.
        self.first = self.told = 0

    def push(self, token):
        """The text that is certain with one token more; often empty."""
        self.tokens.append(token)
        before = self._decode(self.tokens[self.first : self.told])
        after = self._decode(self.tokens[self.first :])
        if len(after) <= len(before) or after.endswith(UNFINISHED):
            return ""
        self.first, self.told = self.told, len(self.tokens)
        return after[len(before) :]

    def rest(self):
        """What was held back, when no more tokens come."""
        before = self._decode(self.tokens[self.first : self.told])
        return self._decode(self.tokens[self.first :])[len(before) :]

    def _decode(self, tokens):
        return self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class Stops:
    """Holds back what may be the beginning of a text that ends the answer."""

    def __init__(self, stops):
        self.stops = stops
        self.held = ""
        self.stopped = False

    def push(self, text):
        """What of the text so far is certain to stay; sets `stopped` when one of the texts is there."""
        text = self.held + text
        found = [at for at in map(text.find, self.stops) if at >= 0]
        if found:
            self.held, self.stopped = "", True
            return text[: min(found)]
        keep = max((overlap(text, stop) for stop in self.stops), default=0)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self):
        """What was held back, when no more text comes."""
        held, self.held = self.held, ""
        return held


def overlap(text, stop):
    """How many characters at the end of `text` may be the beginning of `stop`."""
    return next((length for length in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-length:])), 0)
