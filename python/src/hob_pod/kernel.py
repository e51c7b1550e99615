"""System calls for which Python has no function, or one that loses their error. It decides nothing.

`mounts` and `lockdown` use them in an order that matters. This module only knows a call's number, and turns
its failure into an OSError that names the call. Linux only.
"""

import ctypes
import os
import stat

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED = 0x1000, 0x4000, 0x40000, 0x80000, 0x100000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC = 1, 2, 4, 8
PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 15, 22, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 36, 38, 47

# Numbers above 423 are the same on every architecture.
_OPEN_TREE, _MOVE_MOUNT, _OPENAT2, _MOUNT_SETATTR = 428, 429, 437, 442
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH, _RESOLVE_NO_SYMLINKS = 1, 4, 4
_SECCOMP_MODE_FILTER = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_long = ctypes.c_long


def _checked(what, result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def make_folders(path):
    """Makes a folder and the missing ones above it; what is there stays. Unlike os.makedirs, it raises the
    error of a look that the system refused, and not that the folder exists."""
    try:
        os.mkdir(path)
    except FileNotFoundError:
        above = os.path.dirname(path)
        if above in ("", path):
            raise
        make_folders(above)
        os.mkdir(path)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            raise


def prctl(option, a=0, b=0, c=0, d=0):
    """prctl(2) with plain numbers; an argument may be bytes in place of a pointer."""
    word = ctypes.c_char_p if isinstance(a, bytes) else ctypes.c_ulong
    return _checked("prctl", _libc.prctl(option, word(a), ctypes.c_ulong(b), ctypes.c_ulong(c), ctypes.c_ulong(d)))


def unshare(flags):
    _checked("unshare", _libc.unshare(flags))


def fork_apart():
    """fork(2) into a new process namespace whose first process is the child.

    The C library and Python do not know about it: the child may wait and fork, and its children are ordinary
    processes.
    """
    number = 56 if os.uname().machine == "x86_64" else 220
    nothing = _long(0)
    # PyDLL keeps the interpreter's lock, which the child would otherwise have to take again.
    held = ctypes.PyDLL(None, use_errno=True).syscall
    held.restype = ctypes.c_long
    return _checked("clone", held(_long(number), _long(NEWPID | 17), nothing, nothing, nothing, nothing))


def mount(source, target, kind, flags, data=None):
    """mount(2) with texts; None for an argument that does not apply."""
    text = [None if part is None else os.fsencode(part) for part in (source, target, kind, data)]
    _checked(f"mounting {target}", _libc.mount(text[0], text[1], text[2], ctypes.c_ulong(flags), text[3]))


def unmount(path):
    """Unmounts what is mounted there and below, in use or not."""
    _checked(f"umount {path}", _libc.umount2(os.fsencode(path), 2))


def pivot_root(new, old):
    number = 155 if os.uname().machine == "x86_64" else 41
    _checked("pivot_root", _syscall(_long(number), os.fsencode(new), os.fsencode(old)))


def clone_tree(path):
    """Returns a descriptor of a detached copy of the mounts at `path` and below it."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_RECURSIVE
    return _checked(f"open_tree {path}", _syscall(_long(_OPEN_TREE), _long(_AT_FDCWD), os.fsencode(path), _long(flags)))


def open_plainly(path):
    """Returns a handle of `path`. ELOOP if any part of it is a symbolic link: anyone who may write there
    could have made that."""
    how = (ctypes.c_uint64 * 3)(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_NO_SYMLINKS)
    return _checked(f"opening {path}", _syscall(_long(_OPENAT2), _long(_AT_FDCWD), os.fsencode(path), ctypes.byref(how), _long(24)))


def clone_tree_of(handle, recursive=True):
    """`clone_tree` for the file of a handle."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    return _checked("open_tree", _syscall(_long(_OPEN_TREE), _long(handle), b"", _long(flags)))


def attach_tree(tree, path):
    """Mounts a tree from `clone_tree`."""
    arguments = (_long(_MOVE_MOUNT), _long(tree), b"", _long(_AT_FDCWD), os.fsencode(path), _long(_MOVE_MOUNT_F_EMPTY_PATH))
    _checked(f"move_mount {path}", _syscall(*arguments))


def set_mount(path, add, remove=0, recursive=True):
    """Changes the attributes of a mount, and of all mounts below it. `path` may be a descriptor from
    `clone_tree`."""
    attributes = (ctypes.c_uint64 * 4)(add, remove, 0, 0)
    place, name, flags = (path, b"", _AT_EMPTY_PATH) if isinstance(path, int) else (_AT_FDCWD, os.fsencode(path), 0)
    if recursive:
        flags |= _AT_RECURSIVE
    arguments = (_long(_MOUNT_SETATTR), _long(place), name, _long(flags), ctypes.byref(attributes), _long(32))
    _checked(f"mount_setattr {path}", _syscall(*arguments))


def landlock_abi():
    """Returns the version of Landlock that this kernel has. OSError if it has none, or Landlock is switched
    off."""
    return _checked("landlock", _syscall(_long(_LANDLOCK_CREATE), None, _long(0), _long(1)))


def landlock_create(fs, net, scoped, abi):
    """Returns a ruleset that denies those rights; an older kernel gets only the fields that it knows."""
    fields = (ctypes.c_uint64 * 3)(fs, net, scoped)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    return _checked("landlock_create_ruleset", _syscall(_long(_LANDLOCK_CREATE), ctypes.byref(fields), _long(size), _long(0)))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def landlock_allow_path(ruleset, handle, rights):
    rule = _PathRule(rights, handle)
    _checked("landlock_add_rule", _syscall(_long(_LANDLOCK_ADD), _long(ruleset), _long(1), ctypes.byref(rule), _long(0)))


def landlock_allow_port(ruleset, port, rights):
    rule = (ctypes.c_uint64 * 2)(rights, port)
    _checked("landlock_add_rule", _syscall(_long(_LANDLOCK_ADD), _long(ruleset), _long(2), ctypes.byref(rule), _long(0)))


def landlock_restrict(ruleset):
    _checked("landlock_restrict_self", _syscall(_long(_LANDLOCK_RESTRICT), _long(ruleset), _long(0)))


def be_traced():
    _checked("ptrace", _libc.ptrace(_long(0), _long(0), None, None))


class _Program(ctypes.Structure):
    _fields_ = [("instructions", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def seccomp(program):
    """Adds a filter: BPF instructions of eight bytes each."""
    held = _Program(len(program) // 8, program)
    result = _libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(held), ctypes.c_ulong(0), ctypes.c_ulong(0))
    _checked("seccomp", result)


def drop_capabilities(keep=0):
    """Gives up every capability but those in the mask `keep`, for this process and for all that it
    executes."""
    try:
        prctl(PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    except OSError:
        pass  # a kernel without ambient capabilities
    for number in range(64):
        if keep >> number & 1:
            continue
        if _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(number), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) < 0:
            break  # past the last capability, or no right left to drop any: then there is none to gain either
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    low, high = keep & 0xFFFFFFFF, keep >> 32
    # Effective, permitted and inheritable, of each half.
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    _checked("capset", _libc.capset(ctypes.byref(header), ctypes.byref(data)))
