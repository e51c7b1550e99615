"""Forbidden acts: what each is called, how it is done, and with which errno it must fail.

Apart from `acts`, which tries them: here is nothing but the table. An act raises OSError, or gives what it
got. `t` holds its targets: real ones in a pod; outside, tame ones of the same kind, on which the same
function must succeed.

`outside` says who must succeed there: `any`, `root`, or else why nobody may try.
"""

import ctypes
import errno
import os
import platform
import signal
import socket
import stat
import struct
from collections import namedtuple

Act = namedtuple("Act", "function denied outside")
ACTS = {}
#: Acts of the pod's own process, on the descriptors that it inherited.
HELD = {}
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_X86 = platform.machine() == "x86_64"
_NOTHING = ctypes.c_void_p(0)
_DENIED = "EPERM EACCES EROFS"


def act(denied, outside="any"):
    def keep(function):
        ACTS[function.__name__] = Act(function, denied.split(), outside)
        return function

    return keep


def row(name, denied, function, outside="any"):
    ACTS[name] = Act(function, denied.split(), outside)


def call(x86, other, *arguments):
    """A system call by its numbers there and there."""
    result = _libc.syscall(
        ctypes.c_long(x86 if _X86 else other), *(word if hasattr(word, "_type_") else ctypes.c_long(word) for word in arguments)
    )
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def asked(*arguments, nonsense=(errno.EFAULT, errno.EINVAL, errno.ENOENT, errno.ENOEXEC, errno.EBADF)):
    """A system call with arguments that make no sense: harmless where it is allowed, and then refused for
    them."""
    try:
        return call(*arguments)
    except OSError as error:
        if error.errno in nonsense:
            return f"only its arguments were refused: {error.strerror}"
        raise


def read(path):
    with open(path, "rb") as file:
        return file.read(100)


def appendable(path):
    os.close(os.open(path, os.O_WRONLY | os.O_APPEND))
    return f"could write to {path}"


def listed(folder, wanted):
    """That a folder leads to what is the pod's is no harm, where it shows nothing else."""
    if wanted in os.listdir(folder):
        return f"saw {wanted}"
    raise OSError(errno.ENOENT, "not in the list")


def mine(name, text="x"):
    """A file of its own in its scratch folder."""
    path = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"{name}-{os.getpid()}")
    with open(path, "w") as file:
        file.write(text)
    return path


