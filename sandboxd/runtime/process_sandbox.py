"""One sandbox of the process runtime: the daemon's side of its init, its counters and its end.

Believes nothing that init says beyond its own sandbox: descriptors are read as bounded bytes, ids must be ones we gave.
Made by `process`; used by `supervise` through `runtime.base.Sandbox`.
"""

import asyncio
import errno
import logging
import os
import re
import socket
import stat
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from sandboxd.errors import InvalidRequest, RuntimeFailed
from sandboxd.model import Collected, ExecPlan, ExitStatus, LimitId, OutputFile, SandboxUsage
from sandboxd.runtime import counters
from sandboxd.runtime.base import Mediator
from sandboxd.runtime.counters import Counters
from sandboxd.runtime.docket import Docket
from sandboxd.runtime.link import Link
from sandboxd.spawner import wire

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_SLOT = 0
_LISTENER = "listen:"
_PORT = re.compile(r"[1-9]\d{0,4}", re.ASCII)  # one way to write each, so that no two names are the same port
_LAST_PORT = 0xFFFF
_READ_BYTES = 1 << 20


class _Collecting:
    """The files of one request so far, held to its caps whatever init says."""

    def __init__(self, max_bytes: int, max_files: int) -> None:
        self.files: list[OutputFile] = []
        self._bytes_left = max_bytes
        self._files_left = max_files

    def takes(self, message: wire.FileOpened, kind: int) -> bool:
        self._files_left -= 1
        self._bytes_left -= message.size
        parts = message.path.split("/")
        plain = not any(part in ("", ".", "..") or "\0" in part for part in parts)
        return stat.S_ISREG(kind) and plain and message.size >= 0 <= min(self._files_left, self._bytes_left)


