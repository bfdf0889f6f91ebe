"""What the spawner finds and sets up once at its start: mode, ids, cgroups, directories, the stage.

Every refusal to start is here, with what mends it. Called by `__main__`.
"""

import fcntl
import hashlib
import os
import platform
import pwd
import socket
from dataclasses import dataclass
from pathlib import Path

from sandboxd.spawner import cgroup, ids, probe
from sandboxd.spawner.children import Identity
from sandboxd.spawner.mounts import Stage
from sandboxd.spawner.options import Options

Facts = tuple[tuple[str, str, str, str], ...]


class StartRefused(Exception):
    """This node or this configuration cannot run sandboxes; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Site:
    mode: str
    kernel: str
    facts: Facts
    memfd: str  # how the profiles' filters must treat memfd_create: sysctl or seal or deny
    ids: ids.IdPool
    tree: cgroup.CgroupTree
    stage: Stage
    daemon: Identity
    compiler: Identity
    lock: int
    notifier: socket.socket | None

    def notify(self, text: str) -> None:
        """Tell the service manager, see sd_notify(3)."""
        if self.notifier is not None:
            self.notifier.send(text.encode())


def settle(options: Options) -> Site:
    """Take possession. Afterwards this process is on the stage and sees no path of the host."""
    try:
        mode = probe.mode()
    except probe.ModeRefused as error:
        raise StartRefused(str(error)) from error
    facts = probe.probe()
    daemon, compiler = _identities(options, mode)
    for directory in (options.state_dir, options.runtime_dir):
        _own_directory(directory, daemon)
    lock = _lock(options.state_dir)
    notifier = _notifier()
    tree = cgroup.detect("sandboxd-" + hashlib.sha256(bytes(options.state_dir)).hexdigest()[:12])
    tree.reconcile()
    try:
        if mode == "root":
            os.setgroups([])
            pool = ids.IdPool(options.id_start, options.id_start, options.id_count, single=False)
        else:
            pool = ids.enter_user_namespace(mode)
    except ids.IdsUnavailable as error:
        raise StartRefused(str(error)) from error
    return Site(
        mode=mode,
        kernel=platform.release(),
        facts=facts,
        memfd=probe.memfd(),
        ids=pool,
        tree=tree,
        stage=Stage(),
        daemon=daemon,
        compiler=compiler,
        lock=lock,
        notifier=notifier,
    )


def _identities(options: Options, mode: str) -> tuple[Identity, Identity]:
    """Daemon and compiler: as root each has a uid of its own, else both are the user."""
    if mode != "root":
        return Identity(None, None), Identity(None, None)
    compiler = Identity(options.id_start + 1, options.id_start + 1)
    try:
        account = pwd.getpwnam(options.daemon_user)
    except KeyError:
        return Identity(options.id_start, options.id_start), compiler
    if account.pw_uid == 0:
        raise StartRefused(f"daemon_user {options.daemon_user!r} is uid 0; name an unprivileged account")
    return Identity(account.pw_uid, account.pw_gid), compiler


def _own_directory(directory: Path, owner: Identity) -> None:
    """0700 and the daemon's. Never through a link: as root that would give away somebody else's directory."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        uid = owner.uid if owner.uid is not None else os.getuid()
        if status.st_uid not in (0, os.getuid(), uid):
            raise StartRefused(f"{str(directory)!r} belongs to uid {status.st_uid}; remove it or choose another")
        if owner.uid is not None and owner.gid is not None:
            os.fchown(fd, 0, 0)  # its mode may be set by its owner alone, unless CAP_FOWNER is there
        os.fchmod(fd, 0o700)
        if owner.uid is not None and owner.gid is not None:
            os.fchown(fd, owner.uid, owner.gid)
    except OSError as error:
        raise StartRefused(
            f"cannot own {str(directory)!r}: {error.strerror}; CAP_CHOWN and CAP_DAC_OVERRIDE do"
        ) from error
    finally:
        os.close(fd)


def _lock(state_dir: Path) -> int:
    fd = os.open(state_dir / "spawner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise StartRefused(f"another sandboxd uses {str(state_dir)!r}; stop it or give this one a state_dir") from error
    return fd


def _notifier() -> socket.socket | None:
    path = os.environ.pop("NOTIFY_SOCKET", "")
    if not path:
        return None
    notifier = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notifier.connect("\0" + path[1:] if path.startswith("@") else path)  # now: the stage shows no host path
    return notifier
