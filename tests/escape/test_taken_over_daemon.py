"""The daemon as the attacker: its own connection to the spawner, in other hands.

What it may ask for is a closed set of messages; nothing it sends may end the spawner, make it wait, or let it speak to
the service manager. Takes the socket out of a real daemon, which only root may.
"""

import array
import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sandboxd.client import Chunk, Client, SandboxdError
from sandboxd.spawner import wire
from tests import no_cgroups, proc
from tests.daemon import CHECKOUT, configuration
from tests.skips import need_root

PIDFD_GETFD = 438
SPAWNER_FD = 3
SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Node:
    """A running spawner, what it told the service manager, and where its daemon listens."""

    spawner: subprocess.Popen[bytes]
    notifications: socket.socket
    address: str

    def told(self) -> str:
        """The next notification."""
        self.notifications.settimeout(SECONDS)
        return self.notifications.recv(4096).decode()

    def daemons_socket(self, number: int = SPAWNER_FD) -> socket.socket:
        libc = ctypes.CDLL(None, use_errno=True)
        pidfd = os.pidfd_open(proc.daemon_pid(self.spawner.pid))
        try:
            fd = libc.syscall(PIDFD_GETFD, pidfd, number, 0)
        finally:
            os.close(pidfd)
        assert fd >= 0, os.strerror(ctypes.get_errno())
        return socket.socket(fileno=fd)

    @contextlib.contextmanager
    def in_place_of_the_daemon(self) -> Iterator[socket.socket]:
        """Its connection to the init of the one sandbox that runs. Meanwhile it stands still, and answers are ours."""
        daemon = proc.daemon_pid(self.spawner.pid)
        os.kill(daemon, signal.SIGSTOP)
        try:
            fds = [int(path.name) for path in Path(f"/proc/{daemon}/fd").iterdir() if path.is_socket()]
            with contextlib.ExitStack() as held:
                sockets = [held.enter_context(self.daemons_socket(fd)) for fd in fds if fd != SPAWNER_FD]
                (init,) = (sock for sock in sockets if sock.type is socket.SOCK_SEQPACKET)
                yield init
        finally:
            os.kill(daemon, signal.SIGCONT)

    def serves(self) -> bool:
        """Whether it runs a program, at the latest once the daemon was started anew."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline and self.spawner.poll() is None:
            with contextlib.suppress(SandboxdError), Client(self.address) as client:
                return client.run(["/bin/true"]).exit_code == 0
            time.sleep(0.1)
        return False


@pytest.fixture
def node() -> Iterator[Node]:
    """One for each test: a daemon that is killed again and again is started later each time."""
    with _started() as node:
        yield node


@pytest.fixture
def node_without_cgroups() -> Iterator[Node]:
    """Nor blanks in stock: to the init of each the daemon has a line, too."""
    with _started(*no_cgroups.PREFIX, settings="runtimes: {process: {blank_stock: 0}}\n") as node:
        yield node


@contextlib.contextmanager
def _started(*within: str, settings: str = "") -> Iterator[Node]:
    need_root()
    directory = Path(tempfile.mkdtemp(prefix="sandboxd-test-", dir="/tmp"))
    directory.chmod(0o711)
    (directory / "run").mkdir(mode=0o700)
    config = directory / "config.yaml"
    config.write_text(configuration(directory / "run" / "s.sock", directory / "state") + settings)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
        notifications.bind(str(directory / "notify"))
        spawner = subprocess.Popen(
            [*within, sys.executable, "-m", "sandboxd", "serve", "--config", str(config)],
            cwd=CHECKOUT,
            env={"PATH": os.environ["PATH"], "NOTIFY_SOCKET": str(directory / "notify")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            node = Node(spawner, notifications, f"unix:{directory}/run/s.sock")
            assert node.told().startswith("READY=1")
            yield node
        finally:
            spawner.terminate()
            spawner.wait(SECONDS)
            shutil.rmtree(directory)


def test_status_of_the_daemon_is_one_plain_line_to_the_service_manager(node: Node) -> None:
    with node.daemons_socket() as sock:
        sock.send(wire.encode(wire.Ready("fine\nMAINPID=1\nFDSTORE=1\x1b[2J\udcff" + "x" * 10_000)))
    told = node.told()
    assert told.count("\n") == 1
    assert "MAINPID" in told.splitlines()[1]
    assert told.replace("\n", "").isprintable()
    assert len(told) < 300
    assert node.serves()


@pytest.mark.parametrize(
    "packet",
    [
        b'{"type": "@memfd"',
        b'{"type": "@memfd", "size": 1e400}',
        b'{"type": "@memfd", "size": 100000}',
        b"[" * 40_000,
        b'{"type":"Kill","sandbox_id":' + b"9" * 5000 + b"}",
        b'{"type":"Ready","status":"\xff"}',
        json.dumps({"type": "Hello"}).encode(),
        wire.encode(wire.Drain(1.0)),
        b"x" * 60_000,
    ],
    ids=lambda packet: packet[:24].decode("latin-1"),
)
def test_broken_packets_end_the_daemon_and_not_the_spawner(packet: bytes, node: Node) -> None:
    with node.daemons_socket() as sock:
        sock.send(packet)
    assert node.told() == "STATUS=the daemon was killed by signal 9; starting it again"
    assert node.told().startswith("READY=1"), "the daemon was started anew"
    assert node.serves()


def test_descriptors_never_reach_the_spawner(node: Node) -> None:
    """Closing one could block: a file system of the daemon's own (FUSE) answers the close when it likes."""
    read, write = os.pipe()
    with node.daemons_socket() as sock:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [write]))]
        sock.sendmsg([wire.encode(wire.Kill("0" * 32))], rights)
    os.close(write)
    assert os.read(read, 1) == b"", "the descriptor in flight is gone"
    os.close(read)
    assert node.told() == "STATUS=the daemon was killed by signal 9; starting it again"
    assert node.told().startswith("READY=1"), "the daemon was started anew"
    assert node.serves()


