"""The demand for an event is itself held to what it must not let pass: none, and one that is about something else."""

from typing import Any

import pytest

from tests.escape.attempt import Asked, Attempt, Denied, Ended
from tests.escape.trace import check_trace

PTRACE = Attempt("S01", "ptrace_traceme", ("EPERM",))
SEEN = Ended("errno", "EPERM", "", "ptrace", 7)
EVENT = {
    "name": "ptrace", "number": 101, "pid": 7, "errno": "EPERM", "layer": "seccomp", "reason": "profile", "count": 3,
    "suppressed": 2,
}  # fmt: skip
EXEC = {"image": "/workspace/evil", "verdict": "allow", "layer": ""}


def denied(**other: Any) -> list[dict[str, object]]:
    return [{"rule": "syscall.denied", "fields": EVENT | other}]


def asked(**other: Any) -> list[dict[str, object]]:
    return [{"rule": "process.exec_decided", "fields": EXEC | other}]


def test_event_of_the_refused_call_is_enough() -> None:
    check_trace(PTRACE, SEEN, denied())


@pytest.mark.parametrize(
    "other",
    [
        {"number": 165}, {"name": "mount"}, {"pid": 8}, {"errno": "ENOSYS"}, {"layer": "init"}, {"reason": "fault"},
        {"suppressed": 0},
    ],
    ids=lambda other: next(iter(other)),
)  # fmt: skip
def test_event_of_anything_else_is_not(other: dict[str, object]) -> None:
    with pytest.raises(AssertionError):
        check_trace(PTRACE, SEEN, denied(**other))


@pytest.mark.parametrize("trace", [Denied(), Denied("ptrace"), Asked("/evil")], ids=str)
def test_no_event_is_not(trace: Denied | Asked) -> None:
    with pytest.raises(AssertionError):
        check_trace(Attempt("S01", "ptrace_traceme", ("EPERM",), trace=trace), SEEN, [])


def test_attempt_that_names_no_call_is_told_to() -> None:
    with pytest.raises(AssertionError, match="which call is refused"):
        check_trace(PTRACE, Ended("errno", "EPERM", "", "", 7), denied())


def test_exec_that_is_asked_about_is_of_that_image_and_allowed() -> None:
    attempt = Attempt("X01", "renamed_binary", ("EACCES",), trace=Asked("/evil"))
    seen = Ended("errno", "EACCES", "")
    check_trace(attempt, seen, asked())
    for other in ({"image": "/usr/bin/true"}, {"verdict": "deny", "layer": "policy"}):
        with pytest.raises(AssertionError):
            check_trace(attempt, seen, asked(**other))


def test_call_that_kills_has_its_signal_in_the_end_of_the_execution() -> None:
    attempt = Attempt("S22", "int80_getpid", ("SIGSYS",))
    check_trace(attempt, Ended("killed", "SIGSYS", ""), [{"rule": "execution.ended", "fields": {"signal": 31}}])
    with pytest.raises(AssertionError):
        check_trace(attempt, Ended("killed", "SIGSYS", ""), [{"rule": "execution.ended", "fields": {"signal": None}}])
