"""Whole messages with descriptors between the host, a family's init and its zygote: one JSON message a
packet."""

import _socket
import json
from array import array

#: Longest packet, in bytes.
PACKET_BYTES_MAX = 128 << 10


class Channel:
    """Whole messages with descriptors, over a socket that keeps packets apart."""

    def __init__(self, descriptor):
        self.socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, descriptor)

    def send(self, message, descriptors=()):
        passed = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
        self.socket.sendmsg([json.dumps(message).encode()], passed)

    def receive(self):
        """Returns the next message and its descriptors; (None, []) at the end."""
        room = _socket.CMSG_SPACE(8 * 4)
        packet, ancillary, flags, _ = self.socket.recvmsg(PACKET_BYTES_MAX, room, _socket.MSG_CMSG_CLOEXEC)
        descriptors = array("i")
        for level, kind, data in ancillary:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        if flags & (_socket.MSG_CTRUNC | _socket.MSG_TRUNC):
            raise OSError("a packet was cut")
        if not packet:
            return None, []
        return json.loads(packet), list(descriptors)
