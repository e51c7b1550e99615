"""A hundred ordinary Python programs: examples of packages that most people use, in plain Python and in pods,
started and forked.

    python3 tests/everyday/run.py [PACKAGE ...]

For each package an environment is made of `packages/<package>.lock`, and removed again; the recipe around it
is `pod/` and the manifest below. Each example runs in plain Python with that environment; in a pod that
`hob call` starts; and in one that `hob serve` forks. What it gave, what it printed and what it raised must be
the same; what differs must be named in `DIFFERENT`. Prints a row for each package, and ends with 1 where
anything else came; all that was given is in HOB_EVERYDAY_HOME (target/tmp/everyday-home) `/<package>.json`.

HOB_EVERYDAY_MANY (10) says how many examples of each package, HOB_EVERYDAY_EACH (1) how many one process
runs: of thousands only many together can be waited for.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "shipped"))

from harness import PATIENCE, ROOT, Failed, Hob, Server, interpreter, say  # noqa: E402

HOME = Path(os.environ.get("HOB_EVERYDAY_HOME", ROOT / "target/tmp/everyday-home")).resolve()
MANY = int(os.environ.get("HOB_EVERYDAY_MANY", "10"))
EACH = int(os.environ.get("HOB_EVERYDAY_EACH", "1"))
#: Megabytes that the largest environment and what it is copied from take.
TAKES = 1200

#: Module to import, and a module to look for in an environment.
PACKAGES = {
    "numpy": "numpy",
    "pandas": "pandas",
    "scikit-learn": "sklearn",
    "polars": "polars",
    "pydantic": "pydantic",
    "pillow": "PIL",
    "matplotlib": "matplotlib",
    "httpx": "httpx",
    "tokenizers": "tokenizers",
    "onnxruntime": "onnxruntime",
}
#: Packages whose pods are started, never forked, since their import starts threads (docs/sandbox.md,
#: "Zygotes").
NEVER_FORKED = {"polars"}
#: Examples that cannot give the same, by package and name: what is in that which they give in a pod.
#: docs/sandbox.md has why.
DIFFERENT = {
    "httpx": {
        "get_from_the_loopback": "PermissionError: [Errno 1] Operation not permitted",
        "nobody_answers": "[Errno 1] Operation not permitted",
    },
}

MANIFEST = """\
name = "hob/everyday-{package}"
version = "0.1.0"
license = "Apache-2.0"
summary = "Examples of {package}"
hob = "0.1"

[pod]
runtime = "python"
entry = "everyday:Everyday"
python = ">=3.11"
lock = "pod/requirements.lock"
preload = ["{module}"]
env = {{ EVERYDAY_MODULE = "{module}" }}
recycle = {{ calls = 1 }}

[operations.examples]
summary = "Runs examples"
input = {{ type = "object" }}
output = {{ type = "object" }}

