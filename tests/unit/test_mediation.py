"""Decisions about execs in a running sandbox: what is on record, what may run, what the caller is told."""

import asyncio
import errno
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import pytest_asyncio

from sandboxd.action import ProcessExec
from sandboxd.approval.office import Approvals
from sandboxd.event import ProcessExecDecided, SandboxViolated, SyscallDenied
from sandboxd.gate import Gate, Subject
from sandboxd.mediation import EACH_ON_RECORD, MOST_VIOLATIONS, ExecMediator
from sandboxd.model import (
    OPERATOR,
    Approval,
    ArgvProgram,
    Decision,
    EndReason,
    ExecuteRequest,
    ExitStatus,
    Isolation,
    Obligations,
    Outcome,
    Reason,
    RefusedCalls,
    Usage,
    Verdict,
)
from sandboxd.policy.document import ProfileFacts, SandboxFacts
from sandboxd.profile.load import load_profiles
from sandboxd.profile.seccomp import known_numbers
from sandboxd.redaction.patterns import Catalogue, Source
from sandboxd.redaction.redaction import Redaction, Redactions
from sandboxd.span import Span
from tests.fakes.approvals import Office
from tests.fakes.policy import CALLER, FakeEngine
from tests.fakes.recorder import FakeRecorder
from tests.fakes.runtime import FakeProgram
from tests.unit.test_execution import PROFILES, REQUEST, Node

_NUMBERS = {name: number for number, name in known_numbers().items()}
PTRACE, EXECVE = _NUMBERS["ptrace"], _NUMBERS["execve"]
ACTION = ProcessExec("/usr/bin/id", ("id", "-u"), "/workspace", 7, 2)
OUTCOME = Outcome("e" * 32, EndReason.EXITED, 1, None, Usage(1.0), message_for_agent="It ended with 1.")
NO = Decision(Verdict.DENY, (Reason("no_id", "not you"), Reason("more", "x")), "fake-1", "Do not run id.")


@dataclass
class Mediated:
    engine: FakeEngine = field(default_factory=FakeEngine)
    recorder: FakeRecorder = field(default_factory=FakeRecorder)
    age: float = 1.5
    approvals: Approvals | None = None
    redaction: Redaction | None = None

    def __post_init__(self) -> None:
        span = Span(self.recorder, CALLER, "e" * 32, "a" * 32, "c" * 32)
        span.redaction = self.redaction
        gate = Gate(self.engine, approvals=self.approvals)
        self.mediator = ExecMediator(gate, span, CALLER, self._subject, self.redaction)

    def _subject(self) -> Subject:
        return Subject(ProfileFacts("p", "0" * 64, ()), SandboxFacts("a" * 32, Isolation.PROCESS, self.age))

    async def asks(self, answer: object, action: ProcessExec = ACTION) -> bool:
        self.engine.answer = answer
        return await self.mediator.may_exec(action)

    def event(self) -> ProcessExecDecided:
        event = self.recorder.events[-1]
        assert isinstance(event, ProcessExecDecided)
        return event


@pytest.fixture
def mediated() -> Mediated:
    return Mediated()


async def test_policy_is_asked_about_the_image_in_its_sandbox(mediated: Mediated) -> None:
    assert await mediated.asks(Decision(Verdict.ALLOW, (), "fake-1"))
    document = json.loads(mediated.engine.asked[0].document)
    assert document["action"] == {
        "type": "process.exec",
        "image": "/usr/bin/id",
        "argv": ["id", "-u"],
        "cwd": "/workspace",
        "pid": 7,
        "parent_pid": 2,
    }
    assert document["sandbox"]["age_seconds"] == 1.5
    assert mediated.recorder.documents[mediated.event().input_sha256] == mediated.engine.asked[0].document


async def test_answer_is_on_record_with_image_and_command(mediated: Mediated) -> None:
    assert await mediated.asks(Decision(Verdict.WARN, (Reason("hm", "hm"),), "fake-9"))
    event = mediated.event()
    assert (event.image, event.command, event.arguments, event.cwd) == ("/usr/bin/id", "id -u", 2, "/workspace")
    assert (event.pid, event.parent_pid, event.verdict, event.reason_codes) == (7, 2, "warn", ("hm",))
    assert (event.layer, event.engine, event.policy_revision) == ("", "fake", "fake-9")


