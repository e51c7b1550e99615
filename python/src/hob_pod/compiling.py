"""Compiles the Python sources of an environment that is being built, in the sandbox of a pod.

No line of code in the folder is run: each file is read and compiled, and its bytecode is written beside it.
What a compiler does with a hostile source stays in the sandbox.

    python -I -S -B compiling.py FOLDER WORKERS

A file that cannot be compiled (written for another Python, or a template) stays without bytecode, which is no
failure. The same holds for the files that a worker had still to do when its interpreter crashed. Exit code 0
means that every worker finished.
"""

import os
import sys

#: The exit code if a worker crashed.
EXIT_CRASHED = 3


def main(arguments):
    """Never returns."""
    folder, workers = arguments[0], int(arguments[1])
    files = sorted(sources(folder))
    children = []
    for number in range(workers):
        child = os.fork()
        if child == 0:
            compile_all(files[number::workers])
            os._exit(0)
        children.append(child)
    crashed = [child for child in children if os.waitpid(child, 0)[1] != 0]
    os._exit(EXIT_CRASHED if crashed else 0)


def sources(folder):
    """Returns the plain files below `folder` whose names are those of Python sources. Follows no link."""
    left = [folder]
    while left:
        with os.scandir(left.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    left.append(entry.path)
                elif entry.name.endswith(".py") and entry.is_file(follow_symlinks=False):
                    yield entry.path


def compile_all(files):
    """Compiles each file, and goes on after any failure."""
    import py_compile
    import warnings

    warnings.simplefilter("ignore")
    for path in files:
        try:
            py_compile.compile(path, doraise=True)
        except Exception as error:  # noqa: BLE001 - a source may make the compiler raise anything
            print(f"{path}: {type(error).__name__}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
