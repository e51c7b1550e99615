"""A pod that looks for processes: its own, which it must find, and everybody else's, by every number that one
could have.

    {"rest": seconds}                     is there to be found, meanwhile
    {"look": most, "numbers": [n, ...]}   looks at all numbers up to `most`, and at those
"""

import os
import subprocess
import sys
import threading
import time

#: What is read of a process, each from its file.
FILES = ("status", "stat", "cmdline", "comm", "environ", "maps", "mem", "mountinfo", "limits")
LINKS = ("root", "cwd", "exe", "ns/pid")
FOLDERS = ("fd", "fdinfo", "task", "map_files")


def ways(number):
    """Every way to reach a process: its name, and what is called."""
    place = f"/proc/{number}"
    yield "stat", lambda: os.stat(place)
    for name in FILES:
        yield name, lambda name=name: os.close(os.open(f"{place}/{name}", os.O_RDONLY))
    for name in LINKS:
        yield name, lambda name=name: os.readlink(f"{place}/{name}")
    for name in FOLDERS:
        yield name, lambda name=name: os.listdir(f"{place}/{name}")
    yield "signal", lambda: os.kill(number, 0)


def reached(number):
    """The ways that worked, and the error of each that did not."""
    worked, failed = [], {}
    for name, way in ways(number):
        try:
            way()
            worked.append(name)
        except OSError as error:
            failed[name] = error.strerror
    return worked, failed


def numbers_of(text, name):
    return int(next(line for line in text.splitlines() if line.startswith(name + ":")).split()[1])


class Subject:
    def run(self, input):
        if "rest" in input:
            time.sleep(input["rest"])
            return None
        quiet = threading.Event()
        thread = threading.Thread(target=quiet.wait)
        thread.start()
        # It starts one itself: a grandchild.
        inner = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
        program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
        child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True)
        grandchild = int(child.stdout.readline())
        try:
            return self.looked(input, child.pid, grandchild)
        finally:
            quiet.set()
            os.killpg(child.pid, 9)
            child.wait()

    def looked(self, input, child, grandchild):
        try:
            listed = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
        except OSError:
            listed = None  # as where there is no /proc of its own
        with open("/proc/self/status") as file:
            own = file.read()
        said = {
            "listed": listed,
            "pid": os.getpid(),
            "child": reached(child),
            "parents": {},
            "resident": numbers_of(own, "VmRSS"),
            "threads": numbers_of(own, "Threads"),
            "top": self.top([name for name in os.listdir("/proc") if not name.isdigit()] if listed else NAMES),
        }
        mine = set(listed or ()) | {child, grandchild, os.getpid(), *map(int, os.listdir("/proc/self/task"))}
        for number in listed or ():
            try:
                with open(f"/proc/{number}/status") as file:
                    said["parents"][number] = numbers_of(file.read(), "PPid")
                mine.update(map(int, os.listdir(f"/proc/{number}/task")))
            except FileNotFoundError:
                pass  # it ended meanwhile
        numbers = [number for number in {*range(1, input["look"] + 1), *input["numbers"]} if number not in mine]
        others = {number: reached(number)[0] for number in numbers}
        said["others"] = {number: worked for number, worked in others.items() if worked}
        said["tried"] = sorted(number for number in input["numbers"] if number not in mine)
        return said

    def top(self, names):
        """What of the machine can be opened in /proc, to read and to write."""
        opened = {"read": [], "write": [], "mode": []}
        for name in names:
            path = "/proc/" + name
            try:
                os.listdir(path) if os.path.isdir(path) else os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
                opened["read"].append(name)
            except OSError:
                pass
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                opened["write"].append(name)
            except OSError:
                pass
            try:
                os.chmod(path, 0o777)
                opened["mode"].append(name)
            except OSError:
                pass
        return opened


#: Looked at where /proc cannot be listed.
NAMES = ("cpuinfo", "meminfo", "stat", "kallsyms", "kcore", "keys", "kmsg", "sysrq-trigger", "cmdline", "interrupts", "modules", "sys")
