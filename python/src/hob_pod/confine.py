"""The keeper's side of a sandbox: reads the host's plan, builds the parts that stay outside the pod, and
reports the result.

The keeper handles processes; `mounts` and `lockdown` do not know the host.
"""

import json
import os

from . import apart, lockdown, mounts, wire
from .refused import FULL, Refused, must_be_lacking, ran_out

#: Longest plan, in bytes.
PLAN_BYTES_MAX = 4 << 20
#: The exit code of a pod that was refused; the host has the reason by then.
EXIT_REFUSED = 71


class Confinement:
    """The sandbox around one pod. Made by the keeper; the pod calls `enter`."""

    def __init__(self, control):
        """Reads the plan from the descriptor `control` and builds its outer part. Ends the process if that
        fails."""
        self._control = control
        self._listener = None
        try:
            self.plan = _read_plan(control)
            self._missing = mounts.separate(self.plan)
            self._base = None if self._missing else self._build()
        except Refused as refused:
            self._refuse(refused)

    @classmethod
    def of_fork(cls, control, plan, base):
        """Returns the sandbox that the init of a family built."""
        confinement = cls.__new__(cls)
        confinement._control, confinement.plan, confinement._base = control, plan, base
        confinement._listener, confinement._missing = None, []
        plan["proxy"] = 0
        return confinement

    def _build(self):
        try:
            base = mounts.build(self.plan["view"])
            if self.plan["way_out"]:
                # Kept open until the host takes it.
                self._listener = mounts.open_way_out()
                self.plan["proxy"] = self._listener.getsockname()[1]
        except OSError as error:
            # `mount` also fails with one of FULL for too many mounts, but a sandbox with fewer is no use
            # either.
            must_be_lacking(error, FULL)
            raise Refused("namespaces", str(error)) from None
        return base

    def fork(self, shown):
        """`apart.fork`, with the parts that this made. Ends the process if that fails."""
        try:
            try:
                return apart.fork(self.plan, self._base, self._missing, shown)
            except OSError as error:
                must_be_lacking(error, FULL)
                raise
        except Refused as refused:
            self._refuse(refused)

    def found(self, path):
        """Returns the path at which this pod finds a file of the recipe."""
        return path if self._base is not None else mounts.placed_without(path, self.plan["view"])

    def enter(self):
        """Confines this process and tells the host. Ends the process if that fails."""
        try:
            if self.plan["way_out"] and self._base is None:
                raise Refused("namespaces", "names on the network were granted, which nothing here could hold to them")
            missing = lockdown.enter(self.plan, self._base, self._missing)
        except Refused as refused:
            self._refuse(refused)
        from . import faults

        faults.confined, faults.way_out, faults.ungranted = not missing, bool(self.plan["way_out"]), self.plan["ungranted"]
        said = {"type": "confined", "missing": missing}
        if self._listener is not None:
            said["way_out"] = self._listener.fileno()
            proxy = f"http://127.0.0.1:{self.plan['proxy']}"
            proxies = {form: proxy for name in ("http_proxy", "https_proxy", "all_proxy") for form in (name, name.upper())}
        else:
            proxies = {}
        _say(self._control, said)
        # Not earlier: variables of a recipe or a grant must not be in a process that is not confined.
        self._take_variables(proxies)

    def _take_variables(self, proxies):
        """Gives this process, and what it executes, the variables of the pod and no others."""
        message = json.loads(_frame(self._control))
        if message.get("type") != "variables":
            raise Refused("plan", "wanted `variables` once the pod is confined")
        set_variables({**message["variables"], **proxies})

    def _refuse(self, refused):
        tell_refused(self._control, refused)
        os._exit(EXIT_REFUSED)


def set_variables(variables):
    """Replaces the environment of this process and of what it executes."""
    os.environ.clear()
    os.environ.update(variables)
    if "TZ" in variables:
        import time

        time.tzset()  # the time zone was read when the process started


def end_if_ran_out(control, error):
    """If the machine lacks a resource that Hob's own code needs: tells the host, and ends the process."""
    why = ran_out(error)
    if why is None:
        return
    try:
        tell_refused(control, Refused("machine", why))
    except OSError:
        return  # then only the exit code and the log tell
    os._exit(EXIT_REFUSED)


def tell_refused(control, refused):
    """Tells the host why there is no pod."""
    _say(control, {"type": "refused", "layer": refused.layer, "why": refused.why})


def _read_plan(control):
    plan = json.loads(_frame(control))
    if plan.get("type") != "confine":
        raise Refused("plan", "wanted `confine` as the first message of the host")
    plan["proxy"] = 0
    return plan


def _frame(control):
    """Returns the next message of the host, which has no tail."""
    json_bytes, tail_bytes, _ = wire.HEADER.unpack(_exactly(control, wire.HEADER.size))
    if tail_bytes or json_bytes > PLAN_BYTES_MAX:
        raise Refused("plan", f"a plan of {json_bytes} bytes and a tail of {tail_bytes}")
    return _exactly(control, json_bytes)


def _exactly(control, count):
    """Reads exactly `count` bytes: what follows is for the pod."""
    read = b""
    while len(read) < count:
        piece = os.read(control, count - len(read))
        if not piece:
            os._exit(0)  # the host is gone
        read += piece
    return read


def _say(control, message):
    frame = b"".join(wire.encode(0, message))
    while frame:
        frame = frame[os.write(control, frame) :]
