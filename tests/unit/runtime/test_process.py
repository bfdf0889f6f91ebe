"""The process runtime against a spawner that the test plays."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from sandboxd.errors import ConfigInvalid, RuntimeFailed, SandboxdError, Unenforceable
from sandboxd.model import Guarantee, Isolation, LaunchPlan, Limits, State
from sandboxd.runtime import process
from sandboxd.runtime.process import ProcessRuntime
from sandboxd.spawner import wire

LIMITS = Limits(30, 0, 10, 1.0, 1 << 28, 64, 256, 1 << 26, 1 << 26, 8000, 1 << 25, 8000, 1, 1, 1, 1, 1, 0, 0)
PLAN = LaunchPlan("a" * 32, Isolation.PROCESS, "d" * 64, LIMITS, "none")
FACTS = (
    ("limit.memory", "enforced", "cgroup-v2", ""),
    ("limit.pids", "degraded", "rlimit", "no cgroup"),
)
HELLO = wire.Hello("root", "6.1", FACTS, (("default", "d" * 64),), 0)
NAMES = ("pidfd", "init")


class Spawner:
    """The other end. What it sends with descriptors are fresh ones; inits are kept so that they do not look dead."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(30)
        self.inits: list[socket.socket] = []

    async def receive(self) -> wire.Message:
        received = await asyncio.to_thread(wire.receive, self.sock)
        assert received is not None
        return received[0]

    def send(self, message: wire.Message) -> None:
        wire.send(self.sock, message)

    def send_sandbox(self, message: wire.Launched | wire.Adopt | wire.Offered) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.inits.append(ours)
        pidfd = os.pidfd_open(os.getpid())
        with theirs:
            wire.send(self.sock, message, (pidfd, theirs.fileno())[: len(message.fd_names)])
        os.close(pidfd)

    def close(self) -> None:
        self.sock.close()
        for init in self.inits:
            init.close()


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[tuple[socket.socket, Spawner]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    spawner = Spawner(theirs)
    yield ours, spawner
    spawner.close()


@pytest_asyncio.fixture
async def connected(pair: tuple[socket.socket, Spawner]) -> tuple[ProcessRuntime, Spawner]:
    sock, spawner = pair
    spawner.send(HELLO)
    return await ProcessRuntime.connect(sock), spawner


Connected = tuple[ProcessRuntime, Spawner]


async def test_capabilities_are_what_the_spawner_found(connected: Connected) -> None:
    runtime, _ = connected
    assert runtime.hello == HELLO
    assert runtime.probe().row(Guarantee.LIMIT_MEMORY).state is State.ENFORCED
    assert runtime.probe().row(Guarantee.LIMIT_PIDS).reason == "no cgroup"
    assert runtime.probe().row(Guarantee.NETWORK_NONE).state is State.ABSENT


async def test_connection_waits_for_every_sandbox_of_an_earlier_daemon(pair: tuple[socket.socket, Spawner]) -> None:
    sock, spawner = pair
    spawner.send(replace(HELLO, living=2))
    connecting = asyncio.create_task(ProcessRuntime.connect(sock))
    spawner.send_sandbox(wire.Adopt("a" * 32, 7, NAMES, ()))
    await asyncio.sleep(0)
    assert not connecting.done()
    spawner.send_sandbox(wire.Adopt("b" * 32, 8, NAMES, ()))
    runtime = await connecting
    assert [(sandbox.sandbox_id, sandbox.host_uid) for sandbox in runtime.adopted] == [("a" * 32, 7), ("b" * 32, 8)]


async def test_launch_names_a_template_and_numbers_only(connected: Connected) -> None:
    runtime, spawner = connected
    launching = asyncio.create_task(runtime.launch(PLAN))
    asked = await spawner.receive()
    assert asked == wire.Launch(1, 0, "a" * 32, "d" * 64, "none", 1 << 28, 64, 1.0, 1 << 26, 8000, 1 << 25, 8000, 0, 0)
    spawner.send_sandbox(wire.Launched(1, "a" * 32, 7, NAMES, ()))
    sandbox = await launching
    assert (sandbox.sandbox_id, sandbox.host_uid) == ("a" * 32, 7)


OFFERED = wire.Offered(4, ("d" * 64,), 7, NAMES, (), 1 << 28, 64, 1.0, 1 << 26, 8000, 1 << 25, 8000)


def _held() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def _offered(connected: Connected, offer: wire.Offered = OFFERED) -> None:
    """And read: the answer to what was sent behind it has come."""
    runtime, spawner = connected
    spawner.send_sandbox(offer)
    reloading = asyncio.create_task(runtime.reload())
    asked = await spawner.receive()
    assert isinstance(asked, wire.Reload)
    spawner.send(wire.Reloaded(asked.request_id, ()))
    await reloading


async def test_offered_blank_is_a_sandbox_before_the_spawner_answers(connected: Connected) -> None:
    runtime, spawner = connected
    await _offered(connected)
    sandbox = await runtime.launch(PLAN)
    assert (sandbox.sandbox_id, sandbox.host_uid) == ("a" * 32, 7)
    asked = await spawner.receive()
    assert isinstance(asked, wire.Launch)
    assert (asked.request_id, asked.offer, asked.sandbox_id) == (0, 4, "a" * 32)


async def test_launch_of_an_offer_that_asks_for_less_waits_for_its_answer(connected: Connected) -> None:
    runtime, spawner = connected
    await _offered(connected)
    launching = asyncio.create_task(runtime.launch(replace(PLAN, limits=replace(LIMITS, pids=3))))
    asked = await spawner.receive()
    assert isinstance(asked, wire.Launch)
    assert (asked.offer, asked.pids, launching.done()) == (4, 3, False)
    spawner.send(wire.Launched(asked.request_id, "a" * 32, 7, (), ()))
    assert (await launching).host_uid == 7


async def test_refused_launch_of_an_offer_leaves_no_sandbox(connected: Connected) -> None:
    runtime, spawner = connected
    await _offered(connected)
    held = _held()
    launching = asyncio.create_task(runtime.launch(replace(PLAN, limits=replace(LIMITS, pids=3))))
    asked = await spawner.receive()
    assert isinstance(asked, wire.Launch)
    spawner.send(wire.Refused(asked.request_id, "above_ceiling", "why"))
    with pytest.raises(Unenforceable):
        await launching
    assert _held() == held - 2, "its pidfd and its line"
    launching = asyncio.create_task(runtime.launch(PLAN))
    following = await spawner.receive()
    assert isinstance(following, wire.Launch)
    assert following.offer == 0
    launching.cancel()


async def test_offered_sandbox_that_the_spawner_could_not_make_ends(connected: Connected) -> None:
    runtime, spawner = connected
    await _offered(connected)
    sandbox = await runtime.launch(PLAN)
    await spawner.receive()
    spawner.send(wire.SandboxEnded("a" * 32, 0, ()))
    with pytest.raises(RuntimeFailed):
        await sandbox.stop("e")


async def test_withdrawn_offer_is_returned_unless_it_was_named(connected: Connected) -> None:
    runtime, spawner = connected
    await _offered(connected)
    await _offered(connected, replace(OFFERED, offer=5))
    await runtime.launch(PLAN)
    assert isinstance(await spawner.receive(), wire.Launch)
    for number in (4, 5):
        spawner.send(wire.Withdrawn(number))
    assert await spawner.receive() == wire.Returned(5)


async def test_answer_with_a_foreign_sandbox_is_no_sandbox(connected: Connected) -> None:
    runtime, spawner = connected
    launching = asyncio.create_task(runtime.launch(PLAN))
    await spawner.receive()
    spawner.send_sandbox(wire.Launched(1, "b" * 32, 7, NAMES, ()))
    with pytest.raises(RuntimeFailed):
        await launching


async def test_sandbox_that_ended_on_its_way_is_told(connected: Connected) -> None:
    runtime, spawner = connected
    launching = asyncio.create_task(runtime.launch(PLAN))
    await spawner.receive()
    spawner.send_sandbox(wire.Launched(1, "a" * 32, 7, NAMES, ()))
    spawner.send(wire.SandboxEnded("a" * 32, -9, ()))
    try:
        sandbox = await launching
    except RuntimeFailed:
        return
    with pytest.raises(RuntimeFailed):
        await sandbox.stop("e")


NOT_OURS = (
    ("pidfd",),
    ("init", "init"),
    ("pidfd", "memory.events"),
    (),
    ("pidfd", "init", "init"),
    ("listen:http", "init"),
)


@pytest.mark.parametrize("names", NOT_OURS)
async def test_launch_without_its_descriptors_ends_the_connection(names: tuple[str, ...], connected: Connected) -> None:
    runtime, spawner = connected
    launching = asyncio.create_task(runtime.launch(PLAN))
    await spawner.receive()
    spawner.send_sandbox(wire.Launched(1, "a" * 32, 7, names, ()))
    with pytest.raises(RuntimeFailed, match="spawner is gone"):
        await launching


@pytest.mark.parametrize("names", NOT_OURS[:-1])
async def test_offer_without_its_descriptors_ends_the_connection_before_it_can_be_launched(
    names: tuple[str, ...], connected: Connected
) -> None:
    runtime, spawner = connected
    lost = asyncio.Event()
    runtime.on_lost(lost.set)
    spawner.send_sandbox(replace(OFFERED, fd_names=names))
    async with asyncio.timeout(30):
        await lost.wait()


@pytest.mark.parametrize(
    ("reason", "error"),
    [("above_ceiling", Unenforceable), ("template_unknown", RuntimeFailed), ("launch_failed", RuntimeFailed)],
)
async def test_refusal_keeps_its_reason(reason: str, error: type[SandboxdError], connected: Connected) -> None:
    runtime, spawner = connected
    launching = asyncio.create_task(runtime.launch(PLAN))
    await spawner.receive()
    spawner.send(wire.Refused(1, reason, "why"))
    with pytest.raises(error) as refusal:
        await launching
    assert refusal.value.reason == reason


async def test_sandbox_of_a_launch_that_nobody_waits_for_is_killed(connected: Connected) -> None:
    runtime, spawner = connected
    launching = asyncio.create_task(runtime.launch(PLAN))
    await spawner.receive()
    launching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await launching
    spawner.send_sandbox(wire.Launched(1, "a" * 32, 7, NAMES, ()))
    assert await spawner.receive() == wire.Kill("a" * 32)


async def test_destroy_waits_until_nothing_is_left_and_is_idempotent(connected: Connected) -> None:
    runtime, spawner = connected
    launching = asyncio.create_task(runtime.launch(PLAN))
    await spawner.receive()
    spawner.send_sandbox(wire.Launched(1, "a" * 32, 7, NAMES, ()))
    sandbox = await launching
    destroying = asyncio.create_task(sandbox.destroy())
    assert await spawner.receive() == wire.Kill("a" * 32)
    assert not destroying.done()
    spawner.send(wire.SandboxEnded("a" * 32, -9, (("peak_memory_bytes", 5.0),)))
    assert (await destroying).peak_memory_bytes == 5
    assert await sandbox.destroy() == sandbox.usage()


async def test_reload_gives_the_new_names_or_the_complaint(connected: Connected) -> None:
    runtime, spawner = connected
    for answer in (wire.Reloaded(1, (("x", "e" * 64),)), wire.Refused(2, "reload_failed", "line 3")):
        reloading = asyncio.create_task(runtime.reload())
        await spawner.receive()
        spawner.send(answer)
        if isinstance(answer, wire.Reloaded):
            assert await reloading == answer.templates
        else:
            with pytest.raises(ConfigInvalid, match="line 3"):
                await reloading


async def test_unasked_messages_reach_their_callbacks(connected: Connected) -> None:
    runtime, spawner = connected
    seen: asyncio.Queue[wire.Message] = asyncio.Queue()
    runtime.on_reloaded(seen.put_nowait)
    runtime.on_drain(seen.put_nowait)
    for message in (wire.Reloaded(0, ()), wire.Drain(3.0)):
        spawner.send(message)
        assert await seen.get() == message
    runtime.ready("serving")
    assert await spawner.receive() == wire.Ready("serving")


async def test_lost_spawner_fails_whoever_waits(connected: Connected) -> None:
    runtime, spawner = connected
    lost = asyncio.Event()
    runtime.on_lost(lost.set)
    waiting = [asyncio.create_task(runtime.launch(PLAN)), asyncio.create_task(runtime.reload())]
    await spawner.receive()
    spawner.close()
    await lost.wait()
    for task in waiting:
        with pytest.raises(RuntimeFailed) as failure:
            await task
        assert failure.value.reason == "spawner_lost"


async def test_verbs_that_are_lacking_say_so(connected: Connected) -> None:
    runtime, _ = connected
    for verb in (runtime.pause, runtime.resume, runtime.snapshot, runtime.restore):  # without a freezer, too
        with pytest.raises(Unenforceable, match="cannot"):
            await verb("a" * 32)


FREEZER = ("sandbox.freeze", "enforced", "cgroup v1", "")


async def _with_sandbox(pair: tuple[socket.socket, Spawner], fact: tuple[str, str, str, str]) -> ProcessRuntime:
    sock, spawner = pair
    spawner.send(replace(HELLO, facts=(*FACTS, fact), living=1))
    spawner.send_sandbox(wire.Adopt("a" * 32, 7, NAMES, ()))
    return await ProcessRuntime.connect(sock)


async def test_spawner_is_asked_until_all_stands_still(pair: tuple[socket.socket, Spawner]) -> None:
    runtime = await _with_sandbox(pair, FREEZER)
    spawner = pair[1]
    pausing = asyncio.create_task(runtime.pause("a" * 32))
    for number, state in enumerate(("freezing", "freezing", "frozen"), 1):
        assert await spawner.receive() == wire.Freeze(number, "a" * 32)
        spawner.send(wire.Frozen(number, state))
    await pausing
    resuming = asyncio.create_task(runtime.resume("a" * 32))
    assert await spawner.receive() == wire.Thaw(4, "a" * 32)
    spawner.send(wire.Frozen(4, "thawed"))
    await resuming


async def test_what_does_not_stand_still_goes_on_and_is_an_error(
    pair: tuple[socket.socket, Spawner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_MOST_LOOKS", 1)
    runtime = await _with_sandbox(pair, FREEZER)
    spawner = pair[1]
    for answer in (wire.Frozen(1, "freezing"), wire.Refused(3, "freeze_failed", "no")):
        pausing = asyncio.create_task(runtime.pause("a" * 32))
        await spawner.receive()
        spawner.send(answer)
        thaw = await spawner.receive()
        assert isinstance(thaw, wire.Thaw)
        spawner.send(wire.Frozen(thaw.request_id, "thawed"))
        with pytest.raises(RuntimeFailed) as failure:
            await pausing
        assert failure.value.reason == "freeze_failed"


async def test_without_a_cgroup_init_is_asked(pair: tuple[socket.socket, Spawner]) -> None:
    runtime = await _with_sandbox(pair, ("sandbox.freeze", "degraded", "init", "signals"))
    pair[1].inits[0].settimeout(30)
    for verb, kind in ((runtime.pause, wire.Halt), (runtime.resume, wire.Resume)):
        asking = asyncio.create_task(verb("a" * 32))
        received = await asyncio.to_thread(wire.receive, pair[1].inits[0])
        assert received is not None and isinstance(received[0], kind)
        wire.send(pair[1].inits[0], wire.Answer(received[0].request_id, 0, "", ()))
        await asking


async def test_sandbox_that_has_ended_cannot_be_frozen(pair: tuple[socket.socket, Spawner]) -> None:
    runtime = await _with_sandbox(pair, FREEZER)
    for verb in (runtime.pause, runtime.resume):
        with pytest.raises(RuntimeFailed) as failure:
            await verb("b" * 32)
        assert failure.value.reason == "sandbox_lost"


async def test_examination_reads_what_the_spawner_hands_over(pair: tuple[socket.socket, Spawner]) -> None:
    runtime = await _with_sandbox(pair, FREEZER)
    spawner = pair[1]
    read, write = os.pipe()
    os.write(write, b"mounts.txt 1\nx")
    os.close(write)

    async def answered() -> None:
        assert await spawner.receive() == wire.Examine(1, "a" * 32, 7)
        wire.send(spawner.sock, wire.Examined(1), (read,))
        os.close(read)

    answering = asyncio.create_task(answered())
    assert [piece async for piece in runtime.examine("a" * 32, 7)] == [("mounts.txt", b"x")]
    await answering


async def test_examination_that_nobody_waits_for_any_more_is_closed(pair: tuple[socket.socket, Spawner]) -> None:
    runtime = await _with_sandbox(pair, FREEZER)
    spawner = pair[1]
    asking = asyncio.create_task(anext(runtime.examine("a" * 32, 7)))
    await spawner.receive()
    asking.cancel()
    await asyncio.wait({asking})
    read, write = os.pipe()
    wire.send(spawner.sock, wire.Examined(1), (read,))
    os.close(read)
    async with asyncio.timeout(30):
        while True:
            try:
                os.write(write, b"x")
            except BrokenPipeError:
                break
            await asyncio.sleep(0.01)
    os.close(write)


async def test_refused_examination_is_an_error(pair: tuple[socket.socket, Spawner]) -> None:
    runtime = await _with_sandbox(pair, FREEZER)
    asking = asyncio.create_task(anext(runtime.examine("b" * 32, 7)))
    await pair[1].receive()
    pair[1].send(wire.Refused(1, "sandbox_gone", "no"))
    with pytest.raises(RuntimeFailed) as failure:
        await asking
    assert failure.value.reason == "sandbox_gone"
