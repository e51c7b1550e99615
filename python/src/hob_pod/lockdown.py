"""The sandbox: what a pod gives up for good, right after it is forked and before any line of code that is not
Hob's runs.

The keeper builds `mounts` around the pod; this part the pod applies to itself, in a fixed order, while it has
one thread. Then it is proved: forbidden acts are tried, and if one succeeds the pod ends. Nothing is skipped
unless the plan says `reduced`, which only an operator can set; then the skipped layers are reported, and the
host shows them.

A plan, made by the host:

    reduced   go on without a layer that is unavailable
    without   layers to treat as unavailable (for tests, and for operators who try the effect): namespaces,
              landlock, seccomp; `landlock=N` for all that came after version N of Landlock; `processes`,
              `users` and `proc` for namespaces of processes, of users, and mounting /proc
    view      what `mounts` builds; `base` is where
    paths     {"read", "execute", "write", "device"}: what Landlock allows, as paths within that root
    scratch   the pod's own folder if it has no root; in a root this folder is one of the private ones
    filters   seccomp programs in hexadecimal, in the order in which they are added
    way_out   whether names on the network were granted; if so, `confine` sets `proxy` in the plan to the port
              that the pod may connect to
    limits    {"processes", "data_bytes", "file_bytes", "descriptors", "signals", "queue_bytes", "nice"}:
              0 for none
    proof     {"secret", "planted", "folder", "host"}: a file outside the root, a file inside it that no rule
              allows, a folder that must not be written to, the host's process id
    gpu       whether drivers of GPUs are used, which write names of threads into /proc
    own_proc  whether the pod gets a /proc of its own if possible (`proc`); `apart` or `family` sets
              `has_proc` in the plan to whether it has one
"""

import errno
import os
import resource

from . import kernel, mounts, proc
from .refused import FULL, Refused, must_be_lacking

# Rights of Landlock, by the version that introduced them.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_CHAR, MAKE_DIR, MAKE_REG = 1 << 4, 1 << 5, 1 << 6, 1 << 7, 1 << 8
MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = 1 << 9, 1 << 10, 1 << 11, 1 << 12
REFER, TRUNCATE, IOCTL_DEV, RESOLVE_UNIX = 1 << 13, 1 << 14, 1 << 15, 1 << 16
_ALL = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
#: Since this version, connecting to sockets with a name can be denied. No rule allows it, but a pod reaches
#: its own sockets.
UNIX_SINCE = 9
_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
RIGHTS = {
    "read": READ_FILE | READ_DIR,
    "execute": READ_FILE | READ_DIR | EXECUTE,
    # Without execute: a pod runs what was signed and what the system has, not files that it wrote.
    "write": READ_FILE
    | READ_DIR
    | WRITE_FILE
    | TRUNCATE
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_DIR
    | MAKE_REG
    | MAKE_SOCK
    | MAKE_FIFO
    | MAKE_SYM
    | REFER,
    "device": READ_FILE | WRITE_FILE | IOCTL_DEV,
}
_BIND_TCP, _CONNECT_TCP = 1, 2
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1, 2
#: Before this version of Landlock, signals reach processes outside, and so would abstract sockets (but the
#: network namespace confines those).
SCOPES_SINCE = 6


def enter(plan, base, missing, keep=0):
    """Confines this process for good and proves it. Raises Refused. `missing`: layers that the keeper had to
    do without.

    `base`: the root to enter; None for a process that is already in its root. `keep`: a mask of capabilities.
    """
    missing = list(missing)
    has_root = base is not None or keep
    be_killed_first()
    if base is not None:
        try:
            os.chroot(base)
            os.chdir("/")
        except OSError as error:
            must_be_lacking(error)
            raise Refused("namespaces", f"entering the root: {error.strerror}") from None
    _limit(plan["limits"], has_root)
    try:
        kernel.drop_capabilities(keep)
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    except OSError as error:
        must_be_lacking(error)
        raise Refused("privileges", error.strerror) from None
    layer(plan, missing, "landlock", lambda: landlock(plan, has_root))
    layer(plan, missing, "seccomp", lambda: seccomp(plan))
    _prove(plan, missing)
    return missing


