"""The cache folder in which libraries keep results for reuse: compiled functions, lists of fonts.

It lies in the pod's scratch folder and is deleted with it. A pod may begin with a copy of a cache that was
filled before. Only a pod that worked for no caller hands its cache on to later pods, so nothing that a caller
caused to be kept reaches anybody.
"""

import os

#: Its name within the scratch folder. The host sets XDG_CACHE_HOME to it.
FOLDER = ".cache"
#: The operation that gives what is in it. No operation of a recipe can have this name.
GIVE = "hob:cache"
#: After so many works it is not looked at any more.
LOOKS_MAX = 16


def make(scratch):
    """Makes it, unless an import in a zygote did."""
    try:
        os.makedirs(os.path.join(scratch, FOLDER), exist_ok=True)
    except OSError:
        pass  # who wants to write there is told


class Cache:
    """A pod's cache folder. `wanted`: the `cache` of the message `start`."""

    def __init__(self, scratch, wanted, send):
        self.folder = os.path.join(scratch, FOLDER)
        self.gives = wanted["gives"]
        self._bytes_max = wanted["bytes_max"]
        self._files_max = wanted["files_max"]
        self._send = send
        self._looks = LOOKS_MAX if wanted["tells"] else 0
        if wanted["from"] is not None:
            try:
                _copy(wanted["from"], self.folder)
            except OSError:
                pass  # a help and no more: a disk that is full, or a cache that was just removed

    def look(self):
        """Tells the host once that something is kept. Gives whether to look again."""
        self._looks -= 1
        if self._looks < 0:
            return False
        if next(self._files(), None) is None:
            return True
        self._looks = 0
        self._send({"type": "caches"})
        return False

    def content(self, _input):
        """The files, as `{"files": [{"path", "bytes"}]}` and a blob with their bytes in that order.

        `{"too_large": why}` where they are beyond the bounds.
        """
        from .blob import Blob

        listed, content, total = [], [], 0
        for path, full in self._files():
            try:
                with open(full, "rb") as file:
                    data = file.read(self._bytes_max + 1 - total)
            except OSError:
                continue  # gone meanwhile, or not for reading
            total += len(data)
            if total > self._bytes_max or len(listed) >= self._files_max:
                return {"too_large": f"more than {self._bytes_max} bytes or {self._files_max} files"}
            listed.append({"path": path, "bytes": len(data)})
            content.append(data)
        return {"files": listed}, {"files": Blob(b"".join(content), "application/octet-stream")}

    def _files(self):
        """Each plain file: its path within the folder, and the whole one."""
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            try:
                entries = list(os.scandir(os.path.join(self.folder, folder)))
            except OSError:
                continue
            for entry in entries:
                path = os.path.join(folder, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                # A file whose name is not text is skipped too.
                elif entry.is_file(follow_symlinks=False) and path.isprintable():
                    yield path, entry.path


def _copy(source, target):
    os.makedirs(target, exist_ok=True)
    for entry in os.scandir(source):
        to = os.path.join(target, entry.name)
        if entry.is_dir(follow_symlinks=False):
            _copy(entry.path, to)
        # Files that an import in the zygote left stay.
        elif entry.is_file(follow_symlinks=False) and not os.path.lexists(to):
            with open(entry.path, "rb") as file, open(to, "xb") as copy:
                copy.write(file.read())
