"""Lets an unprivileged child reach single paths below directories that are closed to it, such as a checkout in /root.

In the child's own mount namespace the closed directory is covered by an empty one that holds only those paths; the
directory's other content is then out of its reach altogether. Called by `children` as root, before the change of uid.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from sandboxd.spawner import sys


def reveal(paths: Iterable[Path], uid: int) -> None:
    """Make each existing path reachable for `uid`, which owns nothing above them."""
    covers: dict[Path, list[tuple[Path, int]]] = {}
    for path in sorted({path.absolute() for path in paths}):
        closed = _closed_directory(path, uid)
        if closed is not None and path.exists():
            covers.setdefault(closed, []).append(
                (path, sys.open_tree(str(path), sys.OPEN_TREE_CLONE | sys.AT_RECURSIVE))
            )
    for closed, entries in covers.items():
        sys.mount("reveal", str(closed), "tmpfs", sys.MS_NOSUID | sys.MS_NODEV, "mode=0755,size=256k,nr_inodes=1k")
        covered: list[Path] = []
        for path, tree in entries:
            if not any(path.is_relative_to(above) for above in covered):
                _make_target(path, tree)
                sys.move_mount(tree, str(path))
                covered.append(path)
            os.close(tree)


def _closed_directory(path: Path, uid: int) -> Path | None:
    """The topmost directory above `path` that `uid` may not pass."""
    for directory in reversed(path.parents):
        try:
            status = directory.stat()
        except FileNotFoundError:
            return None
        needed = stat.S_IXUSR if status.st_uid == uid else stat.S_IXOTH
        if not status.st_mode & needed:
            return directory
    return None


def _make_target(path: Path, tree: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        path.mkdir(exist_ok=True)
    else:
        path.touch()
