"""The birth of a blank init: everything of a sandbox that is known without its program, done before anybody asks.

The child's half runs in the new process and never returns; the parent's half maps and verifies it from outside. Called
by `stock`. The order of steps is the point: each says why it stands there.
"""

import contextlib
import errno
import gc
import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from sandboxd.spawner import init, mounts, payload, sys, wire
from sandboxd.spawner.cgroup import Cgroup
from sandboxd.spawner.ids import IdBlock
from sandboxd.spawner.plans import Prepared, Shape
from sandboxd.spawner.wire import close_all

_FIRST = sys.CLONE_NEWNS | sys.CLONE_NEWPID | sys.CLONE_NEWNET
_SECOND = sys.CLONE_NEWUSER | sys.CLONE_NEWNS | sys.CLONE_NEWIPC | sys.CLONE_NEWUTS | sys.CLONE_NEWCGROUP
_OOM_SCORE_ADJ = 500  # the kernel shall rather take a payload than the node's own services
_SOCKET_FD = 3
_NAMESPACES = ("net", "mnt", "user")

ASK_MAP, MAPPED, READY, FAILED = b"u", b"m", b"r", b"f"


class BirthFailed(Exception):
    """A blank could not be made; the message names the step."""


@dataclass(slots=True)
class Blank:
    """A blank init as its parent sees it."""

    pid: int
    pidfd: int
    sock: socket.socket
    ids: IdBlock
    cgroup: Cgroup
    likely: Prepared  # the template it will probably get; for another one its limits and room are changed
    counters: tuple[tuple[str, int], ...] = ()
    at_birth: tuple[tuple[str, float], ...] = ()  # what they stood at when it was ready
    fitted: bool = False  # its cgroup holds the limits of that template
    # Its namespaces; by pidfd they would want CAP_SYS_PTRACE.
    net: int = -1
    mount: int = -1
    user: int = -1
    ready: bool = False

    @property
    def shape(self) -> Shape:
        return self.likely.shape

    def advance(self) -> None:
        """Serve one message of the child's; afterwards `ready` may be set. BirthFailed ends it."""
        message, fds, _, _ = socket.recv_fds(self.sock, 4096, len(_NAMESPACES))
        if message == ASK_MAP and len(fds) == len(_NAMESPACES):
            self.net, self.mount, self.user = fds
            for name, text in (("setgroups", "deny"), ("uid_map", self.ids.uid_map()), ("gid_map", self.ids.gid_map())):
                _write(f"/proc/{self.pid}/{name}", text)
            self.sock.send(MAPPED)
        elif message == READY:
            verify(self)
            self.at_birth = self.cgroup.usage()
            with contextlib.suppress(OSError):  # v1 refuses a memory limit below what is used: the launch is told that
                self.cgroup.limit(self.likely.limits)
                self.fitted = True
            self.counters = self.cgroup.counters()
            self.ready = True
        else:
            raise BirthFailed(message[1:].decode(errors="replace") or "the child died")

    def close(self) -> None:
        """Let go of its descriptors; it must be dead and reaped."""
        self.sock.close()
        os.close(self.pidfd)
        close_all([fd for _, fd in self.counters])
        close_all([fd for fd in (self.net, self.mount, self.user) if fd >= 0])


def begin(ids: IdBlock, cgroup: Cgroup, likely: Prepared, prepared: Mapping[str, Prepared]) -> Blank:
    """Clone it; the rest happens through `Blank.advance` as its socket becomes readable."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid, pidfd = sys.clone3(_FIRST, cgroup.directory_fd)
    if pid == 0:
        try:
            _child(theirs, ids, cgroup, likely, prepared)
        finally:
            os._exit(1)  # whatever happened: never back into the spawner's own code
    theirs.close()
    ours.setblocking(False)
    return Blank(pid, pidfd, ours, ids, cgroup, likely)


def verify(blank: Blank) -> None:
    """From outside, after its birth: it is whom the maps say, and cannot change the host's /proc/sys."""
    # Divided at newlines and spaces alone: a path that is shown may hold all else that str would divide at.
    status = dict(line.split(":", 1) for line in _lines(f"/proc/{blank.pid}/status") if ":" in line)
    for name, host_id in (("Uid", blank.ids.uid), ("Gid", blank.ids.gid)):
        if status[name].split() != [str(host_id)] * 4 or host_id == 0:
            raise BirthFailed(f"its {name} on the host is {status[name].split()}, not {host_id}")
    mounts_by_place = {line.split(" ")[4]: line for line in _lines(f"/proc/{blank.pid}/mountinfo")}
    proc = mounts_by_place.get("/proc", "")
    if " - proc " in proc and "subset=pid" not in proc:
        switches = mounts_by_place.get("/proc/sys", "")
        if "ro" not in switches.partition(" - ")[0].replace(",", " ").split():
            raise BirthFailed("its /proc/sys is writable")
    for place in mounts.OWN_PLACES:
        if place not in mounts_by_place:
            raise BirthFailed(f"it has nothing of its own on {place!r}; did somebody change the image meanwhile")


