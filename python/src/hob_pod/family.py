"""The family: pods of one environment that are forked from a zygote instead of started, and the processes
above them.

The keeper starts one pod in the host's process namespace. A family has many pods in a process namespace of
their own. When the first process of that namespace ends, the kernel ends every other one, whichever process
was killed.

    host
     +- supervisor   in the host's process namespace: ends init when the host ends; ignores requests to end
         +- init     process 1: makes each pod's root, has the zygote fork, cleans up after each pod, reports
             +- zygote   has imported the wheels that recipes preload (`zygote`)
                 +- pod, pod, ...

    python -I -S family.py --host-pid N [--title TEXT]

Standard input is a SOCK_SEQPACKET socket: each packet is one JSON message, with the descriptors that belong
to it.

    host -> init   {"type": "boot", "plan", "zygote_plan", "preload", "left", "site_packages", "python"}
                     + a file with variables, for the zygote alone
                   {"type": "fork", "id", "plan", "title", "threads", "page"} + control, stdout, stderr
                   {"type": "signal", "id", "number"}: to the pod's group
                   {"type": "kill", "id"}: all of that pod
    init -> host   {"type": "ready", "seconds"} or {"type": "unforkable", "why"}: once
                   {"type": "forked", "id"} + a pidfd; {"type": "over", "id", "status"}: nothing of it is left
                   {"type": "closed"}: the zygote is gone; pods live on, but none is forked any more

If a pod's plan cannot be carried out, the pod itself says so to the host, as a keeper's pod does.
"""

import _signal as signal
import _socket
import os
import select
import sys

EXIT_NO_FAMILY = 72


def main(arguments):
    """Never returns."""
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from hob_pod import kernel, lockdown, mounts
    from hob_pod.channel import Channel
    from hob_pod.keeper import Title, watch
    from hob_pod.refused import Refused

    values = dict(zip(arguments[::2], arguments[1::2]))
    host_handle = watch(int(values["--host-pid"]))
    title = Title(values.get("--title"), kernel.prctl)
    channel = Channel(0)
    boot, (variables,) = channel.receive()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        if lockdown.landlock_version(boot["plan"]) < lockdown.SCOPES_SINCE:
            why = f"pods of a zygote share a process namespace, and before version {lockdown.SCOPES_SINCE} nothing holds their signals"
            raise Refused("landlock", why)
        missing = mounts.separate(boot["plan"], kernel.NEWPID)
        if missing:
            raise Refused("namespaces", missing[0])
    except Refused as refused:
        channel.send({"type": "unforkable", "why": str(refused)})
        os._exit(EXIT_NO_FAMILY)
    init = os.fork()
    if init == 0:
        os.close(host_handle)
        # A supervisor that died before this is missed here, but then the host sees its end and hangs up.
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        try:
            Init(channel, boot, title, kernel, mounts).run(variables)
        except BaseException as error:
            from hob_pod import tracebacks

            tracebacks.say("the family could not go on", error)
            os._exit(EXIT_NO_FAMILY)
    title.show("supervisor")
    for descriptor in (0, variables):
        os.close(descriptor)
    _supervise(init, host_handle)


def _supervise(init, host_handle):
    """Sleeps until the host or init is dead, and makes sure that both are."""
    handle = os.pidfd_open(init)
    poll = select.poll()
    poll.register(host_handle, select.POLLIN)
    poll.register(handle, select.POLLIN)
    while handle not in [descriptor for descriptor, _ in poll.poll()]:
        signal.pidfd_send_signal(handle, signal.SIGKILL)  # and with it the whole namespace
    status = os.waitpid(init, 0)[1]
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0)


class Member:
    """One pod."""

    def __init__(self, identity, device):
        self.identity = identity
        # The device of its root: it identifies the pod's processes, and no process can change it.
        self.device = device
        self.pid = None
        self.status = None
        self.page = None
        self.never_forked = False
        self.awaits_peak = False  # the zygote reports the peak last


