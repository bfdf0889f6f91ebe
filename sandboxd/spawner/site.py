"""What the spawner finds and sets up once at its start: mode, ids, cgroups, directories, the stage.

Every refusal to start is here, with what mends it. Called by `__main__`.
"""

import contextlib
import fcntl
import hashlib
import os
import platform
import pwd
import socket
from dataclasses import dataclass
from pathlib import Path

from sandboxd.spawner import cgroup, ids, probe, sys
from sandboxd.spawner.children import Identity
from sandboxd.spawner.mounts import Stage
from sandboxd.spawner.options import Options

Facts = tuple[tuple[str, str, str, str], ...]
_LOCK = "spawner.lock"


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

    def promise(self) -> Facts:
        """The facts as they hold for what the profiles show, which from now on may only hold for more of it."""
        facts = probe.without_idmap(self.facts, self.stage.nobody.others)
        self.stage.nobody.promised = ("filesystem.sockets", probe.ENFORCED) in {fact[:2] for fact in facts}
        return facts

    def notify(self, text: str) -> None:
        """Tell the service manager, see sd_notify(3). One that has gone away is no reason to end."""
        if self.notifier is not None:
            with contextlib.suppress(OSError):
                self.notifier.send(text.encode(), socket.MSG_DONTWAIT)


def settle(options: Options) -> Site:
    """Take possession. Afterwards this process is on the stage and sees no path of the host."""
    try:
        mode = probe.mode()
    except probe.ModeRefused as error:
        raise StartRefused(str(error)) from error
    cgroup.make_writable()
    facts = probe.probe()
    daemon, compiler = _identities(options, mode)
    lock = _lock(options.state_dir, daemon)
    for directory in (options.state_dir, options.runtime_dir):
        _own_directory(directory, daemon)
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
    fd = _opened(directory, owner)
    try:
        _refuse_to_take_over(directory, fd, owner)
        # By this name, since a descriptor that may change modes needs the right to read, which only its owner has.
        path = f"/proc/self/fd/{fd}"
        if owner.uid is not None and owner.gid is not None:
            os.chown(path, 0, 0)  # its mode may be set by its owner alone, unless CAP_FOWNER is there
        os.chmod(path, 0o700)
        if owner.uid is not None and owner.gid is not None:
            os.chown(path, owner.uid, owner.gid)
    except OSError as error:
        raise StartRefused(f"cannot own {str(directory)!r}: {error.strerror}; as root CAP_CHOWN can") from error
    finally:
        os.close(fd)


def _refuse_to_take_over(directory: Path, fd: int, owner: Identity) -> None:
    """A directory that others use as well, such as /run or /tmp, is not given away: only an empty one."""
    if owner.uid is None or os.fstat(fd).st_uid == owner.uid:
        return
    if others := sorted(set(os.listdir(f"/proc/self/fd/{fd}")) - {_LOCK, "lost+found"}):
        raise StartRefused(
            f"{str(directory)!r} holds {others[0]!r} and is not the daemon's; choose a directory for sandboxd alone"
        )


def _opened(directory: Path, owner: Identity) -> int:
    """An O_PATH descriptor of it, made if it is not there; refused if it belongs to a stranger."""
    for above in directory.parents:
        # Else the daemon, or whoever made the link, chooses which directory is given away here.
        if above.is_symlink() and above.lstat().st_uid not in (0, os.getuid()):
            raise StartRefused(f"{str(above)!r} is a link of uid {above.lstat().st_uid}; name the directory itself")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise StartRefused(
            f"cannot use the directory {str(directory)!r}: {error.strerror}; choose another or mend this one"
        ) from error
    uid = os.fstat(fd).st_uid
    if uid not in (0, os.getuid(), owner.uid):
        os.close(fd)
        raise StartRefused(f"{str(directory)!r} belongs to uid {uid}; remove it or choose another")
    return fd


def _lock(state_dir: Path, owner: Identity) -> int:
    """Before anything in the directory is touched: another sandboxd may be living from it."""
    directory = _opened(state_dir, owner)
    status = os.fstat(directory)
    try:
        _refuse_to_take_over(state_dir, directory, owner)
        # As its owner, who gets in without CAP_DAC_OVERRIDE.
        sys.set_fs_ids(status.st_uid, status.st_gid)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(_LOCK, flags, 0o600, dir_fd=directory)
        if owner.uid is not None and owner.gid is not None:
            os.fchown(fd, owner.uid, owner.gid)  # whose directory this will be
    except OSError as error:
        raise StartRefused(
            f"cannot open the lock {str(state_dir / _LOCK)!r}: {error.strerror}; remove it, or free some space"
        ) from error
    finally:
        sys.set_fs_ids(os.geteuid(), os.getegid())
        os.close(directory)
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
