"""The spawner's two unprivileged helpers in the host's view: the daemon, and the compiler of profile templates.

Each is exec'd anew with a fresh environment under a uid of its own; neither can read or signal the other.
Called by `service`.
"""

import fcntl
import os
import signal
import sys as python
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandboxd.spawner import reveal, seccomp, sys
from sandboxd.spawner.mounts import Stage

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
DAEMON_SOCKET_FD = 3
_FIRST_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a child runs as; None keeps the spawner's own id (rootless)."""

    uid: int | None
    gid: int | None


@dataclass(frozen=True, slots=True)
class Child:
    pid: int
    pidfd: int


def start(
    stage: Stage,
    identity: Identity,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    descriptors: Mapping[int, int],
    readable: Sequence[Path],
) -> Child:
    """Run `python -I ARGUMENTS` with the given {target: own} descriptors besides 0-2 and nothing else open.

    `readable` are paths that the child must reach although a directory above them may be closed to its uid.
    """
    pid = os.fork()
    if pid:
        return Child(pid, os.pidfd_open(pid))
    try:
        _become(stage, identity, arguments, environment, descriptors, readable)
    finally:
        os._exit(70)  # whatever happened: never back into the spawner's own code


def _become(
    stage: Stage,
    identity: Identity,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    descriptors: Mapping[int, int],
    readable: Sequence[Path],
) -> None:
    try:
        signal.set_wakeup_fd(-1)
        for number in _FIRST_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        os.setsid()  # the terminal's Ctrl-C is for the spawner, which then drains
        sys.setns(stage.host_mnt, sys.CLONE_NEWNS)
        sys.drop_bounding_set()  # what is needed below stays until the ids change
        if identity.uid is not None and identity.gid is not None:
            sys.unshare(sys.CLONE_NEWNS)
            sys.mount("none", "/", "", sys.MS_REC | sys.MS_SLAVE)
            reveal.reveal((Path(python.prefix), Path(python.base_prefix), PACKAGE_ROOT, *readable), identity.uid)
            os.setgroups([])
            os.setresgid(identity.gid, identity.gid, identity.gid)
            os.setresuid(identity.uid, identity.uid, identity.uid)
        sys.drop_capabilities()
        sys.prctl(sys.PR_SET_NO_NEW_PRIVS, 1)
        sys.seccomp_set_filter(seccomp.WITHOUT_RINGS.program)
        sys.prctl(sys.PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of ids, which clears it
        _place(descriptors)
        os.chdir("/")
        os.execve(python.executable, [python.executable, "-I", *arguments], dict(environment))
    except (OSError, ValueError) as error:
        os.write(2, f"sandboxd: cannot start {arguments}: {error}\n".encode(errors="backslashreplace"))


def _place(descriptors: Mapping[int, int]) -> None:
    above = max((2, *descriptors)) + 1  # out of the way of each other's targets
    moved = {target: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for target, fd in descriptors.items()}
    for target, fd in moved.items():
        os.dup2(fd, target)
    sys.close_range(above, 0x7FFFFFFF)
