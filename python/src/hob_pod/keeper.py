"""The keeper: starts the pod as its child, and ends the whole process tree when the host or the pod dies.

It must outlive the host, because a host killed with -9 ends nothing. It is a subreaper: every process that
the pod starts, however it hides (setsid, double fork), becomes the keeper's child when its own parent dies.

    python -I -S keeper.py --host-pid N [--page PATH] [--title TEXT] [--confined]
                           [-- executable [argument ...]]

PATH: a file of 4096 zero bytes that the host made; u64s in it, in the machine's byte order, say what no
message can: [0] the highest ask that the runner has begun, [1] the peak resident bytes and [2] the CPU
milliseconds of the pod's process, once that ended. TEXT: what `ps` shows, with the state behind it. With
--confined the first frame on standard input is a plan (see `lockdown`), and the first frame back says
`confined`, or `refused` and why; without it there is no sandbox, which the host never asks for.

Standard input is the pod's control lane. Without an executable the child becomes the runner. SIGQUIT means:
end everything now. The keeper exits as the pod did (same exit code, same signal) once no process is left. It
sleeps in poll() without a timeout, so an idle pod costs nothing. Linux only.
"""

import _signal as signal  # without the enums of `signal`, which take 3 ms to make
import os
import resource
import select
import sys

#: Milliseconds between two searches of a tree that is being killed: first and longest.
SWEEP_MS, SWEEP_MS_MAX = 5, 1000
PAGE_BYTES = 4096
PAGE_PEAK_BYTES, PAGE_CPU_MS = 1, 2
EXIT_WRONG_HOST = EXIT_NO_PAGE = 70
EXIT_NOT_EXECUTABLE = 126


def main(arguments):
    """Never returns."""
    host, page, text, confined, command = _read(arguments)
    host_handle = watch(host)
    # The package is imported from the folder of this file: with -I no script's folder is on the path.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from hob_pod import kernel

    page = _map(page)
    title = Title(text, kernel.prctl)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    # no dump, not even into a pipe, for which 0 does not count
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    confinement = None
    if confined:
        from hob_pod import confine

        confinement = confine.Confinement(0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the host signals the whole group; the keeper stays to the end
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    for number in (signal.SIGCHLD, signal.SIGQUIT):
        signal.signal(number, _noted)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    # Only the pod holds the lanes and the pipes: if the keeper held them too, their end would never show.
    # Opened now, while an error can still be reported.
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    keeper = os.getpid()
    child, report = (os.fork(), None) if confinement is None else confinement.fork(lambda: title.show("first process"))
    if child == 0:
        signal.set_wakeup_fd(-1)
        for descriptor in (wake_read, wake_write, host_handle, nothing):
            os.close(descriptor)
        title.show("starting")
        if confinement is not None and confinement.plan.get("apart"):
            keeper = 1  # in the pod's process namespace, whose first process ends with the keeper
        _become_pod(keeper, kernel.prctl, command, page, title, confinement)
    title.show("keeper")
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    family = Family(child, page, report)
    _wait(family, host_handle, wake_read)
    _sweep(family, wake_read)
    _mirror(family.status)


def watch(host):
    """Returns a handle that becomes readable when the host ends. Ends this process if it is not the host's
    child (any more)."""
    try:
        handle = os.pidfd_open(host)
    except OSError as error:
        os.write(2, f"hob_pod: cannot watch the host {host}: {error}\n".encode())
        os._exit(EXIT_WRONG_HOST)
    # Checked after the handle is open: a host that was dead by then is no longer our parent.
    if os.getppid() != host:
        os._exit(EXIT_WRONG_HOST)
    return handle


def _read(arguments):
    """Returns the host's process id, the page's path, the title (or None), whether the pod is confined, and
    the command."""
    values = {"--host-pid": None, "--page": None, "--title": None}
    rest = list(arguments)
    confined = "--confined" in rest[: rest.index("--") if "--" in rest else None]
    if confined:
        rest.remove("--confined")
    while len(rest) > 1 and rest[0] in values and values[rest[0]] is None:
        values[rest[0]] = rest[1]
        del rest[:2]
    host = values["--host-pid"]
    if host is None or not host.isdigit() or (rest and (rest[0] != "--" or len(rest) == 1)):
        sys.exit("usage: keeper.py --host-pid N [--page PATH] [--title TEXT] [--confined] [-- executable [argument ...]]")
    return int(host), values["--page"], values["--title"], confined, rest[1:]


def _map(path):
    """Returns the page as u64s, shared with the host; None without a page."""
    if path is None:
        return None
    import mmap

    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        page = mmap.mmap(file, PAGE_BYTES)
        os.close(file)
    except (OSError, ValueError) as error:
        os.write(2, f"hob_pod: cannot map the page {path}: {error}\n".encode())
        os._exit(EXIT_NO_PAGE)
    return memoryview(page).cast("Q")  # a store of one element is one store: the host never sees half of it


def _noted(_signal_number, _frame):
    """Does nothing: the byte in the wake-up pipe is enough."""


def _become_pod(keeper, prctl, command, page, title, confinement):
    """Called in the child: becomes the executable or the runner; never returns."""
    try:
        prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != keeper:
            os._exit(EXIT_WRONG_HOST)  # the keeper died before the kernel could end this process with it
        reset = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGQUIT]
        if command:
            # Python ignores these, and the executable would inherit that.
            reset += [signal.SIGPIPE, signal.SIGXFSZ]
        for number in reset:
            signal.signal(number, signal.SIG_DFL)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        if confinement is not None:
            confinement.enter()
        if command:
            program = confinement.found(command[0]) if confinement is not None else command[0]
            os.execv(program, [program, *command[1:]])
        from hob_pod import runner

        runner.main(page, title)
    except OSError as error:
        if confinement is not None:
            from hob_pod.confine import end_if_ran_out

            end_if_ran_out(0, error)
        os.write(2, f"hob_pod: cannot start {command[0] if command else 'the runner'}: {error}\n".encode())
    except BaseException as error:
        from hob_pod import tracebacks

        tracebacks.say("the process could not go on", error)
    os._exit(EXIT_NOT_EXECUTABLE)


