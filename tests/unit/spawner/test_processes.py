import os
from contextlib import suppress
from pathlib import Path

import pytest

from sandboxd.spawner import processes
from tests.unit.spawner.conftest import Children


def test_tree_has_each_process_with_what_it_holds(children: Children) -> None:
    told, tell = os.pipe()

    def fork() -> None:
        if os.fork() == 0:
            os.write(tell, b"!")

    parent = children.start(fork)
    os.read(told, 1)
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    found = processes.tree(proc, parent)
    assert [process["ppid"] for process in found] == [str(os.getpid()), str(parent)]
    first = found[0]
    assert first["exe"] == os.path.realpath("/proc/self/exe")
    assert isinstance(first["argv"], list)
    assert first["argv"][0] == Path("/proc/self/cmdline").read_text().split("\0")[0]
    assert isinstance(first["fds"], dict)
    assert f"pipe:[{os.fstat(tell).st_ino}]" in first["fds"].values()
    with suppress(ProcessLookupError):
        os.kill(int(str(found[1]["pid"])), 9)
    for fd in (proc, told, tell):
        os.close(fd)


def test_each_is_told_where_the_texts_of_some_are_too_many(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MAX_CHARS", 1)
    told, tell = os.pipe()

    def fork() -> None:
        if os.fork() == 0:
            os.write(tell, b"!")

    parent = children.start(fork)
    os.read(told, 1)
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    first, second = processes.tree(proc, parent)
    assert "argv" in first and "left_out" not in first
    assert second["ppid"] == str(parent) and second["left_out"] == "over what texts may take" and "argv" not in second
    with suppress(ProcessLookupError):
        os.kill(int(str(second["pid"])), 9)
    for fd in (proc, told, tell):
        os.close(fd)


def test_name_that_goes_on_behind_what_looks_like_a_line_is_told_whole(children: Children) -> None:
    told, tell = os.pipe()

    def rename() -> None:
        Path("/proc/self/comm").write_bytes(b"a\x0cVmRSS: 0")
        os.write(tell, b"!")

    parent = children.start(rename)
    os.read(told, 1)
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    (found,) = processes.tree(proc, parent)
    assert found["name"] == "a VmRSS: 0"
    for fd in (proc, told, tell):
        os.close(fd)


def test_one_that_is_gone_is_not_there() -> None:
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    assert processes.tree(proc, 2**22) == []
    os.close(proc)


def test_what_is_no_text_is_written_out() -> None:
    assert processes.text(b"a\xffb") == "a\\xffb"
