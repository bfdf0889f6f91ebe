"""The mount side: a stage that holds ready-made views of the host, and the few mounts that each sandbox adds to one.

The spawner lives on the stage, a tmpfs that holds nothing but views, so that copying its mount namespace into a sandbox
stays cheap. Never mounts by a path below a tree that somebody else can write: sources and targets are descriptors.
Called by the spawner (`Stage`) and by init (`mount_private_proc`, `enter_view`).
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from sandboxd.spawner import idmap, sys
from sandboxd.spawner.template import SHM, TMP, WORKSPACE, Bind, View

_VIEWS = "/views"
_DEV = "/dev"
_NEW_ROOT = "/root"
PROC_FULL = "/proc.full"
_PROC_SUBSET = "/proc.subset"
_PTS = "/pts"
_EMPTY = "/empty"
OWN_PLACES = ("/proc", "/dev", TMP, WORKSPACE)
# Small files are copied when the view is built: each mount less is time less per sandbox. A reload takes them anew.
_MAX_COPY_BYTES = 1 << 20
_MAX_PTYS = 64  # of the 3072 that all but the host's own terminals share
_DEVICES = ("null", "zero", "full", "random", "urandom")
_DEV_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
_HARD = sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOEXEC
_READ_ONLY = sys.MOUNT_ATTR_RDONLY | sys.MOUNT_ATTR_NOSUID

# What tells about the host or changes it. The kernel guards most of these from an unprivileged uid; this is the second
# layer. Source: runtime-spec defaults of runc and containerd, gVisor's and Podman's additions; `locks`, since it shows
# the open file description locks of the whole host; `cmdline` and `bootconfig`, since boot parameters hold passwords
# and addresses of machines that are booted over a network.
_PROC_MASKED = (
    "acpi", "asound", "bootconfig", "cmdline", "config.gz", "interrupts", "iomem", "ioports", "kallsyms", "kcore",
    "key-users", "keys", "kmsg", "kpagecgroup", "kpagecount", "kpageflags", "latency_stats", "locks", "modules",
    "sched_debug", "scsi", "slabinfo", "sysrq-trigger", "timer_list", "timer_stats", "vmallocinfo",
)  # fmt: skip
_PROC_READ_ONLY = ("bus", "fs", "irq", "sys")


class ViewInvalid(Exception):
    """A template's view cannot be built on this host; the message names the path."""


