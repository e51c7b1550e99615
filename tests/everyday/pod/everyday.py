"""The recipe `hob/everyday-*`: runs examples of one package, as an ordinary program would, and says what they
gave.

It runs in a pod and in plain Python alike (`python everyday.py MODULE MANY NUMBER...`), so that both can be
compared; nothing here asks where it is. Three kinds of examples, by what a package has:

- doctests in its docstrings, as they are installed;
- blocks of Python in its docstrings, which fail by an exception;
- functions of `written_<module>.py` beside this file, for packages whose wheels have neither.

Of those in docstrings every n-th is taken, in the order of their names, so that nobody chooses.
"""

import contextlib
import doctest
import importlib
import importlib.util
import inspect
import io
import os
import re
import sys
import textwrap
import traceback
import types

#: The package's module; the recipe says it.
MODULE = os.environ.get("EVERYDAY_MODULE") or sys.argv[1]
#: Whether it was imported before this file, as only a zygote does.
FORKED = MODULE in sys.modules

#: What the docstrings of a package take for imported.
TAKEN = {"numpy": {"np": "numpy"}, "pandas": {"np": "numpy", "pd": "pandas"}, "polars": {"pl": "polars"}, "sklearn": {"np": "numpy"}}
# polars' word for a line whose result nobody compares; unknown, it would end the whole docstring.
doctest.register_optionflag("IGNORE_RESULT")
BLOCK = re.compile(r"```(?:python|py)[^\n]*\n(.*?)```", re.DOTALL)


class Everyday:
    """The operations of the recipe."""

    def load(self, models):
        importlib.import_module(MODULE)

    def version(self, input):
        """Whether the package is there: the recipe's case."""
        return {"imported": MODULE in sys.modules}

    def examples(self, input):
        """`{"told": [...]}`, of each example by its number what `told` says."""
        named = all_examples()
        names = spread(sorted(named), input["many"])
        return {"told": [told(name, named[name]) for name in (names[number] for number in input["numbers"] if number < len(names))]}


def told(name, example):
    """What an example gave: `{"name", "value", "printed", "right", "raised", "forked"}`; `right` where it
    says itself what is to come."""
    printed, value, right, raised = io.StringIO(), None, None, None
    with contextlib.redirect_stdout(printed):
        try:
            value, right = example()
        except Exception as error:
            raised = "".join(traceback.format_exception_only(error))
            print(traceback.format_exc(), file=sys.stderr)
    return {"name": name, "value": value, "printed": printed.getvalue(), "right": right, "raised": raised, "forked": FORKED}


def spread(names, many):
    """`many` of the names, at even distances; all where there are fewer."""
    return names if len(names) <= many else [names[at * len(names) // many] for at in range(many)]


def all_examples():
    """Each example by its name: a function that gives its value, and whether that is what was to come (None:
    it does not say)."""
    if importlib.util.find_spec(f"written_{MODULE.lower()}"):
        written = importlib.import_module(f"written_{MODULE.lower()}")
        functions = inspect.getmembers(written, lambda value: inspect.isfunction(value) and value.__module__ == written.__name__)
        return {name: lambda example=example: (example(), None) for name, example in functions if not name.startswith("_")}
    examples, texts = {}, set()
    for name, text in docstrings(importlib.import_module(MODULE)):
        # A docstring that is found under two names is one example.
        if text in texts:
            continue
        texts.add(text)
        if ">>> " in text:
            examples[name] = lambda name=name, text=text: run_doctest(name, text)
        elif BLOCK.search(text):
            examples[name] = lambda name=name, text=text: run_blocks(name, text)
    return examples


def docstrings(package):
    """The name and docstring of all that is public: what `__all__` names, what that names in modules, and the
    methods of classes."""
    places = [(package, package.__name__)]
    for name in sorted(package.__all__):
        with contextlib.suppress(ImportError):
            module = importlib.import_module(f"{package.__name__}.{name}")
            if hasattr(module, "__all__"):
                places.append((module, module.__name__))
    for place, path in places:
        for name in sorted(place.__all__):
            thing = None
            # What is named there and cannot be had as it is, scikit-learn's experimental estimators.
            with contextlib.suppress(ImportError, AttributeError):
                thing = getattr(place, name)
            if thing is None or isinstance(thing, types.ModuleType):
                continue
            things = [(f"{path}.{name}", thing)]
            if inspect.isclass(thing):
                things += [(f"{path}.{name}.{of}", method) for of, method in sorted(vars(thing).items()) if not of.startswith("_")]
            for where, what in things:
                text = getattr(what, "__doc__", None)
                if isinstance(text, str):
                    yield where, text


class Heard(doctest.DocTestRunner):
    """Keeps what each line gave: a text, or the exception."""

    def __init__(self):
        super().__init__(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS, verbose=False)
        self.gave, self.right = [], True

    def report_start(self, out, test, example):
        pass

    def report_success(self, out, test, example, got):
        self.gave.append(got)

    def report_failure(self, out, test, example, got):
        self.gave.append(got)
        self.right = False

    def report_unexpected_exception(self, out, test, example, exc_info):
        self.gave.append("".join(traceback.format_exception_only(exc_info[1])))
        self.right = False


def run_doctest(name, text):
    taken = {short: importlib.import_module(module) for short, module in TAKEN.get(MODULE, {}).items()}
    test = doctest.DocTestParser().get_doctest(text, taken, name, None, None)
    heard = Heard()
    heard.run(test, out=lambda said: None)
    return heard.gave, heard.right


def run_blocks(name, text):
    """All blocks of a docstring, each in a module of its own: what they print, or the exception."""
    gave, right = [], None
    for number, block in enumerate(BLOCK.findall(inspect.cleandoc(text))):
        module = types.ModuleType(f"block_{number}")
        sys.modules[module.__name__] = module
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                exec(compile(textwrap.dedent(block), f"<{name}, block {number}>", "exec"), module.__dict__)
        except Exception as error:
            said.write("".join(traceback.format_exception_only(error)))
            right = False
        gave.append(said.getvalue())
    return gave, right


if __name__ == "__main__":
    import json

    from hob_pod import values

    everyday = Everyday()
    everyday.load({})
    print(json.dumps(values.plain(everyday.examples({"many": int(sys.argv[2]), "numbers": [int(number) for number in sys.argv[3:]]}))))
