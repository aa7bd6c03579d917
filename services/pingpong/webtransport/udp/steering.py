"""Several sockets on one UDP port, and a kernel filter that selects the socket of each packet.

By default the kernel selects by addresses and ports: a client whose address changes then reaches
another worker, which does not have its connection. The filter selects by the connection id (see
`connection_ids`), which stays. If the kernel rejects the filter, or GRO has merged packets of
several connections, `forwarding` forwards packets to their worker.
"""

from __future__ import annotations

import socket
import struct
from array import array
from collections.abc import Sequence

from ..quic.connection_ids import LONG_HEADER, LONG_ID_AT, MAX_WORKERS, SHORT_ID_AT
from .sockets import bind_udp

SO_ATTACH_REUSEPORT_CBPF = 51
"""Linux constant (asm-generic/socket.h), which the socket module does not have."""

# Classic BPF (linux/bpf_common.h).
_LOAD_BYTE = 0x30  # BPF_LD | BPF_B | BPF_ABS: A = packet[k]
_JUMP = 0x05  # BPF_JMP | BPF_JA: skip k
_JUMP_IF_SET = 0x45  # BPF_JMP | BPF_JSET | BPF_K: skip jt if A & k, else jf
_MODULO = 0x94  # BPF_ALU | BPF_MOD | BPF_K: A %= k
_RETURN = 0x16  # BPF_RET | BPF_A

_instruction = struct.Struct("@HBBI")  # struct sock_filter
_program = struct.Struct("@HP")  # struct sock_fprog


def filter_program(workers: int) -> list[bytes]:
    """The instructions of the filter, which returns the index of a socket.

    Its input is the UDP payload. A load past the end makes the filter return 0, so a packet that
    is too short goes to the first worker, as in `worker_of`.
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
    """Attach the filter to a group of sockets; false if the kernel rejects it.

    The index is the order of binding. It does not change as long as each socket is open in some
    process.
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
    """Bind a socket for each worker on one port (0: any free port), in the order of the workers.

    Raises as `bind_udp` does, also if another group uses the port, and `ValueError` for more than
    `MAX_WORKERS` workers.
    """
    if not 1 <= workers <= MAX_WORKERS:
        raise ValueError(f"{workers} workers: it must be 1 to {MAX_WORKERS}")
    # The first one is bound without SO_REUSEPORT. Otherwise it could join another server's group
    # on this port, or get the port of another group for port 0.
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
