"""What `rpc.listener`'s own tests do not see: places that others of the daemon use too, and whose key is named."""

import os
import socket
import stat
from pathlib import Path

import pytest

from sandboxd.errors import ConfigInvalid
from sandboxd.host.socket_place import clear_stale, locked, own_directory, own_inner_directory


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize(("shared", "kept"), [(True, 0o711), (False, 0o700)])
def test_a_shared_directory_keeps_its_mode(tmp_path: Path, shared: bool, kept: int) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o711)
    os.close(own_directory(tmp_path / "run", 0o700, "k", shared=shared))
    assert mode(tmp_path / "run") == kept


def test_a_new_directory_gets_its_mode_shared_or_not(tmp_path: Path) -> None:
    os.close(own_directory(tmp_path / "run", 0o710, "k", shared=True))
    assert mode(tmp_path / "run") == 0o710


def test_complaints_name_the_key_that_would_mend_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"set sinks\.x\.socket"):
        own_directory(tmp_path / "no" / "such", 0o700, "sinks.x.socket")
    path = tmp_path / "s"
    directory = own_directory(tmp_path, 0o700, "k")
    lock = locked(directory, path, "k")
    with pytest.raises(ConfigInvalid, match=r"stop it or set sinks\.x\.socket") as caught:
        locked(directory, path, "sinks.x.socket")
    assert caught.value.reason == "socket_in_use"
    path.write_text("")
    with pytest.raises(ConfigInvalid, match=r"is not a socket; remove it or set sinks\.x\.socket"):
        clear_stale(directory, path, "sinks.x.socket")
    for descriptor in (lock, directory):
        os.close(descriptor)


def test_only_a_socket_that_nobody_serves_is_cleared(tmp_path: Path) -> None:
    directory = own_directory(tmp_path, 0o700, "k")
    path = tmp_path / "s"
    clear_stale(directory, path, "k")
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        with pytest.raises(ConfigInvalid, match="another daemon"):
            clear_stale(directory, path, "k")
    clear_stale(directory, path, "k")
    assert not path.exists()
    os.close(directory)


def test_the_inner_directory_is_private_and_without_what_was_left(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir(mode=0o755)
    (tmp_path / "in" / "old").write_text("")
    directory = own_directory(tmp_path, 0o700, "k")
    own_inner_directory(directory, "in", "old", tmp_path / "s")
    assert (mode(tmp_path / "in"), list((tmp_path / "in").iterdir())) == (0o700, [])
    os.close(directory)
