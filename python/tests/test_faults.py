"""The fault for each exception: a table, without a pod."""

import asyncio
import errno
import os
import socket
import subprocess
import tempfile
import unittest
import unittest.mock

from hob_pod import Fault, faults
from hob_pod.residency import ModelPaths


def named(name, *bases):
    """Returns an exception class like that of some library."""
    return type(name, bases or (Exception,), {})


def caused(error, cause):
    error.__cause__ = cause
    return error


OutOfMemoryError = named("OutOfMemoryError", RuntimeError)
NoSuchFile = named("NoSuchFile")
MODELS = {"net": "/models/net", "net-large": "/models/net-large", "one.onnx": "/models/one.onnx"}
ORT = "[ONNXRuntimeError] : 3 : NO_SUCHFILE : Load model from /models/one.onnx failed. File doesn't exist"
ARENA = "[ONNXRuntimeError] : 6 : bfc_arena.cc Failed to allocate memory for requested buffer of size 1073741824"


class Table(unittest.TestCase):
    def of(self, error, overdue=False):
        return faults.of(error, "`run`", MODELS, "/recipe/pod", overdue)

    def test_memory_that_ran_out_is_named_by_its_device(self):
        for error, device in (
            (MemoryError(), "cpu"),
            (named("_ArrayMemoryError", MemoryError)("Unable to allocate 8 GiB"), "cpu"),
            (named("OutOfMemoryError", MemoryError)("cupy"), "gpu"),
            (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "gpu"),
            (RuntimeError("CUDA error: out of memory"), "gpu"),
            (RuntimeError("HIP out of memory. Tried"), "gpu"),
            (RuntimeError("MPS backend out of memory"), "gpu"),
            (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "gpu"),
            (named("RuntimeException")(ARENA), "cpu"),
            (named("RuntimeException")(ARENA + " in node of CUDAExecutionProvider"), "gpu"),
            (named("ResourceExhaustedError")("OOM when allocating tensor on /device:GPU:0"), "gpu"),
            (named("ResourceExhaustedError")("OOM when allocating tensor on /device:CPU:0"), "cpu"),
            (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "cpu"),
            (RuntimeError("std::bad_alloc"), "cpu"),
            (OSError(errno.ENOMEM, "Cannot allocate memory"), "cpu"),
            (caused(ValueError("could not run"), OutOfMemoryError("CUDA out of memory")), "gpu"),
        ):
            with self.subTest(repr(error)[:80]):
                fault = self.of(error)
                self.assertEqual((fault["code"], fault["detail"]["device"]), ("out_of_memory", device))
                self.assertIn(f"`run` ran out of {device} memory", fault["message"])
        for error in (RuntimeError("CUDA error: device-side assert triggered"), OSError(errno.EIO, "x"), ValueError("memory")):
            self.assertEqual(self.of(error)["code"], "recipe_failed")

    def test_what_was_not_given_is_named_where_its_want_looks_like_a_mistake_of_the_codes_own(self):
        ungranted = {
            "files": "a/b read=/tmp/books write=/dev/shm/out",
            "env": "a/b env=API_TOKEN",
            "places": ["/tmp/books", "/dev/shm/out"],
            "variables": ["API_TOKEN"],
        }

        def raised(do):
            try:
                do()
            except Exception as error:
                return error

        def missed(path):
            return FileNotFoundError(errno.ENOENT, "No such file or directory", path)

        token = raised(lambda: os.environ["API_TOKEN"])
        lacks = [
            *((missed(path), "files") for path in ("/tmp/books", "/tmp/books/one", b"/tmp/books/one", "/dev/shm/out/new")),
            (token, "env"),
            (caused(RuntimeError("no settings"), token), "env"),
        ]
        for error, kind in lacks:
            with self.subTest(repr(error)), unittest.mock.patch.multiple(faults, confined=True, ungranted=ungranted):
                fault = self.of(error)
                self.assertEqual(fault["code"], "recipe_failed")
                self.assertIn(f"is given it by its operator's `hob grant {ungranted[kind]}`; beyond that: ", fault["hint"])
        # The recipe's own mistake stays its own.
        own = [
            missed("/tmp/bookshelf"),
            missed("/dev/shm/outer/new"),
            raised(lambda: os.environ["OTHER_TOKEN"]),
            raised(lambda: {}["API_TOKEN"]),
        ]
        for error in own:
            with self.subTest(repr(error)), unittest.mock.patch.multiple(faults, confined=True, ungranted=ungranted):
                self.assertIn("its author corrects it", self.of(error)["hint"])
        for error, _ in lacks:
            with self.subTest(repr(error)), unittest.mock.patch.object(faults, "confined", True):
                self.assertNotIn("was not given", self.of(error)["hint"], "all of it was given")

    def test_what_the_sandbox_did_is_named_through_what_libraries_make_of_it(self):
        lookup = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

        def create_connection():
            raise PermissionError(errno.EPERM, "Operation not permitted")

        try:
            create_connection()
        except PermissionError as error:
            denied = error

        def reasoned(reason):
            error = named("URLError", OSError)("urlopen error")
            error.reason = reason
            return error

        def handled(outer, inner):
            outer.__context__ = inner
            return outer

        try:
            socket.getaddrinfo("no address", 1, flags=socket.AI_NUMERICHOST)
        except socket.gaierror as error:
            no_address = error
        retried = reasoned(lookup)
        for error in (
            lookup,
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),  # for IPv4 addresses only
            reasoned(lookup),
            reasoned(denied),
            named("ConnectionError", OSError)(named("MaxRetryError")(retried)),  # requests from urllib3
            named("ConnectionError", OSError)(retried),
            caused(named("ConnectError")("[Errno -3] x"), caused(named("ConnectError")("x"), lookup)),  # httpx, httpcore
            caused(OSError("could not reach the hub"), reasoned(lookup)),
            handled(OSError("could not reach the hub"), reasoned(lookup)),
            handled(RuntimeError("check your connection"), denied),
        ):
            with self.subTest(repr(error)), unittest.mock.patch.object(faults, "confined", True):
                fault = self.of(error)
                reached = "network was looked up" if "looked up" in fault["message"] else "Operation not permitted"
                self.assertEqual(fault["code"], "sandbox_denied", fault)
                self.assertIn(reached, fault["message"])
                self.assertIn("network = [", fault["hint"])
                with unittest.mock.patch.object(faults, "ungranted", {"network": "a/b network=c:1", "files": "no", "any": "no"}):
                    lacking = self.of(error)
                    self.assertIn("is given it by its operator's `hob grant a/b network=c:1`; beyond that: ", lacking["hint"])
                    self.assertEqual(lacking["hint_parts"][1], {"do": "grant_lacking", "of": ["a/b network=c:1"]})
                    self.assertIn({"do": "granting"}, lacking["hint_parts"])
                with unittest.mock.patch.object(faults, "way_out", True):
                    self.assertIn("HTTPS_PROXY", self.of(error)["hint"])
            self.assertEqual(self.of(error)["code"], "recipe_failed", "nothing confines it")
        # Errors that were handled, and unrelated errors.
        for error in (
            caused(handled(ValueError("x"), lookup), None),  # from None
            caused(OSError("x"), ValueError("y")),
            ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
            handled(BrokenPipeError(errno.EPIPE, "gone"), PermissionError(errno.EPERM, "os.kill")),
            ValueError("row", PermissionError(errno.EPERM, "policy")),
            no_address,
            socket.gaierror(socket.EAI_SERVICE, "no such service"),
            caused(OSError("x"), named("gaierror", OSError)(socket.EAI_AGAIN, "mine")),
        ):
            with self.subTest(repr(error)), unittest.mock.patch.object(faults, "confined", True):
                self.assertEqual(self.of(error)["code"], "recipe_failed")
        # Chains of errors may be circular and long.
        ring = reasoned(None)
        ring.reason = OSError(ring)
        many = OSError("0")
        for _ in range(50):
            many = OSError(many)
        for error in (ring, many):
            with unittest.mock.patch.object(faults, "confined", True):
                self.assertEqual(self.of(error)["code"], "recipe_failed")

    def test_a_file_of_the_machine_that_no_pod_sees_is_told_how_it_is_seen(self):
        with unittest.mock.patch.object(faults, "confined", True):
            for path in ("/home/me/books.csv", "/data/x", b"/mnt/y"):
                fault = self.of(caused(RuntimeError("x"), FileNotFoundError(2, "No such file or directory", path)))
                self.assertEqual(fault["code"], "recipe_failed")
                self.assertIn("read = [", fault["hint"])
            for path in ("books.csv", "/recipe/data/x", "/tmp/x", "/usr/share/x", "/proc/1/x", "/scratch/a"):
                self.assertNotIn("permissions", self.of(FileNotFoundError(2, "No such file or directory", path))["hint"])
        self.assertNotIn("permissions", self.of(FileNotFoundError(2, "No such file or directory", "/data/x"))["hint"])

    def test_the_next_step_fits_the_mistake(self):
        try:
            subprocess.run(["no-such-program-of-anybody"])
        except FileNotFoundError as error:
            program = error
        for error, says in (
            (KeyError("surname"), 'raise hob_pod.Fault("invalid_input"'),
            (RecursionError("maximum recursion depth exceeded"), "calls itself without end"),
            (EOFError("EOF when reading a line"), "no terminal"),
            (EOFError("Ran out of input"), "its author corrects it"),
            (named("BdbQuit")(), "take `breakpoint()` out"),
            (subprocess.CalledProcessError(2, ["ls", "/root"]), "the pod's sandbox"),
            (program, "a package that brings it"),
            (FileNotFoundError(2, "No such file or directory", "no-such-program"), "its author corrects it"),
            (ImportError("attempted relative import with no known parent package"), "`from helper import x`"),
            (SyntaxError("expected ':'"), "correct that line"),
            (TabError("inconsistent use of tabs"), "correct that line"),
        ):
            with self.subTest(repr(error)):
                fault = self.of(error)
                self.assertEqual(fault["code"], "recipe_failed")
                self.assertIn(says, fault["hint"])
                started = faults.of_start(error, "importing `pod:Pod`", MODELS, "/recipe/pod")
                self.assertEqual(started["code"], "import_failed")
        # The author's own fault stays unchanged.
        self.assertNotIn("hint", self.of(Fault("recipe_failed", "no")))
        self.assertIn("before the first call", faults.of_start(KeyError("x"), "importing `pod:Pod`", MODELS, "/recipe/pod")["hint"])
        with unittest.mock.patch.object(faults, "confined", True):
            for path, says in (("/recipe/pod/log.txt", "write into the working folder"), ("/etc/x", "[permissions]")):
                self.assertIn(says, self.of(OSError(errno.EROFS, "Read-only file system", path))["hint"])

    def test_models_that_are_missing_are_named(self):
        for error, model in (
            (FileNotFoundError(2, "No such file", "/models/net"), "net"),
            (FileNotFoundError(2, "No such file", "/models/net/config.json"), "net"),
            (FileNotFoundError(2, "No such file", b"/models/net-large/x"), "net-large"),
            (FileNotFoundError('No such file or directory: "/models/net-large/model.safetensors"'), "net-large"),
            (NoSuchFile(ORT), "one.onnx"),
            (OSError("/models/net does not appear to have a file named config.json"), "net"),
            (caused(RuntimeError("cannot load"), FileNotFoundError(2, "No such file", "/models/net")), "net"),
        ):
            with self.subTest(repr(error)):
                fault = self.of(error)
                self.assertEqual((fault["code"], fault["detail"]["model"]), ("model_missing", model))
        for error in (
            FileNotFoundError(2, "No such file", "/models/network"),
            FileNotFoundError(2, "No such file", "/elsewhere"),
            FileNotFoundError(2, "No such file", 3),
            FileNotFoundError("No such file or directory: /models/network"),
            PermissionError(13, "Permission denied", "/models/net"),
            OSError("/models/net is broken"),
            ValueError("no such file: /models/net"),
        ):
            with self.subTest(repr(error)):
                self.assertEqual(self.of(error)["code"], "recipe_failed")

    def test_what_is_missing_beside_the_models_is_named_with_what_to_do(self):
        models = ModelPaths({"models": {"onnx/net.onnx": "/m/onnx/net.onnx"}, "models_folder": "/m"})
        external = 'validation failed for initializer: w. Error: External data path does not exist: "/m/onnx/net.onnx_data"'
        for error, model in (
            (FileNotFoundError(2, "No such file", "/m/config.json"), "config.json"),
            (FileNotFoundError("No such file or directory: /m/shards/1.safetensors"), "shards/1.safetensors"),
            (named("Fail")("[ONNXRuntimeError] : 1 : FAIL : " + external), "onnx/net.onnx_data"),
            (OSError("no file named '/m/model.safetensors'."), "model.safetensors"),
        ):
            with self.subTest(repr(error)):
                fault = faults.of(error, "`run`", models, "/recipe/pod")
                self.assertEqual((fault["code"], fault["detail"]["model"]), ("model_missing", model))
                self.assertIn(f"name it as a `[[model]]` of recipe.toml: `{model}` is none", fault["hint"])
        named_one = faults.of(FileNotFoundError(2, "No such file", "/m/onnx/net.onnx"), "`run`", models, "/recipe/pod")
        self.assertEqual((named_one["detail"]["model"], named_one.get("hint")), ("onnx/net.onnx", None))
        elsewhere = FileNotFoundError(2, "No such file", "/mine/x")
        for error in (FileNotFoundError(2, "No such file", "/m"), elsewhere, named("Fail")("/m/x is broken")):
            with self.subTest(repr(error)):
                self.assertEqual(faults.of(error, "`run`", models, "/recipe/pod")["code"], "recipe_failed")

    def test_packages_that_are_missing_come_with_the_command_that_locks_them(self):
        for module, package in (("tensors.nn", "tensors"), ("sklearn", "scikit-learn"), ("PIL.Image", "pillow")):
            fault = self.of(ModuleNotFoundError("no module", name=module))
            self.assertEqual((fault["code"], fault["detail"]["package"]), ("dependency_missing", package))
            self.assertEqual(fault["detail"]["module"], module)
            self.assertIn(f"add `{package}` to pod/requirements.in", fault["hint"])
            self.assertIn("uv pip compile", fault["hint"])
            self.assertIn("`pip install uv`", fault["hint"])
            # Without an environment the recipe names no lock, and locking alone changes nothing.
            self.assertIn('`lock = "pod/requirements.lock"` in `[pod]`', fault["hint"])
            with unittest.mock.patch.object(faults, "locked", True):
                self.assertNotIn("[pod]", self.of(ModuleNotFoundError("no module", name=module))["hint"])
            self.assertTrue(fault["detail"]["command"].startswith(f"echo {package} >> pod/requirements.in && uv pip compile"))
        wrapped = caused(RuntimeError("Failed to import transformers"), ModuleNotFoundError("no module", name="tensors"))
        self.assertEqual(self.of(wrapped)["detail"]["package"], "tensors")
        # A module of Python itself: no package provides it.
        self.assertEqual(self.of(ModuleNotFoundError("no module", name="json.nothing"))["code"], "recipe_failed")

    def test_the_recipes_own_module_is_no_package(self):
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "helper.py"), "w"):
                pass
            fault = faults.of(ModuleNotFoundError("no module", name="helper.part"), "`run`", {}, folder)
        self.assertEqual(fault["code"], "recipe_failed")

    def test_shared_libraries_that_are_missing_are_named(self):
        text = "cannot open shared object file: No such file or directory"
        for error in (ImportError(f"libGL.so.1: {text}"), OSError(f"libGL.so.1: {text}")):
            fault = self.of(error)
            self.assertEqual((fault["code"], fault["detail"]["library"]), ("dependency_missing", "libGL.so.1"))

    def test_a_timeout_is_the_deadline_only_when_the_time_was_up(self):
        for error in (
            TimeoutError(),
            asyncio.TimeoutError(),
            socket.timeout("timed out"),  # noqa: UP041 (before Python 3.10 it is another class)
            subprocess.TimeoutExpired("sox", 3),
            caused(RuntimeError("no answer"), TimeoutError()),
        ):
            with self.subTest(repr(error)):
                self.assertEqual(self.of(error, overdue=True)["code"], "deadline")
                self.assertEqual(self.of(error)["code"], "recipe_failed")
        self.assertEqual(self.of(ValueError(), overdue=True)["code"], "recipe_failed")

    def test_what_the_author_says_stands(self):
        for code in sorted(faults.CODES):
            fault = self.of(Fault(code, "CUDA out of memory", hint="h", detail={"n": 1}))
            self.assertEqual(fault, {"code": code, "message": "CUDA out of memory", "hint": "h", "detail": {"n": 1}})

    def test_causes_that_go_round_in_a_circle_come_to_an_end(self):
        first, second = ValueError("1"), ValueError("2")
        first.__cause__, second.__cause__ = second, first
        self.assertEqual(self.of(first)["code"], "recipe_failed")

    def test_where_the_working_folder_or_the_stack_is_gone_there_is_a_fault(self):
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        folder = tempfile.mkdtemp()
        os.chdir(folder)
        os.rmdir(folder)
        error = FileNotFoundError(2, "no such file", "weights.bin")
        fault = faults.of(error, "`run`", {"net": "/models/net"}, "/recipe/pod")
        self.assertEqual((fault["code"], fault["detail"]["type"]), ("recipe_failed", "FileNotFoundError"))
        with unittest.mock.patch.object(faults, "_known", side_effect=RecursionError):
            fault = faults.of(error, "`run`")
        self.assertEqual((fault["code"], fault["message"]), ("recipe_failed", "`run` raised FileNotFoundError"))
        self.assertEqual(fault["detail"]["untold"], "telling more raised RecursionError")

    def test_before_ready_an_error_without_a_name_is_of_the_import(self):
        for error, code in (
            (ValueError(), "import_failed"),
            (MemoryError(), "out_of_memory"),
            (Fault("recipe_failed", "x"), "recipe_failed"),
        ):
            self.assertEqual(faults.of_start(error, "loading", {}, None)["code"], code)


if __name__ == "__main__":
    unittest.main()
