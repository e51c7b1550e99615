"""The keeper: it ends as the pod did, and nothing of the pod outlives the host or the pod."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest

from .fake_host import KEEPER, Pod, alive, until

SOURCE = """
import ctypes, os, resource, signal, subprocess, sys, time
class Pod:
    def run(self, input):
        scope = dict(globals())
        exec(input["code"], scope)
        return scope.get("result")
"""

# A pod that ignores what can be ignored, with descendants that hide: another session, another group, double forks.
HIDE = """
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
read, write = os.pipe()
def hide(depth):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(write, b"%d\\n" % os.getpid())
            if depth:
                hide(depth - 1)
            while True:
                time.sleep(3600)
        os._exit(0)
hide(2)
stopped = subprocess.Popen(["sleep", "3600"], start_new_session=True)
os.kill(stopped.pid, signal.SIGSTOP)
pids = [os.getpid(), stopped.pid]
while len(pids) < 5:
    pids += map(int, os.read(read, 100).split())
result = pids
"""

HOST = """
import os, sys, time
sys.path[:0] = [{tests!r}, {src!r}]
from tests.fake_host import Pod
pod = Pod({source!r}, {{"run": False}}).ready()
pids = pod.call("run", {{"code": {hide!r}}})
pod.ask("run", {{"code": "while True: pass"}})
print(pod.process.pid, *pids, flush=True)
time.sleep(3600)
"""


class Keeper(unittest.TestCase):
    def make(self, **rest):
        pod = Pod(SOURCE, {"run": False}, **rest)
        self.addCleanup(pod.close)
        return pod

    def gone(self, pids, seconds=2.0):
        until(lambda: not any(map(alive, pids)), seconds)
        return [pid for pid in pids if alive(pid)]

    def test_exit_codes_are_mirrored(self):
        for code in (0, 1, 7, 255):
            pod = self.make().ready()
            pod.ask("run", {"code": f"os._exit({code})"})
            self.assertEqual(pod.wait(), code)

    def test_signals_are_mirrored(self):
        for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT, signal.SIGUSR2):
            pod = self.make().ready()
            pod.ask("run", {"code": f"os.kill(os.getpid(), {int(number)})"})
            self.assertEqual(pod.wait(), -number)

    def test_a_crash_in_native_code_leaves_its_stack_on_stderr(self):
        pod = self.make().ready()
        pod.ask("run", {"code": "ctypes.string_at(0)"})
        self.assertEqual(pod.wait(), -signal.SIGSEGV)
        self.assertIn(b"Segmentation fault", pod.output["stderr"])
        self.assertIn(b"pod.py", pod.output["stderr"])

    def test_no_core_is_dumped(self):
        pod = self.make().ready()
        self.assertEqual(pod.call("run", {"code": "result = resource.getrlimit(resource.RLIMIT_CORE)"}), [0, 0])

    def test_sigterm_to_the_group_ends_the_pod_and_the_keeper_tells(self):
        pod = self.make().ready()
        pod.ask("run", {"code": "while True: pass"})
        os.killpg(pod.process.pid, signal.SIGTERM)
        self.assertEqual(pod.wait(), -signal.SIGTERM)

    def test_ctrl_c_in_the_group_is_not_for_the_pod(self):
        pod = self.make().ready()
        os.killpg(pod.process.pid, signal.SIGINT)
        self.assertEqual(pod.call("run", {"code": "result = 1"}), 1)

    def test_hidden_descendants_die_with_the_pod(self):
        pod = self.make().ready()
        pids = pod.call("run", {"code": HIDE})
        self.assertEqual(len(pids), 5)
        self.assertTrue(all(map(alive, pids)))
        pod.control.send({"type": "exit"})
        self.assertEqual(pod.wait(), 0)
        # The keeper's end says that the tree is empty: no grace here.
        self.assertEqual([pid for pid in pids if alive(pid)], [])

    def test_sigquit_to_the_keeper_ends_everything_now(self):
        pod = self.make().ready()
        pids = pod.call("run", {"code": HIDE})
        pod.ask("run", {"code": "while True: pass"})
        os.kill(pod.process.pid, signal.SIGQUIT)
        self.assertEqual(pod.wait(), -signal.SIGKILL)
        self.assertEqual([pid for pid in pids if alive(pid)], [])

    def test_a_stopped_pod_is_ended_too(self):
        pod = self.make().ready()
        pod.ask("run", {"code": "os.kill(os.getpid(), signal.SIGSTOP)"})
        time.sleep(0.1)
        self.assertIsNone(pod.process.poll())
        os.kill(pod.process.pid, signal.SIGQUIT)
        self.assertEqual(pod.wait(), -signal.SIGKILL)

    def test_nothing_is_left_two_seconds_after_the_host_was_killed(self):
        here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        text = HOST.format(tests=here, src=os.path.join(here, "src"), source=SOURCE, hide=HIDE)
        host = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE)
        self.addCleanup(host.stdout.close)
        pids = list(map(int, host.stdout.readline().split()))
        self.assertEqual(len(pids), 6)
        self.assertTrue(all(map(alive, pids)))
        host.kill()
        host.wait()
        self.assertEqual(self.gone(pids), [])

    def test_orphans_are_reaped_while_the_pod_lives(self):
        pod = self.make().ready()
        orphan = pod.call(
            "run",
            {
                "code": """
