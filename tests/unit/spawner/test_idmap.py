"""What a sandbox is shown of the host belongs to nobody, so it can talk to no socket and write to no pipe in it."""

import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandboxd.spawner import sys, wire
from sandboxd.spawner.idmap import Nobody
from sandboxd.spawner.template import Bind, Template
from tests.skips import need_root
from tests.unit.spawner.spawner_rig import LANDLOCK, TEMPLATE, VIEW, Rig
from tests.unit.spawner.thrown_away import in_own_mounts

STRANGER = 64_411
ATTEMPT = """
import os, socket, sys
top = sys.argv[1]
print(open(top + "/deep/file").read(), end=" ")
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    try:
        with socket.socket(socket.AF_UNIX, kind) as sock:
            sock.connect(f"{top}/deep/{kind.name}")
            sock.send(b"x")
        print("reached", end=" ")
    except OSError as error:
        print(error.errno, end=" ")
try:
    os.write(os.open(top + "/deep/fifo", os.O_RDWR | os.O_NONBLOCK), b"x")
    print("reached")
except OSError as error:
    print(error.errno)
"""


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host that holds, further down, what everybody may talk to."""
    tmp_path.chmod(0o711)
    top = tmp_path / "shown"
    (top / "deep").mkdir(parents=True)
    (top / "deep" / "file").write_text("text")
    os.mkfifo(top / "deep" / "fifo")
    with socket.socket(socket.AF_UNIX) as stream, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
        stream.bind(str(top / "deep" / "SOCK_STREAM"))
        stream.listen()
        datagram.bind(str(top / "deep" / "SOCK_DGRAM"))
        for name in ("fifo", "SOCK_STREAM", "SOCK_DGRAM"):
            (top / "deep" / name).chmod(0o666)
        yield top


def _with_tree(source: str) -> Template:
    return replace(
        TEMPLATE,
        view=replace(VIEW, binds=(*VIEW.binds, Bind(source, "/shown", executable=False, optional=False))),
        landlock=(*LANDLOCK, ("/shown", "write")),  # so that nothing but the mount stops it
    )


def test_socket_and_pipe_deep_in_a_shown_directory_are_out_of_reach(rig: Rig, shown: Path) -> None:
    rig.compile(_with_tree(str(shown)))
    daemon = rig.daemon()
    sandbox = daemon.ready_sandbox()
    refused = str(errno.EACCES)
    assert sandbox.run("python3", "-c", ATTEMPT, "/shown").output.split() == ["text", refused, refused, refused]
    assert _as_stranger(shown) == ["text", "reached", "reached", "reached"], "the control"
    daemon.destroy(sandbox)


def _as_stranger(shown: Path) -> list[str]:
    """The same without a sandbox, by somebody who is nobody in particular either."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir(shown)
            os.setgroups([])
            os.setresgid(STRANGER, STRANGER, STRANGER)
            os.setresuid(STRANGER, STRANGER, STRANGER)
            os.dup2(write, 1)
            os.execv("/usr/bin/python3", ["python3", "-c", ATTEMPT, "."])
        finally:
            os._exit(1)
    os.close(write)
    with open(read) as file:
        output = file.read()
    os.waitpid(pid, 0)
    return output.split()


def test_tree_that_keeps_its_owners_is_remembered_and_refused_once_there_were_to_be_none() -> None:
    need_root()

    def body() -> str:
        nobody = Nobody()
        kernels = sys.open_tree("/proc", sys.OPEN_TREE_CLONE)  # no file system of the kernel's own takes an id map
        usual = sys.open_tree("/usr", sys.OPEN_TREE_CLONE | sys.AT_RECURSIVE)
        nobody.hide("/usr", usual)
        nobody.hide("/kernels", kernels)
        answer = f"{sorted(nobody.others)} {os.stat('bin', dir_fd=usual).st_uid == os.stat('/usr/bin').st_uid}"
        nobody.promised = True
        try:
            nobody.hide("/kernels", kernels)
        except OSError as error:
            answer += f" {error.filename} {error.strerror}"
        return answer

    expected = "['/kernels'] False /kernels its file system takes no id map; restart sandboxd to accept that"
    assert in_own_mounts(body) == expected


def test_reload_cannot_bring_a_tree_that_keeps_its_owners(rig: Rig) -> None:
    rig.compile(TEMPLATE)
    daemon = rig.daemon()
    assert ("filesystem.sockets", "enforced") in {fact[:2] for fact in daemon.hello.facts}
    daemon.peer.send(wire.Reload(1))
    rig.compile(_with_tree("/sys/kernel"))
    refused, _ = daemon.peer.expect(wire.Refused)
    assert (refused.reason, "takes no id map" in refused.message) == ("reload_failed", True)


def test_first_report_admits_a_tree_that_keeps_its_owners(rig: Rig) -> None:
    rig.compile(_with_tree("/sys/kernel"))
    (fact,) = (fact for fact in rig.daemon().hello.facts if fact[0] == "filesystem.sockets")
    assert fact[1] == "degraded"
    assert fact[3].startswith("the file system of /sys/kernel takes no id map; ")


def test_node_that_makes_no_user_namespace_leaves_every_tree_its_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(flags: int) -> None:
        raise OSError(errno.ENOSPC, "unshare: user.max_user_namespaces is 0")

    monkeypatch.setattr(sys, "unshare", refused)
    nobody = Nobody()
    nobody.hide("/usr", -1)
    assert nobody.others == {"/usr"}
