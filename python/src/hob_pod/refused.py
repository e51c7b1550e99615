"""What ends a pod before it is one: a layer of its sandbox could not be had, or did not hold."""

import errno

#: The machine has the layer, and has run out of what it is made of.
_RAN_OUT = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETOOMANYREFS)
#: Where files are made.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_NO_THREAD = "can't start new thread"


class Refused(Exception):
    """`layer`: namespaces, processes, landlock, seccomp, privileges, limits, proof, machine, plan, or grants
    (what was given).

    `why`: for people.
    """

    def __init__(self, layer, why):
        super().__init__(f"{layer}: {why}")
        self.layer = layer
        self.why = why


def must_be_lacking(error, full=()):
    """Raises Refused if that a layer was not had says nothing of whether this machine has it: going on
    without it would be wrong then.

    `full`: further errors that say so, where they are no bound on the layer itself.
    """
    if error.errno in _RAN_OUT or error.errno in full:
        raise Refused("machine", str(error)) from None


def ran_out(error):
    """What the machine has run out of, if that is what an error of Hob's own code says, as text; else
    None."""
    kind = type(error)
    if issubclass(kind, OSError) and OSError.errno.__get__(error) in (*_RAN_OUT, *FULL):
        return OSError.__str__(error)
    if issubclass(kind, RuntimeError) and BaseException.args.__get__(error) == (_NO_THREAD,):
        return _NO_THREAD
    return None
