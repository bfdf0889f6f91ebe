"""The wrappers: each failure names its call, and no path comes out shorter than it went in."""

import contextlib
import os
import socket
from pathlib import Path

import pytest

from sandboxd.spawner import sys
from tests.skips import need_root
from tests.unit.spawner.thrown_away import in_own_mounts


@pytest.mark.parametrize(
    "call",
    [
        lambda path: sys.mount(path, "/", "", sys.MS_BIND),
        lambda path: sys.mount("/", path, "", sys.MS_BIND),
        lambda path: sys.umount2(path, 0),
        lambda path: sys.pivot_root(path, "/"),
        lambda path: sys.open_tree(path, 0),
        lambda path: sys.move_mount(-1, path),
        lambda path: sys.openat2(sys.AT_FDCWD, path, os.O_PATH, 0, 0),
    ],
)
def test_path_with_nul_is_refused_not_cut(call: object) -> None:
    assert callable(call)
    with pytest.raises(OSError, match="embedded NUL"):
        call("/etc\0/x")


def test_failure_names_call_and_path() -> None:
    with pytest.raises(FileNotFoundError, match=r"openat2: No such file or directory: '/no/such'"):
        sys.openat2(sys.AT_FDCWD, "/no/such", os.O_RDONLY, 0, 0)
    with pytest.raises(OSError, match=r"setns: Bad file descriptor"):
        sys.setns(-1, 0)


def test_openat2_stays_beneath(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "f").touch()
    (tmp_path / "inner" / "up").symlink_to("../f")
    directory = os.open(tmp_path / "inner", os.O_RDONLY)
    for path in ("../f", "up", str(tmp_path / "f")):
        with pytest.raises(OSError, match="openat2"):
            sys.openat2(directory, path, os.O_RDONLY, 0, sys.RESOLVE_BENEATH)
        os.close(os.open(path, os.O_RDONLY, dir_fd=directory))  # the control
    os.close(directory)


def test_descriptors_are_close_on_exec(tmp_path: Path) -> None:
    fd = sys.openat2(sys.AT_FDCWD, str(tmp_path), os.O_RDONLY, 0, 0)
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_clone3_child_is_a_whole_interpreter_in_its_namespaces() -> None:
    need_root()
    read, write = os.pipe()
    pid, pidfd = sys.clone3(sys.CLONE_NEWPID | sys.CLONE_NEWUTS)
    if pid == 0:
        try:
            sys.sethostname("inside")
            os.write(write, f"{os.getpid()} {socket.gethostname()} {sum(range(10))}".encode())
        finally:
            os._exit(7)
    os.close(write)
    assert os.read(read, 100) == b"1 inside 45"
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    assert result is not None
    assert (result.si_pid, result.si_status) == (pid, 7)
    assert socket.gethostname() != "inside"
    os.close(read)
    os.close(pidfd)


def test_dropped_capabilities_are_gone() -> None:
    need_root()

    def body() -> str:
        before = sys.effective_capabilities()
        sys.drop_capabilities()
        return f"{before > 0} {sys.effective_capabilities()}"

    assert in_own_mounts(body) == "True 0"


def test_loopback_comes_up() -> None:
    need_root()

    def body() -> str:
        sys.unshare(sys.CLONE_NEWNET)
        with socket.socket() as listener, socket.socket() as client:
            try:
                client.connect(("127.0.0.1", 1))
            except OSError as error:
                before = str(error.strerror)
            sys.loopback_up()
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            client.connect(listener.getsockname())
            return before

    assert in_own_mounts(body) == "Network is unreachable"


def test_attributes_hold_below_a_recursive_mount(tmp_path: Path) -> None:
    need_root()

    def body() -> str:
        sys.mount("t", str(tmp_path), "tmpfs", 0)
        tree = sys.open_tree(str(tmp_path), sys.OPEN_TREE_CLONE | sys.AT_RECURSIVE)
        (tmp_path / "writable").touch()  # the control
        sys.mount_setattr(tree, sys.MOUNT_ATTR_RDONLY, sys.AT_RECURSIVE)
        sys.move_mount(tree, str(tmp_path))
        try:
            (tmp_path / "f").touch()
        except OSError as error:
            return str(error.strerror)
        return "written"

    assert in_own_mounts(body) == "Read-only file system"


def test_fork_with_descriptors_has_the_very_same_ones_and_our_parent() -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            parent = os.getppid()
            helper = sys.fork_with_descriptors()
            if helper == 0:
                os.dup2(write, 200)
                os.close(write)
                os.write(200, f"{os.getpid()} {os.getppid() == parent}".encode())
                os._exit(0)
            while True:  # until it did; our own table shows it
                with contextlib.suppress(OSError):
                    os.fstat(200)
                    break
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as file:
        told, has_our_parent = file.read().split()
    assert has_our_parent == b"True"
    for each in (pid, int(told)):
        os.waitpid(each, 0)


def test_sizes_of_notifications_are_told() -> None:
    assert sys.seccomp_notif_sizes() == (80, 24, 64)