def _child(
    sock: socket.socket, ids: IdBlock, cgroup: Cgroup, likely: Prepared, prepared: Mapping[str, Prepared]
) -> NoReturn:
    step = "start"
    try:
        sys.prctl(sys.PR_SET_PDEATHSIG, signal.SIGKILL)
        init.forget_the_spawner()
        gc.freeze()
        step = "sched_setscheduler"  # a birth holds up nobody, nor does init its program when that wakes it
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        step = "cgroup"  # by itself, and before the cgroup namespace, whose root is where it is at its making
        if cgroup.directory_fd is None:
            cgroup.attach(0)
        step = "descriptors"  # nothing of the spawner's, above all no other sandbox's
        sock = _keep_only(sock)
        # While rootless, a parent with another user namespace's capabilities may write the maps of dumpable ones only.
        sys.prctl(sys.PR_SET_DUMPABLE, 1)
        step = "oom_score_adj"
        _write("/proc/self/oom_score_adj", str(_OOM_SCORE_ADJ))
        step = "proc"
        if mounts.mount_private_proc():
            step = "memfd_noexec"
            _forbid_executable_memfds()
            step = "mask"
            mounts.mask_proc()
        step = "unshare"
        sys.unshare(_SECOND)
        namespaces = [os.open(f"/proc/thread-self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in _NAMESPACES]
        socket.send_fds(sock, [ASK_MAP], namespaces)
        close_all(namespaces)
        if sock.recv(1) != MAPPED:
            os._exit(1)
        step = "setresuid"  # at once: until here the host uid is the spawner's own
        inside = ids.init_inside
        os.setresgid(inside, inside, inside)
        os.setresuid(inside, inside, inside)
        step = "dumpable"
        sys.prctl(sys.PR_SET_DUMPABLE, 0)
        sys.prctl(sys.PR_SET_PDEATHSIG, signal.SIGKILL)  # the change of ids cleared it
        step = "keyring"
        _leave_the_keyring()
        step = "bounding set"  # init keeps what it has; nothing it starts can gain any
        sys.drop_bounding_set()
        step = "setrlimit"
        payload.limit_for_good()
        step = "view"
        cage = init.furnish(likely, prepared, single_id=ids.single)
        step = "arm"
        made = init.Init(cage, cage.arm(0))
        step = "rehearsal"
        made.rehearse()
        sock.send(READY)  # what is used from here on is the program's
        made.run(sock)
    except (OSError, KeyError, ValueError, wire.ProtocolError) as error:
        sock.send(FAILED + f"{step}: {error}".encode(errors="replace")[:1024])
    os._exit(1)


def _keep_only(sock: socket.socket) -> socket.socket:
    os.dup2(sock.fileno(), _SOCKET_FD, inheritable=False)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    sys.close_range(_SOCKET_FD + 1, 0x7FFFFFFF)
    sock.detach()
    return socket.socket(fileno=_SOCKET_FD)


def _forbid_executable_memfds() -> None:
    """vm.memfd_noexec=2 is per pid namespace and wants host uid 0, which a root spawner's child still has here.

    Through the new proc, since a surrounding container may have made its own read-only. Where it cannot be had, the
    filter demands MFD_NOEXEC_SEAL.
    """
    try:
        _write(f"{mounts.PROC_FULL}/sys/vm/memfd_noexec", "2")
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS):
            raise


def _leave_the_keyring() -> None:
    try:
        sys.join_new_session_keyring()
    except OSError as error:
        if error.errno not in (
            errno.ENOSYS,
            errno.EPERM,
        ):  # an outer seccomp filter may forbid keyctl: nothing to leave
            raise


def _lines(path: str) -> list[str]:
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return file.read().split("\n")[:-1]


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