def made(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    return f"made {path}"


# --- reading what is not the pod's

row("reading a file outside", "ENOENT", lambda t: read(t["secret"]))
row("reading /tmp of the machine", "ENOENT", lambda t: read(t["/tmp"]))
row("reading shared memory of the machine", "ENOENT", lambda t: read(t["/dev/shm"]))
row("reading another pod's scratch folder", "ENOENT EACCES", lambda t: read(os.path.join(t["other"], "mine")))
row(
    "listing the folder of all scratch folders",
    "ENOENT EACCES",
    lambda t: listed(os.path.dirname(t["other"]), os.path.basename(t["other"])),
)
row("reading the page of another pod", "ENOENT EACCES", lambda t: read(t["page"]))
row("making secret memory", "EPERM", lambda t: os.close(call(447, 447, 0)), "not every kernel has it")


@act("EPERM")
def sharing_memory_by_number(t):
    segment = call(29, 194, 0, 1 << 20, 0o1600)
    call(31, 195, segment, 0, _NOTHING)  # IPC_RMID
    return "shared, and nobody need have it"


@act("EPERM")
def making_semaphores_by_number(t):
    call(66, 191, call(64, 190, 0, 8, 0o1600), 0, 0, 0)
    return "made"


@act("EPERM")
def making_a_queue_by_number(t):
    call(71, 187, call(68, 186, 0, 0o1600), 0, _NOTHING)
    return "made"


@act("EPERM")
def keeping_a_large_page_by_a_byte_in_a_pipe(t):
    reading, writing = os.pipe()
    page = ctypes.create_string_buffer(4096)
    return call(278, 75, writing, (ctypes.c_uint64 * 2)(ctypes.addressof(page), 1), 1, 0)


@act("EPERM")
def taking_what_the_machine_has_of_asynchronous_reads(t):
    made = (ctypes.c_ulong * 1)(0)
    call(206, 0, 1, made)
    return call(207, 1, made[0])


_KEPT = "not every machine keeps some"
row(
    "taking large pages that are kept for others",
    "EPERM",
    lambda t: asked(9, 222, 0, 2 << 20, 3, 0x40022, -1, 0, nonsense=(errno.ENOMEM,)),
    _KEPT,
)
row("a nameless file of large pages that are kept for others", "EPERM", lambda t: os.close(call(319, 279, b("kept"), 4)), _KEPT)
row("hiding what it holds from the host", "EPERM", lambda t: call(157, 167, 4, 0, 0, 0, 0), "it would stay hidden")
row("reading hob.toml", "ENOENT EACCES", lambda t: read(t["home"] + "/hob.toml"))
row("listing HOB_HOME", "ENOENT EACCES", lambda t: listed(t["home"], "hob.toml"))
row("climbing out by dots", "ENOENT", lambda t: read("/../../../../.." + t["secret"]))
row("climbing out through /proc/self/root", "ENOENT", lambda t: read("/proc/self/root/.." + t["secret"]))
row("climbing out through /proc/self/cwd", "ENOENT", lambda t: read("/proc/self/cwd/../../../../../../../.." + t["secret"]))
row("climbing out through a thread's root", "ENOENT", lambda t: read(f"/proc/self/task/{os.getpid()}/root" + t["secret"]))


@act("ENOENT")
def following_a_link_of_its_own(t):
    link = mine("link")
    os.unlink(link)
    os.symlink(t["secret"], link)
    return read(link)


@act("ENOENT EXDEV EACCES")
def linking_a_foreign_file_into_its_scratch(t):
    path = t["secret"] + "-link"
    os.link(t["secret"], path)
    return "linked"


@act("ENOENT EACCES")
def finding_a_variable_of_the_host(t):
    for name in ("self", str(os.getpid())):
        if b"HOB_TEST_SECRET" in read_all(f"/proc/{name}/environ"):
            return "in /proc"
    if "HOB_TEST_SECRET" in os.environ:
        return os.environ["HOB_TEST_SECRET"]
    raise OSError(errno.ENOENT, "no such variable")


def read_all(path):
    with open(path, "rb") as file:
        return file.read()


# --- changing what is not the pod's

for key, what in (
    ("home/hob.toml", "hob.toml"),
    ("home/hob.lock", "hob.lock"),
    ("recipe/recipe.toml", "its recipe's manifest"),
    ("recipe/pod/acts.py", "its recipe's code"),
    ("environment/six.py", "the environment"),
    ("runner/keeper.py", "the runner"),
    ("model", "its model"),
    ("python", "the interpreter"),
    ("folder/secret", "a file outside"),
):
    first, _, rest = key.partition("/")

    def place(t, first=first, rest=rest):
        return os.path.join(t[first], rest) if rest else t[first]

    denied = _DENIED + " ENOENT"
    # A program that runs is refused to writers first of all.
    row(f"opening {what} for writing", denied + (" ETXTBSY" if key == "python" else ""), lambda t, place=place: appendable(place(t)))
    row(f"changing the mode of {what}", denied, lambda t, place=place: os.chmod(place(t), stat.S_IMODE(os.stat(place(t)).st_mode)))
    row(f"renaming over {what}", denied + " EXDEV", lambda t, place=place: os.rename(neighbour(t, place(t)), place(t)))
    row(f"removing {what}", denied, lambda t, place=place: os.unlink(place(t)))


def neighbour(t, path):
    """A file to rename from: outside it is on the same file system."""
    own = mine("neighbour")
    if not t.get("tame"):
        return own
    with open(path + ".new", "w") as file:
        file.write("x")
    return path + ".new"


def beside(t):
    """Where a link to the environment may lie, as far as file systems go."""
    return t["file"] + "-link" if t.get("tame") else mine("a") + "-link"


row("making a file in its recipe", _DENIED, lambda t: made(t["recipe"] + "/pod/new.py"))
row("making a file in the environment", _DENIED, lambda t: made(t["environment"] + "/new.py"))
row("dropping a .pth file", _DENIED, lambda t: made(t["environment"] + "/new.pth"))
row("making a folder in the environment", _DENIED, lambda t: os.mkdir(t["environment"] + "/__pycache__x"))
row("making a file outside", _DENIED + " ENOENT", lambda t: made(t["folder"] + "/new"))
row("making a file at the top", _DENIED, lambda t: made("/hob-test-new"), "the top is the machine's")
row("truncating a file of the environment", _DENIED, lambda t: os.truncate(t["file"], 1))
row("setting times in the environment", _DENIED, lambda t: os.utime(t["file"], (1, 1)))
row("giving away a file of the environment", _DENIED, lambda t: os.chown(t["file"], 12345, 12345), "root")
row("setting an attribute in the environment", _DENIED, lambda t: os.setxattr(t["file"], "user.x", b"x"))
row("linking the environment elsewhere", "EXDEV EPERM EACCES EROFS", lambda t: os.link(t["file"], beside(t)))


@act(_DENIED)
def reopening_a_descriptor_for_writing(t):
    held = os.open(t["file"], os.O_RDONLY)
    return appendable(f"/proc/self/fd/{held}")


@act(_DENIED)
def mapping_a_reopened_descriptor_for_writing(t):
    import mmap

    held = os.open(t["file"], os.O_RDONLY)
    again = os.open(f"/proc/self/fd/{held}", os.O_RDWR)
    with open(t["file"], "rb"):
        return len(mmap.mmap(again, 0, mmap.MAP_SHARED))


@act(_DENIED, "root")
def making_a_device(t):
    path = mine("device")
    os.unlink(path)
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 1))
    os.unlink(path)
    return "made"


