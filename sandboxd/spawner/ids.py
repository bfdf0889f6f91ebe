"""Who a sandbox is on the host: blocks of ids, one per living sandbox, and the maps that give them to it.

Never hands out host uid 0, nor one id to two living sandboxes (but for rootless-single, where there is only one).
Called by the spawner; `enter_user_namespace` once at its start when it is not root.
"""

import os
import pwd
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sandboxd.spawner import sys

PER_SANDBOX = 16  # init and 15 concurrent executions
_ID = re.compile(r"\d{1,10}", re.ASCII)
PAYLOAD_UID = 1000  # inside; a concurrent execution in slot N is PAYLOAD_UID + N


class IdsUnavailable(Exception):
    """No block of ids is free, or the mode cannot be had; the message says what to do."""


@dataclass(frozen=True, slots=True)
class IdBlock:
    """The host ids of one sandbox. `single`: only the spawner's own id exists and all share it."""

    index: int
    uid: int
    gid: int
    single: bool

    @property
    def payload_uid(self) -> int:
        """Host uid of the execution in slot 0."""
        return self.uid if self.single else self.uid + 1

    @property
    def init_inside(self) -> int:
        return PAYLOAD_UID if self.single else 0

    def uid_map(self) -> str:
        return self._map(self.uid)

    def gid_map(self) -> str:
        return self._map(self.gid)

    def _map(self, start: int) -> str:
        if self.single:
            return f"{PAYLOAD_UID} {start} 1\n"
        return f"0 {start} 1\n{PAYLOAD_UID} {start + 1} {PER_SANDBOX - 1}\n"


class IdPool:
    """Blocks within [uid_start, uid_start + count). Block 0 is not for sandboxes: see `daemon_uid`."""

    def __init__(self, uid_start: int, gid_start: int, count: int, single: bool) -> None:
        if uid_start < 1 or gid_start < 1:
            raise IdsUnavailable("sandbox ids must not contain 0: a sandbox that is host uid 0 is an escape")
        if not single and count < 2 * PER_SANDBOX:
            raise IdsUnavailable(f"{count} ids are too few; give at least {2 * PER_SANDBOX}")
        self._uid_start = uid_start
        self._gid_start = gid_start
        self._single = single
        self._blocks = 1 if single else count // PER_SANDBOX
        self._next = 1
        self._taken: set[int] = set()

    def take(self) -> IdBlock:
        if self._single:
            return IdBlock(0, self._uid_start, self._gid_start, True)
        for _ in range(self._blocks):
            index = self._next
            self._next = self._next + 1 if self._next + 1 < self._blocks else 1
            if index not in self._taken:
                self._taken.add(index)
                offset = index * PER_SANDBOX
                return IdBlock(index, self._uid_start + offset, self._gid_start + offset, False)
        raise IdsUnavailable(f"all {self._blocks - 1} blocks of ids are in use; widen the id range")

    def give_back(self, block: IdBlock) -> None:
        """Only once nothing of that sandbox lives."""
        self._taken.discard(block.index)


def subordinate_range(path: Path, user: str, uid: int) -> tuple[int, int] | None:
    """(start, count) of the user's first range in /etc/subuid or /etc/subgid; None without one. See subuid(5)."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return None
    for line in lines:
        owner, _, rest = line.partition(":")
        start, _, count = rest.partition(":")
        if owner in (user, str(uid)) and _ID.fullmatch(start) and _ID.fullmatch(count) and int(start) > 0:
            return int(start), int(count)
    return None


def enter_user_namespace(mode: str) -> IdPool:
    """For an ordinary user: a user namespace of its own in which every id keeps its number. The pool to draw from."""
    uid, gid = os.getuid(), os.getgid()
    if mode == "rootless-single":
        sys.unshare(sys.CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
        return IdPool(uid, gid, 1, single=True)
    user = pwd.getpwuid(uid).pw_name
    uids = subordinate_range(Path("/etc/subuid"), user, uid)
    gids = subordinate_range(Path("/etc/subgid"), user, gid)
    if uids is None or gids is None:
        raise IdsUnavailable(f"{user!r} has no range in /etc/subuid and /etc/subgid; add one with usermod")
    _unshare_and_map(
        ("newuidmap", str(uid), str(uid), "1", str(uids[0]), str(uids[0]), str(uids[1])),
        ("newgidmap", str(gid), str(gid), "1", str(gids[0]), str(gids[0]), str(gids[1])),
    )
    return IdPool(uids[0], gids[0], min(uids[1], gids[1]), single=False)


def _unshare_and_map(*commands: tuple[str, ...]) -> None:
    """unshare(CLONE_NEWUSER), mapped from outside by the set-uid tools: that needs a process that stays outside."""
    parent = os.getpid()
    go_read, go_write = os.pipe()
    helper = os.fork()
    if helper == 0:
        try:
            os.close(go_write)
            if os.read(go_read, 1) != b"g":
                os._exit(1)
            for name, *arguments in commands:
                done = subprocess.run([name, str(parent), *arguments], stdin=subprocess.DEVNULL, check=False)
                if done.returncode:
                    os._exit(1)
            os._exit(0)
        finally:
            os._exit(1)  # a tool that cannot be started: never back into the caller's code, which would run twice
    os.close(go_read)
    sys.unshare(sys.CLONE_NEWUSER)
    os.write(go_write, b"g")
    os.close(go_write)
    _, status = os.waitpid(helper, 0)
    if status:
        raise IdsUnavailable("newuidmap or newgidmap failed; see /etc/subuid and /etc/subgid")
