"""What ends a pod before it is one: a layer of its sandbox could not be had, or did not hold."""


class Refused(Exception):
    """`layer`: namespaces, landlock, seccomp, privileges, limits, proof or plan. `why`: for people."""

    def __init__(self, layer, why):
        super().__init__(f"{layer}: {why}")
        self.layer = layer
        self.why = why
