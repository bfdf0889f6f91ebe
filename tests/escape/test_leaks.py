"""Table "Leaks and covert channels": nothing of the host, the daemon or another tenant is to be learnt."""

import re
import socket
from pathlib import Path

import pytest

from sandboxd.client import Client, NotFound, State, Unenforceable
from tests.escape.attempt import (
    OF_FILES,
    OF_PROCESSES,
    Attempt,
    Denied,
    attempts,
    check_control,
    same_control,
    unconfined,
    unseen,
)
from tests.escape.confined import Confined

MASKED = ("refused", "ENOENT", "EACCES", "EPERM")
EMPTY = frozenset({"ENOENT", "refused", "EACCES"})
ROWS = unseen(
    OF_FILES,
    Attempt("L03", "read_addresses", MASKED, ("/proc/kallsyms",), EMPTY),
    Attempt("L03", "read_addresses", MASKED, ("/proc/modules",), EMPTY),
    *(
        Attempt("L03", "read", MASKED, (path,), EMPTY)
        for path in (
            "/proc/vmallocinfo", "/proc/slabinfo", "/proc/timer_list", "/proc/kpagecount", "/proc/keys",
            "/proc/key-users", "/proc/latency_stats", "/proc/sched_debug", "/proc/asound", "/sys/kernel/notes",
            "/proc/pagetypeinfo", "/proc/1/stack", "/proc/1/maps", "/proc/1/auxv", "/proc/1/fd",
            "/proc/locks", "/proc/interrupts", "/proc/cmdline", "/proc/bootconfig",
        )
    ),
    *(
        Attempt("L06", "read", ("ENOENT", "EACCES"), (path,), EMPTY)
        for path in (
            "/root/.netrc", "/root/.ssh", "/root/.aws/credentials", "/root/.kube/config", "/etc/kubernetes",
            "/var/run/secrets/kubernetes.io/serviceaccount/token", "/etc/machine-id", "/etc/ssh", "/var/lib/dbus",
        )
    ),
)  # fmt: skip

CHANNELS = (
    Attempt("L01", "environ_of", ("EACCES", "ENOENT", "refused"), ("1",), trace=OF_FILES),
    Attempt("L07", "inotify_watch", ("EPERM",)),
    Attempt("L07", "inotify_init", ("EPERM",)),
    Attempt("L07", "dnotify", ("EPERM",), trace=Denied("fcntl")),
    Attempt("L07", "lease", ("EPERM",), trace=Denied("fcntl")),
    Attempt("L08", "address_of_namespace", ("EPERM",), (), frozenset({"EPERM"}), trace=Denied("ioctl")),
    Attempt("L08", "parent_of_namespace", ("EPERM",), (), frozenset({"EPERM"}), trace=Denied("ioctl")),
    Attempt("S17", "scheduler_of_init", ("EPERM",), trace=OF_PROCESSES),
    Attempt("S17", "priority_of_init", ("EPERM", "EACCES"), trace=OF_PROCESSES),
)

FLOOR_OF_STRICT = (
    Attempt("L09", "flock_shared", ("EPERM", "ENOSYS"), trace=Denied("flock")),
    Attempt("L09", "record_lock_shared", ("EPERM", "EINVAL"), trace=Denied("fcntl")),
)


@attempts(*ROWS)
def test_file_tells_nothing(attempt: Attempt, confined: Confined, outside: Path) -> None:
    confined.demand("files", attempt)
    control = same_control(outside, "files", attempt)
    if control.outcome == "refused":
        control = type(control)("errno", "refused", control.detail)
    check_control(attempt, control)


@attempts(*CHANNELS)
def test_channel_is_closed(attempt: Attempt, confined: Confined, outside: Path) -> None:
    confined.demand("leaks", attempt)
    check_control(attempt, same_control(outside, "leaks", attempt))


@attempts(*FLOOR_OF_STRICT)
def test_strict_closes_locks_on_shared_files(attempt: Attempt, confined: Confined, outside: Path) -> None:
    """Other profiles leave them open for sqlite, git and pip, and their report says so.

    Where no cgroup can be made, `strict` is refused altogether.
    """
    try:
        confined.demand("leaks", attempt, profile="strict")
    except Unenforceable as refusal:
        enforced = {
            r.guarantee
            for runtime in confined.client.capabilities().runtimes
            for r in runtime.rows
            if r.state is State.ENFORCED
        }
        assert "limit.memory" not in enforced, f"this node holds every limit, and still: {refusal}"
        assert "limit.memory" in str(refusal)
    check_control(attempt, same_control(outside, "leaks", attempt))


def test_l02_environment_has_the_profiles_keys_alone(confined: Confined) -> None:
    profile = confined.client.profile("default")
    seen = confined.probe("leaks", ("own_environment",))
    assert set(seen.detail.split()) <= {name for name, _ in profile.env} | {"LC_CTYPE"}, "LC_CTYPE is Python's own"
    assert "PATH" in seen.detail.split()


def test_l02_environment_shows_nothing_of_the_daemon(confined: Confined) -> None:
    own = confined.probe("leaks", ("environ_of", "self")).detail
    assert "PATH" in own, "the control: the probe reads an environment"
    assert "sandboxd-test-" not in own


def test_l05_only_own_processes_are_listed(confined: Confined, outside: Path) -> None:
    assert confined.probe("leaks", ("pids",)).detail == ""
    assert unconfined(outside, "leaks", ("pids",)).detail != "", "the control has a neighbour, and sees it"


def test_l10_host_name_cgroup_and_paths_are_not_shown(confined: Confined) -> None:
    assert confined.probe("leaks", ("host_name",)).detail not in ("", socket.gethostname())
    assert set(confined.probe("leaks", ("cgroup_path",)).detail.split()) <= {"/"}
    sources = confined.probe("leaks", ("mount_sources",)).detail
    assert "/" in sources.split()
    assert "sandboxd-test" not in sources
    assert str(Path.home()) not in sources.split()


def test_l11_fresh_memory_reads_as_zeros(confined: Confined) -> None:
    assert confined.probe("leaks", ("fresh_memory",)).detail == "zeros"


@pytest.mark.parametrize(
    "argv", [["/no/such/program"], ["/etc/passwd"], ["/workspace"], ["/usr/bin/env", "-S", "nonexistent"]]
)
def test_l13_errors_show_no_path_of_the_daemon(argv: list[str], confined: Confined) -> None:
    result = confined.run(argv)
    assert result.exit_code in (126, 127)
    for text in (result.stderr.decode(), result.message_for_agent):
        assert "Traceback" not in text
        assert "sandboxd-test-" not in text
        assert not re.search(r"/spawner/|\.py\b", text)


def test_l14_a_foreign_id_is_as_unknown_as_none(client: Client) -> None:
    answers = set()
    for identifier in ("0" * 32, "f" * 32):
        with pytest.raises(NotFound) as caught:
            client.execution(identifier)
        answers.add(str(caught.value).replace(identifier, "ID"))
    assert len(answers) == 1
