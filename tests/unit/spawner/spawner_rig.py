"""The test's side of `rig`: it stands where the profile compiler and the daemon would, and speaks their languages."""

import array
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from sandboxd.spawner import template, wire
from sandboxd.spawner.plans import Prepared, Shape
from sandboxd.spawner.seccomp import Filter
from sandboxd.spawner.template import Bind, Ceilings, Template, View

ROOT = Path(__file__).resolve().parents[3]
NOTES_BYTES = 1 << 16
ID_START = 0x60000000
WAIT_SECONDS = 30.0  # for what must come; never waited for in full
ALLOW_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
_M = TypeVar("_M")

CEILINGS = Ceilings(
    memory_bytes=256 << 20,
    pids=64,
    cpus=1.0,
    cpu_seconds=10.0,
    open_files=256,
    file_size_bytes=16 << 20,
    workspace_bytes=32 << 20,
    workspace_inodes=4000,
    tmp_bytes=8 << 20,
    tmp_inodes=1000,
)
VIEW = View(
    image="",
    binds=(Bind("/usr", "/usr", executable=True, optional=False),),
    symlinks=tuple((f"/{name}", f"usr/{name}") for name in ("bin", "lib", "lib64", "sbin")),
    files=(("/etc/passwd", "root:x:0:0:::\nsandbox:x:1000:1000:::\n"),),
)
LANDLOCK = (
    ("/", "list"),
    ("/etc", "read"),
    ("/usr", "exec"),
    ("/proc", "read"),
    ("/dev", "devices"),
    ("/dev/shm", "write"),
    ("/tmp", "write"),
    ("/workspace", "write"),
)
TEMPLATE = Template(
    digest="d" * 64,
    name="default",
    hostname="sandbox",
    view=VIEW,
    proc="full",
    network="loopback",
    workspace_executable=False,
    landlock=LANDLOCK,
    landlock_scopes=True,
    seccomp=ALLOW_ALL,
    seccomp_first=False,
    ceilings=CEILINGS,
)
LAUNCH = wire.Launch(1, 0, "a" * 32, "d" * 64, "none", 128 << 20, 32, 1.0, 16 << 20, 2000, 4 << 20, 500, 0, 0)
CLAIM = replace(LAUNCH, request_id=0)
PREPARED = Prepared(
    TEMPLATE, Filter(ALLOW_ALL), Shape("/views/x", "sandbox", "full", False, (), True, ALLOW_ALL, False)
)
ASSIGNED = wire.Assign(LAUNCH.template, 0, 0, 16 << 20, 2000, 4 << 20, 500)
EXECUTE = wire.Execute("e" * 32, ("/bin/true",), (("PATH", "/usr/bin:/bin"),), "/workspace", 0, 64, 8 << 20, 5.0, 0, 0)


def launch(number: int) -> wire.Launch:
    return replace(LAUNCH, request_id=number, sandbox_id=f"{number:032x}")


@dataclass
class Child:
    """Stands in for a child of the spawner: what it was given, and its end when the test says so."""

    arguments: str
    control: socket.socket
    given: int

    def end(self, status: int = 0) -> None:
        with contextlib.suppress(OSError):
            self.control.send(str(status).encode())
        self.control.close()


