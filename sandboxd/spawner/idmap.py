"""Shows a tree of the host as nobody's, so that the kernel lets nobody write to anything in it.

A read-only mount still lets a program connect to a unix socket and open a named pipe for writing, if their modes do.
Through an id-mapped mount that maps no id in use they have no owner, and what has none cannot be written to.
Called by `mounts` for what the profiles show, and tried by `trial` in a child. Source: mount_setattr(2), and
inode_permission() in Linux.
"""

import errno
import os
from pathlib import Path

from sandboxd.spawner import sys

_NO_FILES_ID = 0xFFFFFFFE  # as a file's owner on a disk: the kernel keeps the one above for "none", nobody uses this
_NOBODY = 65534  # to map the host's 0 would take CAP_SETFCAP, which a pod need not have
_USUAL_TREE = "/usr"
_CANNOT = (errno.EINVAL, errno.EPERM)  # a file system without it; no right over the file system, as while rootless


def namespace() -> int:
    """Descriptor of a user namespace that maps that one id; OSError where none can be made."""
    made_read, made_write = os.pipe2(os.O_CLOEXEC)
    mapped_read, mapped_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(mapped_write)
            sys.unshare(sys.CLONE_NEWUSER)
            os.write(made_write, b"+")
            os.read(mapped_read, 1)
        finally:
            os._exit(0)
    try:
        os.close(made_write)
        os.close(mapped_read)
        os.read(made_read, 1)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text(f"{_NO_FILES_ID} {_NOBODY} 1")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(made_read)
        os.close(mapped_write)
        os.waitpid(pid, 0)


class Nobody:
    """Whose every tree is, as far as the kernel and the trees' file systems can do that."""

    def __init__(self) -> None:
        self.others: set[str] = set()  # paths of the trees that keep their owners
        self.promised = False  # to the daemon, that there are none
        try:
            self._namespace: int | None = namespace()
        except OSError:
            self._namespace = None

    def hide(self, path: str, tree: int) -> None:
        """The owners of a detached tree and of all that is mounted in it."""
        if self._namespace is None:
            self.others.add(path)
            return
        try:
            sys.mount_setattr(tree, sys.MOUNT_ATTR_IDMAP, sys.AT_RECURSIVE, self._namespace)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            if self.promised:
                reason = "its file system takes no id map; restart sandboxd to accept that"
                raise OSError(error.errno, reason, path) from error
            self.others.add(path)


def attempt() -> None:
    """OSError where this node cannot do it for the tree that every profile shows. Changes this process's mounts."""
    sys.unshare(sys.CLONE_NEWNS)
    tree = sys.open_tree(_USUAL_TREE, sys.OPEN_TREE_CLONE | sys.AT_RECURSIVE)
    sys.mount_setattr(tree, sys.MOUNT_ATTR_IDMAP, sys.AT_RECURSIVE, namespace())