[operations.version]
summary = "Whether its package can be imported"
input = {{ type = "object" }}
output = {{ type = "object" }}
"""


def make_recipe(place, package):
    folder, module = place / f"everyday-{package}", PACKAGES[package]
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(HERE / "pod", folder / "pod", ignore=shutil.ignore_patterns("__pycache__", "written_*"))
    written = HERE / f"pod/written_{module.lower()}.py"
    if written.exists():
        shutil.copy(written, folder / "pod")
    shutil.copy(HERE / f"packages/{package}.lock", folder / "pod/requirements.lock")
    (folder / "recipe.toml").write_text(MANIFEST.format(package=package, module=module))
    # What a forked pod must answer before others are forked.
    case = folder / "cases/first"
    case.mkdir(parents=True)
    (case / "input.json").write_text(json.dumps({"operation": "version", "input": {}}))
    (case / "output.json").write_text(json.dumps({"imported": True}))
    return folder


def groups():
    return [list(range(first, min(first + EACH, MANY))) for first in range(0, MANY, EACH)]


def plain(package):
    """What each example gives outside of Hob."""
    python, told = interpreter(PACKAGES[package], HOME), []
    for numbers in groups():
        place = HOME / "plain"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        environment = {"PATH": os.environ["PATH"], "HOME": str(place), "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
        environment["PYTHONPATH"] = f"{HERE / 'pod'}{os.pathsep}{ROOT / 'python/src'}"
        command = [python, HERE / "pod/everyday.py", PACKAGES[package], str(MANY), *map(str, numbers)]
        done = subprocess.run(command, env=environment, cwd=place, capture_output=True, text=True, timeout=PATIENCE)
        try:
            told += json.loads(done.stdout.splitlines()[-1])["told"]
        except (ValueError, IndexError):
            raise AssertionError(f"{package}, {numbers}: {done.returncode}: {done.stderr[-3000:]}") from None
    shutil.rmtree(HOME / "plain", ignore_errors=True)
    return {each["name"]: each for each in told}


def in_pods(hob, recipe):
    """The same in pods. A fault belongs to the first of a group alone: the others are missing."""
    told = {}
    for numbers in groups():
        try:
            answer = hob.call(recipe, "examples", {"many": MANY, "numbers": numbers}, "--quiet")["told"]
        except Failed as failed:
            answer = [{"name": f"numbers {numbers}", "fault": failed.fault}]
        told.update((each["name"], each) for each in answer)
    return told


def zygote_of(hob):
    """Waits until it is known whether pods are forked; why they are not."""
    for _ in range(PATIENCE * 2):
        found = hob.run("status")["zygotes"]
        if found and found[0]["state"] in ("ready", "unforkable"):
            return found[0].get("why") if found[0]["state"] == "unforkable" else None
        time.sleep(0.5)
    raise AssertionError(f"no zygote: {hob.run('status')['zygotes']}")


def comparable(told):
    """Without what no two processes have alike: addresses."""
    told = told and {name: value for name, value in told.items() if name != "forked"}
    return json.loads(re.sub(r"0x[0-9a-f]{6,}", "0x", json.dumps(told)))


def of_package(package):
    """A row of the table, and what is wrong."""
    hob, name = Hob(HOME), f"hob/everyday-{package}"
    recipe = make_recipe(HOME, package)
    # The first call makes the environment.
    hob.call(recipe, "version", {})
    shutil.rmtree(HOME / "cache/uv", ignore_errors=True)
    pods = {"started": in_pods(hob, recipe)}
    wanted, again = plain(package), plain(package)
    server = Server(hob, recipe)
    try:
        hob.call(name, "version", {})
        why = zygote_of(hob)
        pods["forked"] = in_pods(hob, name)
    finally:
        server.end()
    (HOME / f"{package}.json").write_text(json.dumps({"plain": wanted, "again": again, **pods}, indent=1))
    wrong, same = [], dict.fromkeys(pods, 0)
    # What plain Python gives otherwise each time can be compared by its outcome alone.
    unsteady = {example for example, told in wanted.items() if comparable(told) != comparable(again[example])}
    # What is written for this is right in plain Python, or it would compare nothing; a doctest has its
    # package's own mistakes.
    wrong += [{"package": package, "plain": told} for told in wanted.values() if told["raised"]]
    for how, told in pods.items():
        for example in sorted(wanted.keys() | told.keys()):
            want, gave = comparable(wanted.get(example)), comparable(told.get(example))
            if example in unsteady and gave is not None:
                want, gave = ({of: what.get(of) for of in ("right", "raised")} for what in (want, gave))
            same[how] += want == gave
            different = DIFFERENT.get(package, {}).get(example)
            if want != gave if different is None else want == gave or different not in json.dumps(gave):
                wrong.append({"package": package, "example": example, "how": how, "plain": want, "pod": gave})
        forked = how == "forked" and package not in NEVER_FORKED
        if any(each.get("forked", forked) != forked for each in told.values()):
            wrong.append({"package": package, "how": how, "not_forked": why})
    right = sum(not told["raised"] and told["right"] is not False for told in wanted.values())
    return {"package": package, "examples": len(wanted), "right": right, "unsteady": len(unsteady), **same, "not_forked": why}, wrong


def clean():
    for folder in ("data/environments", "cache", "repo", "keys", "state"):
        path = HOME / folder
        if path.exists():
            # Environments are read-only.
            subprocess.run(["chmod", "-R", "u+w", path], check=True)
            shutil.rmtree(path)


def main(packages):
    HOME.mkdir(parents=True, exist_ok=True)
    problems = []
    for package in packages:
        free = shutil.disk_usage(HOME).free >> 20
        if free < TAKES:
            say(f"everyday: {TAKES} MB are needed in {HOME}, and {free} MB are free there")
            return 1
        try:
            row, wrong = of_package(package)
        finally:
            with contextlib.suppress(FileNotFoundError):
                clean()
        print(json.dumps(row), flush=True)
        for each in wrong:
            say(json.dumps(each, indent=1))
        problems += wrong
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(PACKAGES)))