class Peer:
    """One end of a control connection; what it receives is kept in order until somebody wants it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(WAIT_SECONDS)
        self._kept: list[tuple[wire.Message, list[int]]] = []

    def send(self, message: wire.Message, *fds: int) -> None:
        wire.send(self.sock, message, fds)

    def expect(self, kind: type[_M]) -> tuple[_M, list[int]]:
        """The first message of that kind, also if others came before it."""
        for index, (message, fds) in enumerate(self._kept):
            if isinstance(message, kind):
                del self._kept[index]
                return message, fds
        while True:
            received = wire.receive(self.sock)
            assert received is not None, f"the peer closed; wanted {kind.__name__}, had {self._kept}"
            message, fds = received
            if isinstance(message, kind):
                return message, fds
            self._kept.append((message, fds))

    def is_closed(self) -> bool:
        """Read on to the end of the connection."""
        try:
            while (received := wire.receive(self.sock)) is not None:
                wire.close_all(received[1])
        except ConnectionError:
            return True
        return True

    def close(self) -> None:
        self.sock.close()
        for _, fds in self._kept:
            wire.close_all(fds)
        self._kept.clear()


@dataclass
class Sandbox:
    """A launched sandbox: its init, and programs in it."""

    sandbox_id: str
    host_uid: int
    init: Peer
    pidfd: int
    fds: list[int]
    _output: int = -1

    def run(self, *argv: str, plan: wire.Execute = EXECUTE, stdin: int | None = None) -> "Ended":
        """Run it to its end. Its output must fit into a pipe."""
        read, write = os.pipe()
        empty = _ended_pipe()
        try:
            self.init.send(replace(plan, argv=argv), empty if stdin is None else stdin, write, write)
        finally:
            os.close(write)
            os.close(empty)
        exited, _ = self.init.expect(wire.Exited)
        with open(read, "rb") as file:
            output = file.read()
        return Ended(os.waitstatus_to_exitcode(exited.wait_status), output.decode(errors="replace"), exited)

    def begin_echo(self, words: str) -> None:
        """What `echoed` then waits for."""
        self._output, write = os.pipe()
        empty = _ended_pipe()
        self.init.send(replace(EXECUTE, argv=("/bin/echo", words)), empty, write, write)
        wire.close_all([write, empty])

    def echoed(self) -> str:
        self.init.expect(wire.Exited)
        with open(self._output, "rb") as file:
            return file.read().decode()

    def begin(self, plan: wire.Execute) -> None:
        """Have it started; nobody reads what it writes."""
        nowhere = _ended_pipe()
        self.init.send(plan, nowhere, nowhere, nowhere)
        os.close(nowhere)

    def ask(self, message: wire.Put | wire.Collect | wire.Stop, *fds: int) -> wire.Answer:
        self.init.send(message, *fds)
        answer, _ = self.init.expect(wire.Answer)
        assert answer.request_id == message.request_id
        return answer

    def children(self) -> set[int]:
        """Of its init, on the host."""
        fields = dict(line.split(":", 1) for line in Path(f"/proc/self/fdinfo/{self.pidfd}").read_text().splitlines())
        init = int(fields["Pid"])
        return set(map(int, Path(f"/proc/{init}/task/{init}/children").read_text().split()))

    def close(self) -> None:
        self.init.close()
        wire.close_all(self.fds)


def _ended_pipe() -> int:
    """Its other end is closed."""
    read, write = os.pipe()
    os.close(write)
    return read


@dataclass(frozen=True)
class Ended:
    status: int
    output: str
    exited: wire.Exited


@dataclass
class Rig:
    process: subprocess.Popen[bytes]
    meeting: socket.socket
    notes: int
    log: Path
    open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def child(self, name: str) -> Child:
        """The next child that the spawner started; `name` is a part of its arguments."""
        self.meeting.settimeout(WAIT_SECONDS)
        data, ancillary, _, _ = self.meeting.recvmsg(65536, socket.CMSG_SPACE(64))
        fds = array.array("i")
        for _, _, payload in ancillary:
            fds.frombytes(payload)
        assert name in data.decode(), f"{data.decode()!r} came instead of {name!r}; {self.log.read_text()}"
        return Child(data.decode(), socket.socket(fileno=fds[0]), fds[1])

    def compile(self, *templates: Template, status: int = 0, output: bytes | None = None) -> Child:
        """Play the profile compiler."""
        child = self.child("sandboxd.profile.compile")
        with open(child.given, "wb") as pipe, contextlib.suppress(BrokenPipeError):
            pipe.write(template.dump(templates).encode() if output is None else output)
        child.end(status)
        return child

    def daemon(self) -> "Daemon":
        """Be the daemon that the spawner just started, greeted."""
        child = self.child("sandboxd.daemon")
        daemon = Daemon(child, Peer(socket.socket(fileno=child.given)))
        self.open.callback(daemon.close)
        daemon.hello, _ = daemon.peer.expect(wire.Hello)
        return daemon

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(WAIT_SECONDS)

    def imported(self) -> list[str]:
        """What was imported by any of the spawner's own processes once it was on the stage."""
        return os.pread(self.notes, NOTES_BYTES, 0).rstrip(b"\0").decode().split()


