"""Table "Sockets" and the rows N01, N02, N11, N13, N14: what may be opened, and that nothing outside is reached.

The host listens where the sandbox connects, and must hear nothing.
"""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.escape.attempt import (
    NOT_THERE,
    OF_NETWORK,
    OF_PROCESSES,
    Attempt,
    Denied,
    Network,
    Unseen,
    attempts,
    check_control,
    same_control,
    unconfined,
)
from tests.escape.confined import Confined

EPERM = ("EPERM",)
# No interface but a loopback that is down (or, in mode loopback, one of its own), so nothing is there to answer.
UNREACHED = ("EPERM", "EACCES", "ENETUNREACH", "ECONNREFUSED", "EAFNOSUPPORT", "EADDRNOTAVAIL")

FAMILIES = tuple(
    Attempt(row, "family", EPERM, (family,), trace=Denied("socket"))
    for row, families in {
        "K01": ("vsock",),
        "K04": ("packet", "packet_dgram", "raw", "raw6"),
        "K05": ("mptcp", "sctp", "udplite"),
        "K06": ("key", "alg", "xdp", "bluetooth", "can", "tipc", "smc", "qipcrtr", "rds", "unix_raw"),
    }.items()
    for family in families
)
NETLINKS = tuple(
    Attempt("K03", "netlink", EPERM, (family,), trace=Denied("socket"))
    for family in ("netfilter", "audit", "xfrm", "sock_diag", "uevent", "generic", "connector")
)


PAIR = Attempt("K01", "socketpair_vsock", EPERM, lacking=frozenset({"ENOTSUP"}), trace=Denied("socketpair"))


@attempts(*FAMILIES, *NETLINKS, PAIR)
def test_family_is_refused(attempt: Attempt, confined: Confined, outside: Path) -> None:
    confined.demand("sockets", attempt)
    check_control(attempt, same_control(outside, "sockets", attempt))


def test_k03_route_cannot_change_an_address(confined: Confined, outside: Path) -> None:
    attempt = Attempt("K03", "bring_up_address", ("EPERM", "EACCES"), trace=OF_PROCESSES)
    confined.demand("sockets", attempt)
    check_control(attempt, same_control(outside, "sockets", attempt))


@contextlib.contextmanager
def _listener(kind: socket.SocketKind, address: str = "0.0.0.0") -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as sock:
        sock.bind((address, 0))
        if kind is socket.SOCK_STREAM:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
            sock.listen()
        sock.setblocking(False)
        yield sock


def _heard(sock: socket.socket) -> bool:
    """Whether anyone came; both sides are on this kernel, so what was sent is there already."""
    try:
        if sock.type is socket.SOCK_DGRAM:
            sock.recv(16)
        else:
            sock.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize(
    ("row", "probe", "kind", "trace"),
    [
        ("K07", "sendto_fastopen", socket.SOCK_STREAM, Denied("sendto")),
        ("K07", "sendmsg_fastopen", socket.SOCK_STREAM, Denied("sendmsg")),
        ("K08", "connect_fastopen", socket.SOCK_STREAM, Denied("setsockopt")),
        ("K09", "udp_sendto", socket.SOCK_DGRAM, OF_NETWORK),
        ("K09", "udp_sendmmsg", socket.SOCK_DGRAM, OF_NETWORK),
    ],
)
def test_other_doors_to_connect_stay_silent(
    row: str, probe: str, kind: socket.SocketKind, trace: Denied | Unseen, confined: Confined, outside: Path
) -> None:
    with _listener(kind) as listener:
        port = str(listener.getsockname()[1])
        confined.demand("sockets", Attempt(row, probe, UNREACHED, (port,), trace=trace))
        assert not _heard(listener)
        control = unconfined(outside, "sockets", (probe, port), Network.HOST)
        check_control(Attempt(row, probe, ()), control)
        assert _heard(listener), "the control must be heard"


