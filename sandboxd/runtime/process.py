"""The process runtime: sandboxes made by the spawner on the host's kernel, through its closed set of messages.

The daemon's only way to the privileged side. Never names a path, a uid or a filter to it: a launch is a template's
digest and numbers. Made by `daemon`.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from enum import StrEnum
from typing import Any

from sandboxd.errors import ConfigInvalid, RuntimeFailed, SandboxdError, Unenforceable
from sandboxd.model import EnforcementRow, Guarantee, Isolation, LaunchPlan, RuntimeCapabilities, State
from sandboxd.runtime import examination
from sandboxd.runtime.base import Sandbox
from sandboxd.runtime.link import Link
from sandboxd.runtime.offers import Offers
from sandboxd.runtime.process_sandbox import ProcessSandbox
from sandboxd.spawner import wire

log = logging.getLogger(__name__)

_FREEZE_SECONDS = 0.01  # between two looks whether all stand still
_MOST_LOOKS = 200
_LIMITS_OF_CGROUPS = {"memory": Guarantee.LIMIT_MEMORY, "pids": Guarantee.LIMIT_PIDS}


_Answer = wire.Launched | wire.Reloaded | wire.Frozen | wire.Examined


class _Freezer(StrEnum):
    """By what sandboxes are frozen here: the layer of `sandbox.freeze`."""

    CGROUP = "cgroup"
    INIT = "init"


class ProcessRuntime:
    """One connection to the spawner, for the life of the daemon."""

    isolation = Isolation.PROCESS

    def __init__(self, sock: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._greeted: asyncio.Future[wire.Hello] = self._loop.create_future()
        self._complete: asyncio.Future[None] = self._loop.create_future()
        self._requests: dict[int, asyncio.Future[_Answer]] = {}
        self._pipes: dict[int, int] = {}  # of examinations, until their askers take them
        self._next_request = 1
        self._sandboxes: dict[str, ProcessSandbox] = {}
        self._adopted: list[ProcessSandbox] = []
        self._offers = Offers()
        self._on_reloaded: Callable[[wire.Reloaded], None] | None = None
        self._on_drain: Callable[[wire.Drain], None] | None = None
        self._on_lost: Callable[[], None] | None = None
        self._without_cgroup: frozenset[str] = frozenset()
        self._freezer: _Freezer | None = None
        self.hello: wire.Hello
        self._capabilities: RuntimeCapabilities
        self._link = Link(sock, self._on_message, self._lost)

    @classmethod
    async def connect(cls, sock: socket.socket) -> "ProcessRuntime":
        """Greeted by the spawner, with every sandbox that lived under an earlier daemon in `adopted`."""
        runtime = cls(sock)
        runtime.hello = await runtime._greeted
        await runtime._complete
        return runtime

    @property
    def adopted(self) -> tuple[Sandbox, ...]:
        return tuple(self._adopted)

    @property
    def offered(self) -> int:
        """How many blanks are in stock."""
        return len(self._offers)

    def on_reloaded(self, callback: Callable[[wire.Reloaded], None]) -> None:
        self._on_reloaded = callback

    def on_drain(self, callback: Callable[[wire.Drain], None]) -> None:
        self._on_drain = callback

    def on_lost(self, callback: Callable[[], None]) -> None:
        self._on_lost = callback

    def ready(self, status: str) -> None:
        """Tell the service manager, through the spawner, that the daemon serves."""
        self._link.send(wire.Ready(status))

    async def reload(self) -> tuple[tuple[str, str], ...]:
        """Have the spawner compile the profiles again; (name, digest) of its templates."""
        request_id, future = self._request()
        self._link.send(wire.Reload(request_id))
        answer = await future
        if not isinstance(answer, wire.Reloaded):
            raise RuntimeFailed("the spawner answered a reload with something else")
        return answer.templates

    # --- runtime.base.Runtime

    def probe(self) -> RuntimeCapabilities:
        return self._capabilities

    async def launch(self, plan: LaunchPlan) -> Sandbox:
        """Of an offered blank that needs nothing more it is there at once, and the spawner makes it meanwhile."""
        offer = self._offers.take(plan)
        if offer is not None and offer.fits(plan):
            self._link.send(_launch(plan, 0, offer.message.offer))  # first: what follows need not hold it up
            return self._enrol(plan.sandbox_id, offer.message, offer.fds)
        request_id, answer = self._request()
        self._link.send(_launch(plan, request_id, offer.message.offer if offer is not None else 0))
        if offer is not None:
            self._enrol(plan.sandbox_id, offer.message, offer.fds)
        launched = await self._answered(plan, answer)
        if not isinstance(launched, wire.Launched) or launched.sandbox_id != plan.sandbox_id:
            raise RuntimeFailed("the spawner answered a launch with something else")
        sandbox = self._sandboxes.get(plan.sandbox_id)
        if sandbox is None:
            raise RuntimeFailed("the sandbox ended before it could be used", reason="sandbox_lost")
        return sandbox

    async def _answered(self, plan: LaunchPlan, answer: asyncio.Future[_Answer]) -> _Answer:
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            # It may be made all the same: whoever asked is gone, so it ends as soon as it is there.
            answer.add_done_callback(lambda _: self._link.send(wire.Kill(plan.sandbox_id)))
            raise
        except SandboxdError:  # it was refused, and the blank that was offered for it is gone
            sandbox = self._sandboxes.pop(plan.sandbox_id, None)
            if sandbox is not None:
                sandbox.ended(())
            raise

    async def pause(self, sandbox_id: str) -> None:
        sandbox = self._living(sandbox_id)
        if self._freezer is _Freezer.INIT:
            await sandbox.halt()
            return
        sandbox.frozen = True  # first: from now on its init may not hear
        try:
            for _ in range(_MOST_LOOKS):
                if await self._turned(wire.Freeze, sandbox_id) == "frozen":
                    return
                await asyncio.sleep(_FREEZE_SECONDS)
        except RuntimeFailed:
            await self.resume(sandbox_id)
            raise
        await self.resume(sandbox_id)
        raise RuntimeFailed("the sandbox does not stand still, so it goes on", reason="freeze_failed")

    async def resume(self, sandbox_id: str) -> None:
        sandbox = self._living(sandbox_id)
        if self._freezer is _Freezer.INIT:
            await sandbox.resume()
            return
        await self._turned(wire.Thaw, sandbox_id)
        sandbox.frozen = False

    async def examine(self, sandbox_id: str, workspace_bytes: int) -> AsyncGenerator[tuple[str, bytes], None]:
        request_id, answer = self._request()
        self._link.send(wire.Examine(request_id, sandbox_id, workspace_bytes))
        try:
            await answer
        finally:  # it may have come for somebody who has gone
            pipe = self._pipes.pop(request_id, None)
        if pipe is None:
            raise RuntimeFailed("the spawner answered an examination with something else")
        async with aclosing(examination.pieces(pipe)) as pieces:
            async for piece in pieces:
                yield piece

    async def snapshot(self, sandbox_id: str) -> str:
        raise _lacks("snapshot")

    async def restore(self, snapshot_id: str) -> Sandbox:
        raise _lacks("restore")

    def _living(self, sandbox_id: str) -> ProcessSandbox:
        if self._freezer is None:
            raise _lacks("freeze")
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            raise RuntimeFailed("the sandbox has ended", reason="sandbox_lost")
        return sandbox

    async def _turned(self, kind: type[wire.Freeze | wire.Thaw], sandbox_id: str) -> str:
        """What it is now: frozen, freezing or thawed."""
        request_id, answer = self._request()
        self._link.send(kind(request_id, sandbox_id))
        told = await answer
        if not isinstance(told, wire.Frozen):
            raise RuntimeFailed("the spawner answered a freeze with something else")
        return told.state

    # --- messages

    def _on_message(self, message: wire.Message, fds: list[int]) -> None:
        match message:
            case wire.Hello():
                self._greet(message)
            case wire.Adopt():
                _require_named(message, fds)
                self._adopted.append(self._enrol(message.sandbox_id, message, fds))
                self._check_complete()
                return
            case wire.Offered():
                _require_named(message, fds)  # now: once it is launched, its sandbox must have an owner
                self._offers.add(message, fds)
                return
            case wire.Withdrawn():
                if self._offers.withdraw(message.offer):
                    self._link.send(wire.Returned(message.offer))
            case wire.Launched():
                if message.sandbox_id not in self._sandboxes:
                    _require_named(message, fds)
                    self._enrol(message.sandbox_id, message, fds)
                    fds = []
                self._answer(message.request_id, message)
            case wire.Refused():
                self._refuse(message)
            case wire.SandboxEnded():
                sandbox = self._sandboxes.pop(message.sandbox_id, None)
                if sandbox is not None:
                    sandbox.ended(message.usage)
            case wire.Reloaded(request_id=0):
                if self._on_reloaded is not None:
                    self._on_reloaded(message)
            case wire.Examined():
                asked = self._requests.get(message.request_id)
                if asked is not None and not asked.done() and len(fds) == 1:
                    self._pipes[message.request_id] = fds.pop()
                self._answer(message.request_id, message)
            case wire.Reloaded() | wire.Frozen():
                self._answer(message.request_id, message)
            case wire.Drain():
                if self._on_drain is not None:
                    self._on_drain(message)
            case _:
                log.error("the spawner sent an unexpected message", extra={"type": type(message).__name__})
        wire.close_all(fds)

    def _greet(self, hello: wire.Hello) -> None:
        self._capabilities = RuntimeCapabilities(self.isolation, hello.mode, tuple(_row(fact) for fact in hello.facts))
        self._without_cgroup = frozenset(
            name
            for name, guarantee in _LIMITS_OF_CGROUPS.items()
            if not any(layer.startswith("cgroup") for layer in self._capabilities.row(guarantee).layers)
        )
        layers = self._capabilities.row(Guarantee.SANDBOX_FREEZE).layers
        self._freezer = _Freezer(layers[0].partition(" ")[0]) if layers else None
        self._greeted.set_result(hello)
        self.hello = hello
        self._check_complete()

    def _check_complete(self) -> None:
        if len(self._adopted) == self.hello.living and not self._complete.done():
            self._complete.set_result(None)

    def _enrol(
        self, sandbox_id: str, message: wire.Adopt | wire.Offered | wire.Launched, fds: list[int]
    ) -> ProcessSandbox:
        sandbox = self._sandboxes[sandbox_id] = ProcessSandbox(
            sandbox_id,
            message.host_uid,
            dict(zip(message.fd_names, fds, strict=True)),
            message.at_birth,
            self._without_cgroup,
            lambda: self._link.send(wire.Kill(sandbox_id)),
        )
        return sandbox

    def _refuse(self, message: wire.Refused) -> None:
        future = self._requests.pop(message.request_id, None)
        if future is None or future.done():
            return
        log.warning("the spawner refused", extra={"reason": message.reason, "detail": message.message})
        match message.reason:
            case "reload_failed":
                future.set_exception(ConfigInvalid(message.message, reason=message.reason))
            case "above_ceiling":
                future.set_exception(Unenforceable(message.message, reason=message.reason))
            case _:
                future.set_exception(RuntimeFailed(message.message, reason=message.reason))
        future.exception()  # read: its asker may be gone

    def _answer(self, request_id: int, message: _Answer) -> None:
        future = self._requests.pop(request_id, None)
        if future is not None and not future.done():
            future.set_result(message)

    def _request(self) -> tuple[int, asyncio.Future[_Answer]]:
        request_id = self._next_request
        self._next_request += 1
        future: asyncio.Future[_Answer] = self._loop.create_future()
        self._requests[request_id] = future
        return request_id, future

    def _lost(self) -> None:
        error = RuntimeFailed("the spawner is gone", reason="spawner_lost")
        futures: list[asyncio.Future[Any]] = [self._greeted, self._complete, *self._requests.values()]
        for future in futures:
            if not future.done():
                future.set_exception(error)
                future.exception()
        for sandbox in self._sandboxes.values():
            sandbox.lost()
        self._sandboxes.clear()
        self._offers.close()
        if self._on_lost is not None:
            self._on_lost()


def _row(fact: tuple[str, str, str, str]) -> EnforcementRow:
    guarantee, state, layers, reason = fact
    return EnforcementRow(Guarantee(guarantee), State(state), tuple(filter(None, layers.split(","))), reason)


def _launch(plan: LaunchPlan, request_id: int, offer: int) -> wire.Launch:
    limits = plan.limits
    return wire.Launch(
        request_id,
        offer,
        plan.sandbox_id,
        plan.template_digest,
        plan.network,
        limits.memory_bytes,
        limits.pids,
        limits.cpus,
        limits.workspace_bytes,
        limits.workspace_inodes,
        limits.tmp_bytes,
        limits.tmp_inodes,
        limits.io_read_bytes_per_second,
        limits.io_write_bytes_per_second,
    )


def _require_named(message: wire.Adopt | wire.Offered | wire.Launched, fds: list[int]) -> None:
    """ProtocolError, and the descriptors are closed, unless each has a name of its own and init's line is one."""
    names = message.fd_names
    if len(fds) != len(names) or len(names) != len(set(names)) or "init" not in names:
        wire.close_all(fds)
        raise wire.ProtocolError(f"{len(fds)} descriptors for {names}")


def _lacks(verb: str) -> Unenforceable:
    return Unenforceable(f"the process runtime cannot {verb} a sandbox", reason="not_supported")