async def test_what_is_redacted_is_neither_on_record_nor_told() -> None:
    secret = "xx_" + "a" * 40
    redaction = Redaction(Catalogue({"xx": Source("xx_a{40}", 43)}).patterns(["xx"]))
    mediated = Mediated(redaction=redaction)
    image = f"/{'d' * 180}/{secret}"  # cut in the middle of it where it is told
    assert not await mediated.asks(NO, replace(ACTION, image=image, argv=("id", secret), cwd=f"/{secret}"))
    event = mediated.event()
    assert (event.image[-13:], event.command, event.cwd) == ("[redacted:xx]", "id [redacted:xx]", "/[redacted:xx]")
    assert secret.encode() not in mediated.recorder.documents[event.input_sha256]
    (violation,) = mediated.mediator.amended(OUTCOME).violations
    assert "xx_" not in violation.detail


async def test_no_is_on_record_with_its_layer_and_reaches_the_caller(mediated: Mediated) -> None:
    assert not await mediated.asks(NO)
    assert not await mediated.asks(NO, replace(ACTION, image="/bin/other"))
    assert (mediated.event().verdict, mediated.event().layer) == ("deny", "policy")
    outcome = mediated.mediator.amended(OUTCOME)
    (violation,) = outcome.violations
    assert (violation.layer, violation.code) == ("policy", "no_id")
    assert violation.detail == "'/usr/bin/id' was not run; 2 in all were refused for this"
    assert outcome.message_for_agent == "It ended with 1. Do not run id."


async def test_outcome_of_an_execution_that_was_denied_nothing_stays_as_it_is(mediated: Mediated) -> None:
    assert await mediated.asks(Decision(Verdict.ALLOW, (), "fake-1"))
    assert mediated.mediator.amended(OUTCOME) is OUTCOME


@pytest.mark.parametrize("answer", [RuntimeError("broken"), None, True, Decision(Verdict.ALLOW, (), "")])
async def test_engine_that_fails_lets_nothing_run(answer: object, mediated: Mediated) -> None:
    assert not await mediated.asks(answer)
    assert mediated.event().verdict == "deny"


@pytest.mark.parametrize(
    "answer",
    [
        Decision(Verdict.TRANSFORM, (), "fake-1"),
        Decision(Verdict.ALLOW, (), "fake-1", obligations=Obligations(limits=(("pids", 1.0),))),
        Decision(Verdict.ALLOW, (), "fake-1", obligations=Obligations(runtime_floor=Isolation.GVISOR)),
        Decision(Verdict.WARN, (), "fake-1", obligations=Obligations(redact=("argv",))),
    ],
)
async def test_what_cannot_be_done_to_a_running_sandbox_is_a_no(answer: Decision, mediated: Mediated) -> None:
    assert not await mediated.asks(answer)
    assert (mediated.event().verdict, mediated.event().reason_codes) == ("deny", ("obligation_unsupported",))


async def test_approval_that_nobody_can_give_is_a_no(mediated: Mediated) -> None:
    answer = Decision(Verdict.ESCALATE, (), "fake-1", obligations=Obligations(approval=Approval(60.0, ("x",))))
    assert not await mediated.asks(answer)
    assert mediated.event().reason_codes == ("approval_unavailable",)


ESCALATED = Decision(Verdict.ESCALATE, (), "fake-1", obligations=Obligations(approval=Approval(60.0, ())))


async def test_exec_that_nobody_approves_in_time_is_a_no_with_the_approvals_id(tmp_path: Path) -> None:
    office = Office(tmp_path)
    mediated = Mediated(approvals=office.approvals)
    assert not await mediated.asks(ESCALATED)
    (case,) = office.desk
    assert mediated.event().reason_codes == ("approval_required",)
    assert case.approval_id in mediated.mediator.amended(OUTCOME).message_for_agent


