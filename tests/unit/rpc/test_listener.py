"""The daemon's socket is its own, or it is not served."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandboxd.errors import ConfigInvalid
from sandboxd.rpc.listener import Listener
from tests.skips import need_root


@contextmanager
def listening(path: Path, *, open_to_others: bool = False) -> Iterator[Listener]:
    listener = Listener(path, open_to_others=open_to_others)
    try:
        yield listener
    finally:
        listener.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_socket_and_directories_are_private(tmp_path: Path) -> None:
    with listening(tmp_path / "run" / "s") as listener:
        assert (mode(tmp_path / "run"), mode(tmp_path / "run" / "s")) == (0o700, 0o600)
        assert mode(listener.inner_path.parent) == 0o700


def test_socket_open_to_others_keeps_its_inside_private(tmp_path: Path) -> None:
    with listening(tmp_path / "run" / "s", open_to_others=True) as listener:
        assert (mode(tmp_path / "run"), mode(tmp_path / "run" / "s")) == (0o711, 0o666)
        assert mode(listener.inner_path.parent) == 0o700


def test_it_listens(tmp_path: Path) -> None:
    with listening(tmp_path / "run" / "s"), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "run" / "s"))


def test_close_leaves_no_socket_and_the_place_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with listening(tmp_path / "run" / "s"):
            pass
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["s.lock"]


def test_socket_of_a_dead_daemon_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "run" / "inner").mkdir(parents=True)
    for name in ("s", "inner/grpc"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / "run" / name))
    with listening(tmp_path / "run" / "s"), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "run" / "s"))


def test_second_daemon_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with listening(tmp_path / "run" / "s"):
        with pytest.raises(ConfigInvalid, match="another daemon") as caught:
            Listener(tmp_path / "run" / "s", open_to_others=False)
        assert caught.value.reason == "socket_in_use"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "run" / "s"))


def test_socket_on_which_something_else_listens_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "run" / "s"))
        other.listen()
        with pytest.raises(ConfigInvalid, match="another daemon"):
            Listener(tmp_path / "run" / "s", open_to_others=False)
        assert (tmp_path / "run" / "s").exists()


def test_symlink_in_place_of_the_socket_is_refused_and_its_target_untouched(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "target").write_text("precious")
    (tmp_path / "run" / "s").symlink_to(tmp_path / "target")
    with pytest.raises(ConfigInvalid, match="not a socket"):
        Listener(tmp_path / "run" / "s", open_to_others=False)
    assert (tmp_path / "target").read_text() == "precious"


def test_dangling_symlink_in_place_of_the_socket_creates_nothing(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "s").symlink_to(tmp_path / "nothing")
    with pytest.raises(ConfigInvalid):
        Listener(tmp_path / "run" / "s", open_to_others=False)
    assert not (tmp_path / "nothing").exists()


def test_symlink_in_place_of_the_lock_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "s.lock").symlink_to(tmp_path / "target")
    with pytest.raises(ConfigInvalid, match="lock"):
        Listener(tmp_path / "run" / "s", open_to_others=False)
    assert not (tmp_path / "target").exists()


def test_symlink_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigInvalid):
        Listener(tmp_path / "run" / "s", open_to_others=False)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_symlink_in_place_of_the_inner_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / "inner").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigInvalid, match="inner"):
        Listener(tmp_path / "run" / "s", open_to_others=False)


@pytest.mark.parametrize("bits", [0o777, 0o1777, 0o720, 0o702])
def test_directory_that_others_can_write_is_refused(tmp_path: Path, bits: int) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(bits)
    with pytest.raises(ConfigInvalid, match="written by others"):
        Listener(tmp_path / "run" / "s", open_to_others=False)
    assert mode(tmp_path / "run") == bits


@pytest.mark.root
def test_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    need_root()
    (tmp_path / "run").mkdir()
    os.chown(tmp_path / "run", 4242, 4242)
    with pytest.raises(ConfigInvalid, match="uid 4242"):
        Listener(tmp_path / "run" / "s", open_to_others=False)


def test_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="missing"):
        Listener(tmp_path / "missing" / "run" / "s", open_to_others=False)


def test_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="too long"):
        Listener(tmp_path / ("x" * 120), open_to_others=False)


def test_refusal_leaves_no_descriptor_open(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "s").write_text("")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ConfigInvalid):
        Listener(tmp_path / "run" / "s", open_to_others=False)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