@act("EACCES")
def running_what_it_wrote(t):
    path = mine("program", "#!/bin/true\n")
    os.chmod(path, 0o755)
    if os.spawnv(os.P_WAIT, "/bin/true", ["true"]) != 0:
        raise OSError(errno.ENOENT, "no /bin/true")
    child = os.fork()
    if child == 0:
        try:
            os.execv(path, [path])
        except OSError as error:
            os._exit(error.errno)
    code = os.WEXITSTATUS(os.waitpid(child, 0)[1])
    os.unlink(path)
    if code:
        raise OSError(code, "not run")
    return "ran"


# What a pod writes to a granted folder is its user's, and other users of the machine may run it there.


@act("EPERM")
def having_a_file_run_as_its_owner(t):
    path = mine("as-owner")
    os.chmod(path, 0o4755)
    os.unlink(path)
    return "it runs as its owner"


@act("EPERM")
def having_a_file_run_as_its_group(t):
    held = os.open(mine("as-group"), os.O_RDONLY)
    os.fchmod(held, 0o2755)
    return "it runs as its group"


@act("EPERM ENOSYS")
def having_a_file_run_as_its_owner_by_the_newer_call(t):
    call(452, 452, -100, b(mine("as-owner-newer")), 0o4755, 0)
    return "it runs as its owner"


@act("EPERM")
def making_a_file_that_runs_as_its_owner(t):
    path = mine("made-as-owner")
    os.unlink(path)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o4755))
    os.unlink(path)
    return "it runs as its owner"


@act("EPERM")
def making_a_nameless_file_that_runs_as_its_owner(t):
    os.close(os.open(os.environ.get("TMPDIR", "/tmp"), os.O_WRONLY | os.O_TMPFILE, 0o4755))
    return "it runs as its owner"


@act("ENOSYS")
def making_a_file_that_runs_as_its_owner_by_the_newer_call(t):
    path = mine("made-as-owner-newer")
    os.unlink(path)
    how = ctypes.create_string_buffer(struct.pack("QQQ", os.O_WRONLY | os.O_CREAT, 0o4755, 0), 24)
    os.close(call(437, 437, -100, b(path), how, 24))
    os.unlink(path)
    return "it runs as its owner"


@act("EPERM")
def making_a_node_that_runs_as_its_owner(t):
    path = mine("node-as-owner")
    os.unlink(path)
    os.mknod(path, stat.S_IFREG | 0o4755)
    os.unlink(path)
    return "it runs as its owner"


# --- /proc, /sys, /dev

for who in ("host", "victim", "keeper"):
    for what in ("environ", "maps", "mem", "auxv", "cmdline", "status"):
        row(f"reading {what} of the {who}", "EACCES ENOENT", lambda t, who=who, what=what: opened(f"/proc/{t[who]}/{what}"))
    row(f"going through the root of the {who}", "EACCES ENOENT", lambda t, who=who: read(f"/proc/{t[who]}/root" + t["secret"]))
    row(f"going through the working folder of the {who}", "EACCES ENOENT", lambda t, who=who: os.listdir(f"/proc/{t[who]}/cwd/"))
    row(f"listing descriptors of the {who}", "EACCES ENOENT", lambda t, who=who: os.listdir(f"/proc/{t[who]}/fd"))


