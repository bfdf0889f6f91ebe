"""What the spawner takes possession of at its start, and what it refuses to take."""

import os
import socket
from pathlib import Path

import pytest

from sandboxd.spawner import options, site
from sandboxd.spawner.children import Identity
from sandboxd.spawner.site import StartRefused
from tests.skips import need_root

UID = 64_420
DAEMON = Identity(UID, UID)
USER = Identity(None, None)
OPTIONS = ["--state-dir", "/s", "--runtime-dir", "/r", "--id-start", "1610612736", "--daemon-user"]


def test_new_directory_is_the_daemons_alone(tmp_path: Path) -> None:
    need_root()
    site._own_directory(tmp_path / "a" / "b", DAEMON)
    status = (tmp_path / "a" / "b").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (UID, UID, 0o700)


def test_ordinary_user_keeps_the_directory(tmp_path: Path) -> None:
    site._own_directory(tmp_path / "a", USER)
    status = (tmp_path / "a").stat()
    assert (status.st_uid, status.st_mode & 0o7777) == (os.getuid(), 0o700)


def test_directory_of_somebody_else_is_not_taken(tmp_path: Path) -> None:
    need_root()
    os.chown(tmp_path, 4242, 4242)
    with pytest.raises(StartRefused, match="belongs to uid 4242"):
        site._own_directory(tmp_path, DAEMON)
    assert tmp_path.stat().st_uid == 4242


def test_directory_that_others_use_is_not_given_away(tmp_path: Path) -> None:
    need_root()
    (tmp_path / "theirs").touch()
    with pytest.raises(StartRefused, match="'theirs'"):
        site._own_directory(tmp_path, DAEMON)
    assert tmp_path.stat().st_uid == 0


def test_nothing_is_given_away_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to("target")
    with pytest.raises(StartRefused, match="cannot use the directory"):
        site._own_directory(tmp_path / "link", USER)
    assert (tmp_path / "target").stat().st_mode & 0o7777 == 0o755


def test_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(StartRefused, match=str(tmp_path / "f")):
        site._own_directory(tmp_path / "f", USER)


def test_second_spawner_on_one_state_directory_is_refused(tmp_path: Path) -> None:
    first = site._lock(tmp_path, USER)
    with pytest.raises(StartRefused, match="another sandboxd"):
        site._lock(tmp_path, USER)
    os.close(first)
    os.close(site._lock(tmp_path, USER))


def test_directory_that_others_use_gets_no_lock(tmp_path: Path) -> None:
    need_root()
    (tmp_path / "theirs").touch()
    with pytest.raises(StartRefused, match="'theirs'"):
        site._lock(tmp_path, DAEMON)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "spawner.lock").symlink_to("elsewhere")
    with pytest.raises(StartRefused, match="cannot open the lock"):
        site._lock(tmp_path, USER)
    assert not (tmp_path / "elsewhere").exists()


def test_daemon_and_compiler_are_two_and_neither_is_root() -> None:
    daemon, compiler = site._identities(options.parse([*OPTIONS, "nobody-of-that-name"]), "root")
    assert (daemon, compiler) == (Identity(1610612736, 1610612736), Identity(1610612737, 1610612737))
    assert site._identities(options.parse([*OPTIONS, "nobody"]), "root")[0].uid == 65534
    with pytest.raises(StartRefused, match="uid 0"):
        site._identities(options.parse([*OPTIONS, "root"]), "root")
    assert site._identities(options.parse([*OPTIONS, "root"]), "rootless-single") == (USER, USER)


@pytest.mark.parametrize("abstract", [True, False])
def test_service_manager_is_told_through_its_socket(
    abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"@sandboxd-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notifier = site._notifier()
        assert notifier is not None
        with notifier:
            notifier.send(b"READY=1")
        assert manager.recv(100) == b"READY=1"
    assert "NOTIFY_SOCKET" not in os.environ
    assert site._notifier() is None
