"""A blank as it is born: whom its parent lets it be, and that a birth which goes wrong is told with its step."""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandboxd.spawner import blank
from sandboxd.spawner.blank import BirthFailed, Blank
from sandboxd.spawner.cgroup_base import NoCgroup
from sandboxd.spawner.ids import IdBlock
from sandboxd.spawner.template import Bind
from tests.skips import need_root
from tests.unit.spawner import spawner_rig
from tests.unit.spawner.conftest import Children
from tests.unit.spawner.spawner_rig import PREPARED, TEMPLATE, VIEW, Daemon

UID = 64_410


def _blank(pid: int, uid: int) -> Blank:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    return Blank(pid, -1, ours, IdBlock(1, uid, uid, single=False), NoCgroup(), PREPARED)


def _become(uid: int, gid: int) -> None:
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


@contextlib.contextmanager
def _born(change: Callable[[], None], children: Children) -> Iterator[Blank]:
    """A blank of host id UID, so it is said: its process is one that has made this change."""
    read, write = os.pipe()

    def tell() -> None:
        change()
        os.write(write, b"x")

    with open(read, "rb") as changed:
        with open(write, "wb"):
            pid = children.start(tell)
        assert changed.read(1) == b"x"
        born = _blank(pid, UID)
        with born.sock:
            yield born


@pytest.mark.parametrize(("uid", "gid"), [(0, 0), (UID, 0), (0, UID), (UID + 1, UID), (UID, UID + 1)])
def test_process_with_another_host_id_is_refused(uid: int, gid: int, children: Children) -> None:
    need_root()
    with _born(lambda: _become(uid, gid), children) as born, pytest.raises(BirthFailed, match="on the host is"):
        blank.verify(born)


def test_process_with_writable_kernel_switches_is_refused(children: Children) -> None:
    """Here: one that sees the test's own /proc, whose /proc/sys is no mount of its own."""
    need_root()
    with _born(lambda: _become(UID, UID), children) as born, pytest.raises(BirthFailed, match="/proc/sys is writable"):
        blank.verify(born)


def test_process_whose_mounts_went_elsewhere_is_refused(children: Children, tmp_path: Path) -> None:
    """Here: one that is shut up in an empty directory."""
    need_root()

    def shut_up() -> None:
        os.chroot(tmp_path)
        _become(UID, UID)

    with _born(shut_up, children) as born, pytest.raises(BirthFailed, match="nothing of its own on '/proc'"):
        blank.verify(born)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [(b"", "the child died"), (b"fview: no \xff", "view: no \ufffd"), (b"?", "the child died")],
)
def test_birth_that_fails_tells_its_step(message: bytes, complaint: str) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        born = replace(_blank(os.getpid(), UID), sock=ours)
        if message:
            theirs.send(message)
        else:
            theirs.close()
        with pytest.raises(BirthFailed, match=complaint):
            born.advance()
        assert not born.ready


def test_sandbox_that_is_shown_an_oddly_named_path_is_verified(tmp_path: Path) -> None:
    """With characters at which str divides lines and words, but the kernel does not."""
    need_root()
    name = "a\u00a0b\u2028c\u0085d"
    (tmp_path / name).mkdir()
    bind = Bind(str(tmp_path / name), f"/opt/{name}", executable=False, optional=False)
    with spawner_rig.start(tmp_path) as rig:
        rig.compile(replace(TEMPLATE, view=replace(VIEW, binds=(*VIEW.binds, bind))))
        daemon = rig.daemon()
        sandbox = daemon.ready_sandbox()
        assert sandbox.run("/bin/ls", "/opt").output == f"{name}\n"
        daemon.destroy(sandbox)


def test_real_one_is_as_verified(spawner: Daemon) -> None:
    """Read from outside, of init itself: host id, no way to gain a capability, out of reach of its own payload."""
    sandbox = spawner.ready_sandbox()
    with open(f"/proc/self/fdinfo/{sandbox.pidfd}", encoding="ascii") as file:
        pid = next(line.split()[1] for line in file if line.startswith("Pid:"))
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        status = dict(line.split(":", 1) for line in file)
    assert status["Uid"].split() == [str(sandbox.host_uid - 1)] * 4
    assert status["CapBnd"].strip() == "0" * 16
    assert os.stat(f"/proc/{pid}/mem").st_uid == 0  # not dumpable
    assert sandbox.run("/bin/sh", "-c", "cat /proc/1/environ /proc/1/mem; ls /proc/1/fd").status != 0
    assert sandbox.run("/bin/sh", "-c", "kill -9 1").status != 0
    spawner.destroy(sandbox)
