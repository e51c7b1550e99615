"""Asks psutil what people ask it: how much memory and time this process takes, what it started, what the
machine has."""

import os
import subprocess
import sys

import psutil


class Watch:
    def look(self, input):
        child = subprocess.Popen([sys.executable, "-c", "print(1, flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdout.readline()
        try:
            return asked(child)
        finally:
            child.communicate(b"\n")


def asked(child):
    me, it = psutil.Process(), psutil.Process(child.pid)
    ways = {
        "memory": lambda: me.memory_info().rss > 1 << 20 and me.memory_full_info().uss > 1 << 20,
        "time": lambda: worked(me) and me.cpu_percent() >= 0,
        "threads": lambda: me.num_threads() == len(me.threads()) >= 1,
        "began": lambda: 0 < me.create_time() <= it.create_time(),
        "files": lambda: me.num_fds() > 2 and isinstance(me.open_files(), list),
        "children": lambda: [process.pid for process in me.children(recursive=True)] == [child.pid],
        "memory of a child": lambda: it.memory_info().rss > 1 << 20 and it.memory_percent() > 0,
        "parent of a child": lambda: it.ppid() == me.pid == os.getpid() and it.parent() == me,
        "state of a child": lambda: it.is_running() and it.status() in (psutil.STATUS_SLEEPING, psutil.STATUS_RUNNING),
        "command of a child": lambda: it.cmdline()[1] == "-c" and it.name().startswith("python"),
        "variables of a child": lambda: it.environ()["HOME"] == os.environ["HOME"],
        "everybody": lambda: sorted(psutil.pids()) == sorted([os.getpid(), child.pid]),
        "who is there": lambda: psutil.pid_exists(child.pid),
        "the first process": lambda: 1 not in [process.pid for process in psutil.process_iter()],
        "memory of the machine": lambda: psutil.virtual_memory().total > 1 << 20 and psutil.swap_memory().total >= 0,
        "processors": lambda: psutil.cpu_count() >= 1 and psutil.cpu_count(logical=False) != 0 and psutil.cpu_percent() >= 0,
        "load": lambda: len(psutil.getloadavg()) == 3,
        "boot": lambda: psutil.boot_time() > 0,
        "disk": lambda: psutil.disk_usage("/tmp").total > 0,
        "a priority": lambda: me.nice() >= 0,
        "an end": lambda: ended(),
    }
    right, wrong = [], {}
    for name, way in ways.items():
        try:
            if way() is True:
                right.append(name)
            else:
                wrong[name] = "it is not so"
        except Exception as error:
            wrong[name] = f"{type(error).__name__}: {error}"
    return {"right": right, "wrong": wrong}


def worked(process):
    """Until its time is some: the kernel counts in ticks. Without an end where it never is."""
    while process.cpu_times().user == 0:
        sum(range(100_000))
    return True


def ended():
    """One that it started is gone when it is ended."""
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    process = psutil.Process(started.pid)
    process.terminate()
    return process.wait(10) == -15 and not process.is_running()
