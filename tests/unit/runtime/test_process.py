import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from sandboxd.errors import ConfigInvalid, RuntimeFailed, SandboxdError, Unenforceable
from sandboxd.model import Guarantee, Isolation, State
from sandboxd.runtime.base import Sandbox
from sandboxd.runtime.process import ProcessRuntime
from sandboxd.spawner import wire
from tests.unit.runtime.peers import DIGEST, HOST_UID, SANDBOX_ID, Peer, hello, launch_plan, pair
from tests.unit.test_supervise import LIMITS


@dataclass
class Connected:
    runtime: ProcessRuntime
    spawner: Peer

    def begin_launch(self) -> "asyncio.Task[Sandbox]":
        return asyncio.create_task(self.runtime.launch(launch_plan()))

    async def launched(self) -> tuple[Sandbox, Peer]:
        """A sandbox, and its init."""
        launch = self.begin_launch()
        asked, _ = await self.spawner.receive(wire.Launch)
        init = self.make(asked.request_id)
        return await launch, init

    def make(self, request_id: int, sandbox_id: str = SANDBOX_ID) -> Peer:
        theirs, init = pair()
        with theirs:
            self.spawner.send(wire.Launched(request_id, sandbox_id, HOST_UID, ("init",)), (theirs.fileno(),))
        return init


@pytest.fixture
async def connected() -> AsyncIterator[Connected]:
    ours, spawner = pair()
    spawner.send(hello())
    runtime = await ProcessRuntime.connect(ours)
    yield Connected(runtime, spawner)
    spawner.close()


async def test_capabilities_are_what_the_spawner_probed(connected: Connected) -> None:
    capabilities = connected.runtime.probe()
    assert (capabilities.isolation, capabilities.mode) == (Isolation.PROCESS, "root")
    pids = capabilities.row(Guarantee.LIMIT_PIDS)
    assert (pids.state, pids.layers, pids.reason) == (State.DEGRADED, ("rlimit",), "no pids controller")


async def test_connection_is_complete_once_every_living_sandbox_was_handed_over() -> None:
    ours, spawner = pair()
    connecting = asyncio.create_task(ProcessRuntime.connect(ours))
    spawner.send(hello(living=1))
    theirs, init = pair()
    spawner.send(wire.Adopt(SANDBOX_ID, HOST_UID, ("init",)), (theirs.fileno(),))
    theirs.close()
    (adopted,) = (await connecting).adopted
    assert (adopted.sandbox_id, adopted.host_uid) == (SANDBOX_ID, HOST_UID)
    init.close()
    spawner.close()


async def test_launch_names_a_template_and_numbers_and_nothing_else(connected: Connected) -> None:
    launch = connected.begin_launch()
    asked, fds = await connected.spawner.receive(wire.Launch)
    assert (asked.sandbox_id, asked.template, asked.network, fds) == (SANDBOX_ID, DIGEST, "none", [])
    assert (asked.memory_bytes, asked.pids, asked.cpus) == (LIMITS.memory_bytes, LIMITS.pids, LIMITS.cpus)
    connected.make(asked.request_id)
    sandbox = await launch
    assert (sandbox.sandbox_id, sandbox.host_uid) == (SANDBOX_ID, HOST_UID)


@pytest.mark.parametrize(
    ("reason", "error"),
    [("above_ceiling", Unenforceable), ("template_unknown", RuntimeFailed), ("launch_failed", RuntimeFailed)],
)
async def test_launch_that_the_spawner_refuses_is_an_error(
    connected: Connected, reason: str, error: type[SandboxdError]
) -> None:
    launch = connected.begin_launch()
    asked, _ = await connected.spawner.receive(wire.Launch)
    connected.spawner.send(wire.Refused(asked.request_id, reason, "no"))
    with pytest.raises(error) as caught:
        await launch
    assert caught.value.reason == reason


