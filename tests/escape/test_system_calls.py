"""Table "System calls": each attempt ends with its exact errno or signal, and works without the sandbox."""

import socket
from pathlib import Path

import pytest

from tests import proc
from tests.escape.attempt import (
    OF_FILES,
    OF_PROCESSES,
    Asked,
    Attempt,
    Denied,
    Unseen,
    attempts,
    check_control,
    same_control,
    unconfined,
    unseen,
)
from tests.escape.confined import Confined

EPERM = ("EPERM",)
ROWS = (
    Attempt("S01", "ptrace_traceme", EPERM),
    Attempt("S01", "ptrace_attach_init", EPERM),
    Attempt("S03", "process_vm_readv_self", EPERM),
    Attempt("S03", "process_vm_writev_self", EPERM),
    Attempt("S03", "process_vm_readv_init", EPERM),
    Attempt("S03", "process_vm_writev_init", EPERM),
    Attempt("S04", "kexec_load", EPERM),
    Attempt("S04", "kexec_file_load", EPERM),
    Attempt("S05", "bpf_map_create", EPERM),
    Attempt("S06", "io_uring_setup", EPERM),
    Attempt("S08", "add_key", EPERM),
    Attempt("S08", "keyctl_session", EPERM),
    Attempt("S08", "keyctl_user", EPERM),
    Attempt("S08", "request_key", EPERM),
    Attempt("S09", "mount_tmpfs", EPERM),
    Attempt("S09", "mount_remount_root", EPERM),
    Attempt("S09", "mount_proc", EPERM),
    Attempt("S10", "fsopen", EPERM),
    Attempt("S10", "open_tree_clone", EPERM),
    Attempt("S10", "move_mount", EPERM),
    Attempt("S10", "mount_setattr", EPERM),
    Attempt("S10", "fspick", EPERM),
    Attempt("S10", "fsmount", EPERM),
    Attempt("S10", "fsconfig", EPERM),
    Attempt("S11", "pivot_root", EPERM),
    Attempt("S11", "chroot", EPERM),
    Attempt("S11", "umount2", EPERM),
    Attempt("S12", "unshare_user", EPERM),
    Attempt("S13", "clone_user", EPERM),
    Attempt("S14", "clone3_user", ("ENOSYS",)),
    Attempt("S15", "unshare_user_net_mount", EPERM),
    # The link of init cannot even be opened: not its owner (EACCES), or hidden altogether (ENOENT).
    Attempt("S16", "setns_init_mount", ("EACCES", "ENOENT"), trace=OF_FILES),
    Attempt("S16", "setns_own_mount", EPERM),
    Attempt("S16", "setns_pidfd", EPERM),
    Attempt("S16", "setns_any", EPERM),
    Attempt("S18", "handle_by_name", EPERM),
    Attempt("S18", "handle_open", EPERM),
    Attempt("S19", "perf_event_open", EPERM),
    Attempt("S20", "personality_no_randomize", EPERM),
    Attempt("S20", "personality_read_implies_exec", EPERM),
    Attempt("L12", "madvise_mergeable", EPERM, trace=Denied("madvise")),
    Attempt("S22", "int80_getpid", ("SIGSYS",)),
    Attempt("S22", "int80_socket_vsock", ("SIGSYS",)),
    Attempt("S23", "x32_getpid", ("SIGSYS", "ENOSYS")),
    Attempt("S24", "tiocsti", ("EPERM", "EIO"), trace=Denied("ioctl", unless=("EIO",))),
    Attempt("S26", "tioclinux", EPERM, trace=Denied("ioctl")),
    Attempt("S27", "reboot_bad_magic", EPERM),
    Attempt("S28", "sethostname", EPERM),
    Attempt("S28", "clock_settime", EPERM),
    Attempt("S28", "adjtimex_status", EPERM),
    Attempt("S28", "swapon", EPERM),
    Attempt("S28", "acct", EPERM),
    Attempt("S28", "quotactl", EPERM),
    Attempt("S29", "init_module", EPERM),
    Attempt("S29", "finit_module", EPERM),
    Attempt("S29", "delete_module", EPERM),
    Attempt("S29", "iopl", EPERM),
    Attempt("S29", "ioperm", EPERM),
    Attempt("S30", "syslog_read", EPERM),
    Attempt("S31", "fanotify_init", EPERM),
    Attempt("S32", "mknod_character", EPERM, trace=Denied("mknodat")),
    Attempt("S32", "mknod_block", EPERM, trace=Denied("mknodat")),
    Attempt("S34", "seccomp_new_listener", EPERM),
    Attempt("S35", "seccomp_stack_filter", EPERM),
    Attempt("S35", "prctl_stack_filter", EPERM),
    Attempt("S38", "shmget", EPERM),
    Attempt("S38", "msgget", EPERM),
    Attempt("S38", "semget", EPERM),
    # Raising the score wants CAP_SYS_RESOURCE; a control without it skips.
    Attempt("S40", "oom_score_adj", ("EACCES",), lacking=frozenset({"EACCES"}), trace=OF_PROCESSES),
    Attempt("S41", "setuid_root", ("EPERM", "EINVAL"), trace=OF_PROCESSES),
    Attempt("S41", "setgroups", ("EPERM", "EINVAL"), trace=Denied("setgroups")),
    Attempt("S41", "setuid_program", ("refused", "EACCES", "ENOENT"), trace=Asked("/su")),
    Attempt("F16", "set_file_capability", EPERM, trace=OF_PROCESSES),
    Attempt("F21", "mount_overlay", EPERM),
    Attempt("F21", "mount_fuse", EPERM),
    Attempt("F21", "mount_9p", EPERM),
    Attempt("R20", "raise_open_files", EPERM, lacking=frozenset({"EPERM"}), trace=OF_PROCESSES),
    # Not in the table, tried because the same doors lead to the same places.
    Attempt("S99", "userfaultfd", EPERM),
    Attempt("S99", "kcmp", EPERM),
    Attempt("S99", "pidfd_getfd", EPERM),
    Attempt("S99", "mknod_whiteout", EPERM, trace=Denied("mknodat")),
    Attempt("S99", "prlimit_init", EPERM, trace=Denied("prlimit64")),
)


