"""Counters of a living sandbox, read by the unprivileged daemon from descriptors that the spawner opened.

Never opens a path and never writes. Made by `process` from the descriptors of a `Launched` or `Adopt` message.
"""

import os
import select
from collections.abc import Mapping

from sandboxd.model import SandboxUsage
from sandboxd.spawner import counters


def usage(numbers: tuple[tuple[str, float], ...]) -> SandboxUsage:
    """`SandboxUsage` from named numbers, as they also stand in a `SandboxEnded` message; other names are ignored."""
    known = dict(numbers)
    return SandboxUsage(
        cpu_user_seconds=known.get("cpu_user_seconds", -1.0),
        cpu_system_seconds=known.get("cpu_system_seconds", -1.0),
        peak_memory_bytes=int(known.get("peak_memory_bytes", -1)),
        peak_pids=int(known.get("peak_pids", -1)),
        io_read_bytes=int(known.get("io_read_bytes", -1)),
        io_write_bytes=int(known.get("io_write_bytes", -1)),
        oom_kills=int(known.get("oom_kills", 0)),
        pids_denied=int(known.get("pids_denied", 0)),
        cpu_throttled=int(known.get("cpu_throttled", 0)),
    )


class Counters:
    """The counters of one sandbox; takes the descriptors over and closes them in `close`."""

    def __init__(self, fds: Mapping[str, int], at_birth: tuple[tuple[str, float], ...] = ()) -> None:
        self._fds = dict(fds)
        self._at_birth = at_birth
        self._oom_kills = 0
        self._epoll: select.epoll | None = None
        if "memory.events" in self._fds:
            self._epoll = select.epoll()
            self._epoll.register(self._fds["memory.events"], select.EPOLLPRI | select.EPOLLERR)

    def read(self) -> SandboxUsage:
        """As of now, since `at_birth`. Once the cgroup is removed nothing can be read: everything is -1 or 0."""
        return usage(counters.since(self._at_birth, counters.read(self._fds)))

    def oom_descriptor(self) -> int | None:
        """Becomes readable when `oom_happened` is worth asking; None where the kernel tells nothing."""
        if self._epoll is not None:
            return self._epoll.fileno()
        return self._fds.get(counters.OOM)

    def oom_happened(self) -> bool:
        """Whether the OOM killer acted since the last call; also takes back the descriptor's readiness."""
        if self._epoll is None:
            return self._v1_oom_happened()
        kills = self.read().oom_kills  # reading memory.events is what re-arms it
        happened = kills > self._oom_kills
        self._oom_kills = max(self._oom_kills, kills)
        return happened

    def _v1_oom_happened(self) -> bool:
        eventfd = self._fds.get(counters.OOM)
        if eventfd is None:
            return False
        try:
            os.eventfd_read(eventfd)
        except BlockingIOError:
            return False
        # The event comes when the killer sets out, so its count may still be old; it also comes when the cgroup is
        # removed, and then the file cannot be read any more.
        try:
            os.pread(self._fds["memory.oom_control"], 1, 0)
        except OSError:
            return False
        return True

    def close(self) -> None:
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None
        while self._fds:
            os.close(self._fds.popitem()[1])
