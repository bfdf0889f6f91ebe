"""The floor: what no profile can have, whoever wrote it, each with its reason. Policy and requests cannot reach it.

`own` looks at one file and tells where in it the trouble stands; `whole` looks at a profile after `extends`. Reads the
host's file system, never writes. Called by `load`.
"""

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from sandboxd.model import Guarantee
from sandboxd.profile import floor, limits
from sandboxd.profile.document import Path as At
from sandboxd.profile.mediation import notified
from sandboxd.profile.schema import Allow, Deny, Spec
from sandboxd.profile.seccomp import is_syscall, known_numbers, never_refused

# A source may be neither inside one of these nor above it.
_HIDDEN_TREES: dict[str, str] = {
    "/proc": "the sandbox gets its own",
    "/sys": "it shows and changes the host's devices and kernel",
    "/dev": "the sandbox gets its own",
    "/run": "it holds the sockets of the host's services",
    "/var/run": "it holds the sockets of the host's services",
    "/boot": "it holds the host's kernel",
    "/lost+found": "it holds other people's files",
    "/etc/shadow": "it holds the host's password hashes",
    "/etc/gshadow": "it holds the host's password hashes",
    "/etc/sudoers": "it says who may become root",
    "/etc/ssh": "it holds the host's keys",
    "/etc/ssl/private": "it holds the host's keys",
    "/etc/kubernetes": "it holds the cluster's credentials",
    "/etc/sandboxd": "it holds the daemon's configuration",
    "/var/lib/sandboxd": "it holds the daemon's state",
    "/var/lib/docker": "it holds other containers",
    "/var/lib/containerd": "it holds other containers",
    "/var/lib/containers": "it holds other containers",
    "/var/lib/kubelet": "it holds other pods and their secrets",
    "/var/log": "it holds the host's logs",
    "/var/spool": "it holds other people's mail and jobs",
}
_NEVER_WHOLE = ("/home", "/root", "/tmp", "/var/tmp", "/mnt", "/media", "/srv")
_SECRETS = frozenset({".ssh", ".aws", ".azure", ".gnupg", ".kube", ".docker", ".netrc", ".git-credentials", ".config"})
# Show or change the host's kernel and devices; the sandbox gets its own /proc and /dev.
_KERNEL_FILE_SYSTEMS = frozenset(
    {
        "proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "selinuxfs",
        "smackfs", "configfs", "bpf", "pstore", "efivarfs", "mqueue", "binfmt_misc", "fusectl", "rpc_pipefs", "nfsd",
        "nsfs", "resctrl",
    }
)  # fmt: skip
_OWN_MOUNTS = ("/proc", "/sys", "/dev", "/tmp", "/workspace")

