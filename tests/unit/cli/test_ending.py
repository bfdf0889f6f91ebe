import pytest

from sandboxd.cli.ending import exit_code, notices
from sandboxd.client import EndReason, Result, SkippedFile, Usage


def ended(reason: EndReason, code: int | None = None, signal: int | None = None) -> Result:
    return Result("id", reason, code, signal, Usage())


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (ended(EndReason.EXITED, 0), 0),
        (ended(EndReason.EXITED, 125), 125),
        (ended(EndReason.EXITED), 125),
        (ended(EndReason.SIGNALED, signal=15), 143),
        (ended(EndReason.WALL_TIMEOUT, signal=9), 124),
        (ended(EndReason.IDLE_TIMEOUT, signal=9), 124),
        (ended(EndReason.CPU_TIMEOUT, signal=24), 124),
        (ended(EndReason.MEMORY_LIMIT, signal=9), 137),
        (ended(EndReason.MEMORY_LIMIT, 1), 137),
        (ended(EndReason.OUTPUT_LIMIT, signal=9), 137),
        (ended(EndReason.VIOLATION, signal=31), 159),
        (ended(EndReason.KILLED), 137),
        (ended(EndReason.CANCELLED), 130),
        (ended(EndReason.POLICY_DENIED), 125),
        (ended(EndReason.NODE_SHUTDOWN, signal=9), 125),
        (ended(EndReason.RUNTIME_FAILED), 125),
        (ended(EndReason.UNKNOWN, 0), 125),
    ],
)
def test_exit_code_tells_who_ended_it(result: Result, status: int) -> None:
    assert exit_code(result) == status


def test_every_end_reason_has_an_exit_code() -> None:
    for reason in EndReason:
        assert 0 <= exit_code(ended(reason)) <= 255


def test_ordinary_end_says_nothing() -> None:
    assert notices(ended(EndReason.EXITED, 1)) == []
    assert notices(ended(EndReason.SIGNALED, signal=9)) == []


def test_forced_end_and_lost_files_are_said() -> None:
    result = Result("id", EndReason.KILLED, None, 9, Usage(), files_skipped=(SkippedFile("a", "too large"),))
    assert notices(result) == ["KILLED: the whole process tree was killed", "not collected: 'a': too large"]
