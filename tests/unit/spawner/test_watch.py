"""Limits that only init can see, on trees and tables that the test makes."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxd.spawner import sys, watch
from tests.skips import need_root
from tests.unit.spawner.conftest import Children


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "tmp").mkdir()
    found = tuple((str(tmp_path / name), name) for name in ("workspace", "tmp"))
    monkeypatch.setattr(watch, "_PLACES", found)
    return tmp_path


def test_nothing_is_reached_by_an_idle_program(places: Path) -> None:
    looked = watch.LimitWatch(1 << 20, 1000)
    looked.sample(os.getpid())
    assert looked.finish() == ()


def test_file_at_its_largest_is_told_wherever_it_lies(places: Path) -> None:
    deep = places / "tmp" / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "f").write_bytes(bytes(1000))
    assert watch.LimitWatch(1 << 20, 1000).finish() == ("file_size",)
    assert watch.LimitWatch(1 << 20, 1001).finish() == ()


def test_link_to_a_large_file_is_no_large_file(places: Path) -> None:
    (places / "big").write_bytes(bytes(1000))
    (places / "workspace" / "link").symlink_to(places / "big")
    (places / "workspace" / "up").symlink_to(places)
    assert watch.LimitWatch(1 << 20, 1000).finish() == ()


def test_endless_tree_is_looked_at_only_up_to_a_number(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_MAX_ENTRIES", 10)
    for number in range(50):
        (places / "workspace" / str(number)).touch()
    assert watch.LimitWatch(1 << 20, 1).finish() == ()


def test_process_at_its_descriptor_limit_is_seen(
    places: Path, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_root()
    read, write = os.pipe()

    def fill() -> None:
        while len(os.listdir("/proc/self/fd")) <= 400:
            os.dup(0)
        os.write(write, b"f")

    pid = children.start(fill)
    assert os.read(read, 1) == b"f"
    monkeypatch.setattr(watch, "_processes", lambda main: [main, 2**22 + 1])
    looked = watch.LimitWatch(400, 1000)
    looked.sample(pid)
    assert looked.finish() == ("open_files",)
    wide = watch.LimitWatch(500, 1000)
    wide.sample(pid)
    assert wide.finish() == ()
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        (lambda place: (place / "f").write_bytes(bytes(64 << 10)), "workspace_bytes"),
        (lambda place: [(place / str(number)).touch() for number in range(9)], "workspace_inodes"),
    ],
    ids=["bytes", "inodes"],
)
def test_full_file_system_is_told(fill: Callable[[Path], object], expected: str, places: Path) -> None:
    need_root()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            sys.unshare(sys.CLONE_NEWNS)
            sys.mount("none", "/", "", sys.MS_REC | sys.MS_PRIVATE)
            sys.mount("t", str(places / "workspace"), "tmpfs", 0, "size=64k,nr_inodes=10")
            fill(places / "workspace")
            looked = watch.LimitWatch(1 << 20, 1 << 30)
            looked.sample(os.getpid())
            os.write(write, " ".join(looked.finish()).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    assert os.read(read, 100).decode() == expected
    os.close(read)