class Stage:
    """The spawner's own mount namespace, and the door back to the host's."""

    def __init__(self) -> None:
        """Enter it. From here on the process sees the stage as its root."""
        self.nobody = idmap.Nobody()
        # A view of the host that is ours to return to; what the host mounts or unmounts later is followed.
        sys.unshare(sys.CLONE_NEWNS)
        sys.mount("none", "/", "", sys.MS_REC | sys.MS_SLAVE)
        self.host_mnt = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        sys.unshare(sys.CLONE_NEWNS)
        sys.mount("none", "/", "", sys.MS_REC | sys.MS_PRIVATE)
        proc = sys.open_tree("/proc", sys.OPEN_TREE_CLONE | sys.AT_RECURSIVE)
        devices = {name: sys.open_tree(f"/dev/{name}", sys.OPEN_TREE_CLONE) for name in _DEVICES}
        sys.mount("stage", TMP, "tmpfs", sys.MS_NOSUID | sys.MS_NODEV, "mode=0755,size=16m,nr_inodes=16k")
        os.chdir(TMP)
        for directory in (_VIEWS, _DEV, _NEW_ROOT, PROC_FULL, _PROC_SUBSET, _PTS, _EMPTY, "/proc"):
            os.mkdir(directory[1:], 0o755)
        sys.pivot_root(".", ".")
        sys.umount2(".", sys.MNT_DETACH)
        os.chdir("/")
        # The kernel lets a user namespace mount a new proc only while it can see a whole one.
        sys.move_mount(proc, "/proc")
        os.close(proc)
        self._make_dev(devices)
        self.own_mnt = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    @contextmanager
    def host(self) -> Iterator[None]:
        """See the host's root inside the block. Nothing else may run in this process meanwhile."""
        sys.setns(self.host_mnt, sys.CLONE_NEWNS)
        try:
            yield
        finally:
            sys.setns(self.own_mnt, sys.CLONE_NEWNS)

    def add_view(self, view: View) -> str:
        """Build it unless it is there; its path on the stage. `ViewInvalid` names what the host lacks."""
        path = f"{_VIEWS}/{view_digest(view)}"
        if os.path.isdir(path):
            return path
        with self.host():
            sources = _Sources(view)
        try:
            os.mkdir(path, 0o755)
            for source, tree in sources.shown():
                self.nobody.hide(source, tree)
            if sources.image is None:
                sys.mount("view", path, "tmpfs", sys.MS_NOSUID | sys.MS_NODEV, "mode=0755,size=16m,nr_inodes=4k")
            else:
                sys.mount_setattr(sources.image, _READ_ONLY | sys.MOUNT_ATTR_NODEV, sys.AT_RECURSIVE)
                sys.move_mount(sources.image, path)
            _furnish(path, view, sources)
        except OSError as error:
            self._drop(path)
            raise ViewInvalid(f"cannot build the root: {error}") from error
        except ViewInvalid:
            self._drop(path)
            raise
        finally:
            sources.close()
        return path

    def retain_views(self, paths: frozenset[str]) -> None:
        """Drop every view that no template uses any more; sandboxes have their own copies."""
        for name in os.listdir(_VIEWS):
            if f"{_VIEWS}/{name}" not in paths:
                self._drop(f"{_VIEWS}/{name}")

    def _drop(self, path: str) -> None:
        try:
            sys.umount2(path, sys.MNT_DETACH)
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: nothing is mounted there
                raise
        os.rmdir(path)

    def _make_dev(self, devices: dict[str, int]) -> None:
        sys.mount("dev", _DEV, "tmpfs", sys.MS_NOSUID | sys.MS_NOEXEC, "mode=0755,size=64k,nr_inodes=64")
        for name, tree in devices.items():
            os.close(os.open(f"{_DEV}/{name}", os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
            sys.mount_setattr(tree, _READ_ONLY | sys.MOUNT_ATTR_NOEXEC)
            sys.move_mount(tree, f"{_DEV}/{name}")
            os.close(tree)
        for directory in ("pts", "shm"):
            os.mkdir(f"{_DEV}/{directory}", 0o755)
        for name, target in _DEV_LINKS:
            os.symlink(target, f"{_DEV}/{name}")
        _seal(_DEV, _READ_ONLY | sys.MOUNT_ATTR_NOEXEC)


def view_digest(view: View) -> str:
    """Templates with the same view share one build of it."""
    return hashlib.sha256(repr(view).encode()).hexdigest()[:16]


def mount_private_proc() -> bool:
    """In the new pid namespace, before the user namespace: proc in both shapes, and pts. False if there can be no proc.

    Made this early they belong to the spawner's user namespace, so what init inherits of them is locked.
    """
    options = f"newinstance,ptmxmode=0666,mode=0620,max={_MAX_PTYS}"
    sys.mount("devpts", _PTS, "devpts", sys.MS_NOSUID | sys.MS_NOEXEC, options)
    try:
        sys.mount("proc", PROC_FULL, "proc", _HARD, "hidepid=2")
        sys.mount("proc", _PROC_SUBSET, "proc", _HARD, "hidepid=2,subset=pid")
    except PermissionError:
        return False  # the surrounding container masks /proc from its own user namespaces; the probe says so
    return True


def mask_proc() -> None:
    """Hide from the full shape what concerns the host, and make its switches read-only."""
    for name in _PROC_MASKED:
        _mask(f"{PROC_FULL}/{name}")
    for name in _PROC_READ_ONLY:
        path = f"{PROC_FULL}/{name}"
        if os.path.isdir(path):
            sys.mount(path, path, "", sys.MS_BIND | sys.MS_REC)
            sys.mount("none", path, "", sys.MS_BIND | sys.MS_REMOUNT | sys.MS_RDONLY | _HARD)


@dataclass(frozen=True, slots=True)
class Room:
    """Of the writable mounts; no number is ever 0, which would mean unlimited. /tmp and /dev/shm have `tmp` each."""

    workspace_bytes: int
    workspace_inodes: int
    tmp_bytes: int
    tmp_inodes: int

    @property
    def workspace(self) -> str:
        return f"size={self.workspace_bytes},nr_inodes={self.workspace_inodes}"

    @property
    def tmp(self) -> str:
        return f"size={self.tmp_bytes},nr_inodes={self.tmp_inodes}"


def enter_view(view: str, proc: str, owner: int, room: Room, *, executable_workspace: bool) -> None:
    """Make this process's root that view with its own proc, dev and writable mounts, and nothing else.

    `owner` is the uid and gid of the workspace.
    """
    sys.mount(view, _NEW_ROOT, "", sys.MS_BIND | sys.MS_REC)
    _mount_in_root(_DEV, "/dev", "", sys.MS_BIND | sys.MS_REC)
    _mount_in_root(_PTS, "/dev/pts", "", sys.MS_BIND)
    _mount_in_root(PROC_FULL if proc == "full" else _PROC_SUBSET, "/proc", "", sys.MS_BIND | sys.MS_REC)
    for place in (TMP, SHM):
        _mount_in_root(place[1:], place, "tmpfs", _HARD, f"{room.tmp},mode=1777")
    flags = _workspace_flags(executable_workspace)
    data = f"{room.workspace},mode=0755,uid={owner},gid={owner}"
    _mount_in_root("workspace", WORKSPACE, "tmpfs", flags, data)
    os.chdir(_NEW_ROOT)
    sys.pivot_root(".", ".")
    sys.umount2(".", sys.MNT_DETACH)
    os.chdir("/")


def _mount_in_root(source: str, place: str, fstype: str, flags: int, data: str = "") -> None:
    """Through no link: an image's owner may have put one there since the view was built.

    The directory is found once and mounted on as `.`, so what it is called meanwhile does not matter.
    """
    root = os.open(_NEW_ROOT, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        target = sys.openat2(root, place[1:], os.O_PATH | os.O_DIRECTORY, 0, _INSIDE)
        os.fchdir(target)
        os.close(target)
    finally:
        os.close(root)
    sys.mount(source, ".", fstype, flags, data)


def give_room(room: Room, *, executable_workspace: bool) -> None:
    """Change the room of the writable mounts, inside the finished view."""
    for place in (TMP, SHM):
        sys.mount("none", place, "", sys.MS_REMOUNT | _HARD, room.tmp)
    sys.mount("none", WORKSPACE, "", sys.MS_REMOUNT | _workspace_flags(executable_workspace), room.workspace)


def _workspace_flags(executable: bool) -> int:
    return sys.MS_NOSUID | sys.MS_NODEV if executable else _HARD


def _mask(path: str) -> None:
    try:
        directory = stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    sys.mount(_EMPTY if directory else f"{_DEV}/null", path, "", sys.MS_BIND)
    sys.mount("none", path, "", sys.MS_BIND | sys.MS_REMOUNT | sys.MS_RDONLY | sys.MS_NOSUID | sys.MS_NOEXEC)


_INSIDE = sys.RESOLVE_BENEATH | sys.RESOLVE_NO_SYMLINKS | sys.RESOLVE_NO_MAGICLINKS


class _Sources:
    """What a view takes from the host, opened while the host can be seen: trees to attach, small files to copy."""

    def __init__(self, view: View) -> None:
        self.links = [(path, target) for path, target in view.symlinks if not view.image and os.path.islink(path)]
        self.trees: dict[str, tuple[Bind, int]] = {}
        self.copies: dict[str, bytes] = {}
        self.image = _cloned(_pinned(view.image)) if view.image else None
        self._image_path = view.image
        linked = {path for path, _ in self.links}
        try:
            for bind in view.binds:
                if bind.target not in linked:
                    self._open(bind, may_copy=not view.image)
        except ViewInvalid:
            self.close()
            raise

    def _open(self, bind: Bind, *, may_copy: bool) -> None:
        try:
            fd = _pinned(bind.source)
            status = os.fstat(fd)
            # Only what everybody may read: a copy would show a private file that a bind leaves closed.
            public = stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IROTH
            if may_copy and public and not bind.executable and status.st_size <= _MAX_COPY_BYTES:
                self.copies[bind.target] = _content(fd)
                return
            tree = _cloned(fd)
        except OSError as error:
            if bind.optional and error.errno in (errno.ENOENT, errno.ENOTDIR):
                return
            raise ViewInvalid(f"cannot bind {bind.source!r}: {error}; create it or mark it optional") from error
        self.trees[bind.target] = (bind, tree)

    def shown(self) -> Iterator[tuple[str, int]]:
        """Each path of the host with its tree."""
        if self.image is not None:
            yield self._image_path, self.image
        for bind, tree in self.trees.values():
            yield bind.source, tree

    def close(self) -> None:
        for _, fd in self.trees.values():
            os.close(fd)
        if self.image is not None:
            os.close(self.image)


def _pinned(source: str) -> int:
    """Opened as the compiler resolved and checked it: what became a link since then is refused."""
    return sys.openat2(sys.AT_FDCWD, source, os.O_PATH, 0, sys.RESOLVE_NO_SYMLINKS)


def _cloned(fd: int) -> int:
    """A detached copy of the tree there. Closes `fd`."""
    try:
        return sys.open_tree("", sys.OPEN_TREE_CLONE | sys.AT_RECURSIVE | sys.AT_EMPTY_PATH, fd)
    finally:
        os.close(fd)


def _content(fd: int) -> bytes:
    """Of a small regular file. Closes `fd`."""
    try:
        with open(f"/proc/self/fd/{fd}", "rb") as file:
            return file.read(_MAX_COPY_BYTES)
    finally:
        os.close(fd)


def _furnish(path: str, view: View, sources: _Sources) -> None:
    root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if view.image:
            for place in OWN_PLACES:
                _require_directory(root, place)
        else:
            _fill(root, view, sources)
        for target, (bind, tree) in sorted(sources.trees.items()):
            attributes = _READ_ONLY | sys.MOUNT_ATTR_NODEV | (0 if bind.executable else sys.MOUNT_ATTR_NOEXEC)
            sys.mount_setattr(tree, attributes, sys.AT_RECURSIVE)
            target_fd = sys.openat2(root, target.lstrip("/"), os.O_PATH, 0, _INSIDE)
            try:
                sys.move_mount(tree, "", target_fd)
            finally:
                os.close(target_fd)
    finally:
        os.close(root)
    if not view.image:
        _seal(path, _READ_ONLY | sys.MOUNT_ATTR_NODEV)


def _fill(root: int, view: View, sources: _Sources) -> None:
    """Everything in a root of our own that is no mount: mount points, links, files."""
    for place in OWN_PLACES:
        os.mkdir(place[1:], 0o755, dir_fd=root)
    for link, target in sources.links:
        _make_parents(root, link)
        os.symlink(target, link.lstrip("/"), dir_fd=root)
    for name, content in view.files:
        _write_file(root, name, content.encode())
    for name, data in sources.copies.items():
        _write_file(root, name, data)
    for target, (_, tree) in sorted(sources.trees.items()):
        if stat.S_ISDIR(os.fstat(tree).st_mode):
            _make_parents(root, target + "/.")
        else:
            _write_file(root, target, b"")


def _write_file(root: int, path: str, content: bytes) -> None:
    _make_parents(root, path)
    fd = sys.openat2(root, path.lstrip("/"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444, _INSIDE)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)


def _require_directory(root: int, place: str) -> None:
    try:
        os.close(sys.openat2(root, place[1:], os.O_PATH | os.O_DIRECTORY, 0, _INSIDE))
    except OSError as error:
        raise ViewInvalid(f"the image has no directory {place!r}: {error.strerror}; create it in the image") from error


def _make_parents(root: int, path: str) -> None:
    directory = os.dup(root)
    try:
        for part in path.strip("/").split("/")[:-1]:
            with suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=directory)
            above, directory = directory, sys.openat2(directory, part, os.O_PATH | os.O_DIRECTORY, 0, _INSIDE)
            os.close(above)
    finally:
        os.close(directory)


def _seal(path: str, attributes: int) -> None:
    fd = sys.open_tree(path, 0)
    try:
        sys.mount_setattr(fd, attributes)
    finally:
        os.close(fd)
