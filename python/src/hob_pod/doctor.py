"""The doctor: tries on this machine, layer by layer and then all at once, the sandbox that would surround a
pod.

There is no pod: each trial is a process of its own, which confines itself and ends. It tries the real
sandbox, with a plan that the host makes in the same way as the plans of pods.

    python -I -S doctor.py

Standard input: a plan (see `lockdown`), to its end. Standard output: one line of JSON:

    layers   [{"name", "why"}]: namespaces, landlock, seccomp, each tried on its own; `why` is the reason that
             it is unavailable, or null
    landlock its version, or null
    whole    {"layer", "why"}: the layer at which the whole sandbox failed, and why; or null
    missing  the layers that the trial of the acts lacked, each with the reason
    acts     [{"name", "wrong"}]: forbidden acts, tried with every layer that is available; `wrong` is null
             for an act that was denied
    untried  acts that only a missing layer would have denied
    apart    whether the trial had a process namespace of its own
    not_apart  why it had none; null if it had one, or needed none
"""

import json
import os
import select
import sys

#: Longest plan, in bytes.
PLAN_BYTES_MAX = 4 << 20
#: Longest time of one trial, in seconds; a trial takes some milliseconds.
TRIAL_S = 5
#: Longest report of a trial, in bytes.
REPORT_BYTES_MAX = 64 << 10


def main():
    """Never fails: it reports what it cannot try."""
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from hob_pod import lockdown

    with open(0, "rb", closefd=False) as file:
        plan = json.loads(file.read(PLAN_BYTES_MAX))
    plan["proxy"] = 0
    version = lockdown.landlock_version(plan) or None
    layers = [{"name": name, "why": _trial(plan, trial).get("why")} for name, trial in TRIALS.items()]
    whole = _trial(plan, _all_of_it)
    found = whole
    if whole.get("why") is not None and "acts" not in whole:
        # A sandbox without that layer may still deny much; the report lists all that it does not deny.
        found = _trial({**plan, "reduced": True}, _all_of_it)
    apart, not_apart = found.get("apart", False), found.get("not_apart")
    told = {key: found.get(key, []) for key in ("missing", "acts", "untried")}
    refused = None if whole.get("why") is None else {"layer": whole.get("layer", "trial"), "why": whole["why"]}
    print(json.dumps({"layers": layers, "landlock": version, "whole": refused, "apart": apart, "not_apart": not_apart, **told}))


def _trial(plan, trial):
    """Runs `trial` in a process of its own and returns its report; if it failed, a report with `why`."""
    from hob_pod import kernel

    parent = os.getpid()
    read, write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)
            if os.getppid() != parent:
                os._exit(1)
            said = _tried(plan, trial)
        except BaseException as error:
            said = {"why": f"{type(error).__name__}: {error}"}
        os.write(write, json.dumps(said).encode()[:REPORT_BYTES_MAX])
        os._exit(0)
    os.close(write)
    handle = os.pidfd_open(child)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    hangs = not poll.poll(TRIAL_S * 1000)
    if hangs:
        os.kill(child, 9)
    status = os.waitpid(child, 0)[1]
    os.close(handle)
    # The report is smaller than a pipe's buffer, so it was written whole, or not at all.
    said = os.read(read, REPORT_BYTES_MAX)
    os.close(read)
    if hangs:
        return {"why": f"no end after {TRIAL_S} s"}
    return json.loads(said) if said else {"why": f"its trial ended with status {status} and said nothing"}


def _tried(plan, trial):
    from hob_pod.refused import Refused

    try:
        return trial(plan)
    except Refused as refused:
        return {"layer": refused.layer, "why": refused.why}
    except OSError as error:
        return {"why": str(error)}


def _namespaces(plan):
    from hob_pod import mounts

    mounts.separate(plan)
    mounts.build(plan["view"])
    return {}


def _landlock(plan):
    from hob_pod import kernel, lockdown

    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    lockdown.layer(plan, [], "landlock", lambda: lockdown.landlock(plan, False))
    return _denied(plan, "landlock")


def _seccomp(plan):
    from hob_pod import kernel, lockdown

    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    lockdown.layer(plan, [], "seccomp", lambda: lockdown.seccomp(plan))
    return _denied(plan, "seccomp")


def _denied(plan, layer):
    """Tries the acts that `layer` alone must deny, with no other layer in place; `why` names those that it
    did not deny."""
    from hob_pod import lockdown

    others = {name for _, layers, _, _ in lockdown.acts(plan) for name in layers} - {layer}
    wrong = [f"{name} {wrong}" for name, wrong in lockdown.tried(plan, others) if wrong is not None]
    return {"why": "; ".join(wrong)} if wrong else {}


def _all_of_it(plan):
    """Tries the whole sandbox, as the keeper and the pod build it."""
    from hob_pod import apart, lockdown, mounts
    from hob_pod.refused import Refused

    missing = mounts.separate(plan)
    base = None if missing else mounts.build(plan["view"])
    child, report = apart.fork(plan, base, missing)
    if child:
        # The child reports in place of this process; the descriptors that this process still holds do not
        # matter.
        os.waitpid(child, 0)
        os._exit(0)
    why = None
    try:
        missing = lockdown.enter(plan, base, missing)
    except Refused as refused:
        if refused.layer != "proof":
            raise
        why = refused.why  # the sandbox is complete by now, but one of its layers does not hold
    names = {name for name, _, _, _ in lockdown.acts(plan)}
    acts = [{"name": name, "wrong": wrong} for name, wrong in lockdown.tried(plan, missing)]
    untried = sorted(names - {act["name"] for act in acts})
    return {
        "apart": bool(plan.get("apart")),
        "not_apart": plan.get("not_apart"),
        "missing": missing,
        "acts": acts,
        "untried": untried,
        **({} if why is None else {"layer": "proof", "why": why}),
    }


TRIALS = {"namespaces": _namespaces, "landlock": _landlock, "seccomp": _seccomp}

if __name__ == "__main__":
    main()
