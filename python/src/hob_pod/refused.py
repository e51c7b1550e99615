"""The reason why a pod's process ends before it is a pod: a layer of its sandbox was unavailable, or did not
hold."""

import errno

#: The machine has the layer, and has run out of a resource that it needs.
_RAN_OUT = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETOOMANYREFS)
#: The same for acts that make files.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_NO_THREAD = "can't start new thread"


class Refused(Exception):
    """`layer`: namespaces, processes, landlock, seccomp, privileges, limits, proof, machine, plan, or grants
    (the granted paths).

    `why`: for people.
    """

    def __init__(self, layer, why):
        super().__init__(f"{layer}: {why}")
        self.layer = layer
        self.why = why


def must_be_lacking(error, full=()):
    """Raises Refused if `error` does not show that this machine lacks the layer: then it is wrong to go on
    without it.

    `full`: further errors with that meaning, where they are not a bound of the layer itself.
    """
    if error.errno in _RAN_OUT or error.errno in full:
        raise Refused("machine", str(error)) from None


def ran_out(error):
    """Returns as text what the machine has run out of, if `error`, of Hob's own code, says so; else None."""
    kind = type(error)
    if issubclass(kind, OSError) and OSError.errno.__get__(error) in (*_RAN_OUT, *FULL):
        return OSError.__str__(error)
    if issubclass(kind, RuntimeError) and BaseException.args.__get__(error) == (_NO_THREAD,):
        return _NO_THREAD
    return None
