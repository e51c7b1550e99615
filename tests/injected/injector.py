"""Runs a command, counts the system calls of it and of all that it starts, and lets one of them fail with an
error of choice.

    injector.py OUTCOME [CALL ERROR NTH] -- COMMAND...

Without CALL each pair of call and error that could have happened is counted. With it the NTH call (from 1)
that could give ERROR gives it, without having been made. OUTCOME is a file for what became of it, as JSON:
`exit` or `signal` of the command; `injected` (the call, whose it was, and on what; null if there were not so
many); `counts` by call and error; and `left`, the processes that were there SECONDS after the command had
ended, and were killed.

The command is traced (ptrace), and a filter (seccomp) stops it at calls of the table alone, so that it takes
not much longer.
"""

import collections
import ctypes
import errno
import json
import os
import signal
import struct
import sys
import time

#: How long a process may outlive the command.
SECONDS = 15
#: How long the command may take.
HANGS = 90

FULL = ("ENOSPC", "EDQUOT")
FILES = ("EMFILE", "ENFILE", "ENOMEM")
CHANGES = ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "ENOMEM")

#: x86-64: number, what may come of it (man pages), and what its arguments must be like, by the function of
#: that name.
CALLS = {
    "open": (2, (*FILES, *CHANGES), "opens"),
    "openat": (257, (*FILES, *CHANGES), "opens"),
    "openat2": (437, (*FILES, "EACCES"), None),
    "creat": (85, (*FILES, *CHANGES), None),
    "memfd_create": (319, FILES, None),
    "pipe2": (293, ("EMFILE", "ENFILE"), None),
    "pipe": (22, ("EMFILE", "ENFILE"), None),
    "socket": (41, (*FILES, "EACCES"), None),
    "socketpair": (53, FILES, None),
    "accept4": (288, FILES, None),
    "dup": (32, ("EMFILE",), None),
    "fcntl": (72, ("EMFILE",), "duplicates"),
    "epoll_create1": (291, FILES, None),
    "eventfd2": (290, FILES, None),
    "timerfd_create": (283, FILES, None),
    "inotify_init1": (294, FILES, None),
    "pidfd_open": (434, FILES, None),
    "epoll_ctl": (233, ("ENOMEM", "ENOSPC"), "adds"),
    "clone": (56, ("EAGAIN", "ENOMEM", "ENOSPC"), "namespaces"),
    "clone3": (435, ("EAGAIN", "ENOMEM"), None),
    "fork": (57, ("EAGAIN", "ENOMEM"), None),
    "vfork": (58, ("EAGAIN", "ENOMEM"), None),
    "unshare": (272, ("ENOMEM", "ENOSPC"), None),
    "setns": (308, ("ENOMEM",), None),
    "execve": (59, ("ENOMEM", "EAGAIN", "EMFILE", "ENFILE", "EACCES"), None),
    "mmap": (9, ("ENOMEM",), "large"),
    "sendmsg": (46, ("ETOOMANYREFS", "ENOMEM"), "passes"),
    "sendto": (44, ("ENOMEM",), None),
    "connect": (42, ("EAGAIN", "EACCES"), None),
    "bind": (49, ("EACCES", "EROFS", "ENOMEM"), "named"),
    "write": (1, FULL, "file"),
    "writev": (20, FULL, "file"),
    "pwrite64": (18, FULL, "file"),
    "ftruncate": (77, FULL, "file"),
    "fallocate": (285, FULL, "file"),
    "sendfile": (40, (*FULL, "ENOMEM"), "file"),
    "copy_file_range": (326, (*FULL, "ENOMEM"), "copied"),
    "fsync": (74, FULL, "file"),
    "fdatasync": (75, FULL, "file"),
    "mkdir": (83, CHANGES, None),
    "mkdirat": (258, CHANGES, None),
    "symlink": (88, CHANGES, None),
    "symlinkat": (266, CHANGES, None),
    "link": (86, CHANGES, None),
    "linkat": (265, CHANGES, None),
    "rename": (82, CHANGES, None),
    "renameat": (264, CHANGES, None),
    "renameat2": (316, CHANGES, None),
    "unlink": (87, ("EROFS", "EACCES", "ENOMEM"), None),
    "unlinkat": (263, ("EROFS", "EACCES", "ENOMEM"), None),
    "rmdir": (84, ("EROFS", "EACCES", "ENOMEM"), None),
    "chmod": (90, ("EROFS", "EACCES", "ENOMEM"), None),
    "fchmod": (91, ("EROFS",), None),
    "fchmodat": (268, ("EROFS", "EACCES", "ENOMEM"), None),
    "fchmodat2": (452, ("EROFS", "EACCES", "ENOMEM"), None),
    "utimensat": (280, ("EROFS", "EACCES", "ENOMEM"), None),
    "stat": (4, ("EACCES", "ENOMEM"), None),
    "lstat": (6, ("EACCES", "ENOMEM"), None),
    "newfstatat": (262, ("EACCES", "ENOMEM"), None),
    "statx": (332, ("EACCES", "ENOMEM"), None),
    "readlink": (89, ("EACCES", "ENOMEM"), None),
    "readlinkat": (267, ("EACCES", "ENOMEM"), None),
    "chdir": (80, ("EACCES", "ENOMEM"), None),
    "mount": (165, ("ENOMEM", "ENOSPC", "EACCES"), None),
    "pivot_root": (155, ("ENOMEM",), None),
    "seccomp": (317, ("ENOMEM",), None),
    "landlock_create_ruleset": (444, FILES, None),
    "landlock_add_rule": (445, ("ENOMEM",), None),
    "landlock_restrict_self": (446, ("ENOMEM",), None),
}
NAMES = {number: name for name, (number, _, _) in CALLS.items()}
FIRST = "open creat execve mkdir unlink rmdir chmod stat lstat readlink chdir rename link"
SECOND = "openat openat2 mkdirat unlinkat fchmodat newfstatat statx readlinkat renameat2 linkat"
#: Which argument is a path.
PATHS = {**dict.fromkeys(FIRST.split(), 0), **dict.fromkeys(SECOND.split(), 1)}

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long
CONT, GETREGS, SETREGS, SEIZE, LISTEN = 7, 12, 13, 0x4206, 0x4208
# Follow forks, threads and execs, stop where the filter says so, and end all with the tracer.
OPTIONS = 0x02 | 0x04 | 0x08 | 0x10 | 0x80 | 0x100000
EVENT_EXEC, EVENT_SECCOMP, EVENT_STOP = 4, 7, 128
WALL = 0x40000000
REGS = struct.Struct("27Q")
ORIG_RAX, RAX = 15, 10
ARGUMENTS = (14, 13, 12, 7, 9, 8)  # rdi, rsi, rdx, r10, r8, r9


