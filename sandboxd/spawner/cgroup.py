"""Resource control for sandboxes, whichever cgroup version this node has: finds it and makes the tree for it.

Standard library only. What counts is what this process can really do: a hierarchy is used if a directory could be made
in it. Called by the spawner at start-up, and by `probe` with a subtree of its own.
"""

import contextlib
import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sandboxd.spawner import cgroup_v1, cgroup_v2, sys
from sandboxd.spawner.cgroup_base import Cgroup, CgroupLimits, CgroupTree, NoTree, checked_subtree
from sandboxd.spawner.cgroup_files import Directory

__all__ = ["Cgroup", "CgroupLimits", "CgroupTree", "detect", "make_writable"]

_HARD = sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOEXEC


@dataclass(frozen=True, slots=True)
class _Mount:
    """One line of mountinfo: which part of the hierarchy (`root`) is seen where (`point`)."""

    root: str
    point: str
    options: tuple[str, ...]


def make_writable(proc: Path = Path("/proc")) -> None:
    """Before `detect`: container engines mount the hierarchies read-only; in a mount namespace of our own they are not.

    What a container sees there is its own cgroup alone, as far as it has a cgroup namespace. Where the kernel does not
    allow it they stay as they are, and the tree says what follows.
    """
    points = _read_only(_lines(proc / "self" / "mountinfo"))
    if not points or os.geteuid() != 0:
        return
    try:
        sys.unshare(sys.CLONE_NEWNS)
        sys.mount("none", "/", "", sys.MS_REC | sys.MS_SLAVE)
        for point in points:
            sys.mount("none", point, "", sys.MS_BIND | sys.MS_REMOUNT | _HARD)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES, errno.EINVAL):  # EINVAL: another file system covers it
            raise


def _lines(path: Path) -> list[str]:
    """Divided where the kernel divides them: in a name it escapes that and a space, but nothing else that str does."""
    return [line for line in os.fsdecode(path.read_bytes()).split("\n") if line]


def _read_only(lines: Iterable[str]) -> list[str]:
    """Of mountinfo: where a cgroup hierarchy is mounted read-only."""
    points = []
    for line in lines:
        before, _, after = line.partition(" - ")
        head, kind = before.split(" "), after.partition(" ")[0]
        if len(head) > 5 and kind in ("cgroup", "cgroup2") and "ro" in head[5].split(","):
            points.append(_unescaped(head[4]))
    return points


def detect(subtree: str, proc: Path = Path("/proc")) -> CgroupTree:
    """v2 if it can hold memory and pids here, else v1, else the tree that limits nothing and says why."""
    checked_subtree(subtree)
    mounts_v1, mount_v2 = _mounts(_lines(proc / "self" / "mountinfo"))
    own = _own_paths(_lines(proc / "self" / "cgroup"))
    reasons: list[str] = []
    if mount_v2 is not None and (path := own.get("")) is not None:
        found = _detect_v2(subtree, mount_v2, path, reasons)
        if found is not None:
            return found
    if mounts_v1:
        tree = _detect_v1(subtree, mounts_v1, own, reasons)
        if tree is not None:
            return tree
    if mount_v2 is None and not mounts_v1:
        reasons.append("no cgroup hierarchy is mounted")
    return NoTree("; ".join(reasons))


def _mounts(lines: Iterable[str]) -> tuple[dict[str, _Mount], _Mount | None]:
    """Of mountinfo: the v1 mount of each controller, and the v2 one. Later lines cover earlier ones at one place."""
    seen: dict[str, tuple[str, _Mount]] = {}
    for line in lines:
        before, _, after = line.partition(" - ")
        head, tail = before.split(" "), after.split(" ")
        if len(head) < 6 or len(tail) < 3:
            continue
        point = _unescaped(head[4])
        seen[point] = (tail[0], _Mount(_unescaped(head[3]), point, tuple(tail[2].split(","))))
    v1: dict[str, _Mount] = {}
    v2: _Mount | None = None
    for kind, mount in seen.values():
        if kind == "cgroup2":
            v2 = v2 if v2 is not None and v2.root == "/" else mount
        elif kind == "cgroup":
            for controller in cgroup_v1.CONTROLLERS:
                if controller in mount.options:
                    v1.setdefault(controller, mount)
    return v1, v2


def _own_paths(lines: Iterable[str]) -> dict[str, str]:
    """Of /proc/self/cgroup: this process's path per controller, the one of v2 under the empty name."""
    own: dict[str, str] = {}
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            own[controller] = path
    return own


def _directory_of(mount: _Mount, path: str) -> str | None:
    """Where `path` of the hierarchy is seen under that mount; None if the mount shows another part of it."""
    if path.startswith("/.."):
        return None
    if mount.root == "/":
        return (mount.point + path).rstrip("/")
    if path == mount.root or path.startswith(mount.root + "/"):
        return (mount.point + path[len(mount.root) :]).rstrip("/")
    return None