def layer(plan, missing, name, apply):
    """Applies one layer; in reduced mode a layer that is unavailable is added to `missing`. Raises
    Refused."""
    why = "made unavailable"
    if name not in plan["without"]:
        try:
            return apply()
        except OSError as error:
            must_be_lacking(error)
            why = error.strerror
    if not plan["reduced"]:
        raise Refused(name, why)
    missing.append(f"{name} ({why})")
    return None


#: The kernel's name and the plan's name of each bound.
_BOUNDS = (
    ("NPROC", "processes"),
    ("DATA", "data_bytes"),
    ("FSIZE", "file_bytes"),
    ("NOFILE", "descriptors"),
    ("SIGPENDING", "signals"),
    ("MSGQUEUE", "queue_bytes"),
)


def _limit(limits, has_root):
    def cap(what, most):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))

    try:
        for what, key in _BOUNDS:
            # In a root of its own, every folder has a bounded size; granted files elsewhere may be large.
            if limits[key] and not (key == "file_bytes" and has_root):
                cap(getattr(resource, "RLIMIT_" + what), limits[key])
        cap(resource.RLIMIT_CORE, 1)  # no dump, not even into a pipe, for which 0 does not count
        if limits["nice"]:
            os.nice(limits["nice"])
    except (OSError, ValueError) as error:
        raise Refused("limits", str(error)) from None


