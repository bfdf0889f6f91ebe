"""The trials on this machine, and that each one can also fail."""

import errno
import gc
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxd.spawner import ids, sys, trial
from tests.skips import need_root

NAMESPACES = ("mnt", "net", "uts", "pid", "ipc", "cgroup", "user")


def test_trial_that_goes_well_answers_nothing() -> None:
    assert trial.attempt(lambda: None) == ""


def test_trial_that_fails_answers_call_and_errno() -> None:
    def failing() -> None:
        raise OSError(errno.EPERM, "unshare: not permitted")

    assert trial.attempt(failing) == "[Errno 1] unshare: not permitted"


def test_trial_that_is_killed_names_the_signal() -> None:
    assert trial.attempt(lambda: os.kill(os.getpid(), signal.SIGSYS)) == "killed by SIGSYS"


def test_trial_that_becomes_another_program_has_not_answered() -> None:
    assert trial.attempt(lambda: os.execv("/bin/true", ["true"])) == "ended without an answer"


def test_trial_changes_nothing_outside_its_child() -> None:
    need_root()
    before = (socket.gethostname(), [Path(f"/proc/self/ns/{name}").readlink() for name in NAMESPACES])
    gc.collect()  # what tests before this one left to the collector must not be closed meanwhile
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    trial.run_all("root")
    after = (socket.gethostname(), [Path(f"/proc/self/ns/{name}").readlink() for name in NAMESPACES])
    assert after == before
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_spawner_namespace_that_cannot_be_entered_fails_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(mode: str) -> ids.IdPool:
        raise ids.IdsUnavailable(f"no {mode} today")

    monkeypatch.setattr(ids, "enter_user_namespace", refused)
    assert trial.run_all("rootless-single") == {"enter": "no rootless-single today"}


def test_what_was_tried_before_the_stage_died_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each result comes by itself: on a busy machine all of them together may take longer than one is waited for."""
    need_root()
    deadly = {"good": lambda: None, "deadly": lambda: os.kill(os.getppid(), signal.SIGKILL), "after": lambda: None}
    monkeypatch.setattr(trial, "TRIALS", deadly)
    assert trial.run_all("root") == {"enter": "", "user": "", "good": ""}


@pytest.mark.parametrize(("empty_waits", "comes"), [(0, True), (4, True), (5, False)])
def test_patience_is_counted_in_waits_so_that_a_standstill_does_not_end_it(empty_waits: int, comes: bool) -> None:
    waits: Iterator[list[int]] = iter([[]] * empty_waits + [[1]])
    assert trial._comes(lambda milliseconds: next(waits), 5) is comes


def _without(name: str, number: int) -> object:
    def refused(*arguments: object) -> object:
        raise OSError(number, f"{name} is refused")

    return refused


@pytest.mark.parametrize(
    ("call", "trials"),
    [
        ("unshare", {"pid", "mount", "net", "ipc", "uts", "cgroup", "proc", "kill_tree", "memfd_sysctl", "user"}),
        ("mount", {"mount", "root", "proc", "dev", "noexec", "tmpfs"}),
        ("pivot_root", {"root"}),
        ("loopback_up", {"net"}),
        ("sethostname", {"uts"}),
        ("landlock_create_ruleset", {"landlock_files", "landlock_exec", "landlock_scopes"}),
        ("landlock_restrict_self", {"landlock_files", "landlock_exec", "landlock_scopes"}),
        ("seccomp_set_filter", {"seccomp"}),
        ("drop_capabilities", {"capabilities"}),
        ("prctl", {"no_new_privs", "capabilities", "seccomp", "landlock_files"}),
    ],
)
def test_refused_call_fails_the_trials_that_rest_on_it(
    call: str, trials: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    need_root()
    well = {name for name, failure in trial.run_all("root").items() if not failure}
    monkeypatch.setattr(sys, call, _without(call, errno.EPERM))
    failed = {name for name, failure in trial.run_all("root").items() if failure}
    assert trials & well <= failed
    assert trials & well


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("landlock_restrict_self", "landlock_files"),
        ("landlock_restrict_self", "landlock_exec"),
        ("landlock_restrict_self", "landlock_scopes"),
        ("seccomp_set_filter", "seccomp"),
        ("drop_capabilities", "capabilities"),
        ("mount", "noexec"),
        ("mount", "dev"),
        ("pivot_root", "root"),
        ("unshare", "pid"),
        ("sethostname", "uts"),
    ],
)
def test_call_that_is_taken_but_does_nothing_is_noticed(call: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under an emulation or a filter that answers 0."""
    need_root()
    if trial.attempt(trial.TRIALS[name]):
        pytest.skip(f"needs a kernel feature: {name}")
    if call in ("mount", "pivot_root"):  # what then is written must not hit the machine's own files
        body = trial.TRIALS[name]

        def aside() -> None:
            sys.unshare(sys.CLONE_NEWNS)
            monkeypatch.undo()
            sys.mount("", "/", "", sys.MS_REC | sys.MS_PRIVATE)
            sys.mount("tmpfs", "/proc", "tmpfs", 0)
            monkeypatch.setattr(sys, call, lambda *arguments: None)
            body()

        assert trial.attempt(aside)
    else:
        monkeypatch.setattr(sys, call, lambda *arguments: None)
        assert trial.attempt(trial.TRIALS[name])


def test_user_of_the_new_namespace_is_nobody_important(monkeypatch: pytest.MonkeyPatch) -> None:
    need_root()
    assert trial.run_all("root")["user"] == ""
    monkeypatch.setattr(ids.IdBlock, "uid_map", lambda self: "1000 0 1\n")
    assert "still uid 0" in trial.run_all("root")["user"]
