"""The runner: becomes the recipe's pod. `serving` then answers its asks.

It runs once, in a fixed order that matters: lanes, threads, environment, and only then code that is not
Hob's. The process is confined by then (see `confine`).
"""

import _signal
import _socket  # without the enums of `signal` and `socket`, which take 3 and 8 ms to make
import fcntl
import os
import sys

from . import asks, belonging, cache, control, faults, gate, guard, own, program, regions, residency, serving, sessions, steps, stuck, wire

#: Methods of a pod that the runner calls itself; no operation may have these names.
RESERVED = frozenset(("load", "unload", "checkpoint", "restore"))
_CO_ASYNC = 0x80 | 0x200  # coroutine, async generator
_TOP_LEVEL_AWAIT = 0x2000  # ast.PyCF_ALLOW_TOP_LEVEL_AWAIT; `ast` takes 6 ms to import


def main(page, title, packages_are_there=False):
    """Runs a pod whose control lane is standard input; never returns.

    `page`: u64s in memory that the host reads too, or None. `title`: the keeper's `Title`.
    `packages_are_there`: a zygote has set up the packages.
    """
    try:
        Runner(page, title, packages_are_there).run()
    except BaseException as end:
        control.end_by(end)


class Runner:
    """One pod, from its first instruction until it serves."""

    def __init__(self, page, title, packages_are_there=False):
        # Before anything else can print, read or fork: the lane becomes a private descriptor, and fd 0
        # becomes /dev/null.
        lane = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3)
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(nothing, 0)
        os.close(nothing)
        self.control = control.Control(_socket.socket(fileno=lane))
        self.page, self.title = page, title
        self._packages_are_there = packages_are_there
        self.doing = lambda: "beginning"  # for the fault of a failure

    def run(self):
        """Starts, loads, serves."""
        import faulthandler

        _signal.signal(_signal.SIGINT, _signal.SIG_IGN)  # Ctrl-C is for the host
        version = ".".join(map(str, sys.version_info[:3]))
        self.control.send(
            {
                "type": "hello",
                "protocol": [wire.PROTOCOL, wire.PROTOCOL],
                "features": ["fds", "stack", "regions", "credit", *(["page"] if self.page is not None else ())],
                "pid": os.getpid(),
                "runtime": f"{sys.implementation.name} {version}",
            }
        )
        own.keep_stderr(fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 3))
        faulthandler.enable(own.told)
        faulthandler.register(_signal.SIGUSR1, own.told, all_threads=True, chain=False)
        start, descriptors = self.control.receive_start()
        restored = (start.get("session") or {}).get("restore") is not None
        if len(descriptors) != 1 + restored:
            what = "the data lane and a checkpoint" if restored else "the data lane alone"
            raise wire.ProtocolError(f"{len(descriptors)} descriptors came with `start`; wanted {what}")
        self.restored = descriptors[1] if restored else None
        start["models"] = residency.ModelPaths(start)
        self.start = start
        self.pod_folder = os.path.join(start["folder"], "pod")

        asks.prepare(self.page, start["concurrency"])
        sessions.prepare(start, self.control, self.pod_folder)
        self.server = serving.Server(_socket.socket(fileno=descriptors[0]), start, self.pod_folder)
        own.keep(self.control.fileno(), descriptors[0])
        own.follow()
        guard.whose, guard.given_up = asks.current, stuck.Stuck(self.control, self.server)
        os.register_at_fork(after_in_child=self._forked)
        self.control.flush, self.control.wake = self.server.lane.flush, self.server.wake
        # An older host sends neither of these two.
        if "blob_frame_bytes_max" in start:
            shared = regions.Regions(self.control.send, start["blob_frame_bytes_max"])
            self.control.regions = regions.regions = self.server.regions = shared
            self.server.answers.share(shared)
        asks.Work.credit = start.get("chunk_credit")
        self.control.title = self.title
        self.control.listen(start["frame_bytes_max"])
        cache.make(start["scratch"])
        wanted = start.get("cache")
        self.cache = None if wanted is None else cache.Cache(start["scratch"], wanted, self.control.send)
        if start["concurrency"] > 1:
            # Before the recipe's folder is on the path, so that the runner never imports a file of it in
            # place of Python's own module.
            from . import slots

            self.server.slots = slots.Slots(self.server, start["concurrency"])
        self._set_up_imports()
        os.chdir(start["scratch"])
        try:
            gate.main.run(self._become)
        except BaseException as error:
            # Nothing of the author's interrupts the description of the failure here.
            self.failed(error, self.doing())
        gate.main.over()
        self.server.ground.loaded(start["concurrency"] == 1 and sessions.session() is None)
        # the main thread only reads, so it is never busy
        at_rest = self.title.at_rest if self.server.slots is None else _nothing
        guard.given_up.ready = True
        self.control.send({"type": "ready"})
        self.title.show("ready")
        self.server.serve(at_rest)

    def _forked(self):
        """Called in a worker process that the author's code forked: it must not hold the lanes open, or write
        to them."""
        self.control.close()
        self.server.lane.close()
        own.let_go()

    # --- becoming the pod

    def _set_up_imports(self):
        """Sets up the environment's packages, unless a zygote has done so, and the recipe's own modules."""
        faults.locked = self.start["site_packages"] is not None
        if not self._packages_are_there:
            set_up_packages(self.start["site_packages"], self.start.get("python"))
        program.become(self.pod_folder, self.start["entry"])
        sys.dont_write_bytecode = True  # the recipe's folder must keep exactly the signed files
        try:
            # A line is in the log when it is printed, not 8 KiB later.
            sys.stdout.reconfigure(line_buffering=True)
        except (AttributeError, ValueError):
            pass
        program.hear(asks.current)

    def _become(self):
        """Imports, constructs, loads and warms up; sends `started`. Exceptions are the author's, raised while
        `self.doing()`."""
        entry = self.start["entry"]
        self.doing = lambda: f"importing `{entry}`"
        kind = self._entry_class(entry)
        self.doing = lambda: f"constructing `{entry}`"
        pod = self._constructed(kind, entry)
        shut = gate.shut_here()  # from here until the author's next code
        self.server.ground = belonging.Ground()
        self._find_operations(pod)
        sessions.find(pod, entry)
        resident = residency.Models(self, pod)
        # With `concurrency` above 1, unloading would have to stop the threads; and a session has its state in
        # the models.
        unloads = resident.can_unload() and self.start["concurrency"] == 1 and sessions.session() is None
        self.server.models = resident if unloads else None
        self.control.send({"type": "started", "unloads": True} if unloads else {"type": "started"})
        self.control.wait_for_load()
        self.doing = lambda: resident.doing
        gate.open_again(shut)
        resident.bring(self.control.gpu, self.control.lever)
        if self.cache is not None:
            if self.cache.gives:
                self.server.operations[cache.GIVE] = serving.Operation(self.cache.content, False, False, False, False)
            if self.cache.look():
                self.server.cache = self.cache
        if self.restored is not None:
            self.doing = lambda: f"`restore` of `{entry}`"
            self.server.ground.settle(sessions.restore, pod, self.start, self.restored)

    def _constructed(self, kind, entry):
        try:
            return kind()
        except TypeError as error:
            if not steps.is_unfit(error):
                raise
            name = entry.partition(":")[2]
            if not isinstance(kind, type):
                said = f"the entry `{entry}` is a {guard.kind(kind)}, wanted a class whose methods are the operations"
                module = entry.partition(":")[0]
                hint = f"make it a method of a class, and set `entry` in recipe.toml to `{module}:Class`, with that class's name"
                raise faults.Fault("import_failed", said, hint) from None
            said = f"constructing `{entry}` raised TypeError: {guard.text(error)}"
            hint = f"it is made by `{name}()`: write `def __init__(self):`; the paths of the models come to `def load(self, models):`"
            raise faults.Fault("import_failed", said, hint, {"type": "TypeError"}) from None

    def failed(self, error, doing):
        """Tells the host what failed, and ends the process."""
        fault = faults.of_start(error, doing, self.start["models"], self.pod_folder, program.printed_before())
        self.control.send({"type": "failed", "fault": fault})
        control.leave(1)

    def warm_up(self, name, pod):
        """Runs the file as a script of its own, with the pod as its global `pod`; it may await at its top
        level."""
        folder = os.path.realpath(self.start["folder"])
        path = os.path.realpath(os.path.join(folder, name))
        if not path.startswith(folder + os.sep):
            raise faults.Fault("import_failed", f"the warm-up `{name}` is outside the recipe")
        with open(path, "rb") as file:
            code = compile(file.read(), path, "exec", _TOP_LEVEL_AWAIT, dont_inherit=True)
        self.server.settle(eval, code, {"__name__": "__warm_up__", "__file__": path, "pod": pod})

    def _entry_class(self, entry):
        module_name, _, class_name = entry.partition(":")
        try:
            __import__(module_name)
        except ModuleNotFoundError as error:
            # Or a folder on the way to the module is missing.
            if error.name is not None and (module_name + ".").startswith(error.name + "."):
                path = os.path.join(self.pod_folder, module_name.replace(".", os.sep) + ".py")
                hint = steps.of_entry(module_name, class_name, self.pod_folder)
                raise faults.Fault("import_failed", f"there is no module for the entry `{entry}`: wanted {path}", hint) from None
            raise
        module = sys.modules[module_name]
        kind = getattr(module, class_name, None)
        if not callable(kind):
            classes = [value for value in vars(module).values() if isinstance(value, type)]
            names = [value.__name__ for value in classes if value.__module__ == module_name]
            raise faults.Fault(
                "import_failed",
                f"the module `{module_name}` has no class `{class_name}` (it has: {', '.join(names) or 'none'})",
                f"set `entry` in recipe.toml to `{module_name}:{names[0] if len(names) == 1 else 'Class'}`",
            )
        # On Python 3.9 asyncio's locks bind to the loop that is current when they are made: that must be the
        # pod's loop.
        if any(_code_flags(value) & _CO_ASYNC for value in vars(kind).values()):
            self.server.event_loop()
        return kind

    def _find_operations(self, pod):
        for name, declared in self.start["operations"].items():
            method_name = name.replace("-", "_").replace(".", "_")
            is_ours = method_name in RESERVED or (method_name == "close" and sessions.session() is not None)
            if is_ours or method_name.startswith("_"):
                text = f"`{name}` cannot be an operation's name: the runner uses `{method_name}` itself"
                raise faults.Fault("import_failed", text)
            method = getattr(pod, method_name, None)
            if not callable(method):
                lacks = f"`{self.start['entry']}` has no method `{method_name}` for the operation `{name}`"
                hint = f"add `def {method_name}(self, input): ...`, or take the operation out of recipe.toml"
                if self.start.get("glue") and method is None:
                    self.server.lacking[name] = lacks, hint  # the glue answers it, perhaps without an ask
                    continue
                raise faults.Fault("import_failed", lacks, hint)
            takes_blobs = _takes_blobs(method)
            if declared["batch"] and (takes_blobs or declared["streaming"]):
                what = "takes blobs" if takes_blobs else "streams"
                text = f"`{name}` is declared as a batch operation, but {what}: a batch has neither blobs nor chunks"
                raise faults.Fault("import_failed", text, f"take `batch` out of [operations.{name}] in recipe.toml")
            is_async = bool(_code_flags(method) & _CO_ASYNC)
            operation = serving.Operation(method, takes_blobs, declared["streaming"], declared["batch"], is_async)
            # The blobs that reach a method were then checked against the declaration, or come from the glue.
            operation.must_take_blobs = bool(declared.get("blobs") or self.start.get("glue"))
            self.server.operations[name] = operation


def set_up_packages(packages, python=None):
    """Sets up the environment's packages, as `site` would without -I -S. `packages`: their folder, or None.

    `python`: the environment's interpreter. It runs nothing here, because its folder holds files that
    third-party packages put there. But this process presents itself as that interpreter, and so do the
    processes that it starts.
    """
    if python is not None:
        sys.executable = python
    if packages is not None:
        import site

        beside = os.path.dirname(sys.executable)
        if any(os.path.exists(os.path.join(at, "pyvenv.cfg")) for at in (beside, os.path.dirname(beside))):
            if python is not None:
                # As this interpreter would have set it.
                sys.prefix = sys.exec_prefix = os.path.dirname(beside)
            site.main()  # sets sys.prefix to the environment, runs its .pth files
        if os.path.realpath(packages) not in map(os.path.realpath, sys.path):
            site.addsitedir(packages)


def _nothing():
    pass


def _code_flags(function):
    return getattr(getattr(function, "__code__", None), "co_flags", 0)


def _takes_blobs(method):
    """Returns whether the method (or the function that its decorators wrap) has a parameter named `blobs`."""
    while hasattr(method, "__wrapped__"):
        method = method.__wrapped__
    code = getattr(method, "__code__", None)
    return code is not None and "blobs" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
