"""Attempts of the table "Sockets", and those of "Network" that end in the sandbox's own network namespace.

A destination comes as argv[2]: a port of a listener on the host that must stay silent, or the name of its socket.
"""

import ctypes
import errno
import mmap
import os
import socket
import stat
import struct
import sys

from .probe_kit import Refused, end, main, probe, syscall

NETLINK = {"netfilter": 12, "audit": 9, "xfrm": 6, "sock_diag": 4, "uevent": 15, "generic": 16, "connector": 11}
FAMILIES = {
    "vsock": (40, 1, 0), "packet": (17, 3, 0), "packet_dgram": (17, 2, 0), "key": (15, 3, 2), "alg": (38, 5, 0),
    "xdp": (44, 3, 0), "bluetooth": (31, 3, 1), "can": (29, 3, 1), "tipc": (30, 1, 0), "smc": (43, 1, 0),
    "qipcrtr": (42, 2, 0), "rds": (21, 5, 0), "raw": (2, 3, 1), "raw6": (10, 3, 58), "mptcp": (2, 1, 262),
    "sctp": (2, 1, 132), "udplite": (2, 2, 136), "unix_raw": (1, 3, 0),
}  # fmt: skip
MSG_FASTOPEN, TCP_FASTOPEN_CONNECT = 0x20000000, 30


def _port() -> int:
    return int(sys.argv[2])


@probe()
def family() -> None:
    socket.socket(*FAMILIES[sys.argv[2]]).close()


@probe()
def netlink() -> None:
    socket.socket(16, socket.SOCK_RAW, NETLINK[sys.argv[2]]).close()


@probe()
def netlink_route() -> None:
    socket.socket(16, socket.SOCK_RAW, 0).close()


@probe()
def socketpair_vsock() -> None:
    socket.socketpair(40, socket.SOCK_STREAM)


@probe(reached=(errno.ECONNREFUSED, errno.EINPROGRESS))
def sendto_fastopen() -> None:
    with socket.socket() as sock:
        sock.sendto(b"x", MSG_FASTOPEN, ("127.0.0.1", _port()))


@probe(reached=(errno.ECONNREFUSED, errno.EINPROGRESS))
def sendmsg_fastopen() -> None:
    with socket.socket() as sock:
        sock.sendmsg([b"x"], [], MSG_FASTOPEN, ("127.0.0.1", _port()))


@probe()
def connect_fastopen() -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        sock.connect(("127.0.0.1", _port()))
        sock.send(b"x")
        sock.shutdown(socket.SHUT_WR)


@probe()
def udp_sendto() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", ("127.0.0.1", _port()))


@probe()
def udp_sendmmsg() -> str:
    """Two destinations in one call; it counts how many messages left."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        payload = ctypes.create_string_buffer(b"x")
        vector = (ctypes.c_size_t * 2)(ctypes.addressof(payload), 1)
        addresses = [
            ctypes.create_string_buffer(struct.pack("<H", 2) + struct.pack(">H", port) + socket.inet_aton(host), 16)
            for host, port in (("127.0.0.1", _port()), ("192.0.2.1", 9))
        ]
        messages = b"".join(
            struct.pack("<QIxxxxQQQQixxxxIxxxx", ctypes.addressof(address), 16, ctypes.addressof(vector), 1, 0, 0, 0, 0)
            for address in addresses
        )
        sent = syscall(307, sock.fileno(), ctypes.create_string_buffer(messages, len(messages)), 2, 0)
        return f"{sent} sent"


@probe()
def connect_tcp() -> None:
    """argv: port, address."""
    address = sys.argv[3]
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
        sock.settimeout(20)
        sock.connect((address, _port()))
        sock.send(b"x")


@probe()
def flipped_connect() -> str:
    """Connect to an address that another process keeps changing between nobody's port and the listener's, in memory."""
    nobody, listener = ((port).to_bytes(2, "big") for port in (1, _port()))
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    memory[:16] = struct.pack("<H", socket.AF_INET) + nobody + socket.inet_aton("127.0.0.1") + bytes(8)
    flipper = os.fork()
    if flipper == 0:
        while True:
            memory[2:4] = listener
            memory[2:4] = nobody
    try:
        for tries in range(2000):
            with socket.socket() as sock:
                try:
                    syscall(42, sock.fileno(), ctypes.addressof(ctypes.c_char.from_buffer(memory)), 16)
                except OSError:
                    continue
                return f"try {tries}"
    finally:
        end(flipper)
    raise Refused("never connected")


@probe()
def connect_abstract() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("\0" + sys.argv[2])
        sock.send(b"x")


@probe()
def connect_path() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(sys.argv[2])
        sock.send(b"x")


@probe()
def find_socket() -> str:
    """Walk everything that can be seen for a socket or FIFO, through which another sandbox could pass a descriptor."""
    found = []
    waiting = [sys.argv[2]]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and entry.path not in ("/proc", "/sys"):
                waiting.append(entry.path)
            elif not entry.is_file(follow_symlinks=False) and not entry.is_symlink():
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode):
                    found.append(entry.path)
    if not found:
        raise Refused("no socket or FIFO is visible")
    return " ".join(found[:5])


@probe()
def bring_up_address() -> None:
    """Give the loopback a second address through netlink: 10.11.12.13/32 on interface 1."""
    with socket.socket(16, socket.SOCK_RAW, 0) as sock:
        address = socket.inet_aton("10.11.12.13")
        body = struct.pack("<BBBBI", 2, 32, 0, 0, 1) + struct.pack("<HH", 8, 2) + address
        sock.send(struct.pack("<IHHII", 16 + len(body), 20, 0x605, 1, 0) + body)
        answer = sock.recv(4096)
        code = -struct.unpack_from("<i", answer, 16)[0]
        if code:
            raise OSError(code, "RTM_NEWADDR")


@probe()
def listen_and_wait() -> None:
    """Serve on 127.0.0.1 and on an abstract name until somebody came to the first, or for a minute."""
    with socket.socket() as inet, socket.socket(socket.AF_UNIX) as abstract:
        inet.bind(("127.0.0.1", _port()))
        inet.listen()
        abstract.bind("\0" + sys.argv[3])
        abstract.listen()
        print("listening", flush=True)
        inet.settimeout(60)
        inet.accept()


if __name__ == "__main__":
    main()
