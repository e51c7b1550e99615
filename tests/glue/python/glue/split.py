"""The words of a text: a module of its own, because glue may have several."""


def split(text):
    return text.lower().split()
