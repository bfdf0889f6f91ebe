"""Whether a profile may be used: what is asked, what is on record of it, and when it is not asked again."""

from dataclasses import replace
from pathlib import Path

import pytest

from sandboxd.action import ProfileUse
from sandboxd.errors import AuditUnavailable, PolicyDenied
from sandboxd.event import PolicyDecided
from sandboxd.gate import Gate, Subject
from sandboxd.model import ArgvProgram, Decision, ExecuteRequest, Isolation, Obligations, Reason, Verdict
from sandboxd.policy.document import ProfileFacts, SandboxFacts
from sandboxd.profile.load import load_profiles
from sandboxd.profile.resolve import tighten
from sandboxd.profile_use import asked_of, use_profile
from sandboxd.span import Span
from tests.fakes.policy import CALLER, FakeEngine
from tests.fakes.recorder import FakeRecorder

PROFILES = Path(__file__).parents[2] / "profiles"
USE = ProfileUse(Isolation.PROCESS, "none", ())
LASTING = Decision(Verdict.ALLOW, (), "fake-1", ttl_seconds=60.0)


class Node:
    def __init__(self, use: Decision = LASTING) -> None:
        self.engine = FakeEngine(repeatable=True, use=use)
        self.gate = Gate(self.engine)
        self.recorder = FakeRecorder()

    async def use(self, number: int = 0, profile: str = "default") -> Span:
        """By one execution of many: each has ids of its own."""
        span = Span(self.recorder, CALLER, f"{number:032x}", f"{number:032x}", f"{number:032x}")
        subject = Subject(ProfileFacts(profile, "d" * 64, ()), SandboxFacts(f"{number:032x}", "process"))
        await use_profile(self.gate, span, CALLER, subject, USE)
        return span

    @property
    def recorded(self) -> list[tuple[str, str, bool]]:
        events = [event for event in self.recorder.events if isinstance(event, PolicyDecided)]
        return [(event.action, event.verdict, event.remembered) for event in events]


async def test_a_plain_allow_is_on_record_once_while_it_is_remembered() -> None:
    node = Node()
    for number in range(3):
        span = await node.use(number)
        assert span.policy_revision == "fake-1"
    assert node.recorded == [("profile.use", "allow", False)]
    (event,) = node.recorder.events
    assert isinstance(event, PolicyDecided)
    assert node.recorder.documents[event.input_sha256] == node.engine.uses[0].document


async def test_another_profile_is_another_question() -> None:
    node = Node()
    await node.use(0)
    await node.use(1, "strict")
    assert len(node.engine.uses) == len(node.recorded) == 2


@pytest.mark.parametrize(
    "answer",
    [
        replace(LASTING, verdict=Verdict.WARN, reasons=(Reason("c", "m"),)),
        replace(LASTING, reasons=(Reason("c", "m"),)),
        replace(LASTING, obligations=Obligations(limits=(("pids", 8.0),))),
        replace(LASTING, verdict=Verdict.TRANSFORM, obligations=Obligations(limits=(("pids", 8.0),))),
    ],
    ids=lambda answer: answer.verdict.value,
)
async def test_what_is_no_plain_allow_is_on_record_each_time_with_its_input(answer: Decision) -> None:
    node = Node(answer)
    for number in range(2):
        await node.use(number)
    verdict = answer.verdict.value
    assert node.recorded == [("profile.use", verdict, False), ("profile.use", verdict, True)]
    assert len(node.recorder.documents) == 2
    assert len(node.engine.uses) == 1


@pytest.mark.parametrize("reasons", [(Reason("no", "m"),), ()])
async def test_a_deny_is_on_record_each_time_though_it_is_remembered(reasons: tuple[Reason, ...]) -> None:
    node = Node(replace(LASTING, verdict=Verdict.DENY, reasons=reasons, message_for_agent="Not you."))
    for number in range(2):
        with pytest.raises(PolicyDenied) as denied:
            await node.use(number)
        assert (denied.value.reason, denied.value.message_for_agent) == (
            "no" if reasons else "policy_denied",
            "Not you.",
        )
    assert node.recorded == [("profile.use", "deny", False), ("profile.use", "deny", True)]


async def test_nothing_is_allowed_on_an_answer_that_never_came_on_record() -> None:
    node = Node()
    node.recorder.refuses = frozenset({"policy.decided"})
    for number in range(2):
        with pytest.raises(AuditUnavailable):
            await node.use(number)
    node.recorder.refuses = frozenset()
    await node.use(2)
    assert node.recorded == [("profile.use", "allow", False)]
    assert len(node.engine.uses) == 3


async def test_a_policy_that_looks_at_the_moment_is_asked_each_time() -> None:
    node = Node()
    node.engine.repeatable = False
    for number in range(2):
        await node.use(number)
    assert node.recorded == [("profile.use", "allow", False)] * 2


async def test_a_reload_is_asked_at_once() -> None:
    node = Node()
    await node.use(0)
    node.gate.replace(FakeEngine(revision="r2", repeatable=True, use=Decision(Verdict.DENY, (), "r2")))
    with pytest.raises(PolicyDenied):
        await node.use(1)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (ExecuteRequest(ArgvProgram(("x",))), ProfileUse(Isolation.PROCESS, "none", ())),
        (
            ExecuteRequest(ArgvProgram(("x",)), limits=(("wall_seconds", 1.0), ("pids", 4.0))),
            ProfileUse(Isolation.PROCESS, "none", ("pids", "wall_seconds")),
        ),
        (
            ExecuteRequest(ArgvProgram(("x",)), isolation=Isolation.KATA),
            ProfileUse(Isolation.KATA, "none", ("isolation",)),
        ),
        (
            ExecuteRequest(ArgvProgram(("x",)), profile="build", network="none"),
            ProfileUse(Isolation.PROCESS, "none", ("network",)),
        ),
    ],
    ids=str,
)
def test_the_question_names_what_the_request_tightens(request_: ExecuteRequest, expected: ProfileUse) -> None:
    named = load_profiles([PROFILES]).get(request_.profile)
    assert asked_of(request_, tighten(named, request_), named) == expected