@dataclass
class Daemon:
    child: Child
    peer: Peer
    hello: wire.Hello = field(init=False)

    def launch(self, message: wire.Launch = LAUNCH) -> Sandbox:
        self.peer.send(message)
        return self.launched()

    def claim(
        self,
        offered: wire.Offered,
        fds: list[int],
        message: wire.Launch = CLAIM,
        before: Callable[[Sandbox], None] = lambda sandbox: None,
    ) -> Sandbox:
        """Launch it of that blank; `before` that, its line is there already."""
        sandbox = self._sandbox(message.sandbox_id, offered, fds)
        before(sandbox)
        self.peer.send(replace(message, offer=offered.offer))
        return sandbox

    def launched(self) -> Sandbox:
        launched, fds = self.peer.expect(wire.Launched)
        return self.sandbox(launched, fds)

    def sandbox(self, message: wire.Launched | wire.Adopt, fds: list[int]) -> Sandbox:
        return self._sandbox(message.sandbox_id, message, fds)

    def _sandbox(self, sandbox_id: str, message: wire.Launched | wire.Adopt | wire.Offered, fds: list[int]) -> Sandbox:
        named = dict(zip(message.fd_names, fds, strict=True))
        init = Peer(socket.socket(fileno=named.pop("init")))
        return Sandbox(sandbox_id, message.host_uid, init, named["pidfd"], list(named.values()))

    def ready_sandbox(self, message: wire.Launch = LAUNCH) -> Sandbox:
        """Complete: it answers."""
        sandbox = self.launch(message)
        assert sandbox.ask(wire.Collect(1, (), 0, 0, 0)) == wire.Answer(1, 0, "", ())
        return sandbox

    def destroy(self, sandbox: Sandbox) -> wire.SandboxEnded:
        self.peer.send(wire.Kill(sandbox.sandbox_id))
        sandbox.close()
        while True:
            ended, _ = self.peer.expect(wire.SandboxEnded)
            if ended.sandbox_id == sandbox.sandbox_id:
                return ended

    def close(self) -> None:
        self.peer.close()
        self.child.end()


@contextlib.contextmanager
def start(directory: Path, *arguments: str, within: Sequence[str] = ()) -> Iterator[Rig]:
    """A spawner that has just begun; the first thing it does is to start its compiler. Ended and reaped afterwards.

    `within` stands before its command line, such as `no_cgroups.PREFIX`.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    notes = os.memfd_create("imports")
    os.truncate(notes, NOTES_BYTES)
    os.set_inheritable(notes, True)
    os.set_inheritable(theirs.fileno(), True)
    log = directory / "log"
    command = [*within, sys.executable, "-m", "tests.unit.spawner.rig", str(theirs.fileno()), str(notes)]
    command += ["--state-dir", str(directory / "state"), "--runtime-dir", str(directory / "run")]
    command += ["--id-start", str(ID_START), "--id-count", str(16 * 256), "--daemon-user", "nobody-of-that-name"]
    command += ["--blank-stock", "2", "--drain-grace-seconds", "30", *arguments]
    with open(log, "wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file, pass_fds=(theirs.fileno(), notes)
        )
    theirs.close()
    rig = Rig(process, ours, notes, log)
    try:
        with rig.open:
            yield rig
    finally:
        for _ in range(2):  # the first asks the daemon to drain, the second does not wait for it
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.terminate()
                process.wait(2)
        process.kill()
        process.wait()
        ours.close()
        os.close(notes)
