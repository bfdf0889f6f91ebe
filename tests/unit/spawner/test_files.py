"""The file API's inside half on trees that were built to fool it. Table C01-C10."""

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxd.spawner import files
from tests.unit.spawner.conftest import Children

ALL = ("**",)
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    top = tmp_path / "workspace"
    top.mkdir()
    monkeypatch.setattr(files, "WORKSPACE", str(top))
    return top


@contextlib.contextmanager
def _collected(*patterns: str, max_files: int = 1000, max_bytes: int = 1 << 20) -> Iterator[files.Collection]:
    found = files.collect(patterns, max_files, max_bytes, os.geteuid())
    try:
        yield found
    finally:
        for opened in found.opened:
            os.close(opened.fd)


def _names(*patterns: str) -> list[str]:
    with _collected(*patterns) as found:
        return [opened.path for opened in found.opened]


def _put(path: str, content: bytes = b"x", mode: int = 0o644) -> None:
    fd = os.memfd_create("content")
    os.write(fd, content)
    try:
        files.put(path, mode, fd, os.geteuid())
    finally:
        os.close(fd)


# --- globs


TREE = ("a.txt", "b.bin", "d/a.txt", "d/e/a.txt", ".hidden", ".d/a.txt", "d/.a.txt")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", ["a.txt", "b.bin"]),
        ("*.txt", ["a.txt"]),
        ("?.txt", ["a.txt"]),
        ("[!b]*", ["a.txt"]),
        ("[ab].*", ["a.txt", "b.bin"]),
        ("d/*", ["d/a.txt"]),
        ("*/a.txt", ["d/a.txt"]),
        ("**", ["a.txt", "b.bin", "d/a.txt", "d/e/a.txt"]),
        ("**/*.txt", ["a.txt", "d/a.txt", "d/e/a.txt"]),
        ("**/**/a.txt", ["a.txt", "d/a.txt", "d/e/a.txt"]),
        ("d/**", ["d/a.txt", "d/e/a.txt"]),
        ("**/e/*", ["d/e/a.txt"]),
        ("*/*/*", ["d/e/a.txt"]),
        (".*", [".hidden"]),
        (".d/*", [".d/a.txt"]),
        ("**/.a*", ["d/.a.txt"]),
        ("A.TXT", []),
        ("d", []),
        ("[", []),
        ("[z-a]", []),
        ("a**", ["a.txt"]),
    ],
)
def test_glob_matches_as_a_shell_does(pattern: str, expected: list[str], workspace: Path) -> None:
    for name in TREE:
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).touch()
    assert _names(pattern) == expected


def test_file_that_two_patterns_match_comes_once(workspace: Path) -> None:
    (workspace / "a").touch()
    assert _names("*", "a", "**") == ["a"]


def test_pattern_with_many_stars_ends(workspace: Path) -> None:
    (workspace / ("a" * 200)).touch()
    assert _names("*a" * 50 + "b") == []
    assert _names("/".join(["**"] * 60)) == ["a" * 200]


BAD_PATHS = ["../x", "/abs", "a/../../x", ".", "..", "", "a//b", "a/", "./x", "x\0y", "\ud800", "/".join("d" * 65)]


@pytest.mark.parametrize("path", [*BAD_PATHS, "x" * 256], ids=lambda path: ascii(path)[:20])
def test_bad_path_is_refused_and_nothing_written(path: str, workspace: Path) -> None:
    with pytest.raises(OSError, match=r"\[Errno"):
        _put(path)
    assert list(workspace.parent.iterdir()) == [workspace]
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize("pattern", BAD_PATHS, ids=lambda path: ascii(path)[:20])
def test_bad_pattern_is_refused(pattern: str, workspace: Path) -> None:
    with pytest.raises(OSError, match="not a relative path"):
        files.collect((pattern,), 1, 1, os.geteuid())


# --- put


def test_put_writes_a_file_with_its_directories(workspace: Path) -> None:
    _put("a/b/c", b"content" * 500_000, 0o4777)
    written = workspace / "a/b/c"
    assert written.read_bytes() == b"content" * 500_000
    assert written.stat().st_mode & 0o7777 == 0o755


def test_put_never_replaces(workspace: Path) -> None:
    (workspace / "there").write_bytes(b"old")
    (workspace / "dangling").symlink_to("target")
    for name in ("there", "dangling"):
        with pytest.raises(FileExistsError):
            _put(name)
    assert (workspace / "there").read_bytes() == b"old"
    assert not (workspace / "target").exists()