def opened(path):
    os.close(os.open(path, os.O_RDONLY))
    return f"opened {path}"


row("setting where cores go", _DENIED, lambda t: appendable("/proc/sys/kernel/core_pattern"), "root")
row("pressing SysRq", _DENIED + " ENOENT", lambda t: appendable("/proc/sysrq-trigger"), "not every machine has it")
row("reading the kernel's memory", _DENIED + " ENOENT", lambda t: opened("/proc/kcore"), "not every machine has it")
row("reading the machine's memory", "ENOENT", lambda t: opened("/dev/mem"), "not every machine has it")
row("reading the kernel's log device", "ENOENT", lambda t: opened("/dev/kmsg"), "not every machine has it")
row("setting how memory is managed", "ENOENT", lambda t: appendable("/sys/kernel/mm/transparent_hugepage/enabled"), "root")
row("reaching control groups", "ENOENT", lambda t: os.listdir("/sys/fs/cgroup"))
row("mapping users", _DENIED, lambda t: appendable("/proc/self/uid_map"), "any")
row("escaping the machine's memory killer", _DENIED, lambda t: appendable("/proc/self/oom_score_adj"))
row("listing mounts of the host", "EACCES ENOENT", lambda t: opened(f"/proc/{t['host']}/mountinfo"))

# --- sockets

for name, family, kind, number, outside in (
    ("TCP", socket.AF_INET, socket.SOCK_STREAM, 0, "any"),
    ("TCP over IPv6", socket.AF_INET6, socket.SOCK_STREAM, 0, "any"),
    ("UDP", socket.AF_INET, socket.SOCK_DGRAM, 0, "any"),
    ("UDP over IPv6", socket.AF_INET6, socket.SOCK_DGRAM, 0, "any"),
    ("raw", socket.AF_INET, socket.SOCK_RAW, 1, "root"),
    ("netlink", socket.AF_NETLINK, socket.SOCK_RAW, 0, "any"),
    ("packet", socket.AF_PACKET, socket.SOCK_RAW, 0, "root"),
    ("vsock", 40, socket.SOCK_STREAM, 0, "any"),
    ("AF_ALG", 38, socket.SOCK_SEQPACKET, 0, "any"),
    ("Bluetooth", 31, socket.SOCK_RAW, 1, "any"),
    ("CAN", 29, socket.SOCK_RAW, 1, "any"),
    ("SCTP", socket.AF_INET, socket.SOCK_SEQPACKET, 132, "any"),
    ("XDP", 44, socket.SOCK_RAW, 0, "root"),
    ("TIPC", 30, socket.SOCK_RDM, 0, "any"),
    ("SMC", 43, socket.SOCK_STREAM, 0, "any"),
):
    row(f"making a socket: {name}", "EPERM", lambda t, what=(family, kind, number): socket.socket(*what).fileno(), outside)


def connected(family, kind, address):
    with socket.socket(family, kind) as made:
        made.settimeout(2)
        made.connect(address)
    return f"reached {address}"