def ptrace(request, tid, address=0, data=0):
    if libc.ptrace(request, tid, address, data) == -1 and ctypes.get_errno():
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def filtered():
    """Stops this process, and what it becomes and starts, at each call of the table."""
    lines = [struct.pack("HBBI", 0x20, 0, 0, 0)]  # the number of the call
    numbers = sorted(NAMES)
    for at, number in enumerate(numbers):
        lines.append(struct.pack("HBBI", 0x15, len(numbers) - at, 0, number))  # equal: to the last line
    lines += [struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000), struct.pack("HBBI", 0x06, 0, 0, 0x7FF00000)]  # allow; trace
    program = ctypes.create_string_buffer(b"".join(lines))
    wanted = struct.pack("HxxxxxxP", len(lines), ctypes.addressof(program))
    if libc.prctl(22, 2, wanted, 0, 0):
        libc.prctl(38, 1, 0, 0, 0)  # who may not put on a filter as it is gives up gaining privileges
        if libc.prctl(22, 2, wanted, 0, 0):
            raise OSError(ctypes.get_errno(), "no filter")


def memory(tid, address, length):
    with open(f"/proc/{tid}/mem", "rb", buffering=0) as file:
        return os.pread(file.fileno(), length, address)


def text_at(tid, address):
    try:
        # A page at a time: what is behind may not be there.
        return memory(tid, address, 4096 - address % 4096).split(b"\0")[0].decode("utf-8", "replace")
    except OSError:
        return "?"


def on_file(tid, descriptor):
    try:
        path = os.readlink(f"/proc/{tid}/fd/{descriptor}")
        return path.startswith("/") and not path.startswith(("/dev/", "/proc/"))
    except OSError:
        return False


def possible(tid, name, arguments):
    """The errors that this very call could give."""
    _, errors, kind = CALLS[name]
    if kind == "opens":
        flags = arguments[1] if name == "open" else arguments[2]
        writes, makes = flags & 3, flags & 0o100
        if makes and text_at(tid, arguments[PATHS[name]]).startswith("/proc/"):
            makes = 0  # as Python opens to write: nothing is made there
        return [e for e in dict.fromkeys(errors) if (e not in FULL or makes) and (e != "EROFS" or makes or writes)]
    if kind == "duplicates":
        return errors if arguments[1] in (0, 1030) else ()
    if kind == "adds":
        return errors if arguments[1] == 1 else ()
    if kind == "namespaces":
        return errors if arguments[0] & 0x7E020000 else errors[:2]
    if kind == "large":
        return errors if arguments[1] >= 1 << 20 and arguments[3] & 0x20 else ()
    if kind == "passes":
        control = struct.unpack("Q", memory(tid, arguments[1] + 40, 8))[0]
        return errors if control else errors[1:]
    if kind == "named":
        family = struct.unpack("H", memory(tid, arguments[1], 2))[0]
        return errors if family == 1 else errors[-1:]
    if kind == "file":
        return errors if on_file(tid, arguments[0]) else ()
    if kind == "copied":
        return errors if on_file(tid, arguments[2]) else ()
    return errors