def test_put_goes_through_no_link_in_any_place(workspace: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (workspace / "link").symlink_to(outside)
    (workspace / "inner").symlink_to(".")
    for path in ("link/x", "link/d/x", "inner/x"):
        with pytest.raises(OSError, match=r"openat2"):
            _put(path)
    assert list(outside.iterdir()) == []


def test_put_where_a_file_stands_in_the_way_is_refused(workspace: Path) -> None:
    (workspace / "f").touch()
    with pytest.raises(NotADirectoryError):
        _put("f/x")


# --- hostile trees


def test_only_regular_files_come_and_the_rest_is_told(workspace: Path) -> None:
    (workspace / "ok").write_bytes(b"ok")
    os.mkfifo(workspace / "fifo")
    (workspace / "link").symlink_to("/etc/passwd")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(workspace / "sock"))
    if os.geteuid() == 0:
        os.mknod(workspace / "device", 0o666 | 0o020000, os.makedev(1, 5))
        os.mknod(workspace / "whiteout", 0o666 | 0o020000, 0)
    with _collected("*") as found:
        assert [opened.path for opened in found.opened] == ["ok"]
        reasons = dict(found.skipped)
    assert reasons.pop("link") == "a symbolic link"
    assert set(reasons.values()) == {"not a regular file"}
    assert {"fifo", "sock"} <= set(reasons)


def test_link_to_a_directory_is_not_entered(workspace: Path) -> None:
    (workspace / "etc").symlink_to("/etc")
    (workspace / "up").symlink_to("..")
    assert _names("**", "etc/passwd", "up/*") == []


def test_directory_swapped_for_a_link_gives_no_foreign_byte(
    workspace: Path, tmp_path: Path, children: Children
) -> None:
    """C03. The control: a plain open of the same path does read the foreign file."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "f").write_bytes(b"foreign")
    (workspace / "out").mkdir()
    (workspace / "out" / "f").write_bytes(b"own")
    (workspace / "link").symlink_to(secret)
    one, two = str(workspace / "out").encode(), str(workspace / "link").encode()

    def swap() -> None:
        while True:
            _libc.renameat2(-100, one, -100, two, 2)

    children.start(swap)
    naive = {(workspace / "out" / "f").read_bytes() for _ in range(3000)}
    seen = set()
    for _ in range(300):
        with _collected("out/f", "link/f") as found:
            seen |= {os.pread(opened.fd, 100, 0) for opened in found.opened}
    assert b"foreign" in naive
    assert seen == {b"own"}


def test_file_swapped_for_a_fifo_does_not_block(workspace: Path, children: Children) -> None:
    (workspace / "a").write_bytes(b"own")
    os.mkfifo(workspace / "b")
    one, two = str(workspace / "a").encode(), str(workspace / "b").encode()

    def swap() -> None:
        while True:
            _libc.renameat2(-100, one, -100, two, 2)

    children.start(swap)
    for _ in range(300):
        with _collected("*") as found:
            assert {os.pread(opened.fd, 10, 0) for opened in found.opened} <= {b"own"}


def test_lease_holder_cannot_hold_up_the_collection(workspace: Path, children: Children) -> None:
    """An open for reading would wait for a write lease to be given up: up to 45 seconds."""
    path = workspace / "leased"
    path.write_bytes(b"x")
    read, write = os.pipe()

    def lease() -> None:
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        fd = os.open(path, os.O_RDWR)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        os.write(write, b"held")

    children.start(lease)
    assert os.read(read, 4) == b"held"
    with _collected("*") as found:
        assert found.opened == []
        assert found.skipped == [("leased", "openat2: Resource temporarily unavailable")]
    os.close(read)
    os.close(write)


def test_file_without_permission_for_the_user_is_skipped(workspace: Path) -> None:
    """Init's own rights, which are those over the whole tree, open nothing."""
    if os.geteuid() != 0:
        pytest.skip("needs root: else there is only one user")
    os.chmod(workspace.parent, 0o755)
    for above in workspace.parents:
        if above.owner() == "root" and str(above).startswith("/tmp/pytest"):
            above.chmod(0o755)
    (workspace / "secret").write_bytes(b"x")
    (workspace / "secret").chmod(0o600)
    (workspace / "public").write_bytes(b"x")
    found = files.collect(("*",), 10, 100, 4242)
    assert [opened.path for opened in found.opened] == ["public"]
    assert found.skipped == [("secret", "openat2: Permission denied")]
    os.close(found.opened[0].fd)
    assert os.stat(workspace / "secret").st_size == 1
    (workspace / "secret").read_bytes()  # our own rights are back