row("connecting over TCP", "EPERM", lambda t: connected(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", t["tcp"])))
row("sending over UDP", "EPERM", lambda t: connected(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", t["udp"])))
row("listening on TCP", "EPERM", lambda t: socket.create_server(("127.0.0.1", 0)).fileno())
row("connecting to a socket's path", "ENOENT", lambda t: connected(socket.AF_UNIX, socket.SOCK_STREAM, t["path"]))
row("connecting to an abstract socket", "EPERM ECONNREFUSED", lambda t: connected(socket.AF_UNIX, socket.SOCK_STREAM, t["abstract"]))


def sent_to(address):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", os.open("/dev/null", os.O_RDONLY)))]
        return made.sendmsg([b"x"], passed, 0, address)


row("sending a descriptor to a socket's path", "ENOENT", lambda t: sent_to(t["path"] + "-datagrams"))
row("sending a descriptor to an abstract socket", "EPERM ECONNREFUSED", lambda t: sent_to(t["abstract"] + "-datagrams"))
row("pairs of sockets that are not local", "EPERM", lambda t: asked(53, 199, 2, 1, 0, _NOTHING, nonsense=(errno.EFAULT, errno.EOPNOTSUPP)))

# --- other processes

for who in ("host", "victim", "keeper"):
    row(f"signalling the {who}", "EPERM ESRCH", lambda t, who=who: os.kill(t[who], 0))
    row(
        f"tracing the {who}",
        "EPERM ESRCH",
        lambda t, who=who: call(101, 117, 0x4206, t[who], _NOTHING, _NOTHING),
        "any" if who == "victim" else "it would stop what judges it",
    )
    row(
        f"setting limits of the {who}",
        "EPERM ESRCH",
        lambda t, who=who: call(302, 261, t[who], 7, _NOTHING, ctypes.create_string_buffer(16)),
    )
    row(
        f"setting the priority of the {who}",
        "EPERM ESRCH",
        lambda t, who=who: os.setpriority(os.PRIO_PROCESS, t[who], os.getpriority(os.PRIO_PROCESS, 0)),
    )
    row(
        f"setting the scheduler of the {who}",
        "EPERM ESRCH",
        lambda t, who=who: os.sched_setscheduler(t[who], os.SCHED_OTHER, os.sched_param(0)),
    )


@act("EPERM ESRCH")
def setting_on_which_cores_the_victim_runs(t):
    before = os.sched_getaffinity(t["victim"])
    os.sched_setaffinity(t["victim"], {min(before)})
    if len(before) > 1 and os.sched_getaffinity(t["victim"]) == before:
        raise OSError(errno.EPERM, "said to be done, and not done")
    return "set them"


_ALL_OF = "it would reach every process of this user"
for whose, priority, input_priority in (("group", 1, 2), ("user", 2, 3)):
    row(f"setting the priority of its whole {whose}", "EPERM", lambda t, which=priority: os.setpriority(which, 0, 5), _ALL_OF)
    row(
        f"setting the input priority of its whole {whose}",
        "EPERM",
        lambda t, which=input_priority: call(251, 30, which, 0, (2 << 13) + 7),
        _ALL_OF,
    )
row("moving pages of the victim", "EPERM ESRCH", lambda t: call(279, 239, t["victim"], 0, _NOTHING, _NOTHING, _NOTHING, 0), "root")
row(
    "moving the victim to other memory",
    "EPERM ESRCH",
    lambda t: asked(256, 238, t["victim"], 0, _NOTHING, _NOTHING),
    "not every machine can",
)
row("signalling a thread of the victim", "EPERM ESRCH", lambda t: call(234, 131, t["victim"], t["victim"], 0))
row(
    "queueing a signal to the victim",
    "EPERM ESRCH",
    lambda t: call(129, 138, t["victim"], 0, ctypes.create_string_buffer(struct.pack("iii", 0, 0, -1), 128)),
)
row("signalling the group of the victim", "EPERM ESRCH", lambda t: os.killpg(t["group"], 0))
row("setting the input priority of the victim", "EPERM ESRCH", lambda t: call(251, 30, 1, t["victim"], 2 << 13))


def handle(t):
    return call(434, 434, t["victim"], 0)


row("signalling the victim by a handle", "EPERM ESRCH EINVAL", lambda t: call(424, 424, handle(t), 0, _NOTHING, 0))
row("taking a descriptor of the victim", "EPERM ESRCH EINVAL", lambda t: call(438, 438, handle(t), 0, 0))


@act("EPERM")
def reading_memory_of_the_victim(t):
    vector = (ctypes.c_uint64 * 2)(ctypes.addressof(ctypes.create_string_buffer(8)), 8)
    return asked(310, 270, t["victim"], vector, 1, vector, 1, 0)


row(
    "writing memory of the victim",
    "EPERM",
    lambda t: asked(311, 271, t["victim"], (ctypes.c_uint64 * 2)(8, 8), 1, (ctypes.c_uint64 * 2)(8, 8), 1, 0),
)
row("comparing itself with the victim", "EPERM", lambda t: call(312, 272, os.getpid(), t["victim"], 2, 0, 0))
row("finding shared memory of the victim", "ENOENT EPERM", lambda t: call(29, 194, t["shm_key"], 0, 0))
row("asking to be traced", "EPERM", lambda t: call(101, 117, 0, 0, _NOTHING, _NOTHING))

# --- the walls

row("making a user namespace", "EPERM", lambda t: call(272, 97, 0x10000000))
row("making a mount namespace", "EPERM", lambda t: call(272, 97, 0x00020000), "root")
row("making a network namespace", "EPERM", lambda t: call(272, 97, 0x40000000), "root")


@act("EPERM")
def forking_into_a_user_namespace(t):
    child = call(56, 220, 0x10000000 | signal.SIGCHLD, _NOTHING, _NOTHING, _NOTHING, _NOTHING)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "forked"


row("forking by clone3", "ENOSYS", lambda t: asked(435, 435, _NOTHING, 0))
row("entering its own namespace again", "EPERM", lambda t: call(308, 268, os.open("/proc/self/ns/net", os.O_RDONLY), 0), "root")
row(
    "entering a namespace of the host",
    "EPERM EACCES ENOENT ESRCH",
    lambda t: call(308, 268, os.open(f"/proc/{t['host']}/ns/net", os.O_RDONLY), 0),
    "root",
)
row("entering all namespaces of the victim", "EPERM ESRCH", lambda t: call(308, 268, handle(t), 0x40000000), "root")


@act("EPERM", "root")
def mounting(t):
    call(165, 40, b("hob"), b(t["folder"]), b("tmpfs"), 0, _NOTHING)
    call(166, 39, b(t["folder"]), 2)
    return "mounted"


def b(text):
    return ctypes.create_string_buffer(text.encode())


row("unmounting", "EPERM", lambda t: asked(166, 39, b("/nowhere"), 2), "root")
row("changing the root", "EPERM", lambda t: os.chroot("/tmp"), "root")
row("pivoting the root", "EPERM", lambda t: asked(155, 41, _NOTHING, _NOTHING), "root")
row("opening a file system", "EPERM", lambda t: call(430, 430, b("tmpfs"), 0), "root")
row("cloning a tree of mounts", "EPERM", lambda t: call(428, 428, -100, b("/"), 1), "root")
row("changing attributes of a mount", "EPERM", lambda t: asked(442, 442, -100, b("/nowhere"), 0, _NOTHING, 0))
row("moving a mount", "EPERM", lambda t: asked(429, 429, -100, b("/nowhere"), -100, b("/nowhere"), 0), "root")
row("opening by a handle", "EPERM", lambda t: asked(304, 265, -100, _NOTHING, 0), "root")
row("making a handle of a file", "EPERM", lambda t: asked(303, 264, -100, b("/"), _NOTHING, _NOTHING, 0))
row("raising its own limit", "EPERM", lambda t: raised(), "root")
row("becoming another user", "EPERM EINVAL", lambda t: os.setuid(1 if os.getuid() == 0 else 0), "root")
row("becoming another group", "EPERM EINVAL", lambda t: os.setgid(1 if os.getgid() == 0 else 0), "root")
row("joining groups", "EPERM", lambda t: os.setgroups([0, 1]), "root")
row("raising its priority", "EPERM EACCES", lambda t: os.setpriority(os.PRIO_PROCESS, 0, -5), "root")


def raised():
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    words = (ctypes.c_uint64 * 2)(soft, hard + 1 if hard >= 0 else 1)
    return call(302, 261, 0, resource.RLIMIT_CORE, words, _NOTHING)


@act("EPERM", "root")
def taking_capabilities(t):
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    return call(126, 91, header, (ctypes.c_uint32 * 6)(1, 1, 0, 0, 0, 0))


row("typing into the terminal", "EPERM", lambda t: asked(16, 29, 0, 0x5412, b("x"), nonsense=(errno.ENOTTY, errno.EIO)))


@act("EPERM EACCES", "the machine may have none")
def running_with_the_rights_of_a_file(t):
    if not os.statvfs("/usr/bin").f_flag & os.ST_NOSUID:
        return "set-user-id programs work"
    raise OSError(errno.EPERM, "mounted without")


@act("EPERM", "where its core would go is the machine's choice")
def leaving_a_core(t):
    child = os.fork()
    if child == 0:
        os.chdir(os.environ["TMPDIR"])
        os.abort()
    if os.WCOREDUMP(os.waitpid(child, 0)[1]):
        return "left a core"
    raise OSError(errno.EPERM, "no core")


# --- parts of the kernel, and the machine

row("personality", "EPERM", lambda t: call(135, 92, 0x0040000))
row("bpf", "EPERM", lambda t: asked(321, 280, 999, _NOTHING, 0), "root")
row("perf_event_open", "EPERM", lambda t: asked(298, 241, _NOTHING, 0, -1, -1, 0))
row("userfaultfd", "EPERM", lambda t: call(323, 282, 1))
row("io_uring_setup", "EPERM", lambda t: call(425, 425, 1, ctypes.create_string_buffer(200)))
row("io_uring_enter", "EPERM", lambda t: asked(426, 426, -1, 0, 0, 0, _NOTHING, 0))
row("add_key", "EPERM", lambda t: call(248, 217, b("user"), b("hob-test"), b("x"), 1, -2))
row("request_key", "EPERM", lambda t: asked(249, 218, _NOTHING, _NOTHING, _NOTHING, -2))
row("keyctl", "EPERM", lambda t: call(250, 219, 0, -3, 0))
row("init_module", "EPERM", lambda t: asked(175, 105, _NOTHING, 0, b("")), "root")
row("finit_module", "EPERM", lambda t: asked(313, 273, -1, b(""), 0), "root")
row("delete_module", "EPERM", lambda t: asked(176, 106, b("no_such_module"), 0), "root")
row("reboot", "EPERM", lambda t: asked(169, 142, 0, 0, 0, _NOTHING), "root")
row("kexec_load", "EPERM", lambda t: asked(246, 104, 0, 1 << 20, _NOTHING, 0), "root")
row("swapon", "EPERM", lambda t: asked(167, 224, b("/nowhere"), 0), "root")
row("acct", "EPERM", lambda t: asked(163, 89, b("/nowhere")), "root")
row("syslog", "EPERM", lambda t: call(103, 116, 10, _NOTHING, 0), "root")
row("sethostname", "EPERM", lambda t: call(170, 161, b(platform.node()), len(platform.node())), "root")
row("setdomainname", "EPERM", lambda t: asked(171, 162, _NOTHING, 1), "root")
row("settimeofday", "EPERM", lambda t: call(164, 170, _NOTHING, _NOTHING), "root")
row("clock_settime", "EPERM", lambda t: asked(227, 112, 0, _NOTHING))
row("adjtimex", "EPERM", lambda t: asked(159, 171, _NOTHING))
row("inotify_init", "EPERM", lambda t: call(294, 26, 0))
row("fanotify_init", "EPERM", lambda t: call(300, 262, 0, 0), "root")
row("quotactl", "EPERM", lambda t: asked(179, 60, 0x80000100, _NOTHING, 0, _NOTHING))
row("quotactl_fd", "EPERM", lambda t: asked(443, 443, -1, 0x80000100, 0, _NOTHING), "not every kernel has it")
row("open_tree_attr", "EPERM", lambda t: asked(467, 467, -1, b("/"), 1, _NOTHING, 0), "not every kernel has it")
row("process_mrelease", "EPERM", lambda t: asked(448, 448, -1, 0), "not every kernel has it")
row("vhangup", "EPERM", lambda t: call(153, 58), "it hangs up the terminal")
if _X86:
    row("iopl", "EPERM", lambda t: call(172, 0, 0))
    row("modify_ldt", "EPERM", lambda t: asked(154, 0, 99, _NOTHING, 0), "its number for nonsense is no errno")
    row("kexec_file_load", "EPERM", lambda t: asked(320, 0, -1, -1, 0, b(""), 0), "root")
    row("the other numbers of the same calls", "ENOSYS", lambda t: call(0x40000000 + 39, 0), "most kernels lack them")

# --- descriptors that it was born with


def inherited():
    for name in os.listdir("/proc/self/fd"):
        try:
            yield int(name), os.fstat(int(name)).st_mode
        except OSError:
            continue  # the listing itself


def _from_each(t):
    for descriptor, _ in inherited():
        for path in ("..", "../../../../../../.." + t["secret"]):
            try:
                os.open(path, os.O_RDONLY, dir_fd=descriptor)
            except OSError:
                continue
            return f"{path} from {os.readlink(f'/proc/self/fd/{descriptor}')}"
        try:
            os.fchdir(descriptor)
        except OSError:
            continue
        return f"went to {os.getcwd()}"
    raise OSError(errno.ENOTDIR, "none is a folder")


def _write_each(t):
    for descriptor, mode in inherited():
        target = os.readlink(f"/proc/self/fd/{descriptor}")
        # Its own pipes and null devices are no harm.
        if stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and target not in ("/dev/null", "/dev/urandom")):
            return f"holds {target}"
    raise OSError(errno.EBADF, "no file")


HELD["going on from an inherited folder"] = _from_each
HELD["holding a file"] = _write_each
