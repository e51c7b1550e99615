"""What the tests of the shipped recipes share: a home of theirs, `hob` itself, a server of it, a recipe that
is changed.

These tests go through the program and not through the crate: what they hold is what a user meets.

HOB_TEST_HOB names the program (default: target/debug/hob). Environments are dear: the runs of a checkout
share target/tmp/recipes-home, whose other contents each run makes anew.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes"
HOB = Path(os.environ.get("HOB_TEST_HOB", ROOT / "target/debug/hob")).resolve()
HOME = ROOT / "target/tmp/recipes-home"

#: How long anything may take that has no better bound, in seconds.
PATIENCE = 600


def say(*words):
    print(*words, file=sys.stderr, flush=True)


class Failed(Exception):
    """`hob` ended with a fault."""

    def __init__(self, fault):
        super().__init__(f"{fault['code']}: {fault['message']}")
        self.fault = fault
        self.code = fault["code"]


class Hob:
    """The program with a home of its own below the shared one's environments."""

    def __init__(self, home=HOME):
        self.home = Path(home)
        self.home.mkdir(parents=True, exist_ok=True)
        self.environment = {**os.environ, "HOB_HOME": str(self.home)}

    def start(self, *words, **more):
        """A process of it, its output as text."""
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more}
        return subprocess.Popen([HOB, *map(str, words)], env=self.environment, **streams)

    def run(self, *words, input=None):
        """What it prints, as JSON. Raises Failed."""
        process = self.start("--json", *words, stdin=subprocess.PIPE)
        out, err = process.communicate(input, timeout=PATIENCE)
        # Not `splitlines`: a text may have separators that end a line to it alone.
        lines = [line for line in out.split("\n") if line]
        last = json.loads(lines[-1]) if lines else None
        if process.returncode != 0:
            raise Failed(last["fault"]) if last and "fault" in last else AssertionError(f"{words}: {process.returncode}: {err}")
        return last

    def call(self, recipe, operation, input, *more):
        """The output of a call; `recipe` is a name, or a folder."""
        return self.run("call", recipe, operation, "-", *more, input=json.dumps(input))["output"]

    def lines(self, recipe, operation, input, *more):
        """Each chunk of a call as it was printed, and the output. Raises Failed."""
        process = self.start("call", recipe, operation, "-", "--stream", "--json", *more, stdin=subprocess.PIPE)
        out, err = process.communicate(json.dumps(input), timeout=PATIENCE)
        lines = [json.loads(line) for line in out.split("\n") if line]
        if process.returncode != 0:
            raise Failed(lines[-1]["fault"]) if lines and "fault" in lines[-1] else AssertionError(err)
        return [line["chunk"] for line in lines[:-1]], lines[-1]["output"]


class Server:
    """`hob serve` in a home, with folders published and installed there, since it calls only what is signed.

    `listen`: an address for its HTTP door.
    """

    def __init__(self, hob, *folders, listen=None):
        self.hob = hob
        self.words = ["serve"] if listen is None else ["serve", "--listen", listen]
        # Made anew: what was published before may have other bytes. Not by `hob remove`, which takes the
        # environment as well.
        for name in ("repo", "keys", "state", "data/recipes", "data/remotes"):
            shutil.rmtree(hob.home / name, ignore_errors=True)
        for name in ("hob.toml", "hob.lock"):
            (hob.home / name).unlink(missing_ok=True)
        repo, keys = hob.home / "repo", hob.home / "keys"
        hob.run("repo", "init", repo, "--keys", keys)
        hob.run("repo", "add-publisher", repo, "hob", "--keys", keys)
        hob.run("remote", "add", "test", repo, "--root", repo / "metadata/1.root.json")
        for folder in folders:
            hob.run("publish", folder, "--repo", repo, "--keys", keys)
            hob.run("add", "hob/" + Path(folder).name, "--grant")
        self.begin()

    def begin(self):
        self.process = self.hob.start("--json", *self.words, stderr=subprocess.DEVNULL)
        self.told = json.loads(self.process.stdout.readline())

    def kill(self):
        """As nobody can prepare for."""
        self.process.kill()
        self.process.wait(PATIENCE)
        self.process.stdout.close()

    def end(self):
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.process.stdout.close()


def changed(recipe, **words):
    """A copy of a shipped recipe in which words of its manifest are replaced: an operator's own endpoint, or
    folder."""
    place = Path(tempfile.mkdtemp(prefix="hob-test-")) / recipe
    shutil.copytree(RECIPES / recipe, place, ignore=shutil.ignore_patterns("__pycache__", ".build", "target"))
    manifest = (place / "recipe.toml").read_text()
    for old, new in words.items():
        assert manifest.count(old) == 1, f"{recipe}: {old} is there {manifest.count(old)} times"
        manifest = manifest.replace(old, new)
    (place / "recipe.toml").write_text(manifest)
    return place


def interpreter(package, home=HOME):
    """The Python of the newest environment that has a package, for what has to be asked of a class by
    itself."""
    found = sorted(home.glob(f"data/environments/*/lib/python*/site-packages/{package}"), key=lambda path: path.stat().st_mtime)
    return found[-1].parents[3] / "bin/python"


def alone(package, recipe, file, *words, home=HOME):
    """Runs a file of this folder with the environment, the pod's folder and `hob_pod` of a recipe; what it
    said."""
    path = os.pathsep.join(map(str, [ROOT / "python/src", RECIPES / recipe / "pod", Path(__file__).parent]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [interpreter(package, home), Path(__file__).parent / file, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stderr
