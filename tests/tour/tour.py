#!/usr/bin/env python3
"""Every documented command of `hob`, in surroundings that people have: what each printed, and whether it ended as documented.

    python3 tests/tour/tour.py HOB [SURROUNDINGS ...]

The surroundings: `root`; `user`, who is nobody in particular; `container`, in namespaces of its own, without capabilities and under the
seccomp profile of packaging/container; `read-only`, where nothing but a temporary folder can be written to and the home was made before;
`2001` and `2040`, where the clock is wrong (by `faketime`, if it is installed); `offline`, in a network namespace with nothing in it.

Each has a fresh home, a repository of its own (a folder) and a recipe without an environment. What was printed lies in
`target/tour/<surroundings>.txt`; the last line of standard output says how many commands there were. Ends with 1 where a command ended
otherwise than wanted, a process is left or something panicked. What a machine cannot give is skipped with a printed reason. Without
SURROUNDINGS it is all of them, and every command of `hob --help` must have been in one.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OTHER = 61780

MANIFEST = """name = "lab/greeter"
version = "%s"
license = "MIT"
summary = "Greets"
hob = "0.1"

[pod]
runtime = "python"
entry = "greeter:Greeter"
python = ">=3.9"

[permissions]
env = ["GREETING"]

[operations.greet]
summary = "A greeting"
input = { type = "object", required = ["name"], properties = { name = { type = "string" } } }
output = { type = "object", required = ["text"] }
"""
CODE = """class Greeter:
    def greet(self, input):
        print("greeting", input["name"])
        return {"text": "Hello, " + input["name"]}