def _detect_v1(
    subtree: str, mounts: dict[str, _Mount], own: dict[str, str], all_reasons: list[str]
) -> cgroup_v1.V1Tree | None:
    refused: dict[str, list[str]] = {}
    directories: dict[str, Directory] = {}
    roots: dict[str, str] = {}
    for controller in cgroup_v1.CONTROLLERS:
        if controller not in mounts or controller not in own:
            continue
        found = _v1_directory(subtree, mounts[controller], own[controller])
        if isinstance(found, Directory):
            directories[controller] = found
            roots[controller] = mounts[controller].point
        else:
            refused.setdefault(found, []).append(controller)
    reasons = [f"cgroup v1 {' '.join(names)}: {problem}" for problem, names in refused.items()]
    if not directories:
        all_reasons += reasons
        return None
    return cgroup_v1.V1Tree(subtree, directories, roots, "; ".join(reasons))


def _v1_directory(subtree: str, mount: _Mount, own: str) -> Directory | str:
    """This process's own cgroup in one hierarchy, if the subtree can be made in it; else why not."""
    path = _directory_of(mount, own)
    if path is None:
        return f"the cgroup {own!r} of this process is not mounted"
    try:
        directory = Directory.open(path)
    except OSError as error:
        return f"{error.strerror}"
    problem = _not_writable(directory, subtree)
    if problem:
        directory.close()
        return problem
    return directory


def _not_writable(directory: Directory, subtree: str) -> str:
    """Why no directory can be made there, empty if one could (it stays)."""
    try:
        directory.make(subtree)
    except FileExistsError:
        if not os.access(subtree, os.W_OK | os.X_OK, dir_fd=directory.fd, effective_ids=True):
            return "not writable"
    except OSError as error:
        return f"{error.strerror}"
    return ""


def _detect_v2(subtree: str, mount: _Mount, own: str, reasons: list[str]) -> cgroup_v2.V2Tree | None:
    path = _directory_of(mount, own)
    if path is None:
        reasons.append(f"the cgroup {own!r} of this process is not mounted")
        return None
    try:
        parent = _v2_parent(mount, path)
        offered = parent.read("cgroup.controllers").split()
    except OSError as error:
        reasons.append(f"{error.filename}: {error.strerror}")
        return None
    problem = ""
    if not {"memory", "pids"} <= set(offered):
        problem = f"memory and pids are not among its controllers {' '.join(offered)!r}"
    problem = problem or _not_writable(parent, subtree) or _opened_up(parent)
    if problem:
        reasons.append(f"cgroup v2 {parent.path!r}: {problem}")
        with contextlib.suppress(OSError):
            os.rmdir(subtree, dir_fd=parent.fd)
            cgroup_v2.leave_leaf(parent)
        parent.close()
        return None
    tree = cgroup_v2.V2Tree(subtree, parent, mount.point)
    if {"memory", "pids"} <= tree.controllers:
        return tree
    reasons.append(f"cgroup v2 {parent.path!r}: memory and pids cannot be switched on for {subtree!r}")
    tree.close()
    return None


def _v2_parent(mount: _Mount, own: str) -> Directory:
    """The cgroup to work in: this process's own, or the one above if it sits in a leaf that was made for it.

    A root who shares his cgroup with processes that he did not start (a login session) works from the real root
    instead: a stranger is moved only where the whole cgroup was given to us, by delegation or by a namespace.
    """
    if own != mount.point and own.rpartition("/")[2] == cgroup_v2.SUPERVISOR:
        own = own.rpartition("/")[0]
    directory = Directory.open(own)
    if os.geteuid() != 0 or own == mount.point or directory.pids() <= {os.getpid()}:
        return directory
    root = Directory.open(mount.point)
    if _is_real_root(root):
        directory.close()
        return root
    root.close()
    return directory


def _is_real_root(directory: Directory) -> bool:
    """The one cgroup without `cgroup.type`; a container's root has it."""
    return not directory.has("cgroup.type")


def _opened_up(parent: Directory) -> str:
    """Switch the controllers on for the parent's children; why that cannot be, empty if it could."""
    offered = parent.read("cgroup.controllers").split()
    try:
        if not _is_real_root(parent):
            cgroup_v2.move_to_leaf(parent)
        enabled = cgroup_v2.enable(parent, offered)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    if {"memory", "pids"} <= set(enabled):
        return ""
    return "memory and pids cannot be switched on for its children"


def _unescaped(field: str) -> str:
    """mountinfo writes space, tab, newline and backslash as octal."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field
