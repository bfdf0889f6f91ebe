"""As root the spawner gives two directories to the daemon: never one that others use, nor one that a stranger chose.

Each attempt is a configuration; a directory that may be given away is the control, and every other test here has one.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import CHECKOUT, Mode, configuration, start_daemon
from tests.skips import need_root

STRANGER = 64323
SECONDS = 60


@pytest.fixture
def place() -> Iterator[Path]:
    need_root()
    directory = Path(tempfile.mkdtemp(prefix="sandboxd-test-", dir="/tmp"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


def refusal(place: Path, runtime: Path, state: Path) -> str:
    """What `sandboxd serve` says when it ends instead of serving from there."""
    config = place / "config.yaml"
    config.write_text(configuration(runtime / "s.sock", state))
    command = [sys.executable, "-m", "sandboxd", "serve", "--config", str(config)]
    run = subprocess.run(
        command, cwd=CHECKOUT, env={"PATH": os.environ["PATH"]}, capture_output=True, timeout=SECONDS, check=False
    )
    assert run.returncode == 1, run.stderr
    return run.stderr.decode()


def shared(directory: Path) -> Path:
    """Like /run or /tmp: root's, and with things of others in it."""
    directory.mkdir(mode=0o755)
    (directory / "other").touch()
    return directory


def test_socket_in_a_shared_directory_does_not_give_that_directory_away(place: Path) -> None:
    runtime = shared(place / "run")
    assert "holds 'other'" in refusal(place, runtime, place / "state")
    assert (runtime.stat().st_uid, runtime.stat().st_mode & 0o777) == (0, 0o755)


def test_state_in_a_shared_directory_does_not_give_that_directory_away(place: Path) -> None:
    state = shared(place / "state")
    assert "holds 'other'" in refusal(place, place / "run", state)
    assert (state.stat().st_uid, state.stat().st_mode & 0o777) == (0, 0o755)
    assert [path.name for path in state.iterdir()] == ["other"]


def test_link_of_a_stranger_above_it_does_not_choose_what_is_given_away(place: Path) -> None:
    victim = place / "victim" / "run"
    victim.mkdir(parents=True)
    (place / "home").mkdir()
    (place / "home" / "link").symlink_to(place / "victim")
    os.chown(place / "home", STRANGER, STRANGER)
    os.chown(place / "home" / "link", STRANGER, STRANGER, follow_symlinks=False)
    assert f"link of uid {STRANGER}" in refusal(place, place / "home" / "link" / "run", place / "state")
    assert victim.stat().st_uid == 0


def test_empty_directory_of_roots_is_the_daemons_afterwards() -> None:
    need_root()
    with start_daemon(Mode.ROOT) as daemon:
        assert daemon.socket.parent.stat().st_uid != 0
        assert daemon.state_dir.stat().st_uid != 0
