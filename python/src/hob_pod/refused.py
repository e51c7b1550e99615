"""What ends a pod before it is one: a layer of its sandbox could not be had, or did not hold."""

import errno

#: The machine has the layer, and has run out of what it is made of.
_RAN_OUT = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETOOMANYREFS)


class Refused(Exception):
    """`layer`: namespaces, processes, landlock, seccomp, privileges, limits, proof, machine, plan, or grants (what was given).

    `why`: for people.
    """

    def __init__(self, layer, why):
        super().__init__(f"{layer}: {why}")
        self.layer = layer
        self.why = why


def must_be_lacking(error):
    """Raises Refused if that a layer was not had says nothing of whether this machine has it: going on without it would be wrong then."""
    if error.errno in _RAN_OUT:
        raise Refused("machine", str(error)) from None
