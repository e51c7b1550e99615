"""The programs that are optimized: one step from some texts to others, and a measure of the quality of its
answers.

A program is `{"signature", "style", "instructions", "demos"}`, so that its owner can use it with dspy, or
with the messages that `render` makes of it.
"""

import keyword
import re

import dspy
from dspy.evaluate import normalize_text
from hob_pod import Fault

#: Names that dspy uses itself among the arguments of a program, or adds to them.
TAKEN = {"signature", "demos", "config", "lm", "prediction", "reasoning", "augmented", "self", "kwargs"}

NAME = re.compile(r"[a-z_][a-z0-9_]{0,63}\Z")


def fields(signature):
    """Returns the names of inputs and outputs of a text like `question, context -> answer`. Raises Fault."""
    sides = [[name.strip() for name in side.split(",")] for side in signature.split("->")]
    if len(sides) != 2:
        raise wrong(f"the signature `{signature}` has {len(sides) - 1} `->`, wanted one", "e.g. `question, context -> answer`")
    names = sides[0] + sides[1]
    for name in names:
        if not NAME.match(name) or keyword.iskeyword(name) or name in TAKEN:
            raise wrong(f"the signature `{signature}` has a field `{name}`; wanted a lower-case name that is not one of dspy's or Python's")
        if names.count(name) > 1:
            raise wrong(f"the signature `{signature}` has two fields `{name}`")
    return sides


def build(program):
    """Returns a program of dspy's."""
    inputs, outputs = fields(program["signature"])
    instructions = program.get("instructions")
    text = f"{', '.join(inputs)} -> {', '.join(outputs)}"
    signature = dspy.Signature(text, instructions) if instructions else dspy.Signature(text)
    made = dspy.ChainOfThought(signature) if program.get("style") == "chain_of_thought" else dspy.Predict(signature)
    made.predictors()[0].demos = [dspy.Example(**demo) for demo in program.get("demos", [])]
    return made


def taken_apart(made, program):
    """Returns `made`, dspy's version of `program`, in the form that is kept."""
    predictor = made.predictors()[0]
    return {
        "signature": program["signature"],
        "style": program.get("style", "predict"),
        "instructions": predictor.signature.instructions,
        "demos": [{name: value for name, value in dict(demo).items() if name != "augmented"} for demo in predictor.demos],
    }


def messages(program, inputs):
    """Returns the messages of a chat with which the program asks a language model about these inputs."""
    check_inputs(program["signature"], inputs)
    predictor = build(program).predictors()[0]
    return dspy.ChatAdapter().format(predictor.signature, predictor.demos, inputs)


def check_inputs(signature, inputs):
    wanted = fields(signature)[0]
    if sorted(inputs) != sorted(wanted):
        raise wrong(f"the inputs are {listed(inputs)}, wanted {listed(wanted)} (the signature is `{signature}`)")


def check_examples(signature, examples, name):
    """Raises Fault unless each example has all fields of the signature."""
    wanted = [field for side in fields(signature) for field in side]
    for number, example in enumerate(examples):
        lacks = [field for field in wanted if field not in example]
        if lacks:
            raise wrong(
                f"`{name}/{number}` has {listed(example)} and lacks {listed(lacks)}, which the signature `{signature}` names",
                "`load_trainset` with examples that have them, or `configure` with another signature",
            )


def examples(signature, rows):
    """Returns rows in dspy's form, with only the fields of the signature."""
    inputs, outputs = fields(signature)
    return [dspy.Example({field: row[field] for field in inputs + outputs}).with_inputs(*inputs) for row in rows]


def metric(kind, outputs):
    """Returns a function that rates a prediction from 0 to 1: the mean over its outputs."""
    score = METRICS[kind]

    def measure(example, prediction, trace=None):
        return sum(score(str(example[name]), str(prediction.get(name) or "")) for name in outputs) / len(outputs)

    return measure


def _f1(wanted, found):
    wanted, found = normalize_text(wanted).split(), normalize_text(found).split()
    both = sum(min(wanted.count(word), found.count(word)) for word in set(wanted))
    return 2 * both / (len(wanted) + len(found)) if both else float(wanted == found)


METRICS = {
    "exact": lambda wanted, found: float(" ".join(wanted.casefold().split()) == " ".join(found.casefold().split())),
    "words": lambda wanted, found: float(normalize_text(wanted) == normalize_text(found)),
    "contains": lambda wanted, found: float(" ".join(wanted.casefold().split()) in " ".join(found.casefold().split())),
    "f1": _f1,
}


def listed(names):
    return ", ".join(f"`{name}`" for name in names) or "none"


def wrong(message, hint=None):
    return Fault("invalid_input", message, hint)
