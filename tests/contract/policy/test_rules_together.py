"""Rules of several files beside the shipped policy, in both engines: the strictest wins, what they demand adds up."""

import asyncio
import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sandboxd.action import NetConnect, ProfileUse, SecretUse
from sandboxd.gate import Gate, Subject
from sandboxd.model import Approval, Decision, Isolation, Obligations, Verdict
from sandboxd.policy.base import PolicyEngine
from sandboxd.policy.document import PolicyInput, ProfileFacts, SandboxFacts
from tests.contract.policy.test_engine import WITH_POLICY
from tests.fakes.policy import CALLER

ROOT = Path(__file__).resolve().parents[3]
RULES = """package sandboxd

import rego.v1

asks(word) if word in input.action.argv

deny contains {"code": "d", "message": "D"} if asks("deny")

escalate contains {"code": "e1", "message": "E1"} if asks("escalate")

escalate contains {"code": "e2", "message": "E2"} if asks("escalate too")

approval contains {"ttl_seconds": 600, "approvers": ["uid:1", "uid:2"], "quorum": 1} if asks("escalate")

approval contains {"ttl_seconds": 60, "approvers": ["uid:2", "uid:3"], "quorum": 2} if asks("escalate too")

approval contains {"ttl_seconds": 600, "approvers": ["uid:9"], "quorum": 1} if asks("somebody else")

tighten contains {"code": "t1", "message": "T1", "limits": {"wall_seconds": 10, "pids": 9}} if asks("tighten")

tighten contains {
	"code": "t2", "message": "T2", "limits": {"wall_seconds": 9}, "runtime_floor": "gvisor",
} if asks("tighten more")

tighten contains {"code": "t3", "message": "T3", "runtime_floor": "kata"} if asks("tighten most")

tighten contains {"code": "t4", "message": "T4", "redact": ["jwt", "ours"]} if asks("redact")

tighten contains {"code": "t5", "message": "T5", "redact": ["a", "jwt"], "limits": {"pids": 9}} if asks("redact more")

warn contains {"code": "w", "message": "W"} if asks("warn")

deny contains {"code": 1, "message": {"not": "text"}} if asks("badly denied")

deny contains "neither" if asks("denied by a word")

tighten contains {"code": "t", "message": "T", "limits": {"wall_seconds": "9"}} if asks("badly tightened")

warn contains {"code": "w", "message": 7} if asks("badly warned")
"""
SECRET_AFTER_EGRESS = """package sandboxd

import rego.v1

deny contains {"code": "secret_after_egress", "message": "a sandbox that has connected is given no secret"} if {
	input.action.type == "secret.use"
	input.sandbox.seen.egress
}
"""
BOTH = Obligations((("pids", 9.0), ("wall_seconds", 9.0)), Isolation.GVISOR)
ANSWERS = {
    (): (Verdict.ALLOW, [], Obligations()),
    ("warn",): (Verdict.WARN, ["w"], Obligations()),
    ("tighten",): (Verdict.TRANSFORM, ["t1"], Obligations((("pids", 9.0), ("wall_seconds", 10.0)))),
    ("tighten", "tighten more", "warn"): (Verdict.TRANSFORM, ["t1", "t2", "w"], BOTH),
    ("tighten more", "tighten most"): (
        Verdict.TRANSFORM, ["t2", "t3"], Obligations((("wall_seconds", 9.0),), Isolation.KATA),
    ),
    ("redact",): (Verdict.TRANSFORM, ["t4"], Obligations(redact=("jwt", "ours"))),
    ("redact", "redact more"): (
        Verdict.TRANSFORM, ["t4", "t5"], Obligations((("pids", 9.0),), redact=("a", "jwt", "ours")),
    ),
    ("escalate", "redact"): (
        Verdict.ESCALATE, ["e1"],
        Obligations(redact=("jwt", "ours"), approval=Approval(600.0, ("uid:1", "uid:2"), 1)),
    ),
    ("escalate", "warn"): (
        Verdict.ESCALATE, ["e1"], Obligations(approval=Approval(600.0, ("uid:1", "uid:2"), 1)),
    ),
    ("escalate", "escalate too", "tighten", "tighten more"): (
        Verdict.ESCALATE, ["e1", "e2"], replace(BOTH, approval=Approval(60.0, ("uid:2",), 2)),
    ),
    ("escalate", "somebody else"): (Verdict.DENY, ["no_common_approver"], Obligations()),
    ("deny", "escalate", "tighten", "warn"): (Verdict.DENY, ["d"], Obligations()),
}  # fmt: skip
FAULTS = ("badly denied", "denied by a word", "badly tightened", "badly warned")


def asked(words: tuple[str, ...], **parts: object) -> PolicyInput:
    document = {
        "action": {"type": "execution.start", "argv": list(words), "env_names": [], "network": "none"},
        "caller": {"tenant": "local"},
        "profile": {"name": "default", "labels": {}},
        **parts,
    }
    return PolicyInput(json.dumps(document).encode())


def ordered(decision: Decision) -> tuple[Verdict, list[str], Obligations]:
    obligations = decision.obligations
    limits = tuple(sorted(obligations.limits))
    codes = sorted(reason.code for reason in decision.reasons)
    return decision.verdict, codes, replace(obligations, limits=limits, redact=tuple(sorted(obligations.redact)))


@pytest.mark.parametrize("engine", WITH_POLICY)
async def test_the_strictest_rule_wins_and_demands_add_up(engine: str, tmp_path: Path) -> None:
    (tmp_path / "sandboxd.rego").write_text((ROOT / "policies" / "sandboxd.rego").read_text())
    (tmp_path / "rules.rego").write_text(RULES)
    async with WITH_POLICY[engine](tmp_path) as made:
        assert {words: ordered(await made.decide(asked(words))) for words in ANSWERS} == ANSWERS
        for fault in FAULTS:
            decision = await made.decide(asked((fault,)))
            assert decision.verdict is Verdict.DENY, (fault, decision)


