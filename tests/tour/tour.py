#!/usr/bin/env python3
"""Every documented command of `hob`, in surroundings that people have: what each printed, and whether it
ended as documented.

    python3 tests/tour/tour.py HOB [SURROUNDINGS ...]

The surroundings: `root`; `user`, who is nobody in particular; `container`, in namespaces of its own, without
capabilities and under the seccomp profile of packaging/container; `read-only`, where nothing but a temporary
folder can be written to and the home was made before; `2001` and `2040`, where the clock is wrong (by
`faketime`, if it is installed); `offline`, in a network namespace with nothing in it.

Each has a fresh home, a repository of its own (a folder) and a recipe without an environment. What was
printed lies in `target/tour/<surroundings>.txt`; the last line of standard output says how many commands
there were. Ends with 1 where a command ended otherwise than wanted, a process is left or something panicked.
What a machine cannot give is skipped with a printed reason. Without SURROUNDINGS it is all of them, and every
command of `hob --help` must have been in one. Before all of that the flags of each command are held against
docs/cli.md, both ways, and every command that a page names against the program.

Processes that are left are found by whose children they are, whatever they call themselves: pods have titles
of their own.
"""

import ctypes
import functools
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

    def run(self, *words, wants=0, says="", notes="", prefix=None):
        """One command; `wants`: its exit code, or several; `says`: a part of its result on standard output,
        `notes`: of what it says besides, on standard error."""
        self.seen.add(tuple(word for word in words if not word.startswith("-"))[:2])
        command = [*(self.prefix if prefix is None else prefix), self.hob, *words]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
        out, err = (stream.decode(errors="backslashreplace") for stream in (done.stdout, done.stderr))
        self.said.append(f"$ hob {' '.join(words)}\n{(out + err).rstrip()}\n[{done.returncode}]\n")
        wanted = wants if isinstance(wants, tuple) else (wants,)
        wrong = [] if done.returncode in wanted else [f"ended with {done.returncode}, wanted {wanted}"]
        wrong += [] if says in out else [f"standard output has no {says!r}: {out[-600:]!r}"]
        wrong += [] if notes in err else [f"standard error has no {notes!r}"]
        wrong += ["something panicked"] if "panicked" in out + err else []
        if wrong:
            self.wrong.append(f"{self.name}: `hob {' '.join(words)}`: {'; '.join(wrong)}: {err[-600:]}")
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
            for pid in [server.pid, *descendants(server.pid)]:
                if command_line(pid).startswith(f"{self.hob}\0--json\0serve"):
                    os.kill(pid, signal.SIGTERM)
            code = server.wait(60)
        except (subprocess.TimeoutExpired, ProcessLookupError) as error:
            server.kill()
            code = repr(error)
        self.said.append(f"$ hob serve\n{(self.folder / 'serve.log').read_text().rstrip()}\n[{code}]\n")
        if code != 0:
            self.wrong.append(f"{self.name}: `hob serve` ended with {code}")


#: How long what a host ended may take to be gone.
GONE_S = 20