def whose(tid):
    try:
        with open(f"/proc/{tid}/cmdline", "rb") as file:
            words = [word.decode("utf-8", "replace") for word in file.read().split(b"\0")[:-1]]
        with open(f"/proc/{tid}/comm") as file:
            return f"{file.read().strip()}: {' '.join(word[:40] for word in words)[:200]}"
    except OSError:
        return "?"


class Tracer:
    def __init__(self, wanted):
        self.wanted = wanted
        self.counts = collections.Counter()
        self.injected = None
        #: Not before the command is executed: until then it is this program.
        self.counting = False

    def at_call(self, tid):
        regs = ctypes.create_string_buffer(REGS.size)
        ptrace(GETREGS, tid, 0, ctypes.addressof(regs))
        values = list(REGS.unpack(regs))
        name = NAMES.get(values[ORIG_RAX])
        if name is None or not self.counting:
            return
        arguments = [values[at] for at in ARGUMENTS]
        try:
            errors = possible(tid, name, arguments)
        except OSError:
            return
        for error in errors:
            self.counts[name, error] += 1
        if self.injected is not None or self.wanted is None:
            return
        call, error, nth = self.wanted
        if name == call and error in errors and self.counts[name, error] == nth:
            path = text_at(tid, arguments[PATHS[name]]) if name in PATHS else None
            self.injected = {"call": call, "error": error, "nth": nth, "whose": whose(tid), "path": path}
            values[ORIG_RAX] = 2**64 - 1
            values[RAX] = 2**64 - getattr(errno, error)
            changed = ctypes.create_string_buffer(REGS.pack(*values))
            ptrace(SETREGS, tid, 0, ctypes.addressof(changed))

    def stopped(self, tid, status):
        event, sig = status >> 16, os.WSTOPSIG(status)
        try:
            if event == EVENT_SECCOMP:
                self.at_call(tid)
            elif event == EVENT_EXEC:
                self.counting = True
            elif event == EVENT_STOP and sig in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
                return ptrace(LISTEN, tid)
            ptrace(CONT, tid, 0, 0 if event else sig)
        except ProcessLookupError:
            pass  # killed meanwhile


class TooLong(Exception):
    pass


def too_long(*_):
    raise TooLong


def run(command, wanted):
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(ours, 1)
        os.close(ours), os.close(theirs)
        filtered()
        os.execvp(command[0], command)
    os.close(ours)
    ptrace(SEIZE, child, 0, OPTIONS)
    os.write(theirs, b"g")
    os.close(theirs)
    tracer, alive, ended = Tracer(wanted), {child}, None
    hung = False
    signal.signal(signal.SIGALRM, too_long)
    # Who stops the command stops what runs it too.
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    signal.alarm(HANGS)
    left = []
    while True:
        try:
            try:
                tid, status = os.waitpid(-1, WALL)
            except ChildProcessError:
                break
            if os.WIFSTOPPED(status):
                alive.add(tid)
                tracer.stopped(tid, status)
                continue
            alive.discard(tid)
            if tid == child:
                ended = status
                signal.alarm(SECONDS)
        except TooLong:
            if ended is None and not hung:
                hung = True
            left = [whose(tid) for tid in alive]
            for tid in alive:
                try:
                    os.kill(tid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            signal.alarm(5)
    signal.alarm(0)
    outcome = {"injected": tracer.injected, "left": left, "hung": hung}
    outcome["counts"] = {f"{call} {error}": count for (call, error), count in sorted(tracer.counts.items())}
    outcome["exit"] = os.WEXITSTATUS(ended) if ended is not None and os.WIFEXITED(ended) else None
    outcome["signal"] = os.WTERMSIG(ended) if ended is not None and os.WIFSIGNALED(ended) else None
    return outcome


def main():
    words = sys.argv[1:]
    at = words.index("--")
    wanted = (words[1], words[2], int(words[3])) if at == 4 else None
    begun = time.monotonic()
    outcome = run(words[at + 1 :], wanted)
    outcome["seconds"] = round(time.monotonic() - begun, 2)
    with open(words[0], "w") as file:
        json.dump(outcome, file)
    sys.exit(outcome["exit"] if outcome["exit"] is not None else 128 + (outcome["signal"] or 0))


if __name__ == "__main__":
    main()
