import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandboxd.sink.log_file import LogFile
from tests.unit.audit.test_journal import file_size_limit

LINE = b"x" * 99 + b"\n"


def log(directory: Path, rotate_bytes: int = 0, keep: int = 3, mode: int = 0o600, *, fsync: bool = False) -> LogFile:
    return LogFile(directory / "events.jsonl", mode, rotate_bytes, keep, fsync=fsync)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "log"
    made.mkdir(0o750)
    return made


@pytest.mark.parametrize("fsync", [False, True])
def test_lines_are_appended_to_what_is_there(home: Path, fsync: bool) -> None:
    for _ in range(2):
        file = log(home, fsync=fsync)
        file.append(LINE)
        file.append(LINE)
        file.close()
    assert (home / "events.jsonl").read_bytes() == LINE * 4


def test_appending_nothing_makes_the_file(home: Path) -> None:
    log(home).append(b"")
    assert (home / "events.jsonl").read_bytes() == b""


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_the_file_is_private_whatever_it_was_and_whatever_the_umask(home: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        path = home / "events.jsonl"
        path.touch()
        path.chmod(0o666)
        log(home, mode=mode, rotate_bytes=250).append(LINE)
        assert path.stat().st_mode & 0o777 == mode
        path.unlink()
        log(home, mode=mode).append(LINE)
        assert path.stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)


def test_it_is_rotated_by_size_and_so_many_are_kept(home: Path) -> None:
    file = log(home, rotate_bytes=250, keep=3)
    for number in range(12):
        file.append(b"%02d" % number + LINE[2:])
    found = {path.name: [line[:2] for line in path.read_bytes().split()] for path in home.iterdir()}
    assert found == {
        "events.jsonl": [b"10", b"11"],
        "events.jsonl.1": [b"08", b"09"],
        "events.jsonl.2": [b"06", b"07"],
        "events.jsonl.3": [b"04", b"05"],
    }


def test_more_than_a_file_takes_is_not_torn_apart(home: Path) -> None:
    file = log(home, rotate_bytes=250)
    file.append(LINE * 5)
    file.append(LINE)
    assert (home / "events.jsonl.1").read_bytes() == LINE * 5
    assert (home / "events.jsonl").read_bytes() == LINE


@pytest.mark.parametrize("away", ["moved", "deleted", "directory"])
def test_a_file_that_somebody_took_away_is_made_anew(home: Path, away: str) -> None:
    file = log(home)
    file.append(LINE)
    path = home / "events.jsonl"
    if away == "moved":
        path.rename(home / "old")
    elif away == "deleted":
        path.unlink()
    else:
        home.rename(home.parent / "former")
        home.mkdir(0o750)
    file.append(LINE)
    assert path.read_bytes() == LINE


def test_half_a_line_from_before_a_crash_is_cut_off(home: Path) -> None:
    (home / "events.jsonl").write_bytes(LINE + b"y" * 200_000)
    log(home).append(LINE)
    assert (home / "events.jsonl").read_bytes() == LINE * 2


def test_a_file_of_half_a_line_alone_is_emptied(home: Path) -> None:
    (home / "events.jsonl").write_bytes(b"y" * 70_000)
    log(home).append(LINE)
    assert (home / "events.jsonl").read_bytes() == LINE


def test_a_full_disk_leaves_no_half_line_and_is_over_when_it_is(home: Path) -> None:
    file = log(home)
    file.append(LINE)
    with file_size_limit(150), pytest.raises(OSError, match="File too large"):
        file.append(LINE)
    assert (home / "events.jsonl").read_bytes() == LINE
    file.append(LINE)
    assert (home / "events.jsonl").read_bytes() == LINE * 2


def test_a_link_is_not_followed(home: Path) -> None:
    target = home / "target"
    target.touch()
    (home / "events.jsonl").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        log(home).append(LINE)
    (home / "events.jsonl").unlink()
    (home / "events.jsonl").hardlink_to(target)
    with pytest.raises(PermissionError, match="with one name"):
        log(home).append(LINE)
    assert target.read_bytes() == b""


@pytest.mark.parametrize("what", ["pipe", "directory"])
def test_only_a_regular_file_is_written(home: Path, what: str) -> None:
    path = home / "events.jsonl"
    if what == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(OSError, match=r"regular file|directory"):
        log(home).append(LINE)


def test_a_directory_that_others_may_write_to_is_refused(home: Path) -> None:
    for mode in (0o777, 0o1777, 0o770):
        home.chmod(mode)
        with pytest.raises(PermissionError, match="others may write there"):
            log(home).append(LINE)
    home.chmod(0o755)
    log(home).append(LINE)


def test_a_directory_that_is_a_link_or_missing_is_refused(home: Path) -> None:
    (home.parent / "link").symlink_to(home)
    for name in ("link", "nothing"):
        with pytest.raises(OSError, match=r"Not a directory|No such file"):
            log(home.parent / name).append(LINE)


def test_two_never_write_to_one_file(home: Path) -> None:
    first, second = log(home), log(home)
    first.append(LINE)
    with pytest.raises(PermissionError, match="a file of its own"):
        second.append(LINE)
    first.close()
    second.append(LINE)


def test_no_descriptor_is_left_behind_by_failures(home: Path) -> None:
    home.chmod(0o777)
    file = log(home)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        with pytest.raises(PermissionError):
            file.append(LINE)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


FULL = """
import subprocess, sys
from pathlib import Path
from sandboxd.sink.log_file import LogFile
home = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(home)], check=True)
file, line, taken = LogFile(home / "e", 0o600, 0, 1, fsync=True), b"x" * 999 + b"\\n", 0
try:
    for _ in range(1000):
        file.append(line * 7)
        taken += 7
except OSError as error:
    assert "No space left" in str(error), error
else:
    raise AssertionError("it never was full")
assert (home / "e").read_bytes() == line * taken
(home / "e").rename(home / "e.old")
(home / "e.old").unlink()
file.append(line * 7)
assert (home / "e").read_bytes() == line * 7
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_disk_that_is_really_full_is_no_other(home: Path) -> None:
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", FULL, str(home)]
    subprocess.run(command, check=True, timeout=60)
