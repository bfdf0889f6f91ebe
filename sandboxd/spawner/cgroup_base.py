"""The nouns of resource control: what a cgroup tree and one sandbox's cgroup offer, and the tree of a node without any.

Standard library only. Implemented by `cgroup_v1` and `cgroup_v2`; used by the spawner through `cgroup`.
"""

import errno
import re
from dataclasses import dataclass
from typing import Protocol

_SANDBOX_ID = re.compile(r"[0-9a-f]{32}")
_SUBTREE = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """Zero switches a limit off."""

    memory_bytes: int = 0  # swap is held at zero with it
    pids: int = 0
    cpus: float = 0.0  # 1.0 is one CPU
    io_read_bytes_per_second: int = 0
    io_write_bytes_per_second: int = 0


class Cgroup(Protocol):
    """The resources of one sandbox."""

    directory_fd: int | None  # for CLONE_INTO_CGROUP where the kernel has it (v2); the cgroup keeps it

    def attach(self, pid: int) -> None:
        """Move a process with one thread into it; 0 is the caller itself, for which v1 takes no global lock."""

    def limit(self, limits: CgroupLimits) -> tuple[str, ...]:
        """Names of those that now hold (memory, swap, pids, cpus, io); what is set already is not written again."""

    def counters(self) -> tuple[tuple[str, int], ...]:
        """Freshly opened descriptors for `counters.read`, now the caller's; `oom` becomes readable on an OOM (v1)."""

    def usage(self) -> tuple[tuple[str, float], ...]:
        """Numbers by `SandboxUsage` field name; those that this node cannot measure are left out."""

    def freeze(self) -> bool:
        """Have each process stop before its next instruction; whether all stand still by now. Idempotent.

        OSError where this cgroup has no freezer.
        """

    def thaw(self) -> None:
        """Let them go on. OSError as above."""

    def let_die(self) -> None:
        """Of a frozen one: kill all, and let them die of it without another instruction (v1 keeps even the killed)."""

    def kill(self) -> None:
        """Kill every process in it, frozen or not; returns when none is left, TimeoutError if one stays."""

    def remove(self) -> None:
        """Remove its directories, those below first. Idempotent."""


class CgroupTree(Protocol):
    """Everything below one directory of our own, named after this daemon's state so that two never meet."""

    version: str  # v2, v1 or none
    controllers: frozenset[str]  # memory pids cpu cpuacct io; under the v2 names whatever the version
    outlived: bool  # whether what is frozen in it stays so when its parent is killed: a guard must stand by
    reason: str  # why it is not more than that

    def create(self, sandbox_id: str) -> Cgroup: ...

    def held(self) -> tuple[int, ...]:
        """The descriptors that `let_die` needs."""

    def let_die(self) -> None:
        """Kill whatever is in the freezer of any of its cgroups, and let it die."""

    def reconcile(self) -> int:
        """Kill and remove what an earlier run left; how many sandboxes that were."""

    def close(self) -> None:
        """Remove our own directory if nothing is left in it."""


def checked_sandbox_id(sandbox_id: str) -> str:
    """The id becomes a directory name: 32 hexadecimal digits, else ValueError."""
    if not _SANDBOX_ID.fullmatch(sandbox_id):
        raise ValueError(f"sandbox id {sandbox_id!r} is not 32 lower-case hexadecimal digits")
    return sandbox_id


def checked_subtree(subtree: str) -> str:
    if not _SUBTREE.fullmatch(subtree):
        raise ValueError(f"cgroup name {subtree!r} is not made of a-z, 0-9 and '-'")
    return subtree


class NoCgroup:
    """Limits nothing and says so: `limit` returns no names."""

    directory_fd: int | None = None

    def attach(self, pid: int) -> None:
        pass

    def limit(self, limits: CgroupLimits) -> tuple[str, ...]:
        return ()

    def counters(self) -> tuple[tuple[str, int], ...]:
        return ()

    def usage(self) -> tuple[tuple[str, float], ...]:
        return ()

    def freeze(self) -> bool:
        raise OSError(errno.EOPNOTSUPP, "there is no cgroup to freeze")

    def thaw(self) -> None:
        raise OSError(errno.EOPNOTSUPP, "there is no cgroup to thaw")

    def let_die(self) -> None:
        pass

    def kill(self) -> None:
        pass

    def remove(self) -> None:
        pass


class NoTree:
    """A node where this process may make no cgroups."""

    version = "none"
    controllers: frozenset[str] = frozenset()
    outlived = False

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def create(self, sandbox_id: str) -> Cgroup:
        checked_sandbox_id(sandbox_id)
        return NoCgroup()

    def held(self) -> tuple[int, ...]:
        return ()

    def let_die(self) -> None:
        pass

    def reconcile(self) -> int:
        return 0

    def close(self) -> None:
        pass