class Title:
    """The text that `ps` shows for a process: written over its arguments, where the kernel reads them."""

    def __init__(self, text, prctl):
        self._text = text
        self._state = None
        if text is None:
            return
        import ctypes  # imported now: later a file of the recipe may have that name

        self._move = ctypes.memmove
        prctl(15, text.encode("utf-8", "replace")[:15])  # PR_SET_NAME, for `top` and `pgrep`; of this thread
        try:
            with open("/proc/self/stat", "rb", buffering=0) as file:
                fields = file.read(4096).rpartition(b")")[2].split()
            # arg_start and arg_end are the fields 48 and 49; the first field here is the third.
            self._start, self._end = int(fields[45]), int(fields[46])
        except (OSError, IndexError, ValueError):
            self._start = self._end = 0
        if not 0 < self._start < self._end:
            self._text = None  # a kernel that does not show them (to us): then there is no title

    def show(self, state):
        """Shows the state from now on. The last state counts, but none replaces `draining`."""
        if self._text is None or self._state == "draining":
            return
        self._state = state
        room = self._end - self._start
        text = f"{self._text} {state}".encode("utf-8", "replace")[: room - 1]
        # Zeros to the end: if the last byte were not zero, the kernel would read on into the environment.
        self._move(self._start, text.ljust(room, b"\0"), room)

    def busy(self):
        """Called when an ask is in hand."""
        if self._state == "ready":
            self.show("busy")

    def at_rest(self):
        """Called when no ask is in hand."""
        if self._state == "busy":
            self.show("ready")


class Family:
    """The pod and its descendants, as far as wait(2) reports them."""

    def __init__(self, child, page, report=None):
        self.child = child
        self.page = page
        # the descriptor on which the first process of the pod's namespace reports about the pod, if there is
        # one
        self.report = report
        self.status = None  # of the pod, as wait4 gave it
        self.empty = False

    def reap(self):
        """Collects the status of every process that ended."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                self.empty = True
                return
            if pid == 0:
                return
            if pid == self.child:
                # Usage of the child and of the children that it waited for. The kernel counts the peak in
                # KiB.
                peak, cpu_ms = usage.ru_maxrss * 1024, int((usage.ru_utime + usage.ru_stime) * 1000)
                if self.report is not None:
                    from hob_pod import apart

                    # There is no report if the first process was killed itself, and the pod with it.
                    status, peak, cpu_ms = apart.ended(self.report) or (status, peak, cpu_ms)
                self.status = status
                if self.page is not None:
                    self.page[PAGE_PEAK_BYTES], self.page[PAGE_CPU_MS] = peak, cpu_ms


def _wait(family, host_handle, wake_read):
    """Returns when the pod or the host is dead, or the host sent SIGQUIT."""
    poll = select.poll()
    poll.register(host_handle, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        quit_now = wake_read in ready and signal.SIGQUIT in os.read(wake_read, 4096)
        family.reap()
        if family.status is not None or quit_now or host_handle in ready:
            return


def _sweep(family, wake_read):
    """Kills every descendant until none is left."""
    family.reap()
    poll = select.poll()
    poll.register(wake_read, select.POLLIN)
    pause = SWEEP_MS
    while not family.empty:
        killed, refused = _kill_descendants()
        if refused and not killed:
            return  # they run as another user: nothing here can end them
        # A process may have moved or forked while we looked, so look again even if nothing ended.
        if poll.poll(pause):
            try:
                os.read(wake_read, 4096)
            except BlockingIOError:
                pass
        else:
            pause = min(pause * 2, SWEEP_MS_MAX)
        family.reap()


def _kill_descendants():
    """Sends SIGKILL to all processes below this one; returns how many it reached and how many it was not
    allowed to kill."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            parent = _parent(name)
            if parent is not None:
                parents[int(name)] = parent
    children = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    ours, last = {os.getpid()}, [os.getpid()]
    killed = refused = 0
    while last:
        for pid in children.get(last.pop(), ()):
            ours.add(pid)
            last.append(pid)
            try:
                if _kill(pid, ours):
                    killed += 1
            except PermissionError:
                refused += 1
    return killed, refused


def _kill(pid, ours):
    """Kills `pid` if it still descends from one of `ours`: since the search, the number may have gone to
    another process."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if _parent(pid) not in ours:
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)


def _parent(pid):
    """Returns the parent of a process; None if there is no such process (any more)."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            # The name is in parentheses and may contain anything, parentheses and spaces too.
            return int(file.read(1024).rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def _mirror(status):
    """Ends as the pod did."""
    if status is None:
        os._exit(0)  # the host is dead: nothing reads the exit code
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main(sys.argv[1:])
