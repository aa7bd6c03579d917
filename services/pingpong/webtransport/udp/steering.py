"""Several sockets on one UDP port, and a filter in the kernel that picks one for each packet.

By itself the kernel picks by addresses and ports: a client that changes its address then reaches
another socket, and a worker that has never heard of it. The filter picks by the connection id
(see `connection_ids`), which stays. Where the kernel refuses it, or has glued packets of several
connections into one, `forwarder` brings the packets to where they belong.
"""

from __future__ import annotations

import socket
import struct
from array import array
from collections.abc import Sequence

from ..quic.connection_ids import LONG_HEADER, LONG_ID_AT, MAX_WORKERS, SHORT_ID_AT
from .sockets import bind_udp

SO_ATTACH_REUSEPORT_CBPF = 51
"""Linux's name (asm-generic/socket.h), which the socket module does not have."""

# Classic BPF (linux/bpf_common.h).
_LOAD_BYTE = 0x30  # BPF_LD | BPF_B | BPF_ABS: A = packet[k]
_JUMP = 0x05  # BPF_JMP | BPF_JA: skip k
_JUMP_IF_SET = 0x45  # BPF_JMP | BPF_JSET | BPF_K: skip jt if A & k, else jf
_MODULO = 0x94  # BPF_ALU | BPF_MOD | BPF_K: A %= k
_RETURN = 0x16  # BPF_RET | BPF_A

_instruction = struct.Struct("@HBBI")  # struct sock_filter
_program = struct.Struct("@HP")  # struct sock_fprog


def filter_program(workers: int) -> list[bytes]:
    """The instructions of the filter, which return the number of a socket.

    The kernel gives it the UDP payload. A load from beyond the end of it ends the filter with
    0, so that what is too short goes to the first worker, as in `worker_of`.
    """
    return [
        _instruction.pack(*instruction)
        for instruction in (
            (_LOAD_BYTE, 0, 0, 0),
            (_JUMP_IF_SET, 0, 2, LONG_HEADER),
            (_LOAD_BYTE, 0, 0, LONG_ID_AT),
            (_JUMP, 0, 0, 1),
            (_LOAD_BYTE, 0, 0, SHORT_ID_AT),
            (_MODULO, 0, 0, workers),
            (_RETURN, 0, 0, 0),
        )
    ]


def steer(sockets: Sequence[socket.socket]) -> bool:
    """Have the kernel pick among the sockets of a group; false where it refuses.

    The order is that in which they were bound, and stays as long as none of them is closed in
    all processes that have it.
    """
    instructions = filter_program(len(sockets))
    code = array("B", b"".join(instructions))
    program = _program.pack(len(instructions), code.buffer_info()[0])
    try:
        sockets[0].setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, program)
    except OSError:
        return False
    return True


def bind_group(host: str, port: int, workers: int) -> list[socket.socket]:
    """Sockets for as many workers on one port (0: any), in the order of the workers.

    Raises as `bind_udp` does, also where another group has the port already, and `ValueError`
    for more workers than can be told apart.
    """
    if not 1 <= workers <= MAX_WORKERS:
        raise ValueError(f"{workers} workers: it must be 1 to {MAX_WORKERS}")
    # The first one is bound alone: with SO_REUSEPORT it would join another server's group on
    # this port, or be given, for port 0, one that another group has.
    sockets = [bind_udp(host, port)]
    try:
        sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        host, port = sockets[0].getsockname()[:2]
        while len(sockets) < workers:
            sockets.append(bind_udp(host, port, reuse_port=True))
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets
