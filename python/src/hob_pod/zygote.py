"""The zygote: imports the wheels that recipes preload, proves that it may be forked, and forks pods.

Wheels are third-party code, so this process is separate from init and confined as their environment is; none
of a recipe's own code ever runs in it. A fork copies one thread. So if a wheel starts another thread, holds a
device, or cannot survive a fork, the zygote is unforkable, and its pods are started the ordinary way.
"""

import _signal as signal
import gc
import json
import os
import select
import sys
import time

from . import guard, kernel, lockdown, program, tracebacks
from .channel import Channel
from .refused import Refused

#: Longest time of the canary, in seconds; its work takes milliseconds.
CANARY_S = 10
CAP_SYS_CHROOT = 1 << 18
#: Devices that may stay open.
_HARMLESS = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
#: Functions with which loaded numeric libraries take a new number of threads.
_SET_THREADS = (
    "omp_set_num_threads",
    "openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "scipy_openblas_set_num_threads64_",
    "MKL_Set_Num_Threads",
)


def main(boot, top, descriptor, variables):
    """Never returns.

    `top`: its root in the namespace of init. `descriptor`: the socket to init. `variables`: a file with the
    variables that its recipe sets, as JSON; nothing reads it before the sandbox is complete.
    """
    channel = Channel(descriptor)
    begun = time.monotonic()
    try:
        _confine(boot["zygote_plan"], top)
        there = {path for path, _ in _found(_FOLDERS)}
        _preload(boot, variables)
        left = look_at_left(_FOLDERS, there, boot["left"])
        _must_be_forkable(descriptor)
    except BaseException as error:
        why = str(error) if isinstance(error, Refused) else f"{guard.kind(error)}: {guard.text(error)}"
        channel.send({"type": "unforkable", "why": why[:1000]})
        os._exit(0)
    channel.send({"type": "ready", "seconds": time.monotonic() - begun})
    Zygote(channel, left).serve()


#: Folders in memory that are copied for each pod: an import may read later what it put there, such as a cache
#: of fonts.
_FOLDERS = ("/scratch", "/tmp")
_PIECE_BYTES = 1 << 20


def look_at_left(folders, there, most):
    """Returns what imports left in `folders`, outer entries first: [(path, kind)]. Raises Refused if
    something cannot be copied, or there is too much.

    `there`: paths that existed before. `most`: {"entries", "bytes"}.
    """
    left, size = [], 0
    for path, about in _found(folders):
        if path in there:
            continue
        kind = about.st_mode & 0o170000
        if kind not in (_FILE, _FOLDER, _LINK):
            raise Refused("fork", f"the imports made {path}, which is no file that could be copied for each pod")
        left.append((path, kind))
        size += about.st_size if kind == _FILE else 0
        if len(left) > most["entries"] or size > most["bytes"]:
            text = f"more than {most['entries']} files or {most['bytes']} bytes"
            raise Refused("fork", f"the imports left {text} in {' and '.join(folders)}, which each pod would have a copy of")
    return left


def _found(folders):
    """Yields everything in `folders`, apart from mounts."""
    waiting = list(folders)
    while waiting:
        folder = waiting.pop()
        device = os.stat(folder).st_dev
        with os.scandir(folder) as entries:
            for entry in entries:
                about = entry.stat(follow_symlinks=False)
                if about.st_dev != device:
                    continue
                yield entry.path, about
                if about.st_mode & 0o170000 == _FOLDER:
                    waiting.append(entry.path)


_FILE, _FOLDER, _LINK = 0o100000, 0o040000, 0o120000


def copy_left(left, base):
    """Copies those files below the root `base`, in which the folders exist and are empty. Raises OSError."""
    for path, kind in left:
        place = base + path
        if kind == _LINK:
            os.symlink(os.readlink(path), place)
            continue
        if kind == _FOLDER:
            os.mkdir(place)
        else:
            source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            copy = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            while os.sendfile(copy, source, None, _PIECE_BYTES):
                pass
            os.close(source)
            os.close(copy)
    # Last, and inner entries first: making a file in a folder changes the folder's time, and a folder's mode
    # may forbid entries.
    for path, kind in reversed(left):
        if kind != _LINK:
            about = os.lstat(path)
            os.chmod(base + path, about.st_mode & 0o777)
            os.utime(base + path, ns=(about.st_atime_ns, about.st_mtime_ns))


def _confine(plan, top):
    """Enters a root without a way back, and applies rules that every pod has as well, besides its own."""
    lockdown.be_killed_first()
    kernel.unshare(kernel.NEWNS)
    os.chdir(top)
    kernel.pivot_root(".", ".")
    kernel.unmount(".")
    os.chdir("/")
    plan["proxy"] = 0
    # It may enter the roots of pods, and has no other capability.
    lockdown.enter(plan, None, [], keep=CAP_SYS_CHROOT)


def _preload(boot, variables):
    # Imported here so that no pod has to.
    from . import asks, confine, control, ending, lane, runner, serving, slots  # noqa: F401

    with open(variables, "rb") as file:
        confine.set_variables(json.loads(file.read()))
    runner.set_up_packages(boot["site_packages"], boot["python"])
    # Packages that keep a reference to `sys.stderr` on import then hold the one that pods have.
    program.hear(lambda: None)
    import faulthandler  # noqa: F401
    import mmap  # noqa: F401

    gc.disable()
    for name in boot["preload"]:
        try:
            __import__(name)
        except Exception as error:
            raise Refused("preload", f"importing `{name}` raised {guard.kind(error)}: {guard.text(error)}") from None
    gc.enable()
    # A later collection writes to every page that it inspects, and so copies the page.
    gc.collect()
    gc.freeze()


