"""What a machine has run out of, or does not allow, at each system call of a call, a session's call, an install
and a server: one after the other fails.

    python3 tests/injected/run.py [SCENARIO ...] [--each N] [--share N] [--seed N] [--only CALL[:ERROR[:NTH]]] [--glue FILE]

A scenario (`call`, `session`, `add`, `serve`) is run once as it is, to count the system calls of all its processes. Then
for each pair of call and error that could have come of it, it is run with that error at the first such call,
at the last and at N (20) more that chance chooses; `--share` takes so many of all these runs. The seed is
printed.

Wanted each time: it went well; or it ended with one fault of those that are for the machine, which names what
has run out and the next step. No panic, no process that is left, and the next run, with nothing injected,
goes well in the same home.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOB = os.environ.get("HOB_TEST_HOB") or str(HERE.parents[1] / "target/debug/hob")
INJECTOR = [sys.executable, str(HERE / "injector.py")]

MANIFEST = """\
name = "lab/echo"
version = "0.1.0"
license = "Apache-2.0"
summary = "For a test"
hob = "0.1"

[pod]
runtime = "python"
entry = "subject:Subject"
python = ">=3.9"
{more}
[operations.run]
summary = "Runs"
input = {{}}
output = {{}}
"""
COUNTER = """\
class Subject:
    def __init__(self):
        self.count = 0

    def run(self, input):
        self.count += 1
        return self.count

    def checkpoint(self):
        return {"count": self.count}

    def restore(self, data):
        self.count = data["count"]