@pytest.mark.parametrize("profile", ["default", "build"])  # without and with a loopback of its own
def test_x11_address_that_is_flipped_while_it_connects_reaches_nobody(
    profile: str, confined: Confined, outside: Path
) -> None:
    with _listener(socket.SOCK_STREAM) as listener:
        port = str(listener.getsockname()[1])
        attempt = Attempt("X11", "flipped_connect", ("refused",), (port,), trace=OF_NETWORK)
        confined.demand("sockets", attempt, profile=profile)
        assert not _heard(listener)
        check_control(attempt, unconfined(outside, "sockets", (attempt.probe, *attempt.argv), Network.HOST))
        assert _heard(listener), "the control must be heard"


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "::ffff:127.0.0.1"])
def test_n02_host_listener_is_not_reached(address: str, confined: Confined, outside: Path) -> None:
    with _listener(socket.SOCK_STREAM, "::1" if address == "::1" else "0.0.0.0") as listener:
        port = str(listener.getsockname()[1])
        confined.demand("sockets", Attempt("N02", "connect_tcp", UNREACHED, (port, address), trace=OF_NETWORK))
        assert not _heard(listener)
        check_control(
            Attempt("N02", "connect_tcp", ()),
            unconfined(outside, "sockets", ("connect_tcp", port, address), Network.HOST),
        )
        assert _heard(listener), "the control must be heard"


@pytest.mark.parametrize("address", ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "10.0.0.1", "192.0.2.1"])
def test_n01_other_hosts_are_unreachable(address: str, confined: Confined) -> None:
    """No control: no test sends anything to another host."""
    confined.demand("sockets", Attempt("N01", "connect_tcp", UNREACHED, ("80", address), trace=OF_NETWORK))


def test_k10_abstract_socket_of_the_host_is_not_reached(confined: Confined, outside: Path) -> None:
    name = f"sandboxd-canary-{id(confined)}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen()
        listener.setblocking(False)
        answers = ("ECONNREFUSED", "EPERM")
        confined.demand("sockets", Attempt("K10", "connect_abstract", answers, (name,), trace=OF_NETWORK))
        assert not _heard(listener)
        check_control(
            Attempt("K10", "connect_abstract", ()),
            unconfined(outside, "sockets", ("connect_abstract", name), Network.HOST),
        )
        assert _heard(listener), "the control must be heard"


@pytest.mark.parametrize("directory", ["/run", "/var/tmp", "/dev/shm"])
def test_k11_path_socket_of_the_host_is_not_visible(directory: str, confined: Confined, outside: Path) -> None:
    path = Path(directory) / f"sandboxd-canary-{id(confined)}.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(str(path))
        except PermissionError:
            pytest.skip(f"{directory} is not writable for the tests")
        try:
            listener.listen()
            path.chmod(0o666)
            listener.setblocking(False)
            attempt = Attempt("K11", "connect_path", ("ENOENT", "EACCES"), (str(path),), trace=NOT_THERE)
            confined.demand("sockets", attempt)
            assert not _heard(listener)
            control = unconfined(outside, "sockets", ("connect_path", str(path)))
            check_control(Attempt("K11", "connect_path", ()), control)
        finally:
            path.unlink()


def test_k13_no_socket_or_fifo_is_visible(confined: Confined, outside: Path) -> None:
    confined.demand("sockets", Attempt("K13", "find_socket", ("refused",), ("/",), trace=NOT_THERE))
    with socket.socket(socket.AF_UNIX) as canary:
        canary.bind(str(outside / "canary.sock"))
        assert "canary.sock" in unconfined(outside, "sockets", ("find_socket", str(outside))).detail


def test_n13_the_daemons_own_socket_is_not_visible(confined: Confined) -> None:
    path = Path(confined.daemon.address.removeprefix("unix:"))
    assert path.is_socket(), "the control: the host sees it"
    attempt = Attempt("N13", "connect_path", ("ENOENT", "EACCES"), (str(path),), trace=NOT_THERE)
    confined.demand("sockets", attempt)


def test_loopback_of_a_sandbox_leaves_the_spawner_in_its_own_network(confined: Confined) -> None:
    """Who enters a sandbox's namespace may be unable to come back, and would start the next daemon in there."""
    namespace = Path(f"/proc/{confined.daemon.process.pid}/ns/net")
    before = namespace.readlink()
    listens = "import socket; socket.create_server(('127.0.0.1', 0))"
    for _ in range(2):
        seen = confined.run(["/usr/bin/python3", "-c", listens], profile="build")
        assert seen.exit_code == 0, seen.stderr
    assert namespace.readlink() == before
