"""What an unprivileged child may reach below directories that are closed to it."""

import os
from pathlib import Path

import pytest

from sandboxd.spawner.reveal import reveal
from tests.skips import need_root
from tests.unit.spawner.thrown_away import in_own_mounts

UID = 64_400


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A closed directory with what may be seen, what may not, and a program's two levels."""
    need_root()
    top = tmp_path / "closed"
    for name in ("shown/deep", "hidden"):
        (top / name).mkdir(parents=True)
        (top / name / "f").write_text(name)
    (top / "file").write_text("file")
    top.chmod(0o700)
    for above in tmp_path.parents:
        if above.stat().st_mode & 0o001 == 0:
            break
    return top


def _seen(paths: list[Path], wanted: Path) -> str:
    def body() -> str:
        os.umask(0o022)
        reveal(paths, UID)
        os.setgroups([])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
        try:
            return wanted.read_text()
        except OSError as error:
            return str(error.strerror)

    return in_own_mounts(body)


def test_only_what_was_named_is_reached(closed: Path) -> None:
    shown = [closed / "shown", closed / "file", closed / "shown" / "deep", closed / "missing"]
    assert _seen([], closed / "shown/deep/f") == "Permission denied"  # the control
    assert _seen(shown, closed / "shown/deep/f") == "shown/deep"
    assert _seen(shown, closed / "file") == "file"
    assert _seen(shown, closed / "hidden/f") == "No such file or directory"


def test_open_path_is_left_alone(closed: Path) -> None:
    assert _seen([Path("/usr")], Path("/etc/hostname")) == Path("/etc/hostname").read_text()
    assert (closed / "hidden/f").read_text() == "hidden"
