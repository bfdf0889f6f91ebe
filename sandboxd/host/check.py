"""Looks whether this node can do its work: prerequisites, what the kernel lets us enforce, which profiles can start.

Changes nothing. Called by `sandboxd check`, which renders the report; needs no running daemon.
"""

import ctypes
import ctypes.util
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sandboxd.errors import ProfileInvalid, RuntimeFailed, Unenforceable
from sandboxd.host import kernel
from sandboxd.host.probed import Probed, probe
from sandboxd.model import Guarantee, RuntimeCapabilities, State
from sandboxd.profile import report as enforcement
from sandboxd.profile.load import load_profiles

PAYLOAD_PYTHON = Path("/usr/bin/python3")


class Finding(StrEnum):
    OK = "ok"
    DEGRADED = "degraded"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Row:
    """`consequence` says what follows and what would mend it; empty where all is well."""

    feature: str
    found: str
    consequence: str
    state: Finding


@dataclass(frozen=True, slots=True)
class Unstartable:
    """A profile that would be refused here, and why."""

    profile: str
    reason: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    mode: str
    rows: tuple[Row, ...]
    profiles: tuple[str, ...]
    unstartable: tuple[Unstartable, ...]

    @property
    def exit_code(self) -> int:
        """0: every profile can start. 1: not every one. 2: nothing can run here."""
        if self.mode == "none" or len(self.unstartable) >= len(self.profiles):
            return 2
        return 1 if self.unstartable else 0


def check(profile_paths: Sequence[Path], state_dir: Path, payload_python: Path = PAYLOAD_PYTHON) -> CheckReport:
    """Everything, worst news included: a part that fails is a row, never an exception."""
    rows = [_kernel(kernel.running()), _python(), _libseccomp(), _payload_python(payload_python), _state_dir(state_dir)]
    try:
        probed = probe()
    except RuntimeFailed as error:
        rows.append(Row("probe", "failed", error.message, Finding.MISSING))
        return CheckReport("none", tuple(rows), (), ())
    rows.append(_mode(probed))
    if os.geteuid() != 0:
        rows.append(_subordinate_ids(probed))
    rows += [_cgroup(probed), _landlock(probed), *_guarantees(probed.capabilities)]
    try:
        profiles = load_profiles(profile_paths)
    except (ProfileInvalid, OSError) as error:
        rows.append(Row("profiles", "not loaded", str(error), Finding.MISSING))
        return CheckReport(probed.mode, tuple(rows), (), ())
    broken: list[Unstartable] = []
    for profile in profiles:
        try:
            enforcement.refuse_unenforceable(profile, enforcement.report(profile, probed.capabilities))
        except Unenforceable as error:
            broken.append(Unstartable(profile.name, error.message))
    rows.append(_profiles(len(profiles.names()), broken))
    return CheckReport(probed.mode, tuple(rows), profiles.names(), tuple(broken))


def _kernel(found: kernel.Kernel) -> Row:
    tested = " and ".join(f"{major}.{minor}" for major, minor in kernel.TESTED)
    consequence = "" if found.tested else f"tested are {tested}; here the rows below, which were tried, speak"
    return Row("kernel", f"{found.release} {found.machine}", consequence, Finding.OK)


def _python() -> Row:
    """The daemon's own. As root it serves under another uid, for which closed directories are opened up one by one."""
    found = f"{platform.python_version()} at {sys.executable}"
    closed = closed_directory(Path(sys.executable).resolve())
    if closed is None:
        return Row("python", found, "", Finding.OK)
    consequence = f"{str(closed)!r} is closed to others: no payload can use this interpreter, profiles name another"
    return Row("python", found, consequence, Finding.OK)


def _libseccomp() -> Row:
    name = ctypes.util.find_library("seccomp")
    if name is None:
        return Row("libseccomp", "none", "no profile can be compiled; apt-get install libseccomp2", Finding.MISSING)
    try:
        library = ctypes.CDLL(name)
        library.seccomp_version.restype = ctypes.POINTER(ctypes.c_uint * 3)
        version = ".".join(map(str, library.seccomp_version().contents))
    except (OSError, AttributeError, ValueError) as error:
        return Row("libseccomp", name, f"not usable ({error}); apt-get install libseccomp2", Finding.MISSING)
    return Row("libseccomp", version, "", Finding.OK)


