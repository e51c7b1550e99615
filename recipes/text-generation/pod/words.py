"""Turns tokens into text that is final: no half characters, and nothing of a text that ends the answer."""

#: Stands in decoded text for bytes that are not, or not yet, a character.
UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Words:
    """The text of tokens that come one by one.

    A token may be a part of a character, and its text may depend on the token before it (a space at the
    beginning). So the last tokens that became text are decoded again with each new one, and bytes that are
    not a character yet are held back.
    """

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.tokens = []
        # Tokens are decoded from index `first` on; those before `told` are text already.
        self.first = self.told = 0

    def push(self, token):
        """Returns the text that is final after another token; often empty."""
        self.tokens.append(token)
        before = self._decode(self.tokens[self.first : self.told])
        after = self._decode(self.tokens[self.first :])
        if len(after) <= len(before) or after.endswith(UNFINISHED):
            return ""
        self.first, self.told = self.told, len(self.tokens)
        return after[len(before) :]

    def rest(self):
        """Returns the text that was held back, once no more tokens come."""
        before = self._decode(self.tokens[self.first : self.told])
        return self._decode(self.tokens[self.first :])[len(before) :]

    def _decode(self, tokens):
        return self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class Stops:
    """Holds back the end of a text that may begin one of `stops`, the texts that end the answer."""

    def __init__(self, stops):
        self.stops = stops
        self.held = ""
        self.stopped = False

    def push(self, text):
        """Returns the part of the text so far that is final; sets `stopped` if one of the texts is there."""
        text = self.held + text
        found = [at for at in map(text.find, self.stops) if at >= 0]
        if found:
            self.held, self.stopped = "", True
            return text[: min(found)]
        keep = max((overlap(text, stop) for stop in self.stops), default=0)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self):
        """Returns the text that was held back, once no more text comes."""
        held, self.held = self.held, ""
        return held


def overlap(text, stop):
    """Returns how many characters at the end of `text` may be the beginning of `stop`."""
    return next((length for length in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-length:])), 0)
