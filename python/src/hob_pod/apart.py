"""Gives a pod a process namespace of its own, if possible: starts its first process, whose end ends all
others.

`mounts` makes the other namespaces (user, mount and more). A process namespace has no effect on the process
that makes it, only on those started afterwards, so this module starts one as well. The pod also gets a /proc
in which it finds the processes that it started itself (`proc`).

If a process namespace cannot be had, this kernel's Landlock may still confine signals (from version 6 on).
The pod then keeps the process numbers that its host sees, and finds only itself in /proc. If neither is
available, there is no pod.

    keeper             in the host's process namespace, with the host's handles
     +- first process  process 1 within: waits, reports the pod's end to the keeper; its exit ends all others
         +- pod
"""

import _signal as signal
import os
import struct

from . import kernel, lockdown, proc
from .refused import Refused, must_be_lacking

_REPORT = struct.Struct("=iQQ")
_READY = b"+"


def fork(plan, base, missing, shown=None):
    """Like fork(2), into a process namespace of its own if possible. Returns the child and the descriptor of
    its report (or None); (0, None) in the pod.

    Adds to `missing` the layers that it had to do without; raises Refused. `base`: the pod's root. `shown`:
    called in the first process.
    """
    is_held = lockdown.landlock_version(plan) >= lockdown.SCOPES_SINCE
    if is_held and not plan["own_proc"]:
        return os.fork(), None
    why = None if base is not None else "the other namespaces are missing"
    if "processes" in plan["without"]:
        why = "made unavailable"
    if why is None:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        keeper = os.getpid()
        try:
            child = kernel.fork_apart()
        except OSError as error:
            must_be_lacking(error)
            why = error.strerror
        else:
            if child == 0:
                os.close(reading)
                return _first(plan, base, keeper, writing, shown)
            os.close(writing)
            # Reads no more than that: the report may have been written already.
            said = os.read(reading, len(_READY))
            if said == _READY:
                return child, reading
            said += os.read(reading, 4096)
            os.waitpid(child, 0)
            why = said.decode("utf-8", "replace") or "its first process ended"
        os.close(reading)
    plan["not_apart"] = why
    if not is_held:
        text = f"{why}; and Landlock before version {lockdown.SCOPES_SINCE} does not hold signals"
        if not plan["reduced"]:
            raise Refused("processes", text)
        missing.append(f"processes ({text})")
    return os.fork(), None


def ended(report):
    """Returns the first process's report about the pod, or None: status as in wait(2), peak memory in bytes,
    processor time in milliseconds."""
    said = os.read(report, _REPORT.size)
    return _REPORT.unpack(said) if len(said) == _REPORT.size else None


def _first(plan, base, keeper, writing, shown):
    """Returns only in the pod. `keeper`: a number that no other pod of this machine has at the same time."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        if "proc" in plan["without"]:
            raise OSError(0, "made unavailable")
        proc.mount(base + "/proc", plan, base)
        proc.begin_at(base + "/proc", keeper)
        proc.close(base + "/proc", plan)
    except OSError as error:
        os.write(writing, f"mounting /proc: {error.strerror}".encode())
        os._exit(0)
    # Written while no other process can write to the pipe.
    os.write(writing, _READY)
    pods = []
    # The host sends SIGTERM to the keeper's whole group. The pod is not in that group: a signal to one's own
    # group ignores namespaces, and would reach the keeper.
    signal.signal(signal.SIGTERM, lambda *_: _tell(pods, signal.SIGTERM))
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    pod = os.fork()
    if pod == 0:
        os.close(nothing)
        os.setpgid(0, 0)
        os.close(writing)
        plan["apart"], plan["has_proc"] = True, plan["own_proc"]
        return 0, None
    pods.append(pod)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)  # for a first process this means: ignored
    if shown is not None:
        shown()
    # Only the pod holds the lanes and the pipes.
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.closerange(3, writing)
    os.closerange(writing + 1, os.sysconf("SC_OPEN_MAX"))
    while True:
        pid, status, usage = os.wait4(-1, 0)
        if pid == pod:
            cpu_ms = int((usage.ru_utime + usage.ru_stime) * 1000)
            os.write(writing, _REPORT.pack(status, usage.ru_maxrss * 1024, cpu_ms))
            os._exit(0)


def _tell(pods, number):
    """Sends a signal to the pod and its children."""
    for pod in pods:
        try:
            os.killpg(pod, number)
        except ProcessLookupError:
            pass  # it has ended, or has no group yet
