from dataclasses import replace
from signal import SIGKILL, SIGSEGV, SIGSYS, SIGXCPU, SIGXFSZ

import pytest

from sandboxd import ending
from sandboxd.ending import Facts
from sandboxd.model import EndReason, ExitStatus, LimitId, SandboxUsage
from tests.unit.test_supervise import LIMITS

EXITED = ExitStatus(0, None)
IDLE = SandboxUsage(cpu_user_seconds=0.0, cpu_system_seconds=0.1)
BUSY = SandboxUsage(cpu_user_seconds=9.0, cpu_system_seconds=0.9)
OOM = SandboxUsage(oom_kills=1)
FACTS = Facts(None, EXITED, IDLE, LIMITS, (), 0, 0)


def died(signum: int) -> ExitStatus:
    return ExitStatus(None, signum)


# One row for each row of the table in `ending`, and for the order between them.
@pytest.mark.parametrize(
    ("asked", "status", "usage", "reason"),
    [
        (EndReason.WALL_TIMEOUT, died(SIGKILL), IDLE, EndReason.WALL_TIMEOUT),
        (EndReason.CANCELLED, None, IDLE, EndReason.CANCELLED),
        (EndReason.KILLED, died(SIGSYS), OOM, EndReason.KILLED),
        (None, None, IDLE, EndReason.RUNTIME_FAILED),
        (None, None, OOM, EndReason.MEMORY_LIMIT),
        (None, died(SIGKILL), OOM, EndReason.MEMORY_LIMIT),
        (None, EXITED, OOM, EndReason.MEMORY_LIMIT),
        (None, died(SIGSYS), IDLE, EndReason.VIOLATION),
        (None, died(SIGXCPU), BUSY, EndReason.CPU_TIMEOUT),
        (None, died(SIGKILL), BUSY, EndReason.CPU_TIMEOUT),
        (None, died(SIGXCPU), SandboxUsage(), EndReason.CPU_TIMEOUT),
        (None, died(SIGKILL), SandboxUsage(), EndReason.SIGNALED),
        (None, died(SIGXCPU), IDLE, EndReason.SIGNALED),
        (None, died(SIGKILL), IDLE, EndReason.SIGNALED),
        (None, died(SIGSEGV), BUSY, EndReason.SIGNALED),
        (None, EXITED, BUSY, EndReason.EXITED),
    ],
)
def test_first_row_that_applies_is_the_end_reason(
    asked: EndReason | None, status: ExitStatus | None, usage: SandboxUsage, reason: EndReason
) -> None:
    assert ending.end_reason(replace(FACTS, asked=asked, status=status, usage=usage)) is reason


@pytest.mark.parametrize(
    ("facts", "hit"),
    [
        (FACTS, ()),
        (replace(FACTS, usage=SandboxUsage(pids_denied=1)), (LimitId.PIDS,)),
        (replace(FACTS, usage=SandboxUsage(cpu_throttled=4)), (LimitId.CPUS,)),
        (replace(FACTS, status=died(SIGXFSZ)), (LimitId.FILE_SIZE,)),
        (replace(FACTS, stdout_bytes=LIMITS.stdout_bytes), ()),
        (replace(FACTS, stdout_bytes=LIMITS.stdout_bytes + 1), (LimitId.STDOUT,)),
        (replace(FACTS, stderr_bytes=LIMITS.stderr_bytes + 1), (LimitId.STDERR,)),
        (replace(FACTS, files_limited=True), (LimitId.OUTPUT_FILES,)),
        (replace(FACTS, reached=(LimitId.TMP_BYTES, LimitId.PIDS)), (LimitId.PIDS, LimitId.TMP_BYTES)),
    ],
)
def test_limits_that_were_survived_are_named(facts: Facts, hit: tuple[LimitId, ...]) -> None:
    assert ending.limits_hit(facts, EndReason.EXITED) == hit


def test_output_limit_is_named_only_if_it_did_not_end_the_execution() -> None:
    facts = replace(FACTS, stdout_bytes=LIMITS.output_bytes + 1)
    assert LimitId.OUTPUT in ending.limits_hit(facts, EndReason.EXITED)
    assert LimitId.OUTPUT not in ending.limits_hit(facts, EndReason.OUTPUT_LIMIT)


def test_only_a_violation_has_violations() -> None:
    assert [violation.layer for violation in ending.violations(EndReason.VIOLATION)] == ["seccomp"]
    assert ending.violations(EndReason.SIGNALED) == ()


@pytest.mark.parametrize("reason", EndReason)
@pytest.mark.parametrize("status", [None, EXITED, ExitStatus(3, None), died(SIGSEGV)])
def test_agent_gets_a_short_sentence_for_every_end_but_success(reason: EndReason, status: ExitStatus | None) -> None:
    message = ending.message_for_agent(reason, status, LIMITS)
    if (reason, status) == (EndReason.EXITED, EXITED):
        assert message == ""
        return
    assert message.endswith(".") and message.isprintable() and len(message) < 120


@pytest.mark.parametrize(
    ("wall_seconds", "shown"), [(1.0, "after 1 second."), (1.5, "1.5 seconds."), (2.0, "2 seconds.")]
)
def test_agent_reads_the_time_as_a_person_writes_it(wall_seconds: float, shown: str) -> None:
    limits = replace(LIMITS, wall_seconds=wall_seconds)
    assert shown in ending.message_for_agent(EndReason.WALL_TIMEOUT, None, limits)


def test_cpu_seconds_are_unknown_if_either_part_is() -> None:
    assert ending.cpu_seconds(SandboxUsage(1.0, 0.5)) == 1.5
    assert ending.cpu_seconds(SandboxUsage(1.0, -1.0)) == -1.0