def command_line(pid):
    try:
        return Path("/proc", str(pid), "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def descendants(of):
    """Processes that come from that one, whatever they are called and whatever session they are in, but for
    such as have ended."""
    children = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            # What stands before the last `)` is a name of the process's own choice.
            state, parent = Path("/proc", entry, "stat").read_bytes().rpartition(b")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state not in (b"Z", b"X"):
            children.setdefault(int(parent), []).append(int(entry))
    found = [of]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def adopt():
    """Whatever loses its parent becomes a child of the tour, and not of the machine's first process."""
    subreaper = 36
    if ctypes.CDLL(None, use_errno=True).prctl(subreaper, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def left(wait=GONE_S):
    """Processes of the commands that are there a while after the last one."""
    until = time.monotonic() + wait
    while (found := descendants(os.getpid())) and time.monotonic() < until:
        time.sleep(0.1)
    return [f"{pid} ({command_line(pid).replace(chr(0), ' ').strip() or 'no command line'})" for pid in found]


def look_finds():
    """That something which hides is found: in a session of its own, without its parent, under another
    name."""
    hidden = """import ctypes, os, time
os.setsid()
if os.fork(): os._exit(0)
ctypes.CDLL(None).prctl(15, b"elsewhere", 0, 0, 0)
time.sleep(600)
"""
    subprocess.run([sys.executable, "-c", hidden], check=True)
    found = descendants(os.getpid())
    for pid in found:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return len(found) == 1


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
    tour.run("test", "greeter", says="one")
    tour.run("pack", "greeter", "-o", "greeter.tar", says="packed lab/greeter 0.1.0", notes="recipe.toml")
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
    tour.run("call", "lab/greeter", "greet", "{}", wants=2, notes="name")
    tour.run("call", "lab/greeter", "great", "{}", wants=3, notes="greet")
    tour.run("--json", "call", "lab/nothing", "greet", "{}", wants=3, says='"fault"')
    tour.run("doctor", says="pods run fully confined")
    tour.run("sessions")
    tour.run("logs", "lab/greeter")


def serve(tour, *words):
    # Without a server, which each of them says.
    for words_without in (("status",), ("pods",)):
        tour.run(*words_without, wants=3, notes="no host is running")
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
        tour.run(*words.split(), wants=8, notes="Read-only file system")


def wrong_clock(tour):
    """The repository is made by a clock that is right."""
    outside, tour.prefix = tour.prefix, []
    author(tour)
    tour.prefix = outside
    tour.run("remote", "add", "main", str(tour.folder / "repository"), "--root", "repository/metadata/1.root.json", wants=(0, 5))
    late = tour.name == "2040"
    if late:
        tour.run("add", "lab/greeter", "--no-grant", wants=5, notes="check this machine's clock")
    else:
        tour.run("add", "lab/greeter", "--no-grant", says="lab/greeter 0.1.0")
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


#: All but one folder is read-only: the file system, and (where that is another one) the folder that has the
#: tour's files.
CLOSED = """open=$0 folder=$1; shift; mount --make-rslave / && mount --bind "$folder" "$folder" && mount -o remount,ro,bind "$folder" &&
mount --bind "$open" "$open" && mount -o remount,ro,bind / && cd "$folder" && exec "$@\""""


def missing(*programs):
    """Why there is no such surrounding, for want of a program."""
    lack = [program for program in programs if not shutil.which(program)]
    return f"no `{'`, no `'.join(lack)}` here" if lack else None


def surroundings(hob, name, folder):
    """Prefix of a command, its variables, and the tour; or why there is none."""
    root = os.geteuid() == 0
    python = python_for_all()
    theirs = {"HOB_PYTHON": python}
    if name in ("user", "container") and root and not python:
        return "no Python that every user may run: /usr/bin/python3 or /usr/local/bin/python3"
    needs = {
        "user": ["setpriv"] if root else [],
        "container": ["setpriv", "unshare"],
        "read-only": ["unshare", "mount"],
        "offline": ["unshare"],
    }
    lack = missing(*needs.get(name, []))
    if lack:
        return lack
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
        return ["unshare", "-m", "sh", "-c", CLOSED, open_folder, str(folder)], {"TMPDIR": open_folder}, read_only
    raise SystemExit(f"no surroundings {name}")


def refused(prefix, folder, program):
    """Why the machine does not make these surroundings, if it does not."""
    try:
        tried = subprocess.run([*prefix, program, "--version"], cwd=folder, capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = tried.stderr.decode(errors="replace").strip().splitlines()
    return (
        None
        if tried.returncode == 0
        else f"`{' '.join(prefix[:4])} ...` ended with {tried.returncode}: {said[-1] if said else 'nothing said'}"
    )


@functools.cache
def help_of(hob, *words):
    return subprocess.run([hob, *words, "--help"], capture_output=True, text=True, check=True, env={"COLUMNS": "400"}).stdout


def commands(hob, *words):
    """The commands of `hob --help`, or of one of them."""
    text = help_of(hob, *words)
    if "Commands:" not in text:
        return set()
    found = re.findall(r"^  ([a-z-]+)  ", text[text.index("Commands:") :], flags=re.M)
    return {name for name in found if name != "help"}


#: What every command takes.
EVERYWHERE = {"json", "quiet", "help", "version"}


@functools.cache
def taken(hob, name):
    """{command: its flags}, of a command and all below it."""
    paths = [(name,), *((name, below) for below in sorted(commands(hob, name)))]
    flags = {" ".join(path): re.findall(r"^ +(?:-\w, )?--([a-z-]+)", help_of(hob, *path), flags=re.M) for path in paths}
    return {path: set(found) for path, found in flags.items()}


def misnamed(hob, page, text):
    """Commands that a page says somebody types, and that the program does not have, or not with that flag."""
    wrong = []
    for line in re.findall(r"(?:^    (?:\$ )?|`)hob((?: [^`\n]*)?)", text, flags=re.M):
        words = re.split(r"[\s|\[\]()]+", re.split(r" (?:&&|\||>|#|&) ?", line)[0])
        names = [word for word in words if re.fullmatch(r"[a-z][a-z-]*", word)]
        name = names[0] if names and words[words.index(names[0]) - 1] in ("", "--json", "--quiet") else None
        if name in (None, "help"):
            continue
        # One is not listed, because nobody types it.
        if name not in commands(hob) and subprocess.run([hob, name, "--help"], capture_output=True).returncode != 0:
            wrong.append(f"{page}: there is no `hob {name}`: `hob{line}`")
            continue
        flags = {found[1] for found in (re.match(r"--([a-z-]+)", word) for word in words) if found}
        known = taken(hob, name)
        below = known.get(" ".join(names[:2]), set().union(*known.values()))
        wrong += [f"{page}: `hob {name}` does not take `--{flag}`: `hob{line}`" for flag in sorted(flags - below - EVERYWHERE)]
    return wrong


def undocumented(hob, text):
    """Where docs/cli.md and the program differ in a command or its flags."""
    entries, wrong = {}, []
    for entry in re.split(r"^(?=- |## )", text, flags=re.M):
        begins = re.match(r"- `hob ([a-z-]+)(?: ([a-z-]+))?", entry)
        if begins:
            # As they stand in commands: flags of other commands, which an entry may name too, have theirs
            # before them.
            quoted = re.findall(r"`([^`]+)`", entry)
            first = [begins[1], begins[2]] if begins[2] else [begins[1]]
            others = [words for words in quoted if words.startswith("hob ") and words.split()[1 : 1 + len(first)] != first]
            flags = {flag for words in quoted if words not in others for flag in re.findall(r"(?<!\S)(?:\[)?--([a-z-]+)", words)}
            flags |= {flag for words in quoted if words not in others for flag in re.findall(r"\|--([a-z-]+)", words)}
            entries[" ".join(first)] = entries.get(" ".join(first), set()) | flags
    known = {}
    for name in sorted(commands(hob)):
        # One entry may tell of all that is below it.
        one_entry = name in entries or not commands(hob, name)
        for path, flags in taken(hob, name).items():
            known.setdefault(name if one_entry else path, set()).update(flags - EVERYWHERE)
        if not one_entry:
            known.pop(name)
    for name in sorted(set(known) | set(entries)):
        if name not in entries:
            wrong.append(f"docs/cli.md has no `hob {name}`")
        elif name not in known:
            wrong.append(f"docs/cli.md has `hob {name}`, which there is not")
        else:
            wrong += [f"docs/cli.md does not say `--{flag}` of `hob {name}`" for flag in sorted(known[name] - entries[name])]
            wrong += [
                f"docs/cli.md says `--{flag}` of `hob {name}`, which it does not take"
                for flag in sorted(entries[name] - known[name] - EVERYWHERE)
            ]
    return wrong


def main(hob, *names):
    hob = str(Path(hob).resolve())
    output = ROOT / "target/tour"
    output.mkdir(parents=True, exist_ok=True)
    adopt()
    documented = (ROOT / "docs/cli.md").read_text()
    wrong, count, seen, toured = undocumented(hob, documented), 0, set(), 0
    pages = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("recipes/*/README.md"))]
    for page in pages:
        wrong += misnamed(hob, page.relative_to(ROOT), page.read_text())
    # Each look is shown to see something.
    planted = undocumented(hob, documented.replace("`--one-shot`", "`--one-shoot`").replace("- `hob verify", "- `hob verfy"))
    planted += misnamed(hob, "planted", "    $ hob ad x --grant\n and `hob call x y --dead-line 3s`, `hob repo init DIR --public-key HEX`")
    if len(planted) < len(undocumented(hob, documented)) + 7 or not look_finds():
        wrong.append(f"the tour does not see what is wrong: {planted}")
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
            why = refused(prefix, folder, str(program))
            if why:
                print(f"skipped {name}: {why}")
                continue
            if name in ("user", "container") and prefix:
                os.chown(folder, OTHER, OTHER)
            tour = Tour(str(program), name, folder, prefix, environment)
            begun = time.monotonic()
            walk(tour)
            (output / f"{name}.txt").write_text("\n".join(tour.said))
            still = left()
            if still:
                tour.wrong.append(f"{name}: processes are left: {still}")
            print(f"{name}: {len(tour.said)} commands in {time.monotonic() - begun:.0f} s, {len(tour.wrong)} wrong")
            wrong, count, seen, toured = wrong + tour.wrong, count + len(tour.said), seen | tour.seen, toured + 1
    untried = commands(hob) - {"completions", "man"} - {words[0] for words in seen if words}
    if untried and not names:
        wrong.append(f"commands that no tour has: {sorted(untried)}")
    for line in wrong:
        print("WRONG", line)
    print(f"tour: {count} commands in {toured} surroundings, {len(wrong)} wrong; output in {output.relative_to(ROOT)}")
    return 1 if wrong or not toured else 0


sys.exit(main(*sys.argv[1:]))
