"""The posture of a payload as a table with three columns: root, rootless with subordinate ids, rootless with one id.

Data only: what /proc must say from outside, so that a reader sees on one screen what a sandbox is.
"""

from dataclasses import dataclass

from tests.daemon import ORDINARY_UID, SUBUID_FIRST, Mode

CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")

# Mounts that every sandbox has beside those of its profile. Mount point → flags that must be there, and no others of
# these four.
GUARDED_FLAGS = frozenset({"ro", "nosuid", "nodev", "noexec"})
WRITABLE = frozenset({"nosuid", "nodev", "noexec"})
DEVICE = frozenset({"ro", "nosuid", "noexec"})
MOUNTS = {
    "/": frozenset({"ro", "nosuid", "nodev"}),
    "/dev": frozenset({"ro", "nosuid", "noexec"}),
    "/dev/null": DEVICE,
    "/dev/zero": DEVICE,
    "/dev/full": DEVICE,
    "/dev/random": DEVICE,
    "/dev/urandom": DEVICE,
    "/dev/pts": frozenset({"nosuid", "noexec"}),
    "/dev/shm": WRITABLE,
    "/tmp": WRITABLE,
    "/workspace": WRITABLE,
    "/proc": WRITABLE,
    "/proc/sys": frozenset({"ro", "nosuid", "nodev", "noexec"}),
}
# Of what a profile binds: never writable, never set-uid, no device; noexec unless the profile says executable.
BOUND = frozenset({"ro", "nosuid", "nodev"})
# Masked and read-only parts of /proc differ by kernel; each that is there must have at least these.
PROC_PART = frozenset({"ro", "nosuid", "noexec"})

# Init is a fork of the spawner, which started anew with these names alone.
ENVIRONMENT_OF_INIT = frozenset(
    {"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME"}
)
ENVIRONMENT_OF_PYTHON = frozenset({"LC_CTYPE"})  # set by the interpreter itself, only in its own memory


@dataclass(frozen=True, slots=True)
class Expected:
    """One column. `ids` is the range of host uids."""

    ids: range
    uid_per_sandbox: bool


COLUMNS = {
    Mode.ROOT: Expected(ids=range(0x70000000, 0x70000000 + 65536), uid_per_sandbox=True),
    Mode.ROOTLESS_SUBUID: Expected(ids=range(SUBUID_FIRST, SUBUID_FIRST + 65536), uid_per_sandbox=True),
    Mode.ROOTLESS: Expected(ids=range(ORDINARY_UID, ORDINARY_UID + 1), uid_per_sandbox=False),
}