@attempts(*ROWS)
def test_call_is_refused(attempt: Attempt, confined: Confined, outside: Path) -> None:
    before = _host()
    confined.demand("system_calls", attempt)
    assert _host() == before, f"{attempt.name} changed the host"
    check_control(attempt, same_control(outside, "system_calls", attempt))


NAMELESS = Unseen("a profile reports calls by name, and these numbers have none")


@attempts(*unseen(NAMELESS, Attempt("S43", "unknown_600", ("ENOSYS",)), Attempt("S43", "unknown_999", ("ENOSYS",))))
def test_unknown_number_answers_enosys(attempt: Attempt, confined: Confined) -> None:
    """No control: there is nothing to work. EPERM would keep a C library from falling back."""
    confined.demand("system_calls", attempt)


@pytest.mark.parametrize("probe", ["kill_init", "kill_parent", "kill_all"])
def test_s42_signals_end_at_the_own_pid_namespace(probe: str, confined: Confined, outside: Path) -> None:
    control = unconfined(outside, "system_calls", (probe,))
    assert control.outcome == "worked", control
    before = proc.daemon_pid(confined.daemon.process.pid)
    seen = confined.probe("system_calls", (probe,))
    assert seen.answer in ("worked", "EPERM", "ESRCH", "SIGKILL"), seen
    assert confined.daemon.process.poll() is None
    assert proc.daemon_pid(confined.daemon.process.pid) == before
    assert confined.run(["/bin/true"]).exit_code == 0


def _host() -> tuple[str, str, str]:
    """What the attempts of this table would change for the host."""
    return (
        socket.gethostname(),
        Path("/proc/sys/kernel/core_pattern").read_text(encoding="ascii"),
        Path("/proc/self/mountinfo").read_text(encoding="utf-8"),
    )