read, write = os.pipe()
child = os.fork()
if child == 0:
    grandchild = os.fork()
    if grandchild == 0:
        time.sleep(0.05)
        os._exit(0)
    os.write(write, b"%d" % grandchild)
    os._exit(0)
os.waitpid(child, 0)
result = int(os.read(read, 20))
"""
            },
        )
        self.assertTrue(until(lambda: not os.path.exists(f"/proc/{orphan}"), 5), "a zombie stayed")
        self.assertEqual(pod.call("run", {"code": "result = 2"}), 2)

    def test_the_pod_dies_with_its_keeper(self):
        pod = self.make().ready()
        pid = pod.call("run", {"code": "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nresult = os.getpid()"})
        pod.ask("run", {"code": "while True: pass"})
        pod.process.kill()
        self.assertEqual(self.gone([pid]), [])

    def test_the_keeper_holds_neither_lanes_nor_pipes(self):
        pod = self.make().ready()
        folder = f"/proc/{pod.process.pid}/fd"
        targets = [os.readlink(os.path.join(folder, fd)) for fd in os.listdir(folder)]
        self.assertFalse([target for target in targets if target.startswith("socket:")], targets)
        pipes = {os.fstat(stream.fileno()).st_ino for stream in (pod.process.stdout, pod.process.stderr)}
        self.assertFalse([target for target in targets if any(str(inode) in target for inode in pipes)], targets)

    def test_a_wrong_host_pid_starts_nothing(self):
        for host in ("1", str(2**22 + 1)):
            result = subprocess.run(
                [sys.executable, "-I", "-S", KEEPER, "--host-pid", host], capture_output=True, input=b""
            )
            self.assertEqual((result.returncode, result.stdout), (70, b""))

    def test_wrong_arguments_are_said(self):
        for arguments in ([], ["--host-pid"], ["--host-pid", "x"], ["--host-pid", "1", "--"], ["--host-pid", "1", "a"]):
            result = subprocess.run([sys.executable, "-I", "-S", KEEPER, *arguments], capture_output=True, input=b"")
            self.assertEqual(result.returncode, 1)
            self.assertIn(b"usage: keeper.py", result.stderr)


class Executable(unittest.TestCase):
    def make(self, text):
        file = tempfile.NamedTemporaryFile("w", suffix=".sh", delete=False)
        self.addCleanup(os.unlink, file.name)
        file.write(textwrap.dedent(text))
        file.close()
        os.chmod(file.name, 0o755)
        pod = Pod(command=[file.name, "one", "two words"])
        self.addCleanup(pod.close)
        return pod

    def test_it_gets_its_arguments_and_default_signals(self):
        pod = self.make('#!/bin/sh\necho "$1|$2"\ngrep -E "SigIgn|SigBlk" /proc/self/status\nexit 4\n')
        self.assertEqual(pod.wait(), 4)
        lines = pod.output["stdout"].decode().splitlines()
        self.assertEqual(lines[0], "one|two words")
        # 32 and 33 are the C library's own: a program cannot set them, so what our parent left stays.
        kept = ~(1 << 31 | 1 << 32)
        self.assertEqual([int(line.split()[1], 16) & kept for line in lines[1:]], [0, 0])

    def test_one_that_cannot_be_started_is_named(self):
        pod = Pod(command=["/there/is/no/executable"])
        self.addCleanup(pod.close)
        self.assertEqual(pod.wait(), 126)
        self.assertIn(b"/there/is/no/executable", pod.output["stderr"])

    def test_its_hidden_children_die_with_it(self):
        pod = self.make("#!/bin/sh\nsetsid sleep 3600 &\necho $!\nexit 0\n")
        self.assertEqual(pod.wait(), 0)
        self.assertFalse(alive(int(pod.output["stdout"])))


if __name__ == "__main__":
    unittest.main()