def _payload_python(path: Path) -> Row:
    """What python code runs on: a payload is nobody in particular, so everyone must be able to execute it."""
    feature = "payload python"
    try:
        mode = path.stat().st_mode
    except OSError as error:
        consequence = f"python code cannot run ({error.strerror}); apt-get install python3"
        return Row(feature, f"no {path}", consequence, Finding.MISSING)
    closed = closed_directory(path.resolve())
    if closed is not None or mode & 0o005 != 0o005:
        consequence = f"{str(closed or path)!r} is closed to others, so a payload cannot execute it; chmod o+rx"
        return Row(feature, str(path), consequence, Finding.MISSING)
    return Row(feature, f"{path} -> {path.resolve().name}", "", Finding.OK)


def closed_directory(path: Path) -> Path | None:
    """The topmost directory above `path` that others may not enter."""
    for directory in reversed(path.parents):
        if not directory.stat().st_mode & 0o001:
            return directory
    return None


def _state_dir(path: Path) -> Row:
    """Made 0700 at the first start, so it may be missing as long as it can be made."""
    existing = next(parent for parent in (path, *path.parents) if _is_there(parent))
    if existing == path:
        status = path.stat()
        if not path.is_dir() or path.is_symlink():
            return Row("state directory", str(path), "not a directory; move it away", Finding.MISSING)
        if status.st_mode & 0o077:
            consequence = f"mode {status.st_mode & 0o777:o} lets others in until sandboxd closes it at its start"
            return Row("state directory", str(path), consequence, Finding.DEGRADED)
    if not os.access(existing, os.W_OK | os.X_OK):
        consequence = f"{str(existing)!r} is not writable for uid {os.geteuid()}; set state_dir in the configuration"
        return Row("state directory", str(path), consequence, Finding.MISSING)
    return Row("state directory", str(path) if existing == path else f"{path}, to be made", "", Finding.OK)


def _is_there(path: Path) -> bool:
    """For us: not what lies behind a closed directory, for which Path.exists raises."""
    try:
        path.stat()
    except OSError:
        return False
    return True


def _mode(probed: Probed) -> Row:
    consequences = {
        "root": "",
        "rootless-subuid": "",
        "rootless-single": "every sandbox has this user's own uid; subordinate ids would separate them",
    }
    if probed.mode not in consequences:
        return Row("mode", "none", probed.refusal, Finding.MISSING)
    consequence = consequences[probed.mode]
    return Row("mode", probed.mode, consequence, Finding.DEGRADED if consequence else Finding.OK)


def _subordinate_ids(probed: Probed) -> Row:
    feature = "subordinate ids"
    if probed.mode == "rootless-subuid":
        return Row(feature, "each sandbox gets some", "", Finding.OK)
    reason = probed.capabilities.row(Guarantee.ID_PER_SANDBOX).reason
    return Row(feature, "none can be used", reason, Finding.DEGRADED)


def _cgroup(probed: Probed) -> Row:
    found = f"{probed.cgroup_version} {' '.join(probed.cgroup_controllers)}".strip()
    if probed.cgroup_version == "none":
        consequence = (
            f"limits are rlimits, or absent ({probed.cgroup_reason}); run as root or with a delegated cgroup: "
            "systemd-run --user --scope -p Delegate=yes"
        )
        return Row("cgroup", "none", consequence, Finding.DEGRADED)
    lacking = sorted({"memory", "pids", "cpu", "io"} - set(probed.cgroup_controllers))
    if lacking:
        consequence = f"no {', '.join(lacking)} ({probed.cgroup_reason or 'not offered by the parent cgroup'})"
        return Row("cgroup", found, consequence, Finding.DEGRADED)
    return Row("cgroup", found, "", Finding.OK)


def _landlock(probed: Probed) -> Row:
    if probed.landlock_abi == 0:
        consequence = "files are restricted by mounts and modes only; boot with landlock in lsm="
        return Row("landlock ABI", "none", consequence, Finding.DEGRADED)
    return Row("landlock ABI", str(probed.landlock_abi), "", Finding.OK)


def _guarantees(capabilities: RuntimeCapabilities) -> Iterator[Row]:
    findings = {State.ENFORCED: Finding.OK, State.DEGRADED: Finding.DEGRADED, State.ABSENT: Finding.MISSING}
    for row in capabilities.rows:
        yield Row(row.guarantee, ", ".join(row.layers) or "nothing", row.reason, findings[row.state])


def _profiles(count: int, broken: list[Unstartable]) -> Row:
    if not broken:
        return Row("profiles", f"all {count} can start", "", Finding.OK)
    names = ", ".join(item.profile for item in broken)
    state = Finding.MISSING if len(broken) == count else Finding.DEGRADED
    return Row("profiles", f"{count - len(broken)} of {count} can start", f"refused here: {names}", state)
