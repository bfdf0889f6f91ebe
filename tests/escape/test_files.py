"""Table "Files, /proc, /sys, /dev" and X10, X19, X20: what may not be read or written, and what is not there."""

from pathlib import Path

import pytest

from tests.escape.attempt import (
    NOT_THERE,
    OF_FILES,
    Attempt,
    Denied,
    attempts,
    check_control,
    same_control,
    unseen,
)
from tests.escape.confined import Confined

GONE = ("ENOENT",)
CLOSED = ("ENOENT", "EACCES")
READ_ONLY = ("EROFS",)
LACKING = frozenset({"ENOENT", "ENXIO", "ENODEV", "EBUSY", "ENOTTY", "EOPNOTSUPP"})
EMPTY = LACKING | {"refused"}

WRITES = unseen(
    OF_FILES,
    Attempt("F01", "open_write", ("EACCES", "EROFS", "ETXTBSY"), ("/proc/self/exe",)),
    Attempt("F01", "open_write", CLOSED, ("/proc/1/exe",)),
    Attempt("F03", "open_read_write", CLOSED, ("/proc/1/mem",)),
    Attempt("F04", "open_write", ("EROFS", "EACCES", "ENOENT"), ("/proc/sys/kernel/core_pattern",)),
    Attempt("F04", "open_write", ("EROFS", "EACCES", "ENOENT"), ("/proc/sys/vm/drop_caches",)),
    Attempt("F06", "open_write", ("ENOENT", "EACCES", "EROFS"), ("/proc/sysrq-trigger",), LACKING),
    Attempt("F04", "write_any_sysctl", ("refused",)),
    Attempt("F06", "write_any_proc", ("refused",)),
    Attempt("F11", "create", READ_ONLY, ("/",)),
    Attempt("F11", "create", READ_ONLY, ("/usr",)),
    Attempt("F11", "create", READ_ONLY, ("/etc",)),
    Attempt("F11", "create", READ_ONLY, ("/lib",)),
    Attempt("F11", "make_directory", READ_ONLY, ("/usr",)),
    Attempt("F11", "create", ("EROFS", "EACCES"), ("/dev",)),
    Attempt("X19", "creat", READ_ONLY, ("/usr",)),
    Attempt("F14", "hard_link", ("EXDEV", "EPERM"), ("/usr/bin/id",)),
    Attempt("X20", "open_write", ("EROFS", "EACCES"), ("/usr/bin/env",)),
)

# Each makes a call that the filter refuses: to own a namespace in which it may, or to ask for the flags of a file.
CALLS = (
    Attempt("F07", "write_uid_map", ("EPERM", "EACCES"), trace=Denied("unshare", "EPERM")),
    Attempt("F07", "write_setgroups", ("EPERM", "EACCES"), trace=Denied("unshare", "EPERM")),
    Attempt("F16", "immutable", ("EPERM", "ENOTTY"), (), LACKING, Denied("ioctl")),
)

ABSENT = unseen(
    NOT_THERE,
    Attempt("F08", "open_write", GONE, ("/sys/fs/cgroup/memory/release_agent",), LACKING),
    Attempt("F08", "open_write", GONE, ("/sys/fs/cgroup/memory/notify_on_release",), LACKING),
    Attempt("F08", "open_write", GONE, ("/sys/fs/cgroup/pids/cgroup.procs",), LACKING),
    Attempt("F08", "open_write", GONE, ("/sys/fs/cgroup/cgroup.procs",), LACKING),
    Attempt("F09", "open_write", GONE, ("/sys/kernel/uevent_helper",), LACKING),
)

