"""A hostile pod that turns against what it was handed: every descriptor that it holds, or ever held, is tried
in every way.

Apart from `acts`, whose targets have names: these have none, and come with the messages of the host.
"""

import ctypes
import errno
import fcntl
import gc
import mmap
import os
import signal
import stat

from hob_pod import regions

#: Of the regions that came: number -> a descriptor of it that the runner does not know of.
KEPT = {}
#: Of the checkpoint that this pod began with.
RESTORED = [os.dup(thing.restored) for thing in gc.get_objects() if type(thing).__name__ == "Runner" and thing.restored is not None]

_libc = ctypes.CDLL(None, use_errno=True)
_plain = regions.Regions.given


def _given(self, message, descriptor):
    KEPT[message["region"]] = (os.dup(descriptor), message["write"])
    _plain(self, message, descriptor)


regions.Regions.given = _given


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def exec_of(descriptor):
    """In a child: what becomes of running it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(5)
        try:
            os.execve(descriptor, ["x"], {})
        except OSError as error:
            os.write(writing, bytes([error.errno]))
        os._exit(0)
    os.close(writing)
    said = os.read(reading, 1)
    os.close(reading)
    os.waitpid(child, 0)
    if said:
        raise OSError(said[0], os.strerror(said[0]))


def reopened(descriptor, flags):
    # Nobody at the other end of a pipe must not hold this up.
    os.close(os.open(f"/proc/self/fd/{descriptor}", flags | os.O_NONBLOCK))


def by_name(descriptor):
    return f"/proc/self/fd/{descriptor}"


def with_lock(descriptor, take, release):
    take(descriptor)
    release(descriptor)


ACTS = {
    "mode": lambda d: os.fchmod(d, 0o4777),
    "mode by name": lambda d: os.chmod(by_name(d), 0o4777),
    "owner": lambda d: os.fchown(d, os.getuid(), os.getgid()),
    "times": lambda d: os.utime(d, (1, 1)),
    "times by name": lambda d: os.utime(by_name(d), (1, 1)),
    "attribute": lambda d: os.setxattr(d, "user.hob", b"pod"),
    "attribute by name": lambda d: os.setxattr(by_name(d), "user.hob", b"pod"),
    "flags": lambda d: fcntl.ioctl(d, 0x40086602, (0x40).to_bytes(8, "little")),  # FS_IOC_SETFLAGS, FS_NODUMP_FL
    "shrink": lambda d: os.ftruncate(d, 1),
    "grow": lambda d: os.ftruncate(d, 1 << 30),
    "shrink by name": lambda d: os.truncate(by_name(d), 1),
    "room": lambda d: os.posix_fallocate(d, 0, 1 << 30),
    "write": lambda d: os.pwrite(d, b"pod", 0),
    "mapping to write": lambda d: mmap.mmap(d, 4096, access=mmap.ACCESS_WRITE),
    "mapping to run": lambda d: mmap.mmap(d, 4096, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_EXEC),
    "open to write": lambda d: reopened(d, os.O_WRONLY),
    "open to read and write": lambda d: reopened(d, os.O_RDWR),
    "open emptied": lambda d: reopened(d, os.O_WRONLY | os.O_TRUNC),
    "link": lambda d: checked(_libc.linkat(d, b"", -100, os.fsencode(os.environ["TMPDIR"] + "/link"), 0x1000)),
    "link by name": lambda d: os.link(by_name(d), os.environ["TMPDIR"] + "/link", follow_symlinks=True),
    "run": exec_of,
    "lease": lambda d: with_lock(d, lambda d: fcntl.fcntl(d, 1024, 0), lambda d: fcntl.fcntl(d, 1024, 2)),  # F_SETLEASE
    "notices": lambda d: fcntl.fcntl(d, 1026, 2),  # F_NOTIFY, DN_MODIFY
    "lock": lambda d: with_lock(d, lambda d: fcntl.flock(d, 6), lambda d: fcntl.flock(d, 8)),
}


def outcome(act, descriptor):
    try:
        act(descriptor)
        return "ALLOWED"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def tried(descriptor):
    return {name: outcome(act, descriptor) for name, act in ACTS.items()}


def kind_of(descriptor):
    mode = os.fstat(descriptor).st_mode
    kinds = {"socket": stat.S_ISSOCK, "pipe": stat.S_ISFIFO, "device": stat.S_ISCHR, "file": stat.S_ISREG, "folder": stat.S_ISDIR}
    return next((kind for kind, is_one in kinds.items() if is_one(mode)), "other")


class Pod:
    def run(self, input, blobs):
        if input.get("die"):
            os._exit(3)
        names = {name: bytes(blob.data[:1]).decode() for name, blob in blobs.items()}
        if input.get("room"):
            regions.regions.unused(regions.regions.room(1 << 20))
        # The runner has the same ones, until it has mapped them.
        known = {os.fstat(descriptor).st_ino for descriptor in [*(kept for kept, _ in KEPT.values()), *RESTORED]}
        held = {}
        for number in map(int, os.listdir("/proc/self/fd")):
            try:
                if os.fstat(number).st_ino not in known:
                    held.setdefault(kind_of(number), []).append([os.readlink(by_name(number)), tried(number)])
            except OSError:
                pass  # it was that of the list itself
        lent, results = {}, []
        for descriptor, is_ours in KEPT.values():
            if is_ours:
                results.append(tried(descriptor))
            else:
                lent[os.pread(descriptor, 1, 0).decode()] = tried(descriptor)
        return {"names": names, "lent": lent, "results": results, "held": held, "restored": [tried(one) for one in RESTORED]}

    def checkpoint(self):
        return b"c" * (5 << 20)

    def restore(self, data):
        assert len(data) == 5 << 20
