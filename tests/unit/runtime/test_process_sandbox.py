"""One sandbox of the process runtime against an init that the test plays, and one that lies."""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from sandboxd.action import ProcessExec
from sandboxd.errors import InvalidRequest, RuntimeFailed
from sandboxd.model import ExecPlan, ExitStatus, InputFile, LimitId, OutputFile, RefusedCalls
from sandboxd.runtime.process_sandbox import ProcessSandbox
from sandboxd.spawner import wire
from tests.unit.runtime.test_process import LIMITS

ID = "e" * 32
PLAN = ExecPlan(ID, ("/bin/true",), (("A", "b"),), "/workspace", LIMITS, b"", (), ())


@dataclass
class Init:
    """The other end of the control connection, and how often a kill was asked for."""

    sock: socket.socket
    sandbox: ProcessSandbox = field(init=False)
    kills: int = 0

    def kill(self) -> None:
        self.kills += 1

    async def receive(self) -> tuple[wire.Message, list[int]]:
        received = await asyncio.to_thread(wire.receive, self.sock)
        assert received is not None
        return received

    async def next(self) -> wire.Message:
        message, fds = await self.receive()
        wire.close_all(fds)
        return message

    def send(self, message: wire.Message, *fds: int) -> None:
        wire.send(self.sock, message, fds)

    def send_file(self, content: bytes, **change: object) -> None:
        fields: dict[str, object] = {"request_id": 1, "path": "f", "size": len(content), "mode": 0o644, **change}
        fd = os.memfd_create("file")
        os.write(fd, content)
        self.send(wire.FileOpened(**fields), fd)  # type: ignore[arg-type]
        os.close(fd)


@pytest_asyncio.fixture
async def init() -> AsyncIterator[Init]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.settimeout(30)
    played = Init(theirs)
    fds = {"init": ours.detach(), "pidfd": os.pidfd_open(os.getpid())}
    played.sandbox = ProcessSandbox("a" * 32, 7, fds, (), frozenset({"memory"}), played.kill)
    yield played
    played.sandbox.ended(())
    theirs.close()


def _start(init: Init, plan: ExecPlan = PLAN) -> "asyncio.Task[int]":
    return asyncio.create_task(init.sandbox.start(plan, 0, 1, 2))


async def _started(init: Init) -> None:
    starting = _start(init)
    await init.next()
    init.send(wire.Started(ID, 5))
    assert await starting == 5


def _exited(status: int, *reached: str) -> wire.Exited:
    return wire.Exited(ID, status, 1.0, 2.0, 3000, reached)


async def test_program_is_sent_with_rlimits_only_for_what_no_cgroup_carries(init: Init) -> None:
    starting = _start(init)
    message, fds = await init.receive()
    assert message == wire.Execute(
        ID, ("/bin/true",), (("A", "b"),), "/workspace", 0, 256, 1 << 26, 10.0, LIMITS.memory_bytes, 0
    )
    assert len(fds) == 3
    wire.close_all(fds)
    init.send(wire.Started(ID, 5))
    assert await starting == 5


@pytest.mark.parametrize(("status", "expected"), [(0x300, ExitStatus(3, None)), (9, ExitStatus(None, 9))])
async def test_end_is_told_to_everybody_who_waits(status: int, expected: ExitStatus, init: Init) -> None:
    await _started(init)
    waiting = [asyncio.create_task(init.sandbox.wait(ID)) for _ in range(2)]
    init.send(_exited(status, "file_size", "no such limit"))
    assert await asyncio.gather(*waiting) == [expected, expected]
    assert init.sandbox.limits_reached() == (LimitId.FILE_SIZE,)
    assert init.sandbox.usage().cpu_system_seconds == 2.0


async def test_files_are_there_before_the_program_is_sent(init: Init) -> None:
    plan = ExecPlan(ID, ("x",), (), "/", LIMITS, b"", (InputFile("a", b"one"), InputFile("b", b"two")), ())
    starting = _start(init, plan)
    for number, content in enumerate((b"one", b"two"), start=1):
        message, (fd,) = await init.receive()
        assert isinstance(message, wire.Put)
        assert os.pread(fd, 10, 0) == content
        os.close(fd)
        init.send(wire.Answer(number, 0, "", ()))
    assert isinstance(await init.next(), wire.Execute)
    init.send(wire.Started(ID, 5))
    await starting


@pytest.mark.parametrize(("number", "why"), [(28, "No space left"), (2**63 - 1, "error 9223372036854775807")])
async def test_program_whose_file_was_refused_is_never_sent(number: int, why: str, init: Init) -> None:
    plan = ExecPlan(ID, ("x",), (), "/", LIMITS, b"", (InputFile("a", b"one"),), ())
    starting = _start(init, plan)
    await init.next()
    init.send(wire.Answer(1, number, "", ()))
    with pytest.raises(InvalidRequest, match=rf"'a'.*{why}"):
        await starting
    init.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        wire.receive(init.sock)


