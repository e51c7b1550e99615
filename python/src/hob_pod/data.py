"""Hides everything in a granted folder that is not data.

Through a socket a pod would speak to its listener, and through a FIFO to its reader, whether or not it may
write to the folder. So both are covered by an empty file, as devices are. `mounts` mounts whole trees; this
module looks through one. Entries that appear in the folder later are not seen here: Landlock refuses them
where it can (`lockdown`).
"""

import errno
import os
import stat
import time

from . import kernel
from .refused import Refused

#: Entries between two checks of the clock.
_LOOK = 4096


def cover(name, place, nothing, bounds, changes=False):
    """Covers everything at or below `place` that is no file, folder or link. Raises OSError, or Refused if
    that exceeds `bounds`.

    `changes`: whether the pod may change what is there. It could then open a folder of this user that is
    closed to both.
    """
    for path in _odd(name, place, bounds, changes):
        tree = kernel.clone_tree(nothing)
        try:
            kernel.set_mount(tree, kernel.ATTR_RDONLY | kernel.ATTR_NOSUID | kernel.ATTR_NODEV | kernel.ATTR_NOEXEC)
            kernel.attach_tree(tree, path)
        except FileNotFoundError:
            pass  # it was removed meanwhile
        finally:
            os.close(tree)


def _odd(name, place, bounds, changes):
    """Returns the paths to cover. Raises Refused."""
    mode = os.stat(place, follow_symlinks=False).st_mode
    if not stat.S_ISDIR(mode):
        return [] if stat.S_ISREG(mode) else [place]
    found, folders, entries = [], [place], 0
    until = time.monotonic() + bounds["seconds_max"]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as listed:
                for entry in listed:
                    entries += 1
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif not entry.is_file(follow_symlinks=False) and not entry.is_symlink():
                        found.append(entry.path)
                    if len(found) > bounds["covered_max"]:
                        raise Refused("grants", f"{name} holds more than {bounds['covered_max']} sockets, FIFOs and devices")
                    if entries > bounds["entries_max"] or (entries % _LOOK == 0 and time.monotonic() > until):
                        why = f"{name} could not be looked through for sockets, FIFOs and devices: {entries} entries were not all of it"
                        raise Refused("grants", f"{why}, within {bounds['seconds_max']} s")
        except (FileNotFoundError, NotADirectoryError):
            continue  # it was removed meanwhile
        except PermissionError:
            # The folder is closed to the pod as well, which has fewer rights; but the owner of a folder can
            # open it.
            if changes and os.stat(folder, follow_symlinks=False).st_uid == os.geteuid():
                within = name + folder[len(place) :]
                raise Refused("grants", f"{within} is closed, and cannot be looked through for sockets, FIFOs and devices") from None
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ESRCH):
                raise
            # A path below /proc, of a process that ended meanwhile.
    return found
