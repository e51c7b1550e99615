"""Compiling the sources of an environment: which files are compiled, and that none of them runs."""

import os
import subprocess
import sys
import tempfile
import unittest

PROGRAM = os.path.join(os.path.dirname(__file__), "..", "src", "hob_pod", "compiling.py")


class Compiling(unittest.TestCase):
    def setUp(self):
        self._place = tempfile.TemporaryDirectory()
        self.addCleanup(self._place.cleanup)
        self.folder = os.path.join(self._place.name, "packages")
        os.makedirs(os.path.join(self.folder, "inner"))

    def _put(self, name, text):
        with open(os.path.join(self.folder, name), "w") as file:
            file.write(text)

    def _compiled(self, folder=""):
        try:
            return sorted(name.split(".")[0] for name in os.listdir(os.path.join(self.folder, folder, "__pycache__")))
        except FileNotFoundError:
            return []

    def _run(self, workers):
        return subprocess.run([sys.executable, "-I", "-S", "-B", PROGRAM, self.folder, str(workers)], capture_output=True, text=True)

    def test_every_source_is_compiled_and_none_is_run(self):
        mark = os.path.join(self._place.name, "mark")
        text = f"open({mark!r}, 'w').close()\n"
        for name in ("one.py", "inner/two.py", "sitecustomize.py", "py_compile.py", "warnings.py"):
            self._put(name, text)
        self._put("evil.pth", f"import os; {text}")
        self._put("broken.py", "print 'of another Python'\n")
        self._put("no_source.txt", "")
        ran = self._run(3)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertEqual(self._compiled(), ["one", "py_compile", "sitecustomize", "warnings"])
        self.assertEqual(self._compiled("inner"), ["two"])
        self.assertIn("broken.py: PyCompileError", ran.stderr)
        self.assertFalse(os.path.exists(mark))

    def test_links_are_not_followed(self):
        outside = os.path.join(self._place.name, "outside")
        os.mkdir(outside)
        with open(os.path.join(outside, "file.py"), "w") as file:
            file.write("pass\n")
        os.symlink(outside, os.path.join(self.folder, "link"))
        os.symlink(os.path.join(outside, "file.py"), os.path.join(self.folder, "file.py"))
        self.assertEqual(self._run(1).returncode, 0)
        self.assertEqual((self._compiled(), os.listdir(outside)), ([], ["file.py"]))

    def test_a_source_that_the_compiler_cannot_bear_keeps_no_other_from_it(self):
        self._put("a_deep.py", "(" * 100_000)
        self._put("b_zeros.py", "x = 1\0\n")
        self._put("c_coding.py", "# coding: no-such\n")
        self._put("d_good.py", "x = 1\n")
        self.assertEqual(self._run(1).returncode, 0)
        self.assertEqual(self._compiled(), ["d_good"])


if __name__ == "__main__":
    unittest.main()
