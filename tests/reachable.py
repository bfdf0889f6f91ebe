"""Runs a command in a private mount namespace where one directory can be reached by every user, at its usual path.

Root's checkout may lie below /root, where the ordinary user of the rootless tests cannot enter. Nothing on disk changes
and nothing outside the command sees it. Used by `tests.daemon` when the tests run as root; does nothing otherwise.
"""

import ctypes
import os
import stat
import sys
import tempfile
from pathlib import Path

CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def closed_ancestor(directory: Path) -> Path | None:
    """The topmost directory on the way to `directory` (itself included) that others cannot enter, if any."""
    for ancestor in (*reversed(directory.parents), directory):
        if not ancestor.stat().st_mode & stat.S_IXOTH:
            return ancestor
    return None


def prefix(directory: Path) -> list[str]:
    """What to put before a command line so that every user reaches `directory` in it; empty if they do anyway."""
    if os.geteuid() != 0 or closed_ancestor(directory) is None:
        return []
    return [sys.executable, str(Path(__file__).resolve()), str(directory)]


def open_up(directory: Path, closed: Path) -> None:
    """Hide `closed` behind an empty directory that others may enter, and put `directory` back at its place in it.

    Entry by entry, since the directory itself may be the closed one.
    """
    _call("unshare", _libc.unshare(CLONE_NEWNS))
    _mount("none", Path("/"), "", MS_REC | MS_PRIVATE, "")
    aside = Path(tempfile.mkdtemp(dir="/tmp"))
    _mount(str(directory), aside, "", MS_BIND | MS_REC, "")
    _mount("tmpfs", closed, "tmpfs", 0, "mode=0755,size=1m")
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    for entry in aside.iterdir():
        target = directory / entry.name
        if entry.is_symlink():
            target.symlink_to(entry.readlink())
        else:
            target.mkdir() if entry.is_dir() else target.touch()
            _mount(str(entry), target, "", MS_BIND | MS_REC, "")
    _call(f"umount {aside}", _libc.umount2(bytes(aside), MNT_DETACH))
    aside.rmdir()


def _mount(source: str, target: Path, kind: str, flags: int, data: str) -> None:
    result = _libc.mount(source.encode(), bytes(target), kind.encode(), ctypes.c_ulong(flags), data.encode())
    _call(f"mount {target}", result)


def _call(what: str, result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def main(argv: list[str]) -> None:
    directory, command = Path(argv[0]).resolve(), argv[1:]
    closed = closed_ancestor(directory)
    if closed is not None and os.geteuid() == 0:
        open_up(directory, closed)
        os.chdir(directory)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
