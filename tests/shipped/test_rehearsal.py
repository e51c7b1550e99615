"""Each shipped recipe gives the same as a folder, installed, and under a server: the same answer or the same
fault, to the byte.

The small recipes of `tests/it/cli/rehearsal.rs` are of every kind; these are the real ones, with their
environments, models and glue.
"""

import json
import unittest

import tomllib
from harness import PATIENCE, RECIPES, Hob, Server

#: In a session of the round's own.
SESSION = ("--session", "{round}")

#: Beside their cases: what each is for. (`text-generation` needs torch, and is in `make test-torch`.)
MORE = {
    "echo": [("echo", {"text": "\u2028 \U0001f980"}, ()), ("echo", {"text": 1}, ()), ("nothing", {}, ())],
    "sentence-embeddings": [
        ("embed", {"texts": ["A man is playing the guitar.", "", "Zwölf Boxkämpfer"]}, ()),
        ("embed", {"texts": "a"}, ()),
    ],
    "document-search": [
        ("add", {"documents": [{"id": "a", "text": "A lock that two threads wait for."}]}, SESSION),
        ("search", {"query": "deadlock", "k": 1}, SESSION),
        ("search", {"query": "deadlock", "k": 1}, ()),
    ],
    "prompt-optimizer": [("predict", {"inputs": {}}, SESSION), ("load_trainset", {}, SESSION)],
    "transcription": [("transcribe", {}, ())],
}


class SameEverywhere(unittest.TestCase):
    def test_as_a_folder_installed_and_under_a_server(self):
        hob = Hob()
        folders = [RECIPES / name for name in MORE]
        server = Server(hob, *folders)
        server.end()
        alone = {}
        for folder in folders:
            name = "hob/" + folder.name
            for operation, input, flags in [*cases(folder), *MORE[folder.name]]:
                what = (name, operation, json.dumps(input), flags)
                cold = outcome(hob, "cold", *what)
                self.assertEqual(outcome(hob, "folder", str(folder), *what[1:]), cold, f"{what}: as a folder, and installed")
                alone[what] = cold
        server.begin()
        self.addCleanup(server.end)
        for what, cold in alone.items():
            self.assertEqual(outcome(hob, "served", *what), cold, f"{what}: without a server, and with one")
        codes = {exit for exit, _, _ in alone.values()}
        self.assertGreaterEqual(len(codes), 3, codes)
        self.assertTrue(any(exit == 0 and "embeddings" in output for exit, output, _ in alone.values()))


def cases(folder):
    """Its cases: operation, input, and a session where it needs one."""
    operations = tomllib.loads((folder / "recipe.toml").read_text())["operations"]
    for case in sorted((folder / "cases").iterdir()):
        asked = json.loads((case / "input.json").read_text())
        session = operations[asked["operation"]].get("session", False)
        yield asked["operation"], asked["input"], SESSION if session else ()


def outcome(hob, round, recipe, operation, input, flags):
    """How a call ended: its exit code, what it printed, and its fault without the places of files."""
    process = hob.start("call", recipe, operation, input, *(flag.format(round=round) for flag in flags))
    out, err = process.communicate(timeout=PATIENCE)
    fault = err[err.find("error[") :].splitlines()[:2] if "error[" in err else []
    fault = [line.replace(str(RECIPES), "hob").replace(f"`{round}`", "`SESSION`") for line in fault]
    return process.returncode, out, fault