READS = unseen(
    OF_FILES,
    Attempt("F02", "read", CLOSED, ("/proc/1/root/etc/shadow",)),
    Attempt("F02", "read", CLOSED, ("/proc/1/cwd/etc/shadow",), LACKING),
    Attempt("F06", "read", ("ENOENT", "EACCES", "EPERM", "refused"), ("/proc/kcore",), LACKING),
    Attempt("F06", "read", ("ENOENT", "EACCES", "EPERM", "refused"), ("/proc/kmsg",), LACKING),
    Attempt("F06", "read", ("ENOENT", "EACCES", "refused"), ("/proc/acpi",), EMPTY),
    Attempt("F06", "read", ("ENOENT", "EACCES", "refused"), ("/proc/scsi",), EMPTY),
    Attempt("F09", "read", GONE, ("/sys/kernel/debug",), EMPTY),
    Attempt("F09", "read", GONE, ("/sys/kernel/tracing",), EMPTY),
    Attempt("F09", "read", GONE, ("/sys/firmware",), EMPTY),
    Attempt("F09", "read", GONE, ("/sys/class/powercap",), EMPTY),
    Attempt("F12", "read", GONE, ("/etc/shadow",)),
    Attempt("F12", "read", CLOSED, ("/root",), EMPTY),
    Attempt("F12", "read", ("ENOENT", "refused"), ("/home",), EMPTY),
    Attempt("F12", "read", GONE, ("/var/lib",)),
    Attempt("F13", "read", ("ENOENT", "refused"), ("/run",)),
    Attempt("X19", "openat2_read", GONE, ("/etc/shadow",)),
    Attempt("X19", "open_old_read", GONE, ("/etc/shadow",)),
    Attempt("X10", "flipped_open", ("refused",), ("/etc/shadow",)),
)

DEVICES = unseen(NOT_THERE, *(
    Attempt("F10", "exists", GONE, (f"/dev/{name}",), LACKING)
    for name in (
        "mem", "kmem", "port", "kmsg", "vda", "sda", "kvm", "fuse", "net/tun", "vsock", "vhost-net", "vhost-vsock",
        "loop-control", "loop0", "mapper/control", "tty1", "ttyS0", "console", "userfaultfd", "nvram", "hwrng",
        "cpu_dma_latency", "autofs", "btrfs-control", "zram0", "vga_arbiter", "snapshot",
    )
))  # fmt: skip


@attempts(*WRITES, *CALLS, *ABSENT, *READS, *DEVICES)
def test_path_is_closed(attempt: Attempt, confined: Confined, outside: Path) -> None:
    confined.demand("files", attempt)
    control = same_control(outside, "files", attempt)
    if control.outcome == "refused" and "refused" in attempt.lacking:
        control = type(control)("errno", "refused", control.detail)
    check_control(attempt, control)


@pytest.mark.parametrize("path", ["/etc/passwd", "/usr/bin/python3", "/bin/sh"])
def test_host_file_is_unchanged_by_an_append(path: str, confined: Confined) -> None:
    """The canary is the file itself: what is visible of it in the sandbox is the host's, so a write would show."""
    before = Path(path).read_bytes()
    result = confined.run(["/bin/sh", "-c", f"echo owned >> {path}"])
    assert result.exit_code != 0
    assert Path(path).read_bytes() == before


def test_f10_dev_holds_only_what_is_expected(confined: Confined) -> None:
    devices = {"null", "zero", "full", "random", "urandom", "tty"}
    expected = devices | {"fd", "stdin", "stdout", "stderr", "shm", "pts", "ptmx"}
    seen = confined.probe("files", ("list_devices",))
    assert set(seen.detail.split()) <= expected, seen


def test_f12_another_tenants_workspace_is_not_there(confined: Confined) -> None:
    """The first leaves a file in every writable place; the second finds none of them."""
    places = "/workspace /tmp /dev/shm"
    left = confined.run(["/bin/sh", "-c", f"for d in {places}; do echo secret > $d/left && echo kept; done"])
    assert b"kept" in left.stdout, "the control: the file could be written"
    found = confined.run(["/bin/sh", "-c", f"for d in {places}; do ls -A $d; done"])
    assert b"left" not in found.stdout


def test_f12_state_of_the_daemon_is_not_there(confined: Confined) -> None:
    state = confined.daemon.state_dir
    secrets = (state / "keys" / "audit.pem", state / "journal" / "checkpoint.json")
    for path in (state, *secrets, confined.daemon.config, confined.daemon.log):
        assert path.exists(), "the control: the host sees it"
        confined.demand("files", Attempt("F12", "exists", CLOSED, (str(path),), trace=NOT_THERE))


def test_f16_set_uid_bit_does_not_leave_the_sandbox(confined: Confined) -> None:
    result = confined.run(["/bin/sh", "-c", "echo x > out && chmod 6755 out; ls -l out"], collect=["out"])
    assert [file.path for file in result.files] == ["out"]
    assert result.files[0].mode & 0o7000 == 0


def test_l11_holes_read_as_zeros(confined: Confined) -> None:
    assert confined.probe("files", ("hole_reads",)).detail == "zeros"