# Guarantees that no profile may take for optional: without them it is no sandbox.
REQUIRED = frozenset(
    {
        Guarantee.ID_UNPRIVILEGED,
        Guarantee.NAMESPACE_PID,
        Guarantee.NAMESPACE_MOUNT,
        Guarantee.NAMESPACE_NET,
        Guarantee.FILESYSTEM_ROOT,
        Guarantee.SECCOMP_ALLOWLIST,
        Guarantee.MEDIATION_EXEC,  # of a profile that has it
        Guarantee.MEDIATION_REPORT,  # likewise
        Guarantee.CAPABILITIES_NONE,
        Guarantee.NO_NEW_PRIVS,
        Guarantee.NETWORK_NONE,
        Guarantee.KILL_TREE,
        Guarantee.LIMIT_WALL,
        Guarantee.LIMIT_OUTPUT,
    }
)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and the path of the key that says so."""

    at: At
    message: str


def own(spec: Spec, protected: Sequence[str] = ()) -> Iterator[Problem]:
    """Problems of one file's own words. `protected` are the daemon's own directories."""
    yield from _sources(spec, protected)
    yield from _targets(spec)
    yield from _syscalls(spec)
    yield from _limits(spec)
    yield from _duplicates(spec)
    for guarantee, level in spec.enforcement.guarantees.items():
        if level != "require" and guarantee in REQUIRED:
            at = ("spec", "enforcement", "guarantees", guarantee.value)
            yield Problem(at, f"{guarantee.value!r} is part of the floor; it cannot be {level!r}")
    for index, interpreter in enumerate(spec.interpreters):
        if not any("{file}" in word for word in interpreter.argv):
            yield Problem(("spec", "interpreters", index, "argv"), "no word has '{file}'; the code would never be run")


def whole(spec: Spec) -> Iterator[str]:
    """Problems of a profile with its parents merged in."""
    for name in ("isolation", "workspace", "proc", "network", "cwd"):
        if getattr(spec, name) is None:
            yield f"'spec.{name}' is set neither here nor by a parent"
    for name in limits.RULES:
        if getattr(spec.limits, name) is None:
            yield f"'spec.limits.{name}' is set neither here nor by a parent"
    if spec.enforcement.default is None:
        yield "'spec.enforcement.default' is set neither here nor by a parent"
    if spec.landlock.scopes is None:
        yield "'spec.landlock.scopes' is set neither here nor by a parent"
    level = spec.enforcement.guarantees.get(Guarantee.FILESYSTEM_NOEXEC, spec.enforcement.default)
    if spec.workspace is not None and spec.workspace.executable and level == "require":
        yield "'filesystem.noexec' is required but the workspace is executable; make one of them give way"
    if spec.root.image is None and not spec.root.binds:
        yield "'spec.root' has neither an image nor binds; nothing could run"
    allowed = {name for group in spec.seccomp.allow for name in group.names}
    if "execve" not in allowed:
        yield "'spec.seccomp.allow' lacks 'execve'; nothing could run"
    for name in sorted(allowed & {name for group in spec.seccomp.deny for name in group.names}):
        yield f"{name!r} is both allowed and denied"
    for name in sorted(never_refused(spec.seccomp).intersection(spec.report or ())):
        yield f"{name!r} is in 'spec.report' but allowed, so nothing refuses it; remove it there"
    for name in sorted(notified(spec).asked.intersection(spec.report or ())):
        yield f"{name!r} is in 'spec.report' but asked about, see 'spec.mediate'; remove it there"


def source_problem(path: str, protected: Sequence[str] = ()) -> str | None:
    """Why this host path may not be shown in a sandbox; None if it may. Follows symbolic links."""
    for candidate in dict.fromkeys((path, os.path.realpath(path))):
        if os.path.normpath(candidate) != candidate:
            return f"{path!r} is not a plain path; write it without '..', '//' and a trailing slash"
        reason = _lexical_problem(candidate, protected)
        if reason is not None:
            return f"{path!r} cannot be shown: {reason}"
    reason = _kind_problem(os.path.realpath(path)) or _mount_problem(os.path.realpath(path))
    return None if reason is None else f"{path!r} cannot be shown: {reason}"


def _lexical_problem(path: str, protected: Sequence[str]) -> str | None:
    hidden = {**_HIDDEN_TREES, **dict.fromkeys(protected, "it belongs to the daemon")}
    for tree, why in hidden.items():
        if _beneath(path, tree):
            return f"{tree}: {why}"
        if _beneath(tree, path):
            return f"it contains {tree}: {why}"
    parts = PurePosixPath(path).parts
    if path in _NEVER_WHOLE or (len(parts) == 3 and parts[1] == "home"):
        return "not as a whole; name the directories that are needed"
    secret = _SECRETS.intersection(parts)
    return f"{sorted(secret)[0]} holds someone's credentials" if secret else None


def _beneath(path: str, tree: str) -> bool:
    return path == tree or tree == "/" or path.startswith(tree + "/")


def _kind_problem(path: str) -> str | None:
    try:
        mode = Path(path).stat().st_mode
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            return "it is neither a directory nor a regular file"
        if mode & stat.S_IWOTH:
            return "everyone on the host can write to it"
        if any(_anyone_can_replace_in(parent) for parent in Path(path).parents):
            return "everyone on the host can put something else in its place"
        if stat.S_ISDIR(mode):
            with os.scandir(path) as entries:
                for entry in entries:
                    if stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode):
                        return f"it holds the socket {entry.name!r}"
    except FileNotFoundError:
        return None  # may come later, or is optional
    except OSError as error:
        # the spawner would open it with more rights than we have to check it
        return f"it cannot be checked: {error.strerror}"
    return None


def _mount_problem(path: str) -> str | None:
    """A directory is shown with what is mounted below it: a change root that was prepared by hand often has /sys."""
    # Divided at newlines and spaces alone: of all that str would divide at, the kernel escapes no more in a name.
    for line in os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).split("\n")[:-1]:
        before, _, after = line.partition(" - ")
        escaped, kind = before.split(" ")[4], after.partition(" ")[0]
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), escaped)
        if kind in _KERNEL_FILE_SYSTEMS and _beneath(point, path):
            return f"a file system of the kernel ({kind}) is mounted at {point!r}"
    return None


def _anyone_can_replace_in(directory: Path) -> bool:
    mode = directory.stat().st_mode
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX


def _sources(spec: Spec, protected: Sequence[str]) -> Iterator[Problem]:
    sources: list[tuple[At, str]] = [
        (("spec", "root", "binds", index, "source"), bind.source) for index, bind in enumerate(spec.root.binds)
    ]
    sources += [(("spec", "packages", index, "path"), package.path) for index, package in enumerate(spec.packages)]
    if spec.root.image is not None:
        sources.append((("spec", "root", "image", "path"), spec.root.image.path))
    for at, path in sources:
        if (message := source_problem(path, protected)) is not None:
            yield Problem(at, message)


def _targets(spec: Spec) -> Iterator[Problem]:
    root = spec.root
    targets: list[tuple[At, str]] = [
        (("spec", "root", "binds", index, "target"), bind.where()) for index, bind in enumerate(root.binds)
    ]
    targets += [(("spec", "root", "symlinks", index, "path"), link.path) for index, link in enumerate(root.symlinks)]
    targets += [(("spec", "root", "files", index, "path"), file.path) for index, file in enumerate(root.files)]
    targets += [(("spec", "packages", index, "path"), package.path) for index, package in enumerate(spec.packages)]
    targets += [
        (("spec", "landlock", "paths", index, "path"), rule.path) for index, rule in enumerate(spec.landlock.paths)
    ]
    for at, path in targets:
        if os.path.normpath(path) != path or path.startswith("//"):
            yield Problem(at, f"{path!r} is not a plain path; write it without '..', '//' and a trailing slash")
        elif path == "/" or any(_beneath(path, mount) for mount in _OWN_MOUNTS):
            yield Problem(at, f"{path!r} belongs to the sandbox itself; choose another place")
    if spec.cwd is not None and os.path.normpath(spec.cwd) != spec.cwd:
        yield Problem(("spec", "cwd"), f"{spec.cwd!r} is not a plain path")


def _syscalls(spec: Spec) -> Iterator[Problem]:
    sections: tuple[tuple[str, Sequence[Allow | Deny]], ...] = (
        ("allow", spec.seccomp.allow),
        ("deny", spec.seccomp.deny),
    )
    for section, groups in sections:
        for group_index, group in enumerate(groups):
            for index, name in enumerate(group.names):
                at: At = ("spec", "seccomp", section, group_index, "names", index)
                if not is_syscall(name):
                    yield Problem(at, f"{name!r} is not a system call{_did_you_mean(name, known_numbers().values())}")
                elif name in floor.NEVER:
                    yield Problem(at, f"{name!r} is never allowed: {floor.NEVER[name]}; remove it")
                elif name in floor.ALWAYS_ENOSYS:
                    yield Problem(at, f"{name!r} always answers ENOSYS: its arguments cannot be seen; remove it")
    for index, name in enumerate(spec.report or ()):
        if not is_syscall(name):
            known = known_numbers().values()
            yield Problem(("spec", "report", index), f"{name!r} is not a system call{_did_you_mean(name, known)}")
        elif name in never_refused(spec.seccomp):
            yield Problem(("spec", "report", index), f"{name!r} is allowed, so nothing refuses it; remove it here")
    for group_index, allow in enumerate(spec.seccomp.allow):
        for index, argument in enumerate(allow.args):
            if any(value & ~argument.mask for value in argument.one_of):
                at = ("spec", "seccomp", "allow", group_index, "args", index)
                yield Problem(at, f"a value has bits outside of the mask {argument.mask:#x}, so it could never match")


def _limits(spec: Spec) -> Iterator[Problem]:
    for name in limits.RULES:
        value = getattr(spec.limits, name)
        if value is None:
            continue
        try:
            limits.checked(name, value)
        except limits.BadLimit as error:
            yield Problem(("spec", "limits", name), str(error))


def _duplicates(spec: Spec) -> Iterator[Problem]:
    seccomp: tuple[Allow | Deny, ...] = (*spec.seccomp.allow, *spec.seccomp.deny)
    tables: tuple[tuple[At, Iterable[str]], ...] = (
        (("spec", "root"), (*(bind.where() for bind in spec.root.binds), *(file.path for file in spec.root.files))),
        (("spec", "root", "symlinks"), (link.path for link in spec.root.symlinks)),
        (("spec", "packages"), (package.path for package in spec.packages)),
        (("spec", "interpreters"), (interpreter.language for interpreter in spec.interpreters)),
        (("spec", "landlock", "paths"), (rule.path for rule in spec.landlock.paths)),
        (("spec", "seccomp"), (name for group in seccomp for name in group.names)),
        (("spec", "report"), spec.report or ()),
    )
    for at, keys in tables:
        for key, count in Counter(keys).items():
            if count > 1:
                yield Problem(at, f"{key!r} stands here {count} times; keep one")


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = get_close_matches(word, sorted(known), n=1)
    return f"; did you mean {close[0]!r}" if close else "; see syscalls(2)"
