"""A root of a pod's own: namespaces, and a tree of mounts that holds what the pod may see and nothing else.

The keeper does this and stays outside; `lockdown` is what the pod applies to itself. A file that is not
mounted here has no name in the pod: no other user's file, no Unix socket of a service, no other pod's scratch
folder.

A plan's `view` says what is in it:

    base     an existing folder to mount the root on (hidden for the keeper and all below it, and for no other
             process)
    read     paths that are there under the same name, read-only
    instead  {path: other}: for paths of `read`, what is mounted in their place
    elsewhere  {folder: other}: where a pod without a root of its own finds the content of that folder
    write    paths that are there under the same name, writable
    granted  the paths of `read` and `write` that an operator named: no symbolic link on the way to them is
             followed, and what is not data in them is covered (`data`)
    devices  device files
    links    {path: target} symbolic links
    private  {path: bytes} empty, writable folders in memory, with their size
    files    {path: text}
    data     {"covered_max", "entries_max", "seconds_max"}: bounds of the search for what is not data
"""

import _socket
import errno
import os

from . import data, kernel
from .refused import FULL, Refused, must_be_lacking

#: Folder of the granted paths that have a private folder above their name.
GRANTED = "/.hob-granted"
#: The machine's name in every pod.
HOST_NAME = "pod"
#: An empty file.
NOTHING = "/.hob-nothing"
#: A file and a folder that nobody may open: no process of a pod has a right that overrides modes.
CLOSED, CLOSED_FOLDER = "/.hob-closed", "/.hob-closed-folder"


def separate(plan, more=0):
    """Puts this process into namespaces of its own, including those in `more`. Returns what was missing in
    reduced mode; raises Refused."""
    if "namespaces" in plan["without"]:
        return _missing(plan, "namespaces", "made unavailable")
    user, group = os.geteuid(), os.getegid()
    flags = kernel.NEWNS | kernel.NEWUTS | kernel.NEWIPC | kernel.NEWNET | more
    try:
        try:
            if "users" in plan["without"]:
                raise OSError(errno.EPERM, "user namespaces: made unavailable")
            kernel.unshare(flags | kernel.NEWUSER)
        except OSError:
            if user != 0:
                raise
            kernel.unshare(flags)  # no user namespaces here, but root does not need them
        else:
            _map("setgroups", "deny")
            _map("uid_map", f"{user} {user} 1")
            _map("gid_map", f"{group} {group} 1")
    except OSError as error:
        must_be_lacking(error)
        return _missing(plan, "namespaces", error.strerror)
    try:
        # Programs look up the address of their own machine's name: this name is in `/etc/hosts` of each root.
        _socket.sethostname(HOST_NAME)
        # Later mounts of the host do not appear here, and mounts made here do not appear in the host.
        kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    except OSError as error:
        must_be_lacking(error, FULL)
        return _missing(plan, "namespaces", error.strerror)
    return []


def _missing(plan, layer, why):
    if not plan["reduced"]:
        raise Refused(layer, why)
    return [f"{layer} ({why})"]


def _map(name, text):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)


