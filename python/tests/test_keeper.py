"""The keeper: it ends with the pod's exit status, and no process of the pod outlives the host or the pod."""

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

# A pod that ignores all signals that can be ignored, with descendants that hide: another session, another
# group, double forks.
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
        self.assertEqual(pod.call("run", {"code": "result = resource.getrlimit(resource.RLIMIT_CORE)"}), [1, 1])

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
        # The tree is empty once the keeper has ended, so there is no grace period here.
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
            result = subprocess.run([sys.executable, "-I", "-S", KEEPER, "--host-pid", host], capture_output=True, input=b"")
            self.assertEqual((result.returncode, result.stdout), (70, b""))

    def test_the_page_says_what_the_pod_took(self):
        pod = self.make().ready()
        spin = "end = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
        pod.call("run", {"code": "x = b'x' * 50_000_000\n" + spin})
        pod.ask("run", {"code": "os.kill(os.getpid(), 9)"})
        self.assertEqual([pod.word(1), pod.word(2)], [0, 0])
        pod.wait()
        self.assertEqual(pod.word(0), 2)
        self.assertTrue(55_000_000 < pod.word(1) < 200_000_000, pod.word(1))
        self.assertTrue(200 <= pod.word(2) < 5_000, pod.word(2))
        self.assertEqual([pod.word(n) for n in range(3, 512)], [0] * 509)

    def test_without_a_page_nothing_is_promised(self):
        pod = self.make(paged=False)
        self.assertEqual(pod.hello()["features"], ["fds", "stack", "regions", "credit"])
        pod.start()
        pod.control.send({"type": "load"})
        self.assertEqual(pod.control.receive().message, {"type": "ready"})
        self.assertEqual(pod.call("run", {"code": "result = 3"}), 3)

    def test_a_page_that_cannot_be_mapped_is_said(self):
        for path in ("/there/is/no/page", os.devnull, __file__ + "/x"):
            result = subprocess.run(
                [sys.executable, "-I", "-S", KEEPER, "--host-pid", str(os.getpid()), "--page", path],
                capture_output=True,
                input=b"",
            )
            self.assertEqual(result.returncode, 70)
            self.assertIn(b"cannot map the page", result.stderr)

    def test_titles_say_recipe_and_state(self):
        pod = self.make(title="hob: hob/echo")
        pid = pod.hello()["pid"]

        def title(process):
            with open(f"/proc/{process}/cmdline", "rb") as file:
                return file.read().rstrip(b"\0").decode()

        def comes(text):
            self.assertTrue(until(lambda: title(pid) == text, 5), title(pid))

        def environment():
            with open(f"/proc/{pid}/environ", "rb") as file:
                return file.read()

        before = environment()
        self.assertEqual(title(pod.process.pid), "hob: hob/echo keeper")
        self.assertEqual(title(pid), "hob: hob/echo starting")
        with open(f"/proc/{pid}/comm") as file:
            self.assertEqual(file.read(), "hob: hob/echo\n")
        pod.start()
        pod.control.send({"type": "load"})
        pod.control.receive()
        comes("hob: hob/echo ready")
        ask = pod.ask("run", {"code": "time.sleep(0.3)"})
        self.assertTrue(until(lambda: pod.in_hand() == [ask]))
        comes("hob: hob/echo busy")
        pod.answer(ask)
        comes("hob: hob/echo ready")
        ask = pod.ask("run", {"code": "time.sleep(0.3)"})
        self.assertTrue(until(lambda: pod.in_hand() == [ask]))
        pod.control.send({"type": "drain"})
        comes("hob: hob/echo draining")
        self.assertEqual(environment(), before)
        self.assertEqual(pod.wait(), 0)

    def test_a_long_title_stays_within_its_bounds(self):
        pod = self.make(title="hob: " + "long/" * 100 + "ü").ready()
        pid = pod.call("run", {"code": "result = os.getpid()"})
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            self.assertTrue(file.read().decode().startswith("hob: long/long/"))
        self.assertEqual(pod.call("run", {"code": "result = os.environ.get('PATH')"}), os.environ["PATH"])

    def test_wrong_arguments_are_said(self):
        for arguments in (
            [],
            ["--host-pid"],
            ["--host-pid", "x"],
            ["--host-pid", "1", "--"],
            ["--host-pid", "1", "a"],
            ["--page", "x"],
            ["--host-pid", "1", "--title"],
            ["--host-pid", "1", "--page", "x", "--page", "y"],
        ):
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
        # The C library reserves 32 and 33: a program cannot set them, so they stay as the parent left them.
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
