"""An execution whose profile wants execs asked about, on fakes: who is asked, and where the answer ends up."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest_asyncio

from sandboxd.action import ProcessExec
from sandboxd.event import ProcessExecDecided, SandboxViolated, SyscallDenied
from sandboxd.model import (
    ArgvProgram,
    Decision,
    EndReason,
    ExecuteRequest,
    ExitStatus,
    Outcome,
    Reason,
    RefusedCalls,
    Verdict,
)
from sandboxd.profile.load import load_profiles
from tests.fakes.runtime import FakeProgram
from tests.unit.test_execution import PROFILES, REQUEST, Node

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
EXEC = ProcessExec("/usr/bin/id", ("id",), "/workspace", 7, 2)
NO = Decision(Verdict.DENY, (Reason("no_id", "not you"),), "fake-1", "Do not run id.")


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
        assert not await mediator.may_exec(EXEC)
        await mediator.refused(RefusedCalls(101, 7, 1, "profile", 2))
        return ExitStatus(126, None)

    node.runtime.script = script
    outcome = (await node.items(ASKING))[-1]
    assert isinstance(outcome, Outcome)
    assert (outcome.end_reason, outcome.exit_code) == (EndReason.EXITED, 126)
    assert [(violation.layer, violation.code) for violation in outcome.violations] == [("policy", "no_id")]
    assert outcome.message_for_agent.endswith("Do not run id.")
    assert node.rules[3:] == [
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
        assert await mediator.may_exec(replace(EXEC, image="/usr/bin/env"))
        return ExitStatus(0, None)

    node.runtime.script = script
    await node.items(ASKING)
    asked = node.engine.asked[-1].document
    assert b'"type":"process.exec"' in asked and b'"name":"asking"' in asked
    assert node.runtime.launches[-1].sandbox_id.encode() in asked


async def test_profile_that_asks_nothing_gets_no_mediator(node: Node) -> None:
    await node.items(REQUEST)
    assert node.runtime.sandboxes[-1].mediator is None