class ProcessSandbox:
    """`at_birth` is that of `wire.Launched`. Takes the descriptors over; closes them if it raises `ProtocolError`.

    `without_cgroup` names the limits (memory, pids) that rlimits must carry on this node.
    """

    def __init__(
        self,
        sandbox_id: str,
        host_uid: int,
        fds: Mapping[str, int],
        at_birth: tuple[tuple[str, float], ...],
        without_cgroup: frozenset[str],
        kill: Callable[[], None],
    ) -> None:
        self.sandbox_id = sandbox_id
        self.host_uid = host_uid
        self.frozen = False  # its init, too: it obeys nothing until it is thawed
        self._without_cgroup = without_cgroup
        self._kill = kill
        self._loop = asyncio.get_running_loop()
        others = dict(fds)
        try:
            named = {name: _port(name) for name in others if name.startswith(_LISTENER)}
        except wire.ProtocolError:
            wire.close_all(tuple(others.values()))
            raise
        self._link = Link(socket.socket(fileno=others.pop("init")), self._on_message, self._on_init_lost)
        self.listeners: Mapping[int, int] = {port: others.pop(name) for name, port in named.items()}
        self._counters = Counters(others, at_birth)
        self._started: dict[str, asyncio.Future[int]] = {}
        self._exited: dict[str, asyncio.Future[ExitStatus]] = {}
        self._answers: dict[int, asyncio.Future[wire.Answer]] = {}
        self._collecting: dict[int, _Collecting] = {}
        self._docket: Docket | None = None
        self._next_request = 1
        self._limits_reached: set[LimitId] = set()
        self._ended: asyncio.Future[SandboxUsage] = self._loop.create_future()
        self._own_numbers = SandboxUsage()
        self._gone: RuntimeFailed | None = None  # set once init is lost

    # --- runtime.base.Sandbox

    async def start(self, plan: ExecPlan, stdin: int, stdout: int, stderr: int) -> int:
        puts = [self._put(file.path, file.mode, file.content) for file in plan.files]
        for path, answer in puts:  # before the program is sent: it must not run without its files
            refused = await answer
            if refused.errno:
                raise InvalidRequest(f"cannot write {path!r} into the workspace: {_why(refused.errno)}")
        if self._gone is not None:
            raise self._gone
        started: asyncio.Future[int] = self._loop.create_future()
        self._started[plan.execution_id] = started
        self._exited[plan.execution_id] = self._loop.create_future()
        try:
            self._link.send(self._execute(plan), (stdin, stdout, stderr))
        except wire.ProtocolError as error:
            raise InvalidRequest("argv and env are too large; use stdin or files") from error
        return await started

    async def wait(self, execution_id: str) -> ExitStatus:
        ended = await asyncio.shield(self._exited[execution_id])
        if self._docket is not None:
            await self._docket.settle()
        return ended

    async def signal(self, execution_id: str, signum: int) -> None:
        self._link.send(wire.Signal(execution_id, signum))

    async def stop(self, execution_id: str) -> None:
        if self.frozen:
            await self.destroy()
            return
        request_id, answer = self._ask()
        self._link.send(wire.Stop(request_id))
        await answer

    async def halt(self) -> None:
        """Where it has no cgroup to freeze: init stops the programs."""
        request_id, answer = self._ask()
        self._link.send(wire.Halt(request_id))
        if number := (await answer).errno:
            raise RuntimeFailed(f"the programs cannot be stopped: {_why(number)}", reason="freeze_failed")

    async def resume(self) -> None:
        request_id, answer = self._ask()
        self._link.send(wire.Resume(request_id))
        await answer

    async def collect(self, patterns: tuple[str, ...], max_bytes: int, max_files: int) -> Collected:
        request_id, future = self._ask()
        collecting = self._collecting[request_id] = _Collecting(max_bytes, max_files)
        self._link.send(wire.Collect(request_id, patterns, max_files, max_bytes, _SLOT))
        try:
            answer = await future
        finally:
            del self._collecting[request_id]
        if answer.errno:
            raise RuntimeFailed("files could not be collected", reason="collect_failed")
        return Collected(tuple(collecting.files), answer.skipped, answer.message == "limit_reached")

    def usage(self) -> SandboxUsage:
        numbers = self._ended.result() if self._ended.done() else self._counters.read()
        return self._completed(numbers)

    def limits_reached(self) -> tuple[LimitId, ...]:
        return tuple(sorted(self._limits_reached))

    def mediate(self, mediator: Mediator) -> None:
        self._docket = Docket(mediator, self._link.send)

    def on_oom(self, callback: Callable[[], None]) -> None:
        fd = self._counters.oom_descriptor()
        if fd is not None and not self._ended.done():
            self._loop.add_reader(fd, self._on_oom_event, callback)

    async def destroy(self) -> SandboxUsage:
        if not self._ended.done():
            self._kill()
        return self._completed(await asyncio.shield(self._ended))

    # --- what `process` tells

    def ended(self, numbers: tuple[tuple[str, float], ...]) -> None:
        """The spawner says that nothing of it is left."""
        if self._ended.done():
            return
        self._ended.set_result(counters.usage(numbers))
        self._release()

    def lost(self) -> None:
        """The spawner is gone, and the kernel takes the sandbox with it."""
        self.ended(())

    # --- init

    def _on_message(self, message: wire.Message, fds: list[int]) -> None:
        try:
            match message:
                case wire.Started():
                    _resolve(self._started.get(message.execution_id), message.pid)
                case wire.ExecFailed():
                    self._on_exec_failed(message)
                case wire.Exited():
                    self._on_exited(message)
                case wire.FileOpened():
                    self._on_file(message, fds)
                case wire.Asked() | wire.CallRefused():
                    self._on_call(message)
                case wire.Answer(request_id=0):
                    if message.errno:
                        self._fail(f"the sandbox could not be completed: {message.message}")
                case wire.Answer():
                    _resolve(self._answers.pop(message.request_id, None), message)
                case _:
                    self._fail(f"init sent {type(message).__name__}")
        finally:
            wire.close_all(fds)

    def _on_exec_failed(self, message: wire.ExecFailed) -> None:
        """A step of the confinement failed, so the program did not run: never weaker, and never silently."""
        log.error("a program could not be confined", extra={"step": message.step, "detail": message.detail})
        started = self._started.get(message.execution_id)
        if started is not None and not started.done():
            started.set_exception(RuntimeFailed(f"confinement failed at {message.step}", reason="confinement_failed"))

    def _on_exited(self, message: wire.Exited) -> None:
        for name in message.limits_reached:
            if name in LimitId.__members__.values():
                self._limits_reached.add(LimitId(name))
        self._own_numbers = SandboxUsage(
            cpu_user_seconds=message.cpu_user_seconds,
            cpu_system_seconds=message.cpu_system_seconds,
            peak_memory_bytes=message.max_rss_bytes,
        )
        status = message.wait_status & 0xFFFF
        if os.WIFSIGNALED(status):
            ended = ExitStatus(None, os.WTERMSIG(status))
        else:
            ended = ExitStatus(os.WEXITSTATUS(status), None)
        _resolve(self._exited.get(message.execution_id), ended)

    def _on_call(self, message: wire.Asked | wire.CallRefused) -> None:
        if self._docket is None:  # it lived under an earlier daemon, and this one is about to end it
            if isinstance(message, wire.Asked):
                self._link.send(wire.Answered(message.request_id, errno.EACCES))
        elif message.execution_id in self._started:
            self._docket.add(message)
        else:
            raise wire.ProtocolError(f"init asked for execution {message.execution_id!r}, which is not its own")

    def _completed(self, numbers: SandboxUsage) -> SandboxUsage:
        """Without a cgroup: what wait4(2) told of the main process and the children it waited for."""
        own = self._own_numbers
        if numbers.cpu_user_seconds < 0:
            numbers = replace(numbers, cpu_user_seconds=own.cpu_user_seconds, cpu_system_seconds=own.cpu_system_seconds)
        if numbers.peak_memory_bytes < 0:
            numbers = replace(numbers, peak_memory_bytes=own.peak_memory_bytes)
        return numbers

    def _on_file(self, message: wire.FileOpened, fds: list[int]) -> None:
        collecting = self._collecting.get(message.request_id)
        if collecting is None or len(fds) != 1 or not collecting.takes(message, os.fstat(fds[0]).st_mode):
            self._fail("init sent a file that nobody asked for")
            return
        try:
            content = _content(fds[0], message.size)
        except OSError as error:  # as of /proc/self/mem, which is a regular file too
            self._fail(f"init sent a file that cannot be read: {error.strerror}")
            return
        collecting.files.append(OutputFile(message.path, content, message.mode & 0o777))

    def _on_init_lost(self) -> None:
        self._fail("the sandbox ended")

    def _fail(self, reason: str) -> None:
        """Whoever waits for init waits in vain."""
        self._link.close()
        error = RuntimeFailed(reason, reason="sandbox_lost")
        self._gone = self._gone or error
        futures: list[asyncio.Future[Any]] = [*self._started.values(), *self._exited.values(), *self._answers.values()]
        for future in futures:
            if not future.done():
                future.set_exception(error)
                future.exception()  # read: not everybody waits for each of them
        self._answers.clear()

    # --- requests to init

    def _execute(self, plan: ExecPlan) -> wire.Execute:
        limits = plan.limits
        return wire.Execute(
            plan.execution_id,
            plan.argv,
            plan.env,
            plan.cwd,
            _SLOT,
            limits.open_files,
            limits.file_size_bytes,
            limits.cpu_seconds,
            limits.memory_bytes if "memory" in self._without_cgroup else 0,
            limits.pids if "pids" in self._without_cgroup else 0,
        )

    def _put(self, path: str, mode: int, content: bytes) -> tuple[str, asyncio.Future[wire.Answer]]:
        request_id, answer = self._ask()
        fd = os.memfd_create("sandboxd-file", os.MFD_CLOEXEC)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            self._link.send(wire.Put(request_id, path, mode, _SLOT), (fd,))
        finally:
            os.close(fd)
        return path, answer

    def _ask(self) -> tuple[int, asyncio.Future[wire.Answer]]:
        request_id = self._next_request
        self._next_request += 1
        future: asyncio.Future[wire.Answer] = self._loop.create_future()
        if self._gone is not None:
            future.set_exception(self._gone)
            future.exception()  # read: of several the first is enough
        else:
            self._answers[request_id] = future
        return request_id, future

    def _on_oom_event(self, callback: Callable[[], None]) -> None:
        if self._counters.oom_happened():
            callback()

    def _release(self) -> None:
        self._fail("the sandbox ended")
        fd = self._counters.oom_descriptor()
        if fd is not None:
            self._loop.remove_reader(fd)
        self._counters.close()
        wire.close_all(tuple(self.listeners.values()))
        self.listeners = {}


def _port(name: str) -> int:
    """Of a descriptor that is named `listen:PORT`."""
    number = name.removeprefix(_LISTENER)
    if not _PORT.fullmatch(number) or int(number) > _LAST_PORT:
        raise wire.ProtocolError(f"descriptor {name!r} names no port; it must be 1 to {_LAST_PORT}, in decimal")
    return int(number)


def _content(fd: int, size: int) -> bytes:
    """Never beyond the size that was counted against the cap, however the file grows meanwhile."""
    content = bytearray()
    while len(content) < size and (piece := os.pread(fd, min(_READ_BYTES, size - len(content)), len(content))):
        content += piece
    return bytes(content)


def _why(number: int) -> str:
    """Init's word for a refusal; it may be any number."""
    return os.strerror(number) if number in errno.errorcode else f"error {number}"


def _resolve(future: "asyncio.Future[_T] | None", value: _T) -> None:
    if future is not None and not future.done():
        future.set_result(value)