def be_killed_first():
    """If the machine runs out of memory, the kernel kills a pod before its host. Processes forked later
    inherit this."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("500")
    except OSError:
        pass  # in a root whose /proc is read-only, where it was set before; or the value is higher already


def landlock_version(plan):
    """Returns the version of Landlock that a pod of this plan has; 0 for none."""
    if "landlock" in plan["without"]:
        return 0
    try:
        abi = kernel.landlock_abi()
    except OSError:
        return 0
    return min([abi, *(int(text.partition("=")[2]) for text in plan["without"] if text.startswith("landlock="))])


def landlock(plan, has_root):
    """From here on this process reaches only what the plan allows. Raises OSError."""
    abi = landlock_version(plan) or kernel.landlock_abi()
    handled = _ALL[min(abi, 5)] | (RESOLVE_UNIX if abi >= UNIX_SINCE else 0)
    net = _BIND_TCP | _CONNECT_TCP if abi >= 4 else 0
    scoped = _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if abi >= SCOPES_SINCE else 0
    ruleset = kernel.landlock_create(handled, net, scoped, abi)
    moved = mounts.moves(plan["view"]) if has_root else {}
    # The paths at which granted files and models are mounted.
    found = (lambda path: mounts.placed(path, moved)) if has_root else (lambda path: plan["view"]["elsewhere"].get(path, path))
    for kind, paths in plan["paths"].items():
        for path in paths:
            _allow(ruleset, found(path), RIGHTS[kind] & handled, path in plan["view"]["granted"])
    for path in mounts.private_folders(plan["view"]) if has_root else (plan["scratch"], "/dev/shm"):
        _allow(ruleset, mounts.placed(path, moved), RIGHTS["write"] & handled)
    if plan.get("has_proc"):
        # What the pod must not see is absent, or covered.
        _allow(ruleset, "/proc", RIGHTS["read"] & handled)
    # Opened here, because in the host /proc/self is the host. CUDA opens `comm` of its threads with the flags
    # for making a file.
    _allow(ruleset, "/proc/self", (RIGHTS["read"] | (WRITE_FILE | TRUNCATE | MAKE_REG if plan["gpu"] else 0)) & handled)
    if plan["proxy"] and net:
        kernel.landlock_allow_port(ruleset, plan["proxy"], _CONNECT_TCP)
    kernel.landlock_restrict(ruleset)
    os.close(ruleset)


def _allow(ruleset, path, rights, plainly=False):
    handle = mounts.open_granted(path) if plainly else os.open(path, os.O_PATH | os.O_CLOEXEC)
    if os.fstat(handle).st_mode & 0o170000 != 0o040000:
        rights &= _FILE
    kernel.landlock_allow_path(ruleset, handle, rights)
    os.close(handle)


def seccomp(plan):
    """From here on, system calls that the plan refuses fail. Raises OSError."""
    for program in plan["filters"]:
        kernel.seccomp(bytes.fromhex(program))


# --- proof

#: Errors of a denied act, unless the act states others. Any other error (a time-out, a refused connection) is
#: no denial.
_DENIED = (errno.EPERM, errno.EACCES)
#: Longest time, in seconds, of an act that should fail at once.
_ACT_S = 0.2


def _prove(plan, missing):
    """Tries forbidden acts. In reduced mode, the acts of a missing layer are not tried, because they are
    known to succeed."""
    for name, wrong in tried(plan, missing):
        if wrong is None:
            continue
        if not plan["reduced"]:
            raise Refused("proof", f"{name} {wrong}")
        missing.append(f"{name} ({wrong})")


def tried(plan, missing):
    """Tries forbidden acts, apart from those that a missing layer would have denied.

    Yields each act's name and what went wrong: None if the act was denied.
    """
    lacking = {text.partition(" ")[0] for text in missing}
    for name, layers, errors, act in acts(plan):
        if lacking.intersection(layers):
            continue
        try:
            act()
            wrong = "was not denied"
        except OSError as error:
            denied = error.errno in _DENIED + errors
            if not denied:
                must_be_lacking(error, FULL)  # this failure proves nothing
            wrong = None if denied else f"failed, but was not denied: {error.strerror or error}"
        yield name, wrong


def acts(plan):
    """Yields each act that must fail: its name, the layers that make it fail, further errors that count as
    denial, and the function that tries it."""
    proof, apart = plan["proof"], plan.get("apart")
    host, read = proof["host"], os.O_RDONLY | os.O_CLOEXEC
    yield "reading a file outside", ("namespaces",), (errno.ENOENT,), lambda: os.open(proof["secret"], read)
    if proof["planted"]:
        yield "reading a file that no rule allows", ("namespaces", "landlock"), (), lambda: os.open(proof["planted"], read)
    written = os.path.join(proof["folder"], ".hob-proof")
    yield "writing where code is read from", ("landlock",), (errno.EROFS,), lambda: _write(written)
    # An address reserved for documentation: if there were a way out, the connection would time out.
    yield "connecting past the host", ("namespaces",), (errno.ENETUNREACH,), lambda: _connect("192.0.2.1", 9)
    yield "making a datagram socket", ("seccomp",), (), lambda: _socket(2, 2)
    # In a process namespace of its own, process 1 is the only process outside the pod that has a number.
    other = 1 if apart else host
    if landlock_version(plan) >= SCOPES_SINCE:
        yield "signalling a process outside" if apart else "signalling the host", ("landlock",), (), lambda: os.kill(other, 0)
    elif not apart:
        yield "signalling the host", ("processes",), (), lambda: os.kill(host, 0)
    if apart:
        yield "finding a process outside", ("processes",), (errno.ENOENT,), lambda: _find_outside(host)
    yield "opening another process's files in /proc", ("landlock",), (errno.ENOENT,), lambda: os.open(f"/proc/{other}/environ", read)
    if plan.get("has_proc"):
        yield "finding another process in /proc", ("landlock",), (errno.ENOENT,), lambda: os.stat(f"/proc/{other}")
        if "kallsyms" not in proc.kept(plan["paths"]):
            yield "reading what is covered in /proc", (), (errno.ENOENT,), lambda: os.open("/proc/kallsyms", read)
    yield "tracing", ("seccomp",), (), kernel.be_traced
    yield "making a namespace", ("seccomp",), (), lambda: kernel.unshare(kernel.NEWUSER)
    yield "mounting", ("seccomp",), (), lambda: kernel.mount("hob", "/dev/shm", "tmpfs", 0)


def _find_outside(host):
    """Looks for a process with the host's number. A process namespace has only the first process and this
    one, so there is none, unless the number is one of theirs."""
    if os.getppid() != 1:
        return
    if host not in (1, os.getpid()):
        try:
            os.kill(host, 0)
            return
        except ProcessLookupError:
            os.stat(f"/proc/{host}")
            return
    raise OSError(errno.ENOENT, "nobody else")


def _write(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    os.unlink(path)


def _socket(family, kind):
    import _socket as sockets

    return sockets.socket(family, kind)


def _connect(address, port):
    made = _socket(2, 1)
    try:
        made.settimeout(_ACT_S)
        made.connect((address, port))
    except TimeoutError as late:
        raise OSError(errno.ETIMEDOUT, "no answer") from late
    finally:
        made.close()
