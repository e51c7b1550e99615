"""The start of a pod: imports, environments, and every way in which the author's code can fail to start."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

from .fake_host import Pod, until

GOOD = """
class Pod:
    def run(self, input):
        return eval(input["code"], {"sys": __import__("sys"), "os": __import__("os")})
"""


class Start(unittest.TestCase):
    def make(self, source, operations=None, **rest):
        pod = Pod(source, {"run": False} if operations is None else operations, **rest)
        self.addCleanup(pod.close)
        return pod

    def failed(self, source, load=False, **rest):
        """Returns the fault with which the pod fails; the pod must then exit with 1."""
        pod = self.make(source, **rest)
        pod.hello()
        message = pod.start().message
        if load:
            self.assertEqual(message, {"type": "started"}, pod.output)
            pod.control.send({"type": "load"})
            message = pod.control.receive().message
        self.assertEqual(message["type"], "failed")
        self.assertEqual(pod.wait(), 1)
        return message["fault"]

    def test_hello_says_who_is_there(self):
        pod = self.make(GOOD)
        hello = pod.hello()
        self.assertEqual((hello["type"], hello["protocol"]), ("hello", [1, 1]))
        self.assertEqual(hello["features"], ["fds", "stack", "regions", "credit", "page"])
        self.assertIn("{}.{}".format(*sys.version_info), hello["runtime"])
        self.assertNotEqual(hello["pid"], pod.process.pid)
        self.assertTrue(os.path.exists(f"/proc/{hello['pid']}"))

    def test_an_import_error_brings_the_authors_traceback(self):
        fault = self.failed("import json\n\ndef setup():\n    raise RuntimeError('no device')\n\nsetup()\n")
        self.assertEqual((fault["code"], fault["detail"]["type"]), ("import_failed", "RuntimeError"))
        self.assertIn("`pod:Pod` raised RuntimeError: no device", fault["message"])
        self.assertIn('pod.py", line 6, in <module>', fault["detail"]["traceback"])
        self.assertIn("in setup", fault["detail"]["traceback"])
        for ours in ("runner.py", "keeper.py", "importlib"):
            self.assertNotIn(ours, fault["detail"]["traceback"])

    def test_a_syntax_error_names_its_line(self):
        fault = self.failed("class Pod:\n    def run(self, input)\n        pass\n")
        self.assertEqual(fault["code"], "import_failed")
        self.assertIn("line 2", fault["detail"]["traceback"])

    def test_a_missing_package_is_told_from_a_missing_module_of_the_recipe(self):
        fault = self.failed("import tensor_things.nn\n")
        self.assertEqual((fault["code"], fault["detail"]["package"]), ("dependency_missing", "tensor_things"))
        self.assertIn("`tensor_things`", fault["message"])
        fault = self.failed("import helper.part\n", files={"helper.py": ""})
        self.assertEqual(fault["code"], "import_failed")

    def test_wrong_entries_and_missing_methods_are_named(self):
        fault = self.failed("class Wrong: pass\n")
        self.assertIn("has no class `Pod` (it has: Wrong)", fault["message"])
        self.assertEqual(fault["hint"], "set `entry` in recipe.toml to `pod:Wrong`")
        fault = self.failed("class Pod: pass\n")
        self.assertIn("no method `run` for the operation `run`", fault["message"])
        fault = self.failed("class Pod:\n    def load(self, models): pass\n", operations={"load": False})
        self.assertIn("cannot be an operation's name", fault["message"])
        pod = self.make("")
        os.remove(os.path.join(pod.folder, "pod", "pod.py"))
        pod.hello()
        self.assertIn("there is no module for the entry `pod:Pod`", pod.start().message["fault"]["message"])

    def test_an_operation_that_does_not_take_its_input_is_told_how_it_is_written(self):
        source = """
            import functools
            def counted(method):
                @functools.wraps(method)
                def outer(*arguments):
                    return method(*arguments)
                return outer
            class Pod:
                def none(self): pass
                def two(self, text, language): pass
                def no_self(input): pass
                async def later(self): pass
                def with_blobs(self, input, blobs, more): pass
                def to_many(self): pass
                @counted
                def wrapped(self): pass
                def good(self, input): return len(input)
        """
        names = ["none", "two", "no-self", "later", "with-blobs", "wrapped", "good"]
        pod = self.make(source, {**dict.fromkeys(names, False), "to-many": "batch"}).ready()
        for name, says in (
            ("none", "`def none(self, input):`"),
            ("two", "its whole input as one value: write `def two(self, input):`"),
            ("no-self", "`def no_self(self, input):`"),
            ("later", "`def later(self, input):`"),
            ("with-blobs", "its input and its blobs: write `def with_blobs(self, input, blobs):`"),
        ):
            with self.subTest(name):
                fault = pod.call(name)["fault"]
                self.assertEqual((fault["code"], fault["detail"]), ("recipe_failed", {"type": "TypeError"}))
                self.assertIn(f"`{name}` raised TypeError: ", fault["message"])
                self.assertIn(says, fault["hint"])
        answers = pod.answers(pod.batch("to-many", [1, 2]))
        for answer in answers.values():
            self.assertIn("the list of its inputs: write `def to_many(self, inputs):`", answer["fault"]["hint"])
        # An exception from one of its lines is reported with that line.
        for name, input in (("wrapped", None), ("good", 3)):
            fault = pod.call(name, input)["fault"]
            self.assertEqual(fault["detail"]["type"], "TypeError")
            self.assertIn("pod.py", fault["detail"]["traceback"])
            self.assertNotIn("`def ", fault["hint"])

    def test_an_entry_without_a_module_says_which_there_are(self):
        for entry, files, gone, says in (
            ("pod.greeter:Pod", {"greeter.py": ""}, False, "set `entry` in recipe.toml to `greeter:Pod`"),
            ("greter:Pod", {"greeter.py": ""}, False, "in `pod/` there is: `greeter`, `pod`;"),
            ("a.b:Pod", {}, False, "put the class into `pod/a/b.py`"),
            ("pod:Pod", {}, True, "in `pod/` there is no module: put the class into `pod/pod.py`"),
        ):
            with self.subTest(entry):
                pod = self.make("", files=files, entry=entry)
                if gone:
                    os.remove(os.path.join(pod.folder, "pod", "pod.py"))
                pod.hello()
                fault = pod.start().message["fault"]
                self.assertEqual(fault["code"], "import_failed")
                self.assertIn(f"no module for the entry `{entry}`", fault["message"])
                self.assertIn(says, fault["hint"])

    def test_what_is_called_with_what_it_does_not_take_is_told_how_it_is_written(self):
        fault = self.failed("class Pod:\n    def __init__(self, config): pass\n    def run(self, input): pass")
        self.assertEqual((fault["code"], fault["detail"]["type"]), ("import_failed", "TypeError"))
        self.assertIn("constructing `pod:Pod` raised TypeError: ", fault["message"])
        self.assertIn("`def __init__(self):`", fault["hint"])
        fault = self.failed("def Pod(input): pass")
        self.assertIn("`pod:Pod` is a function, wanted a class", fault["message"])
        self.assertIn("`pod:Class`", fault["hint"])
        fault = self.failed("class Pod:\n    def load(self): pass\n    def run(self, input): pass", load=True)
        self.assertEqual(fault["code"], "import_failed")
        self.assertIn("`def load(self, models):`", fault["hint"])
        # Exceptions within these are the author's own.
        for source, load in (
            ("class Pod:\n    def __init__(self): len(3)\n    def run(self, input): pass", False),
            ("class Pod:\n    def load(self, models): len(3)\n    def run(self, input): pass", True),
        ):
            fault = self.failed(source, load=load)
            self.assertIn("has no len()", fault["message"])
            self.assertIn("traceback", fault["detail"])
            self.assertNotIn("`def ", fault["hint"])

    def test_constructor_and_load_fail_with_their_own_faults(self):
        fault = self.failed("class Pod:\n    def __init__(self):\n        raise ValueError('x')\n    def run(self, input): pass")
        self.assertEqual((fault["code"], fault["detail"]["type"]), ("import_failed", "ValueError"))
        load = "class Pod:\n    def run(self, input): pass\n    def load(self, models):\n        "
        fault = self.failed(load + "raise MemoryError", load=True)
        self.assertEqual((fault["code"], fault["detail"]["device"]), ("out_of_memory", "cpu"))
        models = {"weights": "/there/is/no/weights"}
        fault = self.failed(load + "open(models['weights'])", load=True, models=models)
        self.assertEqual((fault["code"], fault["detail"]["model"]), ("model_missing", "weights"))
        fault = self.failed(load + "open(models['weights'] + '/config.json')", load=True, models=models)
        self.assertEqual(fault["code"], "model_missing")
        fault = self.failed(load + "open('/there/is/no/other')", load=True, models=models)
        self.assertEqual(fault["code"], "import_failed")

    def test_load_may_be_async_and_gets_the_models(self):
        source = """
            import asyncio
            class Pod:
                def __init__(self):
                    self.lock = asyncio.Lock()      # on Python 3.9 this binds to the current loop
                async def load(self, models):
                    await asyncio.sleep(0)
                    self.models = models
                async def run(self, input):
                    async with self.lock:
                        return self.models
        """
        pod = self.make(source, models={"a": "/models/a"}).ready()
        self.assertEqual(pod.call("run"), {"a": "/models/a"})

    def test_the_models_know_their_folder_and_are_a_dict(self):
        source = """
            import copy, json, pickle
            class Pod:
                def load(self, models):
                    self.models = models
                def run(self, input):
                    copies = [copy.copy(self.models), copy.deepcopy(self.models), pickle.loads(pickle.dumps(self.models))]
                    return [self.models.folder, json.loads(json.dumps(self.models)), [[one.folder, dict(one)] for one in copies]]
        """
        models = {"onnx/a": "/models/onnx/a"}
        for folder in ("/models", None):
            pod = self.make(source, models=models, models_folder=folder).ready()
            self.assertEqual(pod.call("run"), [folder, models, [[folder, models]] * 3])

    def test_the_warm_up_runs_after_load_and_before_ready(self):
        source = """
            import asyncio
            class Pod:
                steps = []
                def load(self, models):
                    self.steps.append("load")
                def run(self, input):
                    self.steps.append("run")
                    return self.steps
                async def later(self, input):
                    self.loop = asyncio.get_running_loop()
                    return self.steps.append("later")
        """
        warm_up = """
            import helper
            assert __name__ != "__main__" and __file__.endswith("pod/warm_up.py"), (__name__, __file__)
            for _ in range(2):
                pod.run(helper.x)
            pod.steps.append("warm")
        """
        files = {"warm_up.py": warm_up, "helper.py": "x = 1"}
        pod = self.make(source, files=files, warm_up="pod/warm_up.py").ready()
        self.assertEqual(pod.call("run"), ["load", "run", "run", "warm", "run"])
        files = {"warm_up.py": "await pod.later(1)\n"}
        operations = {"run": False, "later": False}
        pod = self.make(source, operations, files=files, warm_up="pod/warm_up.py").ready()
        self.assertEqual(pod.call("run"), ["load", "later", "run"])
        self.assertIsNone(pod.call("later"))

    def test_a_warm_up_that_fails_is_named_with_its_traceback(self):
        good = "class Pod:\n    def run(self, input): return input['n']\n"
        for text, code, said in (
            ("x = 1\npod.run({})\n", "import_failed", "`pod/warm_up.py` raised KeyError: 'n'"),
            ("def f(:\n", "import_failed", "SyntaxError"),
            ("import tensor_things\n", "dependency_missing", "`tensor_things`"),
            ("raise MemoryError\n", "out_of_memory", "`pod/warm_up.py` ran out of cpu memory"),
        ):
            fault = self.failed(good, load=True, files={"warm_up.py": text}, warm_up="pod/warm_up.py")
            self.assertEqual(fault["code"], code)
            self.assertIn(said, fault["message"])
            self.assertIn("pod/warm_up.py", fault["message"])
            self.assertIn('pod/warm_up.py", line', fault["detail"]["traceback"])
            self.assertNotIn("runner.py", fault["detail"]["traceback"])
        fault = self.failed(good, load=True, warm_up="pod/nothing.py")
        self.assertIn("pod/nothing.py", fault["message"])
        fault = self.failed(good, load=True, warm_up="../outside.py")
        self.assertIn("outside the recipe", fault["message"])

    def test_an_exit_before_ready_is_a_failure_of_the_recipe(self):
        for what, said in (("5", "with code 5"), ("", "with code 0"), ("'no licence'", "sys.exit: no licence")):
            fault = self.failed(f"import sys\nsys.exit({what})\n")
            self.assertEqual((fault["code"], fault["detail"]["type"]), ("import_failed", "SystemExit"))
            self.assertIn(said, fault["message"])
        source = "class Pod:\n    def run(self, input): pass\n    def load(self, models): raise SystemExit(4)"
        fault = self.failed(source, load=True)
        self.assertEqual((fault["code"], fault["detail"]["exit_code"]), ("import_failed", 4))
        pod = self.make("import os\nos._exit(6)\n")
        pod.hello()
        self.assertIsNone(pod.start())
        self.assertEqual(pod.wait(), 6)

    def test_the_pod_runs_in_its_scratch_folder_and_leaves_the_recipe_as_it_was(self):
        pod = self.make(GOOD, files={"helper.py": "x = 1"}).ready()
        self.assertEqual(pod.call("run", {"code": "os.getcwd()"}), os.path.realpath(pod.scratch))
        self.assertEqual(pod.call("run", {"code": "__import__('helper').x"}), 1)
        self.assertEqual(sorted(os.listdir(os.path.join(pod.folder, "pod"))), ["helper.py", "pod.py"])

    def test_without_an_environment_there_is_only_the_standard_library(self):
        pod = self.make(GOOD).ready()
        path = pod.call("run", {"code": "sys.path"})
        self.assertEqual(path[0], os.path.join(pod.folder, "pod"))
        self.assertFalse([entry for entry in path if "site-packages" in entry or "dist-packages" in entry], path)
        flags = pod.call("run", {"code": "[sys.flags.isolated, sys.flags.no_site]"})
        self.assertEqual(flags, [1, 1])

    def test_the_lanes_are_private(self):
        pod = self.make(GOOD).ready()
        self.assertEqual(pod.call("run", {"code": "os.readlink('/proc/self/fd/0')"}), "/dev/null")
        inherited = "[fd for fd in range(3, 64) if os.path.exists(f'/proc/self/fd/{fd}') and os.get_inheritable(fd)]"
        self.assertEqual(pod.call("run", {"code": inherited}), [])


class Environment(unittest.TestCase):
    """A real venv, started with -I -S."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="hob-pod-venv-")
        cls.venv = os.path.join(cls.folder, "venv")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", cls.venv], check=True)
        cls.python = os.path.join(cls.venv, "bin", "python")
        cls.packages = os.path.join(cls.venv, "lib", "python{}.{}".format(*sys.version_info), "site-packages")
        cls.write("tensors/__init__.py", "where = __file__\n")
        elsewhere = os.path.join(cls.folder, "elsewhere")
        os.mkdir(elsewhere)
        with open(os.path.join(elsewhere, "by_pth.py"), "w") as file:
            file.write("x = 1\n")
        cls.write("added.pth", elsewhere + "\nimport sys; sys.from_pth = True\n")

    @classmethod
    def write(cls, name, text):
        path = os.path.join(cls.packages, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def test_packages_prefix_and_pth_files_are_the_environments(self):
        # Alike if the environment's interpreter runs, and if another one is told to behave like it.
        for how in ({"python": self.python}, {"python": sys._base_executable, "environment": self.python}):
            with self.subTest(how=how):
                self.environments_packages(how)

    def environments_packages(self, how):
        source = "import sys, tensors, by_pth\n" + GOOD
        pod = Pod(source, {"run": False}, site_packages=self.packages, **how)
        self.addCleanup(pod.close)
        pod.ready()
        for prefix in ("sys.prefix", "sys.exec_prefix"):
            self.assertEqual(pod.call("run", {"code": prefix}), self.venv)
        self.assertEqual(pod.call("run", {"code": "sys.executable"}), self.python)
        self.assertTrue(pod.call("run", {"code": "sys.base_prefix != sys.prefix and sys.from_pth"}))
        child = "import sys, tensors; print([sys.executable, sys.prefix, sys.base_prefix, tensors.where])"
        said = pod.call("run", {"code": f"eval(__import__('subprocess').check_output([sys.executable, '-c', {child!r}]))"})
        self.assertEqual(said[:2], [self.python, self.venv])
        self.assertEqual(said[2:], pod.call("run", {"code": "[sys.base_prefix, __import__('tensors').where]"}))
        self.assertEqual(
            pod.call("run", {"code": "__import__('tensors').where"}),
            os.path.join(self.packages, "tensors", "__init__.py"),
        )
        path = pod.call("run", {"code": "sys.path"})
        self.assertEqual(path[0], os.path.join(pod.folder, "pod"))
        self.assertEqual(path.count(self.packages), 1)
        self.assertEqual([entry for entry in path if "-packages" in entry], [self.packages])

    def test_packages_beside_another_interpreter_are_found_too(self):
        pod = Pod("import sys, tensors, by_pth\n" + GOOD, {"run": False}, site_packages=self.packages)
        self.addCleanup(pod.close)
        pod.ready()
        path = pod.call("run", {"code": "sys.path"})
        self.assertEqual([entry for entry in path if "-packages" in entry], [self.packages])

    def test_worker_processes_see_the_same_packages(self):
        source = "import multiprocessing, tensors\n" + GOOD.replace(
            "return eval(",
            'return multiprocessing.get_context("spawn").Pool(1).apply(__import__("checks").where) or eval(',
        )
        files = {"checks.py": "import tensors, hob_pod\ndef where():\n    return tensors.where\n"}
        pod = Pod(source, {"run": False}, environment=self.python, site_packages=self.packages, files=files)
        self.addCleanup(pod.close)
        self.assertIn("tensors", pod.ready().call("run", {"code": "0"}))


class EarlyEnd(unittest.TestCase):
    def test_the_host_may_go_at_any_step(self):
        for steps in range(4):
            with self.subTest(steps=steps):
                pod = Pod(GOOD, {"run": False})
                if steps > 0:
                    pod.hello()
                if steps > 1:
                    pod.start()
                if steps > 2:
                    pod.control.send({"type": "load"})
                pod.control.socket.close()
                self.assertEqual(pod.wait(), 0)
                self.assertEqual(pod.output["stderr"], b"")
                pod.close()

    def test_drain_and_exit_work_before_load(self):
        for kind in ("drain", "exit"):
            pod = Pod(GOOD, {"run": False})
            self.addCleanup(pod.close)
            pod.hello()
            pod.start()
            pod.control.send({"type": kind})
            self.assertTrue(until(lambda pod=pod: pod.process.poll() == 0))

    def test_a_first_message_that_is_not_start_ends_the_pod_loudly(self):
        pod = Pod(GOOD, {"run": False})
        self.addCleanup(pod.close)
        pod.control.send({"type": "load"})
        self.assertEqual(pod.wait(), 70)
        self.assertIn(b"wanted `start`", pod.output["stderr"])


if __name__ == "__main__":
    unittest.main()