async def test_sandbox_of_another_id_is_not_taken_for_the_one_asked_for(connected: Connected) -> None:
    launch = connected.begin_launch()
    asked, _ = await connected.spawner.receive(wire.Launch)
    connected.make(asked.request_id, "b" * 32)
    with pytest.raises(RuntimeFailed):
        await launch


async def test_sandbox_that_nobody_waits_for_any_more_is_killed(connected: Connected) -> None:
    launch = connected.begin_launch()
    asked, _ = await connected.spawner.receive(wire.Launch)
    launch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await launch
    connected.make(asked.request_id)
    killed, _ = await connected.spawner.receive(wire.Kill)
    assert killed.sandbox_id == SANDBOX_ID


async def test_destroying_asks_the_spawner_and_waits_for_the_last_counters(connected: Connected) -> None:
    sandbox, _ = await connected.launched()
    destroying = asyncio.create_task(sandbox.destroy())
    assert (await connected.spawner.receive(wire.Kill))[0].sandbox_id == SANDBOX_ID
    assert not destroying.done()
    connected.spawner.send(wire.SandboxEnded(SANDBOX_ID, 9, (("cpu_user_seconds", 1.5), ("cpu_system_seconds", 0.5))))
    usage = await destroying
    assert (usage.cpu_user_seconds, usage.cpu_system_seconds) == (1.5, 0.5)
    assert await sandbox.destroy() == usage


async def test_reload_gives_the_new_templates(connected: Connected) -> None:
    reloading = asyncio.create_task(connected.runtime.reload())
    asked, _ = await connected.spawner.receive(wire.Reload)
    connected.spawner.send(wire.Reloaded(asked.request_id, (("strict", DIGEST),)))
    assert await reloading == (("strict", DIGEST),)


async def test_reload_that_fails_says_which_profile_is_wrong(connected: Connected) -> None:
    reloading = asyncio.create_task(connected.runtime.reload())
    asked, _ = await connected.spawner.receive(wire.Reload)
    connected.spawner.send(wire.Refused(asked.request_id, "reload_failed", "p.yaml:3: unknown key"))
    with pytest.raises(ConfigInvalid, match=r"p\.yaml:3"):
        await reloading


async def test_what_the_service_manager_asks_for_is_passed_on(connected: Connected) -> None:
    told: asyncio.Queue[wire.Message] = asyncio.Queue()
    connected.runtime.on_reloaded(told.put_nowait)
    connected.runtime.on_drain(told.put_nowait)
    for message in (wire.Reloaded(0, ()), wire.Drain(1.0)):
        connected.spawner.send(message)
        assert await told.get() == message


async def test_spawner_hears_that_the_daemon_serves(connected: Connected) -> None:
    connected.runtime.ready("serving")
    assert (await connected.spawner.receive(wire.Ready))[0].status == "serving"


async def test_everybody_who_waits_hears_that_the_spawner_is_gone(connected: Connected) -> None:
    sandbox, _ = await connected.launched()
    launch = connected.begin_launch()
    await connected.spawner.receive(wire.Launch)
    lost = asyncio.Event()
    connected.runtime.on_lost(lost.set)
    connected.spawner.close()
    await lost.wait()
    with pytest.raises(RuntimeFailed) as caught:
        await launch
    assert caught.value.reason == "spawner_lost"
    await sandbox.destroy()  # the kernel took it along


async def test_descriptors_that_do_not_fit_their_names_end_the_connection(connected: Connected) -> None:
    lost = asyncio.Event()
    connected.runtime.on_lost(lost.set)
    connected.spawner.send(wire.Launched(1, SANDBOX_ID, HOST_UID, ("init", "pidfd")), (0,))
    await lost.wait()
    await connected.spawner.ended()


async def test_verbs_that_this_runtime_lacks_are_refused(connected: Connected) -> None:
    runtime = connected.runtime
    for verb in (runtime.pause, runtime.resume, runtime.snapshot, runtime.restore):
        with pytest.raises(Unenforceable) as caught:
            await verb(SANDBOX_ID)
        assert caught.value.reason == "not_supported"