def build(view, base=None):
    """Mounts the tree on `base`; returns its path. Raises OSError, or Refused for a path that must exist and
    does not."""
    base = base or view["base"]
    # Taken before the root is mounted, which may hide their places.
    writable = [(path, _taken(path, view)) for path in view["write"]]
    readable = [(path, _taken(path, view)) for path in view["read"]]
    devices = [(path, kernel.clone_tree(path)) for path in view["devices"]]
    # The host recognises its pods' processes by the name of this mount: the name of the folder, which no
    # other pod has.
    kernel.mount("hob:" + "/".join(base.split("/")[-2:]), base, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0755,size=1m")
    for path, target in view["links"].items():
        kernel.make_folders(os.path.dirname(base + path))
        os.symlink(target, base + path)
    for path, text in [*view["files"].items(), (NOTHING, "")]:
        kernel.make_folders(os.path.dirname(base + path))
        with open(base + path, "w") as file:
            file.write(text)
    os.close(os.open(base + CLOSED, os.O_CREAT | os.O_CLOEXEC, 0))
    os.mkdir(base + CLOSED_FOLDER, 0)
    moved = moves(view)
    # Shorter paths first, so that a path within another is mounted on top of it.
    outer = [(path, "private", view["private"][path]) for path in private_folders(view)]
    outer += [(path, "read", tree) for path, tree in readable] + [(path, "write", tree) for path, tree in writable]
    for name, how, what in sorted(outer, key=lambda entry: entry[0].count("/")):
        path = placed(name, moved)
        if name in moved and not os.path.islink(base + name):
            kernel.make_folders(os.path.dirname(base + name))
            os.symlink(path, base + name)
        if how == "private":
            kernel.make_folders(base + path)
            options = f"mode={'1777' if path in ('/tmp', '/dev/shm') else '0700'},size={what},nr_inodes={_inodes(what)}"
            kernel.mount("hob", base + path, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)
            continue
        kernel.set_mount(what, (kernel.ATTR_RDONLY if how == "read" else 0) | kernel.ATTR_NOSUID | kernel.ATTR_NODEV)
        _attach(base, path, what)
        if name in view["granted"]:
            data.cover(name, base + path, base + NOTHING, view["data"], changes=how == "write")
    for path, tree in devices:
        # The owner of a device file could change its mode, which applies to everybody. Writing to the device
        # itself does not depend on the mount.
        kernel.set_mount(tree, kernel.ATTR_RDONLY | kernel.ATTR_NOSUID | kernel.ATTR_NOEXEC)
        _attach(base, path, tree)
    kernel.set_mount(base, kernel.ATTR_RDONLY, recursive=False)
    return base


def private_folders(view):
    """Returns the private folders of the root, apart from those in whose place an operator granted the
    machine's own."""
    return [path for path in view["private"] if path not in view["granted"]]


def moves(view):
    """Returns {path: place}: where paths granted below a private folder are mounted instead. A link at the
    path leads there.

    Landlock adds up the rights of all folders above a file, across mounts: anything in a private folder may
    be written to, whatever its own rule says. A grant within another path of the view stays in its place.
    """
    others = [path for path in [*view["read"], *view["write"]] if path not in view["granted"]]
    moved = {}
    for path in sorted(view["granted"]):
        is_private = any(_is_below(path, outer) for outer in private_folders(view))
        if is_private and not any(_is_below(path, outer) for outer in [*moved, *others]):
            moved[path] = f"{GRANTED}/{len(moved)}"
    return moved


def placed(path, moved):
    """Returns the place of `path` within the root, with the links of `moves` resolved."""
    for name, place in moved.items():
        if path == name or _is_below(path, name):
            return place + path[len(name) :]
    return path


def placed_without(path, view):
    """Returns the place of `path` for a pod without a root of its own."""
    for name, place in view["elsewhere"].items():
        if path == name or _is_below(path, name):
            return place + path[len(name) :]
    return path


def _is_below(path, outer):
    return path.startswith(outer + "/")


def _taken(path, view):
    if path not in view["granted"]:
        return kernel.clone_tree(view["instead"].get(path, path))
    handle = open_granted(path)
    tree = kernel.clone_tree_of(handle)
    os.close(handle)
    return tree


def open_granted(path):
    """Returns a handle of a path that an operator named. Raises OSError, or Refused if the path has changed
    since the host checked it.

    Other users may write to a folder above it: a link that they put there would lead to something that was
    not granted.
    """
    try:
        return kernel.open_plainly(path)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.EACCES):
            raise Refused("grants", f"{path}: {os.strerror(error.errno)}") from None
        raise


def _inodes(size):
    return max(1024, size // 4096)


def _attach(base, path, tree):
    place = base + path
    # By descriptor, because a mount made by now may hide its old place.
    if _is_folder(tree):
        kernel.make_folders(place)
    else:
        kernel.make_folders(os.path.dirname(place))
        if not os.path.exists(place):
            os.close(os.open(place, os.O_CREAT | os.O_CLOEXEC, 0o644))
    kernel.attach_tree(tree, place)
    os.close(tree)


def _is_folder(tree):
    return os.fstat(tree).st_mode & 0o170000 == 0o040000


def open_way_out():
    """Brings the namespace's loopback up and returns a listening TCP socket on it, which the host serves."""
    import fcntl
    import struct

    with_flags = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    request = struct.pack("16sh14x", b"lo", 0)
    flags = struct.unpack_from("h", fcntl.ioctl(with_flags.fileno(), 0x8913, request), 16)[0]  # SIOCGIFFLAGS
    fcntl.ioctl(with_flags.fileno(), 0x8914, struct.pack("16sh14x", b"lo", flags | 1))  # SIOCSIFFLAGS, IFF_UP
    with_flags.close()
    listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener
