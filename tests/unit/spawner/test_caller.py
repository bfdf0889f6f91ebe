"""What is read of a process that asks for another program: a real one, that waits in its execve meanwhile."""

import ctypes
import errno
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxd.spawner import caller, sys
from sandboxd.spawner.caller import Caller, Process, Unreadable
from tests.unit.spawner.notified import Notified, call, notified

Strings = tuple[bytes, ...]
EMPTY_PATH = sys.AT_EMPTY_PATH
UNMAPPED = 0x1000


def _list(*words: bytes) -> "ctypes.Array[ctypes.c_char_p]":
    return (ctypes.c_char_p * (len(words) + 1))(*words, None)


def _execve(path: object, argv: object) -> Callable[[], object]:
    return lambda: call(sys.EXECVE, path, argv, _list())


def _execveat(directory: int, path: bytes, flags: int) -> Callable[[], object]:
    return lambda: call(sys.EXECVEAT, directory, path, _list(b"word"), _list(), flags)


def _read(child: Notified) -> Caller:
    """And let it fail, so that the child ends."""
    seen = child.receive()
    process = Process(seen.thread)
    try:
        assert child.listener.is_pending(seen.key)
        return process.reads(seen)
    finally:
        process.close()
        child.listener.refuse(seen.key, errno.EACCES)


def _asked(body: Callable[[], object]) -> Caller:
    with notified(body) as child:
        return _read(child)


def _unreadable(body: Callable[[], object]) -> tuple[int, str]:
    with notified(body) as child, pytest.raises(Unreadable) as caught:
        _read(child)
    return caught.value.number, caught.value.reason


def _in(directory: Path, body: Callable[[], object]) -> Callable[[], object]:
    def inside() -> None:
        os.chdir(directory)
        body()

    return inside


def test_program_arguments_directory_and_family_are_read(tmp_path: Path) -> None:
    with notified(_in(tmp_path, _execve(b"/usr/bin/true", _list(b"true", b"", b"two words", b"\xff")))) as child:
        seen = _read(child)
        assert seen.argv == ("true", "", "two words", "\udcff")
        assert (seen.pid, seen.parent_pid, seen.cwd) == (child.pid, os.getpid(), str(tmp_path))
        assert seen.image == os.path.realpath("/usr/bin/true")


def test_relative_path_starts_where_the_process_is(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "program").touch()
    assert _asked(_in(tmp_path / "a", _execve(b"../program", _list()))).image == str(tmp_path / "program")


def test_links_are_followed_to_what_they_name(tmp_path: Path) -> None:
    (tmp_path / "program").touch()
    (tmp_path / "near").symlink_to("program")
    (tmp_path / "far").symlink_to(tmp_path / "near")
    (tmp_path / "d").symlink_to(tmp_path)
    assert _asked(_execve(f"{tmp_path}/d/far".encode(), _list())).image == str(tmp_path / "program")


def test_self_is_the_caller_and_not_the_reader(tmp_path: Path) -> None:
    (tmp_path / "me").symlink_to("/proc/self/cwd/program")
    (tmp_path / "program").touch()
    for path in (b"/proc/self/cwd/program", b"/proc/thread-self/cwd/program", f"{tmp_path}/me".encode()):
        assert _asked(_in(tmp_path, _execve(path, _list()))).image == str(tmp_path / "program")


def test_descriptor_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "program").touch()

    def by_number() -> None:
        fd = os.open(tmp_path / "program", os.O_RDONLY)
        _execveat(fd, b"", EMPTY_PATH)()

    def by_proc() -> None:
        fd = os.open(tmp_path / "program", os.O_RDONLY)
        _execve(f"/proc/self/fd/{fd}".encode(), _list())()

    def by_dev() -> None:
        fd = os.open(tmp_path / "program", os.O_RDONLY)
        _execve(f"/dev/fd/{fd}".encode(), _list())()

    for body in (by_number, by_proc, by_dev):
        assert _asked(body).image == str(tmp_path / "program")


def test_memory_file_is_told_as_one() -> None:
    def run() -> None:
        _execveat(os.memfd_create("evil"), b"", EMPTY_PATH)()

    def through_proc() -> None:
        _execve(f"/proc/self/fd/{os.memfd_create('evil')}".encode(), _list())()

    for body in (run, through_proc):
        assert _asked(body).image == "/memfd:evil (deleted)"


def test_directory_of_execveat_counts_for_relative_paths_alone(tmp_path: Path) -> None:
    (tmp_path / "program").touch()

    def run(path: bytes) -> Callable[[], object]:
        return lambda: _execveat(os.open(tmp_path, os.O_RDONLY), path, 0)()

    assert _asked(run(b"program")).image == str(tmp_path / "program")
    assert _asked(run(b"/usr/bin/env")).image == "/usr/bin/env"
    assert _asked(_in(tmp_path, _execveat(sys.AT_FDCWD, b"program", 0))).image == str(tmp_path / "program")


@pytest.mark.parametrize(
    ("body", "number"),
    [
        (_execve(b"/usr/bin/there is no such program", _list()), errno.ENOENT),
        (_execve(b"/usr/bin/env/program", _list()), errno.ENOTDIR),
        (_execve(b"", _list()), errno.ENOENT),
        (_execveat(sys.AT_FDCWD, b"", 0), errno.ENOENT),
        (_execveat(99, b"", EMPTY_PATH), errno.EBADF),
        (_execveat(99, b"program", 0), errno.EBADF),
        (_execve(b"/" + b"a" * 5000, _list()), errno.ENAMETOOLONG),
        (_execve(b"/./" * 1500, _list()), errno.ENAMETOOLONG),
        (_execve(b"./" * 1500, _list()), errno.ELOOP),
    ],
)
def test_place_where_nothing_can_be_is_refused_and_not_told_of(body: Callable[[], object], number: int) -> None:
    assert _unreadable(body) == (number, "")


def test_circle_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert _unreadable(_execve(f"{tmp_path}/a".encode(), _list())) == (errno.ELOOP, "")


def _pages(*, end: bytes) -> int:
    """The address of these bytes at the very end of a page that has nothing behind it."""
    size = mmap.PAGESIZE
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    at = libc.mmap(None, ctypes.c_size_t(2 * size), 3, 0x22, -1, ctypes.c_long(0))
    libc.munmap(ctypes.c_void_p(at + size), ctypes.c_size_t(size))
    ctypes.memmove(at + size - len(end), end, len(end))
    return int(at + size - len(end))


@pytest.mark.parametrize(
    "body",
    [
        lambda: _execve(UNMAPPED, _list())(),
        lambda: _execve(b"/usr/bin/env", UNMAPPED)(),
        lambda: _execve(b"/usr/bin/env", (ctypes.c_void_p * 2)(UNMAPPED, None))(),
        lambda: _execve(_pages(end=b"/usr/bin/env"), _list())(),
        lambda: _execve(b"/usr/bin/env", _pages(end=bytes(4)))(),
        lambda: _execve((1 << 63) + 4096, _list())(),
        lambda: _execve((1 << 64) - 4096, _list())(),
    ],
    ids=["path", "argv", "word", "path without end", "half a pointer", "kernel", "last page"],
)
def test_memory_that_is_not_there_is_a_fault(body: Callable[[], object]) -> None:
    assert _unreadable(body) == (errno.EFAULT, "fault")


def test_string_at_the_end_of_memory_is_read_to_its_nul() -> None:
    assert _asked(lambda: _execve(_pages(end=b"/usr/bin/env\0"), _list())()).image == "/usr/bin/env"


def test_no_list_of_arguments_is_an_empty_one() -> None:
    assert _asked(lambda: _execve(b"/usr/bin/env", None)()).argv == ()


@pytest.mark.parametrize(
    "words",
    [
        (b"x" * 100_000,) * 20,
        (b"x" * caller.MOST_ARGUMENT_BYTES,),
        (b"",) * (caller.MOST_ARGUMENTS + 1),
    ],
    ids=["2 MB", "one long word", "many words"],
)
def test_more_arguments_than_policy_can_be_shown_are_refused(words: Strings) -> None:
    assert _unreadable(_execve(b"/usr/bin/env", _list(*words))) == (errno.E2BIG, "too_large")


def test_as_many_arguments_as_policy_can_be_shown_are_read_whole() -> None:
    words = (b"x" * 100_000, b"y" * 100_000, *(b"%d" % number for number in range(caller.MOST_ARGUMENTS - 2)))
    assert _asked(_execve(b"/usr/bin/env", _list(*words))).argv == tuple(word.decode() for word in words)


def test_thread_that_is_not_the_first_is_read_as_its_process() -> None:
    def run() -> None:
        thread = threading.Thread(target=_execve(b"/usr/bin/env", _list(b"env")))
        thread.start()
        thread.join()

    with notified(run) as child:
        seen = _read(child)
        assert (seen.pid, seen.argv) == (child.pid, ("env",))


def test_process_that_is_gone_is_refused() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    with pytest.raises(Unreadable) as caught:
        Process(pid)
    assert (caught.value.number, caught.value.reason) == (errno.EACCES, "unreadable")