BOUND = wire.Execute("e" * 32, ("/bin/sleep", "77777"), (), "/", 1, 64, 1 << 20, 1.0, 64 << 20, 16)


@pytest.mark.parametrize("left_out", [("memory_bytes",), ("pids",), ("memory_bytes", "pids")], ids=" and ".join)
def test_program_without_the_limits_that_no_cgroup_holds_is_not_started(
    left_out: tuple[str, ...], node_without_cgroups: Node
) -> None:
    """As the control shows, the same program with them is, and then has them."""
    spawner = node_without_cgroups.spawner.pid
    with Client(node_without_cgroups.address) as client:
        events = client.execute(["/bin/sh", "-c", "echo up; exec sleep 1000"])
        assert any(isinstance(event, Chunk) for event in events)
        with node_without_cgroups.in_place_of_the_daemon() as init:
            nothing: dict[str, Any] = dict.fromkeys(left_out, 0)
            failed = _answer(init, replace(BOUND, **nothing))
            assert isinstance(failed, wire.ExecFailed)
            assert (failed.step, failed.detail.split()[0]) == ("plan", left_out[0])
            assert proc.with_argument(spawner, "77777") == ()
            assert isinstance(_answer(init, BOUND), wire.Started)
            (program,) = proc.with_argument(spawner, "77777")
            limits = (program.path / "limits").read_text()
            assert limits.split("Max data size")[1].split()[0] == str(64 << 20)
            assert limits.split("Max processes")[1].split()[0] == "16"
        for execution in client.executions(living_only=True):
            client.kill(execution.execution_id)
        assert len(list(events)) > 0, "the daemon goes on"


def _answer(init: socket.socket, message: wire.Execute) -> wire.Message:
    read, write = os.pipe()
    wire.send(init, message, (read, write, write))
    wire.close_all((read, write))
    assert select.select([init], [], [], SECONDS)[0], "init answers"
    received = wire.receive(init)
    assert received is not None
    return received[0]
