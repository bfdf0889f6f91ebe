"""Who a sandbox is on the host: blocks of ids, one per living sandbox, and the maps that give them to it.

Never hands out host uid 0, nor one id to two living sandboxes (but for rootless-single, where there is only one).
Called by the spawner; `enter_user_namespace` once at its start when it is not root.
"""

import os
import pwd
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sandboxd.spawner import sys

PER_SANDBOX = 16  # init and 15 concurrent executions
_ID = re.compile(r"\d{1,10}", re.ASCII)
_SAID_BYTES = 4096
_TOLD_CHARS = 200  # of a tool's own words
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


def subordinate_ids() -> tuple[tuple[int, int], tuple[int, int]]:
    """(start, count) of this user's uids and of its gids; IdsUnavailable names the first thing that is lacking."""
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        raise IdsUnavailable(
            f"uid {uid} has no account, so it has no subordinate ids; add a user, and "
            "add a range with usermod --add-subuids and --add-subgids"
        ) from None
    ranges: list[tuple[int, int]] = []
    for name in ("subuid", "subgid"):
        found = subordinate_range(Path("/etc", name), user, uid)
        mend = f"add a range with usermod --add-{name}s, as 100000-165535"
        if found is None:
            raise IdsUnavailable(f"the user has no range in /etc/{name}; {mend}")
        if found[1] < 2 * PER_SANDBOX:
            raise IdsUnavailable(f"the user's range in /etc/{name} has {found[1]} ids, too few; {mend}")
        ranges.append(found)
    for tool in ("newuidmap", "newgidmap"):
        if shutil.which(tool) is None:
            raise IdsUnavailable(f"the user has subordinate ids, but there is no {tool}; apt-get install uidmap")
    return ranges[0], ranges[1]


def enter_user_namespace(mode: str) -> IdPool:
    """For an ordinary user: a user namespace of its own in which every id keeps its number. The pool to draw from."""
    uid, gid = os.getuid(), os.getgid()
    if mode == "rootless-single":
        sys.unshare(sys.CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
        return IdPool(uid, gid, 1, single=True)
    uids, gids = subordinate_ids()
    _unshare_and_map(
        ("newuidmap", str(uid), str(uid), "1", str(uids[0]), str(uids[0]), str(uids[1])),
        ("newgidmap", str(gid), str(gid), "1", str(gids[0]), str(gids[0]), str(gids[1])),
    )
    return IdPool(uids[0], gids[0], min(uids[1], gids[1]), single=False)


def _unshare_and_map(*commands: tuple[str, ...]) -> None:
    """unshare(CLONE_NEWUSER), mapped from outside by the set-uid tools: that needs a process that stays outside."""
    parent = os.getpid()
    go_read, go_write = os.pipe()
    said_read, said_write = os.pipe()
    helper = os.fork()
    if helper == 0:
        try:
            os.close(go_write)
            if os.read(go_read, 1) != b"g":
                os._exit(1)
            for name, *arguments in commands:
                refusal = _refusal(name, str(parent), *arguments)
                if refusal:
                    os.write(said_write, refusal.encode(errors="replace"))
                    os._exit(1)
            os._exit(0)
        finally:
            os._exit(1)  # whatever fails here: never back into the caller's code, which would run twice
    os.close(go_read)
    os.close(said_write)
    sys.unshare(sys.CLONE_NEWUSER)
    os.write(go_write, b"g")
    os.close(go_write)
    _, status = os.waitpid(helper, 0)
    said = os.read(said_read, _SAID_BYTES).decode(errors="replace")
    os.close(said_read)
    if status:
        raise IdsUnavailable(said or f"the process that maps the user's subordinate ids ended with status {status}")


def _refusal(tool: str, *arguments: str) -> str:
    """Empty if the tool has done it; else what it said, with what would mend that."""
    try:
        done = subprocess.run([tool, *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        return f"{tool} cannot be started: {error.strerror}; apt-get install uidmap"
    if done.returncode == 0:
        return ""
    lines = done.stderr.decode("ascii", errors="replace").strip().splitlines() or [f"status {done.returncode}"]
    told = "".join(character for character in lines[-1] if character.isprintable())[:_TOLD_CHARS]
    return f"{tool} refused the user's subordinate ids ({told}); {_mend(tool)}"


def _mend(tool: str) -> str:
    """What keeps a set-uid tool from its privilege, if anything does."""
    path = shutil.which(tool) or tool
    if sys.prctl(sys.PR_GET_NO_NEW_PRIVS):
        return "no_new_privs is set, under which no set-uid program has effect; start sandboxd without it"
    if os.statvfs(path).f_flag & os.ST_NOSUID:
        return "its file system is mounted nosuid; mount it without, or install uidmap elsewhere"
    by_mode = os.stat(path).st_mode & stat.S_ISUID and os.stat(path).st_uid == 0
    if not by_mode and "security.capability" not in os.listxattr(path):
        return f"{tool} is not set-uid root; install uidmap again"
    return "compare the user's range in /etc/subuid and /etc/subgid with what newuidmap(1) allows"