class Init:
    """Process 1 of the family."""

    def __init__(self, channel, boot, title, kernel, mounts):
        self.channel, self.boot, self.title, self.kernel, self.mounts = channel, boot, title, kernel, mounts
        self.members = {}
        self.zygote = self.zygote_channel = None
        self.unswept = []  # pods that are over, whose processes are not all killed yet

    def run(self, variables):
        """Runs until the host hangs up, or until the zygote and its last pod are gone. Its end ends
        everything in the namespace."""
        from hob_pod.channel import Channel

        kernel, base = self.kernel, self.boot["plan"]["view"]["base"]
        kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
        kernel.mount("hob", base, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0700,size=1m")
        self.top, self.stage = base + "/top", base + "/stage"
        for folder in (self.top, self.stage, base + "/proc"):
            os.mkdir(folder)
        self.mounts.build(self.boot["plan"]["view"], self.top)
        self.proc = self._proc_of_pods(base + "/proc")
        self.pods = self.top + "/pods"
        # Mounts made there appear in the zygote's namespace too; it must be shared before that namespace is
        # made.
        kernel.mount(None, self.pods, None, kernel.MS_SHARED)
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self.zygote = os.fork()
        if self.zygote == 0:
            for descriptor in (wake_read, wake_write):
                os.close(descriptor)
            ours.close()
            self.channel.socket.close()
            from hob_pod import zygote

            self.title.show("zygote")
            zygote.main(self.boot, self.top, theirs.detach(), variables)
        theirs.close()
        os.close(variables)
        self.zygote_channel = Channel(ours.detach())
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self.title.show("init")
        poll = select.poll()
        host, zygote = self.channel.socket.fileno(), self.zygote_channel.socket.fileno()
        for descriptor in (host, zygote, wake_read):
            poll.register(descriptor, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in poll.poll(SWEEP_MS if self.unswept else None)]
            if host in ready and not self._host_said(*self._received(self.channel)):
                os._exit(0)
            if zygote in ready and self.zygote_channel is not None and not self._zygote_said(*self._received(self.zygote_channel)):
                poll.unregister(zygote)
                self._close()
            if wake_read in ready:
                try:
                    os.read(wake_read, 4096)
                except BlockingIOError:
                    pass
            self._reap()
            self._sweep()
            if self.zygote_channel is None and not self.members:
                os._exit(0)

    def _proc_of_pods(self, place):
        """Mounts the /proc of the pods once; returns None if that is impossible. Init's own /proc is
        separate, because init must see all pods."""
        from hob_pod import proc

        plan = self.boot["plan"]
        if "proc" in plan["without"]:
            return None
        try:
            proc.mount(place, plan, self.top)
        except OSError:
            return None
        return place

    def _received(self, channel):
        try:
            return channel.receive()
        except ConnectionError:
            return None, []

    # --- the host

    def _host_said(self, message, descriptors):
        if message is None:
            return False
        kind = message["type"]
        member = self.members.get(message["id"])
        if kind == "fork":
            self._fork(message, descriptors)
        elif member is not None and kind == "signal":
            self._signal(member, message["number"])
        elif member is not None and kind == "kill":
            self._kill(member)
        for descriptor in descriptors:
            os.close(descriptor)
        return True

    def _fork(self, message, descriptors):
        identity = message["id"]
        stage, place = f"{self.stage}/{identity}", f"{self.pods}/{identity}"
        page = None
        try:
            if self.zygote_channel is None:
                raise OSError("the zygote is gone")
            os.mkdir(stage)
            plan = message["plan"]
            plan["has_proc"] = plan["own_proc"] and self.proc is not None
            if plan["has_proc"]:
                plan["view"]["instead"]["/proc"] = self.proc
            self.mounts.build(plan["view"], stage)
            device = os.stat(stage).st_dev
            tree = self.kernel.clone_tree(stage)
            self.kernel.unmount(stage)
            os.mkdir(place)
            self.kernel.attach_tree(tree, place)
            os.close(tree)
            if message["page"] is not None:
                page = os.open(message["page"], os.O_RDWR | os.O_CLOEXEC)
            member = self.members[identity] = Member(identity, device)
            member.page = page
            order = {key: message[key] for key in ("id", "plan", "title", "threads")}
            self.zygote_channel.send(order, [*descriptors, *([page] if page is not None else [])])
        except (OSError, self.mounts.Refused) as error:
            status = None
            if isinstance(error, self.mounts.Refused):
                from hob_pod import confine

                confine.tell_refused(descriptors[0], error)
                status = confine.EXIT_REFUSED << 8  # the status of a started pod, which ends with that code
            os.write(descriptors[2], f"hob_pod: cannot fork: {error}\n".encode())
            self.members.pop(identity, None)
            if page is not None:
                os.close(page)
            self._clear(identity)
            self.channel.send({"type": "over", "id": identity, "status": status, "why": str(error)})

    def _signal(self, member, number):
        if member.pid is not None and member.status is None:
            try:
                os.killpg(member.pid, number)
            except (ProcessLookupError, PermissionError):
                pass

    def _kill(self, member):
        if member.pid is not None:
            self._kill_all(member)

    # --- the zygote

    def _zygote_said(self, message, descriptors):
        if message is None:
            return False
        kind = message["type"]
        if kind in ("ready", "unforkable"):
            self.channel.send(message)
            return kind == "ready"
        member = self.members.get(message["id"])
        if member is None:
            return True
        if kind == "forked":
            member.pid = message["pid"]
            try:
                handle = os.pidfd_open(member.pid)
            except OSError:
                return True  # over already, and reaped: its end has been sent
            self.channel.send({"type": "forked", "id": member.identity}, [handle])
            os.close(handle)
        elif kind == "ended" and member.status is None and not member.never_forked:
            member.awaits_peak = True
            self._ended(member, message["status"], message["usage"])
        elif kind == "peak":
            self._note(member, 1, message["bytes"])
            member.awaits_peak = False
        return True

    def _close(self):
        self.zygote_channel.socket.close()
        self.zygote_channel = None
        # A fork may have been ordered, and the zygote died before forking, or before it could report. A
        # process that is not within a pod's root by now has no root of its own to identify it, so it is
        # killed. Nothing will be reported about those pods, which never ran a line.
        devices = {member.device for member in self.members.values()}
        killed = self._kill_where(lambda device: device not in devices)
        for member in list(self.members.values()):
            if member.pid is None or member.pid in killed:
                member.never_forked = True
                self._ended(member, None, None)
        self.channel.send({"type": "closed"})

    def _ended(self, member, status, usage):
        member.status = status
        if member.page is not None:
            # Like the keeper: u64s 1 and 2, the peak in bytes and the time in milliseconds. At least 1,
            # because something ran.
            peak, cpu = usage or (0, 0)
            self._note(member, 1, max(1, peak))
            self._note(member, 2, cpu)
        self.unswept.append(member)

    def _note(self, member, place, number):
        if member.page is not None:
            os.pwrite(member.page, number.to_bytes(8, sys.byteorder), place * 8)

    # --- processes

    def _reap(self):
        """Collects the status of all processes that ended below init: what pods left, pods whose zygote is
        gone, and the zygote."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for member in self.members.values():
                if member.pid == pid and member.status is None and not member.never_forked:
                    self._ended(member, status, (usage.ru_maxrss * 1024, int((usage.ru_utime + usage.ru_stime) * 1000)))

    def _sweep(self):
        """Kills what is left of pods that are over; reports each pod of which nothing is left."""
        for member in list(self.unswept):
            if self._kill_all(member) == 0 and not (member.awaits_peak and self.zygote_channel is not None):
                self.unswept.remove(member)
                del self.members[member.identity]
                if member.page is not None:
                    os.close(member.page)
                self._clear(member.identity)
                self.channel.send({"type": "over", "id": member.identity, "status": member.status})

    def _kill_all(self, member):
        """Sends SIGKILL to every process within the pod's root; returns how many there were."""
        return len(self._kill_where(lambda device: device == member.device))

    def _kill_where(self, is_meant):
        """Sends SIGKILL to every process whose root is on a device that `is_meant` accepts; returns those
        processes."""
        killed = set()
        own = os.getpid()
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) in (own, self.zygote):
                continue
            try:
                handle = os.pidfd_open(int(name))
            except OSError:
                continue
            try:
                # Checks the process that the handle is for: it cannot have become another process since.
                if is_meant(os.stat(f"/proc/{name}/root").st_dev):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    killed.add(int(name))
            except OSError:
                pass  # it ended meanwhile
            finally:
                os.close(handle)
        return killed

    def _clear(self, identity):
        for folder in (f"{self.stage}/{identity}", f"{self.pods}/{identity}"):
            try:
                self.kernel.unmount(folder)
            except OSError:
                pass
            try:
                os.rmdir(folder)
            except OSError:
                pass


#: Between two searches for what a pod left, in milliseconds.
SWEEP_MS = 2

if __name__ == "__main__":
    main(sys.argv[1:])
