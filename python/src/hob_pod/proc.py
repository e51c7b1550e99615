"""A /proc of a pod's own. It shows the pod itself, the processes that the pod started, and those facts about
the machine that the pod's plan lets the pod read.

`mounts` mounts what the machine has. This /proc belongs to a process namespace, so the first process of a
namespace mounts it. At each look the kernel asks Landlock which processes are visible: those that the pod may
trace, which are the processes of its own domain and of domains made within it. So the pods of one zygote,
which share a namespace, do not see each other. Entries that are no processes are there for everybody, root's
files too, and are covered.
"""

import os

from . import kernel, mounts


def mount(place, plan, base):
    """Mounts a /proc on `place`. Raises OSError if that is impossible. `base`: the root that has the files
    used as covers."""
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("proc", place, "proc", flags, "hidepid=ptraceable" if plan["own_proc"] else None)
    if not plan["own_proc"]:
        return
    try:
        _cover(place, plan, base)
    except OSError:
        kernel.unmount(place)  # this uncovers what was there before
        raise


def close(place, plan):
    """From here on nothing can be written there."""
    # Drivers of GPUs name their threads there; Landlock decides what else may be written.
    if not plan["gpu"]:
        kernel.set_mount(place, kernel.ATTR_RDONLY)


def begin_at(place, number):
    """Gives the next process of this namespace that number, if the kernel allows a choice.

    Programs put the number of their process into names of files in shared folders (lock files, temporary
    files). If each pod were the second process of its namespace, the files of two pods would have the same
    name.
    """
    try:
        with open(place + "/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(number - 1))
    except OSError:
        pass  # a kernel without CONFIG_CHECKPOINT_RESTORE


def _cover(place, plan, base):
    shown = kept(plan["paths"])
    with os.scandir(place) as entries:
        for entry in entries:
            if entry.name.isdigit() or entry.name in shown or entry.is_symlink():
                continue
            closed = mounts.CLOSED_FOLDER if entry.is_dir(follow_symlinks=False) else mounts.CLOSED
            try:
                kernel.mount(base + closed, entry.path, None, kernel.MS_BIND)
            except FileNotFoundError:
                pass  # it ended meanwhile


def kept(paths):
    """Returns the names at the top of /proc at or below which something may be read or written."""
    return {path.split("/")[2] for kind in paths.values() for path in kind if path.startswith("/proc/")}