async def test_arguments_too_large_for_any_message_are_refused(init: Init) -> None:
    plan = ExecPlan(ID, ("x" * wire.MAX_MESSAGE,), (), "/", LIMITS, b"", (), ())
    with pytest.raises(InvalidRequest, match="too large"):
        await init.sandbox.start(plan, 0, 1, 2)


async def test_program_that_could_not_be_confined_is_a_failure(init: Init) -> None:
    starting = _start(init)
    await init.next()
    init.send(wire.ExecFailed(ID, "seccomp", 1, "x"))
    with pytest.raises(RuntimeFailed, match="confinement failed at seccomp"):
        await starting


async def test_collected_files_are_read_whole_and_never_beyond_their_size(init: Init) -> None:
    collecting = asyncio.create_task(init.sandbox.collect(("*",), 100, 3))
    assert await init.next() == wire.Collect(1, ("*",), 3, 100, 0)
    init.send_file(b"whole", path="a/b")
    init.send_file(b"grown meanwhile", path="g", size=5)
    init.send_file(b"shrunk", path="s", size=50, mode=0o4755)
    init.send(wire.Answer(1, 0, "limit_reached", (("x", "why"),)))
    found = await collecting
    assert found.files == (
        OutputFile("a/b", b"whole", 0o644), OutputFile("g", b"grown", 0o644), OutputFile("s", b"shrunk", 0o755)
    )  # fmt: skip
    assert (found.skipped, found.limit_reached) == ((("x", "why"),), True)


@pytest.mark.parametrize(
    "change",
    [
        {"path": "../x"},
        {"path": "/etc/passwd"},
        {"path": ""},
        {"path": "a\0b"},
        {"size": 101},
        {"size": -1},
        {"request_id": 2},
    ],
    ids=str,
)
async def test_file_that_was_not_asked_for_loses_init_its_credit(change: dict[str, object], init: Init) -> None:
    collecting = asyncio.create_task(init.sandbox.collect(("*",), 100, 3))
    await init.next()
    init.send_file(b"x", **change)
    with pytest.raises(RuntimeFailed):
        await collecting


async def test_more_files_than_were_asked_for_are_not_taken(init: Init) -> None:
    collecting = asyncio.create_task(init.sandbox.collect(("*",), 100, 3))
    await init.next()
    for name in "abcd":
        init.send_file(b"x", path=name)
    with pytest.raises(RuntimeFailed):
        await collecting


async def test_descriptor_that_is_no_file_is_not_read(init: Init) -> None:
    """Reading a pipe would stop the whole daemon."""
    collecting = asyncio.create_task(init.sandbox.collect(("*",), 100, 3))
    await init.next()
    read, write = os.pipe()
    init.send(wire.FileOpened(1, "f", 5, 0o644), read)
    with pytest.raises(RuntimeFailed):
        await collecting
    wire.close_all([read, write])


async def test_file_that_cannot_be_read_loses_init_its_credit(init: Init) -> None:
    collecting = asyncio.create_task(init.sandbox.collect(("*",), 100, 3))
    await init.next()
    with Path("/proc/self/mem").open("rb") as memory:  # a regular file by its mode, with nothing at 0
        init.send(wire.FileOpened(1, "f", 5, 0o644), memory.fileno())
    with pytest.raises(RuntimeFailed, match="cannot be read"):
        await collecting


@pytest.mark.parametrize("message", [wire.Kill("x"), wire.Hello("", "", (), (), 0), wire.Answer(0, 5, "no room", ())])
async def test_init_that_fails_or_lies_fails_whoever_waits(message: wire.Message, init: Init) -> None:
    await _started(init)
    waiting = asyncio.create_task(init.sandbox.wait(ID))
    init.send(message)
    with pytest.raises(RuntimeFailed):
        await waiting


async def test_answers_and_ends_that_nobody_waits_for_are_ignored(init: Init) -> None:
    init.send(wire.Answer(99, 0, "", ()))
    init.send(wire.Started("f" * 32, 1))
    init.send(wire.Exited("f" * 32, 2**40, 0.0, 0.0, 0, ()))
    await _started(init)


async def test_nothing_works_once_the_sandbox_is_gone(init: Init) -> None:
    await _started(init)
    waiting = asyncio.create_task(init.sandbox.wait(ID))
    await asyncio.sleep(0)
    init.sandbox.ended((("oom_kills", 2.0),))
    with pytest.raises(RuntimeFailed):
        await waiting
    for attempt in (init.sandbox.start(PLAN, 0, 1, 2), init.sandbox.stop(ID), init.sandbox.collect(("*",), 1, 1)):
        with pytest.raises(RuntimeFailed):
            await attempt
    assert (await init.sandbox.destroy()).oom_kills == 2
    assert init.kills == 0


async def test_every_descriptor_is_closed_with_the_sandbox(init: Init) -> None:
    init.sandbox.ended(())
    assert init.sock.recv(1) == b""