def test_growing_file_counts_as_it_was_when_opened(workspace: Path) -> None:
    """C09: whoever reads holds to the size told here."""
    (workspace / "f").write_bytes(b"12345")
    with _collected("f", max_bytes=5) as found:
        (workspace / "f").write_bytes(b"123456789")
        assert [(opened.size, opened.mode) for opened in found.opened] == [(5, 0o644)]


def test_sparse_file_counts_in_full(workspace: Path) -> None:
    with open(workspace / "sparse", "wb") as file:
        file.truncate(1 << 40)
    with _collected("*") as found:
        assert found.opened == []
        assert found.limit_reached
        assert found.skipped == [("sparse", "over the bytes that may be collected")]


def test_caps_hold_and_smaller_files_still_come(workspace: Path) -> None:
    for name, size in (("a", 6), ("b", 6), ("c", 4), ("d", 0), ("e", 0)):
        (workspace / name).write_bytes(bytes(size))
    with _collected("*", max_files=3, max_bytes=10) as found:
        assert [opened.path for opened in found.opened] == ["a", "c", "d"]
        assert found.limit_reached
        assert [path for path, _ in found.skipped] == ["b", "e"]


def test_names_that_are_not_utf8_are_skipped_and_shown_escaped(workspace: Path) -> None:
    for name in (b"\xff\xfe", b"ok", b"\x1b[2J\n"):
        os.close(os.open(os.fsencode(workspace) + b"/" + name, os.O_CREAT | os.O_WRONLY))
    with _collected("*") as found:
        assert [opened.path for opened in found.opened] == ["\x1b[2J\n", "ok"]
        assert found.skipped == [("\\udcff\\udcfe", "its name is not UTF-8")]


def test_hard_link_is_a_file_like_another(workspace: Path) -> None:
    """C05: the workspace is a mount of its own, so nothing outside can be linked into it."""
    (workspace / "a").write_bytes(b"x")
    os.link(workspace / "a", workspace / "b")
    assert _names("*") == ["a", "b"]


def test_deep_tree_ends_at_the_cap(workspace: Path) -> None:
    """C10: 1000 levels."""
    before = os.open(".", os.O_RDONLY)
    os.chdir(workspace)
    try:
        for _ in range(1000):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(before)
        os.close(before)
    (workspace / "f").touch()
    try:
        with _collected("**") as found:
            assert [opened.path for opened in found.opened] == ["f"]
            assert found.skipped == [("/".join(["d"] * files.MAX_DEPTH), "too deep")]
    finally:
        subprocess.run(["rm", "-r", workspace], check=True)  # which does not recurse, as pytest's clean-up would


def test_huge_directory_ends_at_the_cap(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C10: counted over all directories together."""
    monkeypatch.setattr(files, "MAX_ENTRIES", 100)
    for directory in "abc":
        (workspace / directory).mkdir()
        for number in range(60):
            (workspace / directory / str(number)).touch()
    with _collected("**") as found:
        assert found.limit_reached
        assert len(found.opened) < 100
        assert ("b", "the workspace has too many entries") in found.skipped


def test_hundred_thousand_files_are_looked_at_only_up_to_the_cap(workspace: Path) -> None:
    directory = os.open(workspace, os.O_RDONLY)
    for number in range(100_000):
        os.close(os.open(str(number), os.O_CREAT | os.O_WRONLY, dir_fd=directory))
    os.close(directory)
    with _collected("*.none") as found:
        assert (found.opened, found.limit_reached) == ([], True)
    shutil.rmtree(workspace)


def test_skipped_list_is_bounded(workspace: Path) -> None:
    for number in range(300):
        (workspace / str(number)).symlink_to("x")
    with _collected("*") as found:
        assert len(found.skipped) == 100


def test_nothing_stays_open_after_a_walk(workspace: Path) -> None:
    (workspace / "a/b").mkdir(parents=True)
    (workspace / "a/b/f").touch()
    os.mkfifo(workspace / "a/p")
    before = len(os.listdir("/proc/self/fd"))
    with _collected("**"):
        assert len(os.listdir("/proc/self/fd")) == before + 1
