"""The cache folder in which libraries keep results for reuse: compiled functions, lists of fonts.

It lies in the pod's scratch folder and is deleted with it. A pod may begin with a copy of a cache that was
filled before. Only a pod that worked for no caller hands its cache on to later pods, so nothing that a caller
caused to be kept reaches anybody.
"""

import os

#: Its name within the scratch folder. The host sets XDG_CACHE_HOME to it.
FOLDER = ".cache"
#: The operation that returns the content. No operation of a recipe can have this name.
GIVE = "hob:cache"
#: After this many works the folder is no longer checked.
LOOKS_MAX = 16


def make(scratch):
    """Makes the folder, unless an import in a zygote did."""
    try:
        os.makedirs(os.path.join(scratch, FOLDER), exist_ok=True)
    except OSError:
        pass  # code that writes there gets the error


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
                pass  # only an aid: the disk may be full, or the cache was just removed

    def look(self):
        """Tells the host once that the folder has content. Returns whether to look again."""
        self._looks -= 1
        if self._looks < 0:
            return False
        if next(self._files(), None) is None:
            return True
        self._looks = 0
        self._send({"type": "caches"})
        return False

    def content(self, _input):
        """Returns the files, as `{"files": [{"path", "bytes"}]}` and a blob with their bytes in that order.

        Returns `{"too_large": why}` if they exceed the bounds.
        """
        from .blob import Blob

        listed, content, total = [], [], 0
        for path, full in self._files():
            try:
                with open(full, "rb") as file:
                    data = file.read(self._bytes_max + 1 - total)
            except OSError:
                continue  # removed meanwhile, or not readable
            total += len(data)
            if total > self._bytes_max or len(listed) >= self._files_max:
                return {"too_large": f"more than {self._bytes_max} bytes or {self._files_max} files"}
            listed.append({"path": path, "bytes": len(data)})
            content.append(data)
        return {"files": listed}, {"files": Blob(b"".join(content), "application/octet-stream")}

    def _files(self):
        """Yields each plain file: its path within the folder, and its full path."""
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