"""


class Tour:
    def __init__(self, hob, name, folder, prefix, environment):
        self.hob, self.name, self.folder, self.prefix = hob, name, folder, prefix
        own = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(folder), "HOB_HOME": str(folder / "home")}
        self.environment = own | environment
        self.seen, self.wrong, self.said = set(), [], []

    def run(self, *words, wants=0, says="", prefix=None):
        """One command; `wants`: its exit code, or several; `says`: a part of what it prints."""
        self.seen.add(tuple(word for word in words if not word.startswith("-"))[:2])
        command = [*(self.prefix if prefix is None else prefix), self.hob, *words]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
        printed = (done.stdout + done.stderr).decode(errors="backslashreplace")
        self.said.append(f"$ hob {' '.join(words)}\n{printed.rstrip()}\n[{done.returncode}]\n")
        wanted = wants if isinstance(wants, tuple) else (wants,)
        if done.returncode not in wanted or says not in printed or "panicked" in printed:
            ended = f"{self.name}: `hob {' '.join(words)}` ended with {done.returncode}"
            self.wrong.append(f"{ended}, wanted {wanted} {says!r}: {printed[-600:]}")
        return done

    def serving(self, *words):
        """A server, until `end`."""
        self.seen.add(("serve",))
        log = open(self.folder / "serve.log", "wb")
        command = [*self.prefix, self.hob, "--json", "serve", *words]
        surroundings = {"cwd": self.folder, "env": self.environment, "stdin": subprocess.DEVNULL}
        server = subprocess.Popen(command, **surroundings, stdout=subprocess.PIPE, stderr=log)
        line = server.stdout.readline()
        if not line:
            self.wrong.append(f"{self.name}: `hob serve` did not come up: {(self.folder / 'serve.log').read_text()[-600:]}")
        return server, json.loads(line or "{}")

    def end(self, server):
        try:
            # The server itself, and not what it was started by.
            for pid in processes(f"{self.hob}\0--json\0serve", first=True):
                os.kill(pid, signal.SIGTERM)
            code = server.wait(60)
        except (subprocess.TimeoutExpired, ProcessLookupError) as error:
            server.kill()
            code = repr(error)
        self.said.append(f"$ hob serve\n{(self.folder / 'serve.log').read_text().rstrip()}\n[{code}]\n")
        if code != 0:
            self.wrong.append(f"{self.name}: `hob serve` ended with {code}")


def processes(words, first=False):
    """Processes whose command line has (begins with) that."""
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path("/proc", entry, "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if line.startswith(words) if first else words in line:
            yield int(entry)


def recipe(folder, version):
    (folder / "pod").mkdir(parents=True)
    (folder / "cases/one").mkdir(parents=True)
    (folder / "recipe.toml").write_text(MANIFEST % version)
    (folder / "pod/greeter.py").write_text(CODE)
    (folder / "cases/one/input.json").write_text('{"operation": "greet", "input": {"name": "Ada"}}')
    (folder / "cases/one/output.json").write_text('{"text": "Hello, Ada"}')


def author(tour):
    recipe(tour.folder / "greeter", "0.1.0")
    tour.run("call", "./greeter", "greet", '{"name": "Ada"}', says='{"text":"Hello, Ada"}')
    tour.run("show", "./greeter", says="greet")
    tour.run("build", "greeter", says="no glue")
    tour.run("pack", "greeter", "-o", "greeter.tar", says="recipe.toml")
    tour.run("repo", "init", "repository", "--keys", "keys")
    tour.run("repo", "add-publisher", "repository", "lab", "--keys", "keys")
    tour.run("publish", "greeter", "--repo", "repository", "--keys", "keys")
    tour.run("repo", "refresh", "repository", "--keys", "keys")


def install(tour):
    tour.run("remote", "add", "main", str(tour.folder / "repository"), "--root", "repository/metadata/1.root.json")
    tour.run("remote", "list", says="main")
    tour.run("add", "lab/greeter", "--no-grant", says="lab/greeter 0.1.0")
    tour.run("add", "lab/greeter@0.2", wants=3)


def use(tour):
    tour.run("list", says="lab/greeter")
    tour.run("show", "lab/greeter", says="signed by `lab`")
    tour.run("verify", says="lab/greeter")
    tour.run("call", "lab/greeter", "greet", '{"name": "Ada"}', says='{"text":"Hello, Ada"}')
    tour.run("call", "lab/greeter", "greet", "{}", wants=2, says="name")
    tour.run("call", "lab/greeter", "great", "{}", wants=3, says="greet")
    tour.run("--json", "call", "lab/nothing", "greet", "{}", wants=3, says='"fault"')
    tour.run("doctor", says="pods run fully confined")
    tour.run("sessions")
    tour.run("logs", "lab/greeter")


def serve(tour, *words):
    # Without a server, which each of them says.
    for words_without in (("status",), ("pods",)):
        tour.run(*words_without, wants=(0, 3, 10), says="no host is running")
    server, told = tour.serving(*words)
    if told:
        tour.run("call", "lab/greeter", "greet", '{"name": "Ada"}', says='{"text":"Hello, Ada"}')
        tour.run("status", says="lab/greeter")
        tour.run("pods", says="lab/greeter")
        tour.run("pods", "--lift", "lab/greeter")
        tour.run("logs", "lab/greeter", "--lines", "5", says="greeting Ada")
        tour.run("doctor")
    tour.end(server)


def change(tour):
    tour.run("grant", "lab/greeter", says="GREETING")
    tour.run("grant", "lab/greeter", "--all")
    tour.run("revoke", "lab/greeter", "--all")
    tour.run("remove", "lab/greeter")
    tour.run("remove", "lab/greeter", wants=3)
    tour.run("remote", "remove", "main")
    tour.run("--help")
    tour.run("--version", says="hob ")


def whole(tour):
    author(tour)
    install(tour)
    use(tour)
    serve(tour)
    change(tour)


def read_only(tour):
    """What was made before, and everything that only reads; what writes says why it cannot."""
    outside, tour.prefix = tour.prefix, []
    author(tour)
    install(tour)
    for folder in ("state", "cache"):
        shutil.rmtree(tour.folder / "home" / folder, ignore_errors=True)
    tour.prefix = outside
    use(tour)
    serve(tour)
    tour.run("call", "./greeter", "greet", '{"name": "Ada"}', says='{"text":"Hello, Ada"}')
    for words in ("remove lab/greeter", "remote remove main", "grant lab/greeter --all", "pack greeter -o new.tar"):
        tour.run(*words.split(), wants=8, says="Read-only file system")


def wrong_clock(tour):
    """The repository is made by a clock that is right."""
    outside, tour.prefix = tour.prefix, []
    author(tour)
    tour.prefix = outside
    tour.run("remote", "add", "main", str(tour.folder / "repository"), "--root", "repository/metadata/1.root.json", wants=(0, 5))
    late = tour.name == "2040"
    tour.run("add", "lab/greeter", "--no-grant", wants=5 if late else 0, says="check this machine's clock" if late else "lab/greeter 0.1.0")
    tour.prefix = []
    tour.run("remote", "add", "main", str(tour.folder / "repository"), "--root", "repository/metadata/1.root.json", wants=(0, 2, 4, 5))
    tour.run("add", "lab/greeter", "--no-grant")
    tour.prefix = outside
    # Trust is looked at when something is installed; what is installed goes on.
    use(tour)
    serve(tour)
    change(tour)


def become(user):
    return ["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups", "--bounding-set", "-all", "--"]


def python_for_all():
    for path in ("/usr/bin/python3", "/usr/local/bin/python3"):
        if os.path.exists(path):
            return path
    return None


#: All but one folder is read-only.
CLOSED = 'mount --make-rslave / && mount --bind "$0" "$0" && mount -o remount,ro,bind / && exec "$@"'


def surroundings(hob, name, folder):
    """Prefix of a command, its variables, and the tour; or why there is none."""
    root = os.geteuid() == 0
    python = python_for_all()
    theirs = {"HOB_PYTHON": python} if python else {}
    if name == "root":
        return ([], {}, whole) if root else "not root"
    if name == "offline":
        return (["unshare", "-n"] if root else ["unshare", "-rn"]), {}, whole
    if name in ("2001", "2040"):
        if not shutil.which("faketime"):
            return "no `faketime` here"
        return ["faketime", "-f", f"@{name}-01-01 00:00:00"], {}, wrong_clock
    if not root:
        return "only root can make these surroundings" if name != "user" else ([], {}, whole)
    if name == "user":
        return become(OTHER), theirs, whole
    if name == "container":
        profile = [python, str(folder / "profile.py"), str(folder / "seccomp.json"), "--"]
        namespaces = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
        return [*namespaces, *become(OTHER), *profile], theirs, whole
    if name == "read-only":
        (folder.parent / "open").mkdir(mode=0o1777)
        open_folder = str(folder.parent / "open")
        return ["unshare", "-m", "sh", "-c", CLOSED, open_folder], {"TMPDIR": open_folder}, read_only
    raise SystemExit(f"no surroundings {name}")


def commands(hob):
    """The commands of `hob --help`."""
    text = subprocess.run([hob, "--help"], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^  ([a-z-]+)  ", text[text.index("Commands:") :], flags=re.M)
    return {name for name in found if name not in ("help", "completions", "man")}


def main(hob, *names):
    hob = str(Path(hob).resolve())
    output = ROOT / "target/tour"
    output.mkdir(parents=True, exist_ok=True)
    wrong, count, seen, toured = [], 0, set(), 0
    for name in names or ("root", "user", "container", "read-only", "2001", "2040", "offline"):
        with tempfile.TemporaryDirectory(prefix="hob-tour-") as above:
            folder = Path(above).resolve() / "of"
            folder.mkdir()
            folder.parent.chmod(0o755)
            program = folder / "hob"
            shutil.copy(hob, program)
            shutil.copy(ROOT / "tests/sandbox/profile.py", folder)
            shutil.copy(ROOT / "packaging/container/seccomp.json", folder)
            made = surroundings(hob, name, folder)
            if isinstance(made, str):
                print(f"skipped {name}: {made}")
                continue
            prefix, environment, walk = made
            if name in ("user", "container"):
                os.chown(folder, OTHER, OTHER)
            tour = Tour(str(program), name, folder, prefix, environment)
            begun = time.monotonic()
            walk(tour)
            (output / f"{name}.txt").write_text("\n".join(tour.said))
            left = list(processes(str(folder)))
            if left:
                tour.wrong.append(f"{name}: processes are left: {left}")
            print(f"{name}: {len(tour.said)} commands in {time.monotonic() - begun:.0f} s, {len(tour.wrong)} wrong")
            wrong, count, seen, toured = wrong + tour.wrong, count + len(tour.said), seen | tour.seen, toured + 1
    missing = commands(hob) - {words[0] for words in seen if words}
    if missing and not names:
        wrong.append(f"commands that no tour has: {sorted(missing)}")
    for line in wrong:
        print("WRONG", line)
    print(f"tour: {count} commands in {toured} surroundings, {len(wrong)} wrong; output in {output.relative_to(ROOT)}")
    return 1 if wrong or not toured else 0


sys.exit(main(*sys.argv[1:]))
