"""The pod behind glue in a script language: counts the words that the glue found."""


class Words:
    def count(self, input):
        return {"words": len(input["words"]), "kinds": len(set(input["words"]))}

    def kinds(self, input):
        for word in dict.fromkeys(input["words"]):
            yield {"word": word}

    def run(self, input):
        raise AssertionError("the glue answers this one by itself")