async def test_exec_that_is_approved_while_it_waits_goes_ahead(tmp_path: Path) -> None:
    office = Office(tmp_path, wait_seconds=60.0)
    mediated = Mediated(approvals=office.approvals)
    asking = asyncio.create_task(mediated.asks(ESCALATED))
    while not (cases := list(office.desk)):
        await asyncio.sleep(0)
    await office.approve(cases[0].approval_id, replace(CALLER, subject="uid:77", roles=(OPERATOR,)))
    assert await asking
    assert mediated.event().verdict == "allow"


async def test_path_that_is_no_text_is_a_no(mediated: Mediated) -> None:
    assert not await mediated.asks(Decision(Verdict.ALLOW, (), "fake-1"), replace(ACTION, image="/bin/\udcff"))
    assert (mediated.event().reason_codes, mediated.event().input_sha256) == (("policy_malformed",), "")
    assert "\\udcff" in mediated.mediator.amended(OUTCOME).violations[0].detail


async def test_exec_that_cannot_be_recorded_is_refused(mediated: Mediated) -> None:
    mediated.recorder.refuses = frozenset({"process.exec_decided"})
    assert not await mediated.asks(Decision(Verdict.ALLOW, (), "fake-1"))


async def test_a_program_that_tries_again_and_again_does_not_fill_the_record(mediated: Mediated) -> None:
    for _ in range(1000):
        assert not await mediated.asks(NO)
    events = [event for event in mediated.recorder.events if isinstance(event, ProcessExecDecided)]
    assert [event.count for event in events] == [1] * EACH_ON_RECORD + [64, 128, 256]
    await mediated.mediator.settled()
    last = mediated.event()
    assert (last.count, last.suppressed, last.layer) == (1000 - 512, 487, "policy")
    await mediated.mediator.settled()
    assert mediated.event() is last
    assert "1000 in all" in mediated.mediator.amended(OUTCOME).violations[0].detail


async def test_reasons_that_a_policy_makes_up_do_not_either(mediated: Mediated) -> None:
    for number in range(5000):
        no = replace(NO, reasons=(Reason(f"c{number}", "no"),))
        assert not await mediated.asks(no)
    await mediated.mediator.settled()
    events = [event for event in mediated.recorder.events if isinstance(event, ProcessExecDecided)]
    assert sum(event.count for event in events) == 5000
    assert len(events) < 100


async def test_refused_execs_that_could_not_be_written_are_counted_in_the_next(mediated: Mediated) -> None:
    mediated.recorder.refuses = frozenset({"*"})
    assert not await mediated.asks(NO)
    assert not await mediated.asks(NO)
    mediated.recorder.refuses = frozenset()
    assert not await mediated.asks(NO)
    assert (mediated.event().count, len(mediated.recorder.events)) == (3, 1)


async def test_violations_and_messages_stay_few(mediated: Mediated) -> None:
    for number in range(MOST_VIOLATIONS + 20):
        await mediated.asks(Decision(Verdict.DENY, (Reason(f"r{number}", "x"),), "fake-1", f"m{number}."))
    outcome = mediated.mediator.amended(OUTCOME)
    assert len(outcome.violations) == MOST_VIOLATIONS
    assert outcome.message_for_agent == "It ended with 1. m0. m1. m2."


@pytest.mark.parametrize(
    ("calls", "fields"),
    [
        (RefusedCalls(PTRACE, 5, errno.EPERM, "profile", 1), ("ptrace", "EPERM", 0, "seccomp")),
        (RefusedCalls(PTRACE, 5, errno.EPERM, "profile", 9), ("ptrace", "EPERM", 8, "seccomp")),
        (RefusedCalls(EXECVE, 5, errno.E2BIG, "too_large", 2), ("execve", "E2BIG", 1, "init")),
        (RefusedCalls(9999, 5, 4000, "foreign", 1), ("", "4000", 0, "init")),
    ],
)
async def test_refused_calls_are_on_record_with_the_layer(
    calls: RefusedCalls, fields: tuple[str, str, int, str], mediated: Mediated
) -> None:
    await mediated.mediator.refused(calls)
    (event,) = mediated.recorder.events
    assert isinstance(event, SyscallDenied)
    assert (event.name, event.errno, event.suppressed, event.layer) == fields
    assert (event.number, event.pid, event.reason, event.count) == (calls.number, 5, calls.reason, calls.count)