@dataclass
class Asking:
    """Says yes to `/bin/yes` alone, and remembers what it was told."""

    told: list[RefusedCalls] = field(default_factory=list)

    async def may_exec(self, action: ProcessExec) -> bool:
        return action.image == "/bin/yes"

    async def refused(self, calls: RefusedCalls) -> None:
        self.told.append(calls)


def _asked(number: int, image: str, execution_id: str = ID) -> wire.Asked:
    return wire.Asked(number, execution_id, 7, 1, image, ("word",), "/workspace")


async def test_question_of_init_gets_the_mediators_answer(init: Init) -> None:
    init.sandbox.mediate(Asking())
    await _started(init)
    init.send(_asked(1, "/bin/yes"))
    assert await init.next() == wire.Answered(1, 0)
    init.send(_asked(2, "/bin/no"))
    assert await init.next() == wire.Answered(2, errno.EACCES)


async def test_question_without_a_mediator_is_answered_with_no(init: Init) -> None:
    await _started(init)
    init.send(_asked(1, "/bin/yes"))
    assert await init.next() == wire.Answered(1, errno.EACCES)


async def test_what_init_told_before_the_end_is_told_before_wait_returns(init: Init) -> None:
    mediator = Asking()
    init.sandbox.mediate(mediator)
    await _started(init)
    init.send(wire.CallRefused(ID, 101, 7, errno.EPERM, "profile", 3))
    init.send(_exited(0))
    assert await init.sandbox.wait(ID) == ExitStatus(0, None)
    assert mediator.told == [RefusedCalls(101, 7, errno.EPERM, "profile", 3)]


async def test_question_about_an_execution_that_is_not_its_own_loses_the_sandbox(init: Init) -> None:
    init.sandbox.mediate(Asking())
    await _started(init)
    init.send(_asked(1, "/bin/yes", "f" * 32))
    with pytest.raises(RuntimeFailed):
        await init.sandbox.wait(ID)


async def test_listeners_are_there_by_port_while_the_sandbox_lives() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening = socket.create_server(("127.0.0.1", 0))
    fds = {"init": ours.detach(), "listen:443": os.dup(listening.fileno()), "listen:80": os.dup(listening.fileno())}
    sandbox = ProcessSandbox("a" * 32, 7, fds, (), frozenset(), lambda: None)
    assert sandbox.listeners == {443: fds["listen:443"], 80: fds["listen:80"]}
    assert os.fstat(sandbox.listeners[443]).st_ino == os.fstat(listening.fileno()).st_ino
    sandbox.ended(())
    assert sandbox.listeners == {}
    for name in ("listen:443", "listen:80"):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fds[name])
    listening.close()
    theirs.close()


@pytest.mark.parametrize(
    "port", ["", "0", "65536", "080", "+80", "-1", " 80", "8_0", "http", "\u0668\u0660", "9" * 5000]
)
async def test_listener_without_a_port_breaks_the_protocol_and_is_closed(port: str) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fds = {"init": ours.detach(), "pidfd": os.pidfd_open(os.getpid()), f"listen:{port}": os.memfd_create("listener")}
    with pytest.raises(wire.ProtocolError, match="names no port"):
        ProcessSandbox("a" * 32, 7, fds, (), frozenset(), lambda: None)
    for fd in fds.values():
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    theirs.close()


async def test_first_and_last_port_can_be_listened_on() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fds = {"init": ours.detach(), "listen:1": os.memfd_create("first"), "listen:65535": os.memfd_create("last")}
    sandbox = ProcessSandbox("a" * 32, 7, fds, (), frozenset(), lambda: None)
    assert sandbox.listeners == {1: fds["listen:1"], 65535: fds["listen:65535"]}
    sandbox.ended(())
    theirs.close()


async def test_frozen_sandbox_is_stopped_by_the_spawner_since_init_does_not_hear(init: Init) -> None:
    await _started(init)
    init.sandbox.frozen = True
    stopping = asyncio.create_task(init.sandbox.stop(ID))
    await asyncio.sleep(0)
    assert init.kills == 1
    init.sandbox.ended(())
    await stopping
    with pytest.raises(RuntimeFailed):
        await init.sandbox.wait(ID)


async def test_init_halts_and_resumes_where_no_cgroup_can_be_frozen(init: Init) -> None:
    for verb, kind in ((init.sandbox.halt, wire.Halt), (init.sandbox.resume, wire.Resume)):
        asking = asyncio.create_task(verb())
        message = await init.next()
        assert isinstance(message, kind)
        init.send(wire.Answer(message.request_id, 0, "", ()))
        await asking


async def test_programs_that_do_not_stand_still_are_told(init: Init) -> None:
    halting = asyncio.create_task(init.sandbox.halt())
    await init.next()
    init.send(wire.Answer(1, errno.ETIMEDOUT, "x", ()))
    with pytest.raises(RuntimeFailed) as failure:
        await halting
    assert failure.value.reason == "freeze_failed"