def _must_be_forkable(own):
    tasks = os.listdir("/proc/self/task")
    if len(tasks) != 1:
        names = sorted({_text(f"/proc/self/task/{task}/comm") for task in tasks})
        raise Refused("fork", f"{len(tasks)} threads run after the imports ({', '.join(names)})")
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the descriptor of the listing itself
        if target.startswith("/dev/") and target not in _HARMLESS:
            raise Refused("fork", f"the imports opened the device {target}")
    child = os.fork()
    if child == 0:
        _canary()
    handle = os.pidfd_open(child)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    hangs = not poll.poll(CANARY_S * 1000)
    if hangs:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    os.close(handle)
    if hangs:
        raise Refused("fork", "a forked process hung")
    if status != 0:
        raise Refused("fork", f"a forked process ended with status {status}")


def _canary():
    """Does what often hangs after a fork: threads, locks, the collector, numeric kernels of loaded
    libraries."""
    try:
        import threading

        thread = threading.Thread(target=gc.collect)
        thread.start()
        thread.join()
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            square = numpy.ones((64, 64), dtype=numpy.float32)
            assert float((square @ square)[0, 0]) == 64.0
        torch = sys.modules.get("torch")
        if torch is not None:
            square = torch.ones(64, 64)
            assert float((square @ square)[0, 0]) == 64.0
        os._exit(0)
    except BaseException:
        os._exit(1)


def _text(path):
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return "?"


class Zygote:
    """Forks on request, and reports how its pods end."""

    def __init__(self, channel, left):
        self._channel = channel
        self._left = left
        self._pods = {}

    def serve(self):
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        poll = select.poll()
        orders = self._channel.socket.fileno()
        poll.register(orders, select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        self._closed_in_pods = (wake_read, wake_write)
        while True:
            ready = [descriptor for descriptor, _ in poll.poll()]
            if orders in ready:
                order, descriptors = self._channel.receive()
                if order is None:
                    os._exit(0)
                self._fork(order, descriptors)
            if wake_read in ready:
                os.read(wake_read, 4096)
            self._reap()

    def _fork(self, order, descriptors):
        pid = os.fork()
        if pid == 0:
            for descriptor in self._closed_in_pods:
                os.close(descriptor)
            signal.set_wakeup_fd(-1)
            self._channel.socket.close()
            _become_pod(order, descriptors, self._left)
        for descriptor in descriptors:
            os.close(descriptor)
        self._pods[pid] = order["id"]
        self._channel.send({"type": "forked", "id": order["id"], "pid": pid})

    def _reap(self):
        while True:
            # Reported before the status is collected: if this process dies in between, init collects it and
            # tells the host.
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            except ChildProcessError:
                return
            if ended is None:
                return
            identity = self._pods.pop(ended.si_pid, None)
            status = ended.si_status << 8 if ended.si_code == os.CLD_EXITED else ended.si_status
            with open(f"/proc/{ended.si_pid}/stat", "rb", buffering=0) as file:
                fields = file.read(4096).rpartition(b")")[2].split()
            # utime and stime are the fields 14 and 15; the first field here is the third. The peak is known
            # once the status is collected.
            cpu = (int(fields[11]) + int(fields[12])) * 1000 // os.sysconf("SC_CLK_TCK")
            if identity is not None:
                self._channel.send({"type": "ended", "id": identity, "status": status, "usage": [0, cpu]})
            peak = os.wait4(ended.si_pid, 0)[2].ru_maxrss * 1024
            if identity is not None:
                self._channel.send({"type": "peak", "id": identity, "bytes": peak})


def _become_pod(order, descriptors, left):
    """In the child: follows the order of a started pod; never returns."""
    try:
        os.setsid()
        control, output, errors = descriptors[:3]
        page = _map(descriptors[3]) if len(descriptors) > 3 else None
        for target, descriptor in enumerate((control, output, errors)):
            os.dup2(descriptor, target)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        from . import confine, runner
        from .keeper import Title

        base = f"/pods/{order['id']}"
        copy_left(left, base)  # while the folders of the zygote are still visible
        confine.Confinement.of_fork(0, order["plan"], base).enter()
        _diverge(order["threads"])
        runner.main(page, Title(order["title"], kernel.prctl), packages_are_there=True)
    except BaseException as error:
        tracebacks.say("the process could not go on", error)
    os._exit(126)


def _map(descriptor):
    import mmap

    return memoryview(mmap.mmap(descriptor, 4096)).cast("Q")


def _diverge(threads):
    """Changes what must differ in every fork: the state of random generators. And sets the pod's own number
    of threads."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy.random" in sys.modules:
        numpy.random.seed(int.from_bytes(os.urandom(4), "little"))
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(int.from_bytes(os.urandom(8), "little") >> 1)
    if threads > 1:
        _set_threads(threads)
        if torch is not None:
            torch.set_num_threads(threads)
        numexpr = sys.modules.get("numexpr")
        if numexpr is not None:
            numexpr.set_num_threads(threads)


def _set_threads(threads):
    """Sets the number of threads in every loaded numeric library: each read its variable at import, which
    said 1."""
    import ctypes

    with open("/proc/self/maps") as maps:
        libraries = {line.split(" ", 5)[-1].strip() for line in maps if ".so" in line}
    for path in libraries:
        if not any(word in os.path.basename(path) for word in ("omp", "openblas", "mkl")):
            continue
        try:
            library = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        except OSError:
            continue
        for name in _SET_THREADS:
            if hasattr(library, name):
                getattr(library, name)(threads)