def allow_secrets(directory: Path) -> None:
    """The shipped policy with reviewed egress, secrets for whoever is there, and no egress once one was read."""
    for source in ("policies/sandboxd.rego", "cookbook/reviewed_egress.rego", "cookbook/egress_after_secret.rego"):
        (directory / Path(source).name).write_text((ROOT / source).read_text())
    rule = 'package sandboxd\n\nimport rego.v1\n\nallow if input.action.type == "secret.use"\n'
    (directory / "secrets.rego").write_text(rule)


CONNECT = NetConnect("tcp", "packages.example.org", "192.0.2.1", 443)
SECRET = SecretUse("token", "packages.example.org", 443)
SUBJECT = Subject(
    ProfileFacts("mine", "d" * 64, (("sandboxd.io/egress-reviewed", "true"),)), SandboxFacts("0" * 32, "process")
)


def codes(decision: Decision) -> list[str]:
    return [reason.code for reason in decision.reasons]


@pytest.mark.parametrize("engine", WITH_POLICY)
async def test_an_allow_does_not_outlive_a_secret_read(engine: str, tmp_path: Path) -> None:
    allow_secrets(tmp_path)
    other = replace(SUBJECT, sandbox=replace(SUBJECT.sandbox, id="1" * 32))
    async with WITH_POLICY[engine](tmp_path) as made:
        gate = Gate(made)
        for subject in (SUBJECT, other):
            gate.sightings.begin(subject.sandbox.id)
            for _ in range(3):
                before = await gate.decide(CONNECT, CALLER, subject)
                assert (before.verdict, before.remembered) == (Verdict.ALLOW, False)
        assert (await gate.decide(SECRET, CALLER, SUBJECT)).verdict is Verdict.ALLOW
        assert codes(await gate.decide(CONNECT, CALLER, SUBJECT)) == ["egress_after_secret"]
        assert (await gate.decide(CONNECT, CALLER, other)).verdict is Verdict.ALLOW, "the control"


@pytest.mark.parametrize("engine", WITH_POLICY)
async def test_nor_does_one_that_is_remembered(engine: str, tmp_path: Path) -> None:
    """Even where the engine is taken at its word that its answers may be taken again."""
    allow_secrets(tmp_path)
    async with WITH_POLICY[engine](tmp_path) as made:
        gate = Gate(Repeatable(made))
        gate.sightings.begin(SUBJECT.sandbox.id)
        decisions = [await gate.decide(CONNECT, CALLER, SUBJECT) for _ in range(3)]
        assert [(decision.verdict, decision.remembered) for decision in decisions] == [
            (Verdict.ALLOW, False),
            (Verdict.ALLOW, False),  # it has connected by now
            (Verdict.ALLOW, True),
        ]
        assert (await gate.decide(SECRET, CALLER, SUBJECT)).verdict is Verdict.ALLOW
        assert codes(await gate.decide(CONNECT, CALLER, SUBJECT)) == ["egress_after_secret"]


@pytest.mark.parametrize("engine", WITH_POLICY)
async def test_nor_one_that_is_decided_at_the_same_time(engine: str, tmp_path: Path) -> None:
    allow_secrets(tmp_path)
    (tmp_path / "secret_after_egress.rego").write_text(SECRET_AFTER_EGRESS)
    async with WITH_POLICY[engine](tmp_path) as made:
        gate = Gate(made)
        for number in range(20):
            subject = replace(SUBJECT, sandbox=replace(SUBJECT.sandbox, id=f"{number:032x}"))
            gate.sightings.begin(subject.sandbox.id)
            actions = (CONNECT, SECRET) if number % 2 else (SECRET, CONNECT)
            decisions = await asyncio.gather(*(gate.decide(action, CALLER, subject) for action in actions))
            verdicts = sorted(decision.verdict for decision in decisions)
            assert verdicts == [Verdict.ALLOW, Verdict.DENY], decisions


@pytest.mark.parametrize(
    ("rules", "remembered"),
    [((), True), (("rate",), False), (("working_hours",), False), (("egress_after_secret",), False)],
    ids=str,
)
async def test_the_use_of_a_profile_is_remembered_unless_a_rule_looks_at_the_moment(
    rules: tuple[str, ...], remembered: bool, tmp_path: Path
) -> None:
    for source in ("policies/sandboxd.rego", *(f"cookbook/{rule}.rego" for rule in rules)):
        (tmp_path / Path(source).name).write_text((ROOT / source).read_text())
    use = ProfileUse(Isolation.PROCESS, "none", ())
    subject = replace(SUBJECT, profile=ProfileFacts("default", "d" * 64, ()))
    async with WITH_POLICY["rego"](tmp_path) as made:
        gate = Gate(made)
        decisions = [await gate.decide(use, CALLER, subject) for _ in range(3)]
        assert {decision.verdict for decision in decisions} == {Verdict.ALLOW}
        assert [decision.remembered for decision in decisions] == [False, remembered, remembered]
        gate.replace(made)
        assert not (await gate.decide(use, CALLER, subject)).remembered, "a reload ends it"


@dataclass
class Repeatable:
    engine: PolicyEngine
    repeatable: bool = True
    answering: bool = True

    def __post_init__(self) -> None:
        self.name, self.revision = self.engine.name, self.engine.revision

    async def decide(self, document: PolicyInput) -> Decision:
        return await self.engine.decide(document)

    async def close(self) -> None:
        await self.engine.close()