async def test_refused_calls_that_cannot_be_recorded_end_nothing(
    mediated: Mediated, caplog: pytest.LogCaptureFixture
) -> None:
    mediated.recorder.refuses = frozenset({"*"})
    await mediated.mediator.refused(RefusedCalls(PTRACE, 5, errno.EPERM, "profile", 1))
    assert "not on record" in caplog.text


# --- in an execution

PROFILE = """\
apiVersion: sandboxd.io/v1
kind: SandboxProfile
metadata: {name: asking}
spec:
  description: asks about execs
  extends: default
  mediate: [process.exec]
  report: [ptrace]
"""
ASKING = ExecuteRequest(ArgvProgram(("/bin/sh",)), profile="asking")


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    (tmp_path / "asking.yaml").write_text(PROFILE)
    made = Node(load_profiles([PROFILES, tmp_path]))
    yield made
    await made.analyser.close()


async def test_denied_exec_is_on_record_before_the_end_and_in_the_outcome(node: Node) -> None:
    async def script(program: FakeProgram) -> ExitStatus:
        mediator = node.runtime.sandboxes[-1].mediator
        assert mediator is not None
        node.engine.answer = NO
        assert not await mediator.may_exec(ACTION)
        await mediator.refused(RefusedCalls(101, 7, 1, "profile", 2))
        return ExitStatus(126, None)

    node.runtime.script = script
    outcome = (await node.items(ASKING))[-1]
    assert isinstance(outcome, Outcome)
    assert (outcome.end_reason, outcome.exit_code) == (EndReason.EXITED, 126)
    assert [(violation.layer, violation.code) for violation in outcome.violations] == [("policy", "no_id")]
    assert outcome.message_for_agent.endswith("Do not run id.")
    assert node.rules[4:] == [
        ProcessExecDecided.rule,
        SyscallDenied.rule,
        SandboxViolated.rule,
        "execution.ended",
    ]
    assert {event.execution_id for event in node.recorder.events} == {outcome.execution_id}


async def test_question_shows_the_sandbox_and_the_profile_that_it_is_about(node: Node) -> None:
    async def script(program: FakeProgram) -> ExitStatus:
        mediator = node.runtime.sandboxes[-1].mediator
        assert mediator is not None
        assert await mediator.may_exec(replace(ACTION, image="/usr/bin/env"))
        return ExitStatus(0, None)

    node.runtime.script = script
    await node.items(ASKING)
    asked = node.engine.asked[-1].document
    assert b'"type":"process.exec"' in asked and b'"name":"asking"' in asked
    assert node.runtime.launches[-1].sandbox_id.encode() in asked


async def test_profile_that_asks_nothing_gets_no_mediator(node: Node) -> None:
    await node.items(REQUEST)
    assert node.runtime.sandboxes[-1].mediator is None


async def test_image_that_is_denied_is_told_redacted_and_only_then_cut(node: Node) -> None:
    secret = "xx_" + "a" * 40

    async def script(program: FakeProgram) -> ExitStatus:
        mediator = node.runtime.sandboxes[-1].mediator
        assert mediator is not None
        node.engine.answer = NO
        assert not await mediator.may_exec(replace(ACTION, image=f"/{'d' * 180}/{secret}"))
        return ExitStatus(126, None)

    node.executor.redactions = Redactions(Catalogue({"xx": Source("xx_a{40}", 43)}))
    node.engine.answer = Decision(Verdict.TRANSFORM, (), "fake-1", obligations=Obligations(redact=("xx",)))
    node.runtime.script = script
    outcome = (await node.items(ASKING))[-1]
    assert isinstance(outcome, Outcome)
    (violation,) = outcome.violations
    assert "xx_" not in violation.detail