"""
POD = "class Subject:\n    def run(self, input):\n        return input\n"

#: What a fault of the machine says of each, and which faults may say it.
NAMED = {
    "EMFILE": r"ulimit -n",
    "ENFILE": r"fs\.file-max",
    "EAGAIN": r"ulimit -u",
    "ENOMEM": r"no memory left|Cannot allocate memory",
    "ENOSPC": r"free some space|No space left",
    "EDQUOT": r"free some space|quota",
    "ETOOMANYREFS": r"ulimit -n",
    "EROFS": r"[Rr]ead-only",
    "EACCES": r"Permission denied",
}


LOOKS = ("stat", "lstat", "newfstatat", "statx", "readlink")
#: What is right where something is not allowed.
FORBIDDEN = ("invalid_config", "sandbox_unavailable", "home_unsafe", "key_invalid", "crashed", "repository_unreachable", "python_missing")


class Scenario:
    """What is run, in a copy of a home that was made ready."""

    def __init__(self, folder, glue):
        self.folder = folder
        self.template = folder / "template"
        self.recipe = folder / "echo"
        write_recipe(self.recipe, glue)

    def environment(self, home):
        return dict(os.environ, HOB_HOME=str(home), RUST_BACKTRACE="0", TMPDIR=str(home.parent / "tmp")) | self.more()

    def more(self):
        return {}

    def hob(self, home, *words):
        ran = subprocess.run([HOB, *words], env=self.environment(home), capture_output=True, text=True, timeout=120)
        return ran.returncode, ran.stdout, ran.stderr

    def fresh(self, at):
        (at / "tmp").mkdir(parents=True)
        shutil.copytree(self.template, at / "home", symlinks=True)
        return at / "home"

    def traced(self, home, wanted, words):
        outcome = home.parent / "outcome.json"
        given = [str(part) for part in wanted or ()]
        command = [*INJECTOR, str(outcome), *given, "--", HOB, *words]
        ran = subprocess.run(command, env=self.environment(home), capture_output=True, text=True, timeout=200)
        if not outcome.exists():
            raise SystemExit(f"the injector failed: {ran.stderr}")
        found = json.loads(outcome.read_text())
        return found | {"stdout": ran.stdout, "stderr": ran.stderr}


class Call(Scenario):
    """A call of a recipe folder: its pod is started, asked and ended."""

    def prepare(self):
        (self.folder / "tmp").mkdir()
        self.template.mkdir()
        self.again(self.template)

    def run(self, home, wanted):
        return self.traced(home, wanted, ["call", str(self.recipe), "run", '{"a": 1}'])

    def again(self, home):
        exit, stdout, stderr = self.hob(home, "call", str(self.recipe), "run", '{"a": 1}')
        return None if (exit, stdout) == (0, '{"a":1}\n') else f"{exit}: {stdout}{stderr}"

    def right(self, found):
        return found["stdout"] == '{"a":1}\n'


class Session(Scenario):
    """A call in a session of a recipe folder: its state is restored, counted up and kept. Whatever fails, the
    state that was kept before is there for the next call."""

    def prepare(self):
        (self.folder / "tmp").mkdir()
        self.template.mkdir()
        manifest = self.recipe / "recipe.toml"
        session = '\n[pod.session]\nmode = "exclusive"\n\n[operations.run]\nsession = true\n'
        manifest.write_text(manifest.read_text().replace("\n[operations.run]\n", session))
        (self.recipe / "pod/subject.py").write_text(COUNTER)
        shutil.rmtree(self.recipe / "cases")
        wrong = self.counted(self.template, (1,))
        if wrong:
            raise SystemExit(f"the first call of the session: {wrong}")

    def words(self):
        return "call", str(self.recipe), "run", "{}", "--session", "a"

    def counted(self, home, wanted):
        exit, stdout, stderr = self.hob(home, *self.words())
        return None if exit == 0 and stdout in [f"{count}\n" for count in wanted] else f"{exit}: {stdout}{stderr}"

    def run(self, home, wanted):
        return self.traced(home, wanted, self.words())

    def again(self, home):
        # The call before may have failed, or its state may not have been kept.
        return self.counted(home, (2, 3))

    def right(self, found):
        return found["stdout"] == "2\n"


class Add(Scenario):
    """An install from a repository of files."""

    def prepare(self):
        (self.folder / "tmp").mkdir()
        repository, keys = self.folder / "repository", self.folder / "keys"
        self.template.mkdir()
        for words in (
            ["repo", "init", str(repository), "--keys", str(keys)],
            ["repo", "add-publisher", str(repository), "lab", "--keys", str(keys)],
            ["publish", str(self.recipe), "--repo", str(repository), "--keys", str(keys)],
            ["remote", "add", "main", f"file://{repository}", "--root", str(repository / "metadata/1.root.json")],
        ):
            exit, stdout, stderr = self.hob(self.template, *words)
            if exit:
                raise SystemExit(f"{words}: {stdout}{stderr}")

    def run(self, home, wanted):
        return self.traced(home, wanted, ["add", "lab/echo"])

    def again(self, home):
        exit, stdout, stderr = self.hob(home, "add", "lab/echo")
        if exit:
            return f"add {exit}: {stdout}{stderr}"
        exit, stdout, stderr = self.hob(home, "verify")
        if exit:
            return f"verify {exit}: {stdout}{stderr}"
        exit, stdout, stderr = self.hob(home, "call", "lab/echo", "run", '{"a": 1}')
        return None if (exit, stdout) == (0, '{"a":1}\n') else f"call {exit}: {stdout}{stderr}"

    def right(self, found):
        return "installed lab/echo" in found["stdout"] or "lab/echo" in found["stdout"]


class Serve(Add):
    """A server that starts, takes two calls of an installed recipe, and ends."""

    def prepare(self):
        super().prepare()
        exit, stdout, stderr = self.hob(self.template, "add", "lab/echo")
        if exit:
            raise SystemExit(stdout + stderr)

    def run(self, home, wanted):
        outcome = home.parent / "outcome.json"
        given = [str(part) for part in wanted or ()]
        command = [*INJECTOR, str(outcome), *given, "--", HOB, "serve", "--json"]
        errors = open(home.parent / "serve.stderr", "w+")
        server = subprocess.Popen(command, env=self.environment(home), stdout=subprocess.PIPE, stderr=errors, text=True)
        problems, calls = [], []
        try:
            line = server.stdout.readline()
            if line and "pid" in json.loads(line):
                for _ in range(3):
                    calls.append(self.hob(home, "call", "lab/echo", "run", '{"a": 1}'))
                # Whatever became of one call, the next goes: the server is none the worse.
                if calls[-1][0]:
                    calls.append(self.hob(home, "call", "lab/echo", "run", '{"a": 1}'))
                if calls[-1][:2] != (0, '{"a":1}\n'):
                    problems.append(f"the last call: {calls[-1]}")
                for exit, _, stderr in calls:
                    if "panicked" in stderr or exit in (70, 101):
                        problems.append(f"a call: {exit}: {stderr}")
                if server.poll() is None:
                    server.send_signal(signal.SIGTERM)
            rest = server.communicate(timeout=120)[0]
        finally:
            if server.poll() is None:
                server.kill()
        errors.seek(0)
        found = json.loads(outcome.read_text())
        bad = next((stderr for exit, _, stderr in calls if exit), "")
        found |= {"stdout": line + rest, "stderr": errors.read(), "problems": problems}
        if "fault" in (told := json.loads(line or "{}")):
            fault = told["fault"]
            found["stderr"] += f"error[{fault['code']}]: {fault['message']}\n  hint: {fault.get('hint')}\n"
        if found["exit"] == 0 and bad:
            # The fault is what the caller got.
            found |= {"exit": next(exit for exit, _, _ in calls if exit), "stdout": "", "server": found["stderr"], "stderr": bad}
        errors.close()
        return found

    def right(self, found):
        return True


SCENARIOS = {"call": Call, "session": Session, "add": Add, "serve": Serve}


def write_recipe(folder, glue):
    for path, text in {
        "recipe.toml": MANIFEST.format(more='\n[glue]\nworld = "0.1"\n' if glue else ""),
        "pod/subject.py": POD,
        "cases/one/input.json": '{"operation": "run", "input": {"text": "a"}}',
        "cases/one/output.json": '{"text": "a"}',
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    if glue:
        shutil.copyfile(glue, folder / "glue.wasm")


def judged(scenario, error, found):
    """What is wrong with it, in one word and as text; and which fault it was."""
    wrong = list(found.get("problems", ()))
    stderr = found["stderr"]
    code = (re.findall(r"^error\[(\w+)\]: ", stderr, re.M) or ["none"])[-1]
    if found["hung"]:
        wrong.append("hung")
    if found["left"]:
        wrong.append(f"left {found['left']}")
    if found["signal"] is not None:
        wrong.append(f"ended by signal {found['signal']}")
    if "panicked" in stderr + found.get("server", "") or found["exit"] in (70, 101):
        wrong.append("panicked")
    if found["exit"] == 0:
        if not scenario.right(found):
            wrong.append("another result")
        return "went", wrong
    faults = len(re.findall(r"^error\[\w+\]: ", stderr, re.M))
    if faults != 1 and found["signal"] is None:
        wrong.append(f"{faults} faults")
    if faults and found["stdout"].strip() and not isinstance(scenario, Serve):
        wrong.append("a fault, and something on standard output")
    injected = found["injected"] or {}
    # An interpreter takes what it cannot look at for what is not there, and says so; a pod's has the pod's
    # title.
    is_interpreter = "python" in injected.get("whose", "") or injected.get("whose", "").startswith("hob: ")
    if injected.get("call") in LOOKS and is_interpreter and code in ("crashed", "python_missing"):
        return code, wrong
    # Before the program's first instruction: the system's loader says what it is and exits.
    if found["exit"] == 127 and "error while loading shared libraries" in stderr:
        return "loader", [text for text in wrong if text != "0 faults"]
    # The call that meets a connection which the server could not take is told that it broke; the server says
    # why.
    if code == "io" and "the server went away" in stderr and re.search(r"a connection was not taken: ", found.get("server", "")):
        return code, wrong
    # A connection that said nothing so far goes for one that could not be taken, and is told to come again.
    if injected.get("call") == "accept4" and code == "overloaded":
        return code, wrong
    # From a recipe's first word on memory that runs out is its pod's, or the machine's.
    if error == "ENOMEM" and code == "out_of_memory":
        return code, wrong
    # The compiler's process has a bound of its own, and cannot tell which of the two it met.
    if error == "ENOMEM" and code == "glue_limit":
        return code, wrong
    # Wasmtime is silent about what it could not write.
    if "kept nothing of what it compiled" in stderr:
        return code, wrong
    # In a container /proc may be read-only: then there are no namespaces to be had.
    if error == "EROFS" and code == "sandbox_unavailable" and str(injected.get("path")).startswith("/proc/self/"):
        return code, wrong
    if faults and code not in ("io", "disk_full", *(FORBIDDEN if error == "EACCES" else ())):
        wrong.append(f"not the machine's: {code}")
    # Where the reason is behind a long path, only the path is shown.
    if faults and not re.search(NAMED[error], stderr) and (error, code) != ("EACCES", "sandbox_unavailable"):
        wrong.append("does not name the limit")
    return code, wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS))
    parser.add_argument("--each", type=int, default=20)
    parser.add_argument("--share", type=int)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("HOB_SEED", "0")) or random.randrange(1 << 32))
    parser.add_argument("--only", default="")
    parser.add_argument("--glue", help="a component, for recipes that have glue")
    parser.add_argument("--found")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--verbose", action="store_true")
    words = parser.parse_args()
    print(f"seed {words.seed}", flush=True)
    chance = random.Random(words.seed)
    failed = 0
    for name in words.scenarios:
        with tempfile.TemporaryDirectory(prefix="hob-injected-") as folder:
            failed += one(name, Path(folder), words, chance)
    sys.exit(1 if failed else 0)


def one(name, folder, words, chance):
    scenario = SCENARIOS[name](folder, words.glue)
    scenario.prepare()
    # The least that a run makes of each: the last one is there in any.
    clean = [scenario.run(scenario.fresh(folder / f"clean-{at}"), None) for at in range(2)]
    for found in clean:
        _, wrong = judged(scenario, "EMFILE", found)
        if wrong or found["exit"]:
            raise SystemExit(f"{name} by itself: {wrong} {found}")
    runs, pairs = [], 0
    only = words.only.split(":") if words.only else []
    for pair in sorted(set(clean[0]["counts"]) & set(clean[1]["counts"])):
        call, error = pair.split()
        if only and [call, error][: len(only)] != only[:2]:
            continue
        pairs += 1
        most = min(found["counts"][pair] for found in clean)
        among = range(2, most)
        some = {1, most, *chance.sample(among, min(words.each, len(among)))}
        if len(only) > 2:
            some = {int(only[2])}
        runs += [(call, error, nth) for nth in sorted(some)]
    if words.share is not None:
        runs = chance.sample(runs, min(words.share, len(runs)))
    begun, results = time.monotonic(), []

    def run(at):
        wanted = runs[at]
        place = folder / f"run-{at}"
        found = scenario.run(scenario.fresh(place), wanted)
        code, wrong = judged(scenario, wanted[1], found)
        after = scenario.again(place / "home")
        if after:
            wrong.append(f"the next run: {after}")
        shutil.rmtree(place, ignore_errors=True)
        return {"scenario": name, "wanted": wanted, "code": code, "wrong": wrong, **found, "counts": None}

    with concurrent.futures.ThreadPoolExecutor(words.workers) as pool:
        for result in pool.map(run, range(len(runs))):
            results.append(result)
            if words.verbose or result["wrong"]:
                where = result["injected"] or {}
                said = result["stderr"].strip().replace("\n", " | ")[-500:]
                what = f"{':'.join(map(str, result['wanted']))} in {where.get('whose')} on {where.get('path')}"
                print(f"{name} {what}: {result['code']} {result['exit']} {result['wrong']}\n    {said}", flush=True)
    if words.found:
        with open(words.found, "a") as file:
            for result in results:
                file.write(json.dumps(result) + "\n")
    hit = sum(result["injected"] is not None for result in results)
    bad = sum(bool(result["wrong"]) for result in results)
    codes = collections.Counter(result["code"] for result in results)
    seconds = time.monotonic() - begun
    print(f"{name}: {pairs} pairs, {len(results)} runs, {hit} injected, {bad} wrong, in {seconds:.0f} s: {dict(codes)}", flush=True)
    if not hit:
        print(f"{name}: nothing was injected")
        return 1
    return bad


if __name__ == "__main__":
    main()
