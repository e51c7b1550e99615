"""The clerk: opens files for the host's pods such that the descriptors can only be read.

It needs a mount namespace, which a program with threads cannot enter, so it is separate from the host. One
clerk is enough for all pods, however they were started, so it is separate from the keepers. It runs no code
of a recipe and reads no byte of a file.

    python -I -S clerk.py HOST_PID

A descriptor that is open only for reading is not enough: through it, the file's owner can change the file's
mode, times and attributes, and run the file. So the mount that holds the file is cloned and made read-only
and noexec, and the file is opened through the clone. The kernel then refuses all of these to everybody.

Standard input is a SOCK_SEQPACKET socket: each packet is one JSON message.

    clerk -> host   {"type": "open"} or {"type": "unable", "why"}: once
    host -> clerk   {"path", "device", "inode"}: a file that the host has open
    clerk -> host   {"type": "lent"} + the descriptor, or {"type": "refused", "why"}
"""

import _signal as signal
import os
import stat
import sys

#: Longest time to open a file, in seconds. A file that takes longer (of a server that is gone) ends this
#: process, and the host copies.
LEND_S = 10


def main(arguments):
    """Never returns."""
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from hob_pod import kernel
    from hob_pod.channel import Channel
    from hob_pod.keeper import watch

    # Only the host holds the other end of the socket, so the socket shows the host's end from here on.
    os.close(watch(int(arguments[0])))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # these signals are for the host, which then drops this process
    channel = Channel(0)
    try:
        separate(kernel)
    except OSError as error:
        channel.send({"type": "unable", "why": str(error)})
        os._exit(1)
    channel.send({"type": "open"})
    while True:
        try:
            wanted, _ = channel.receive()
        except ConnectionError:
            wanted = None
        if wanted is None:
            os._exit(0)
        signal.alarm(LEND_S)
        try:
            file = lend(kernel, wanted["path"], (wanted["device"], wanted["inode"]))
        except OSError as error:
            channel.send({"type": "refused", "why": str(error)})
        else:
            channel.send({"type": "lent"}, [file])
            os.close(file)
        signal.alarm(0)


def separate(kernel):
    """Takes a mount namespace. Raises OSError."""
    user, group = os.geteuid(), os.getegid()
    try:
        # In root's own user namespace: in a new one it could not read what others own.
        kernel.unshare(kernel.NEWNS)
    except OSError:
        kernel.unshare(kernel.NEWNS | kernel.NEWUSER)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    # Later mounts of the machine appear here too; mounts made here appear nowhere else.
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_SLAVE)


def lend(kernel, path, identity):
    """Returns a descriptor of that file through a mount of its own. Raises OSError, also if another file has
    that name by now."""
    handle = kernel.open_plainly(path)
    try:
        tree = kernel.clone_tree_of(handle, recursive=False)
    finally:
        os.close(handle)
    try:
        attributes = kernel.ATTR_RDONLY | kernel.ATTR_NOEXEC | kernel.ATTR_NOSUID | kernel.ATTR_NODEV
        kernel.set_mount(tree, attributes, recursive=False)
        found = os.fstat(tree)
        if (found.st_dev, found.st_ino) != identity or not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path} is another file by now")
        return os.open(f"/proc/self/fd/{tree}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(tree)


if __name__ == "__main__":
    main(sys.argv[1:])
