"""Rules of several files beside the shipped policy, in both engines: the strictest wins, what they demand adds up."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sandboxd.action import NetConnect
from sandboxd.gate import Gate, Subject
from sandboxd.model import Approval, Decision, Isolation, Obligations, Verdict
from sandboxd.policy.document import PolicyInput, ProfileFacts, SandboxFacts, Seen
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

warn contains {"code": "w", "message": "W"} if asks("warn")

deny contains {"code": 1, "message": {"not": "text"}} if asks("badly denied")

deny contains "neither" if asks("denied by a word")

tighten contains {"code": "t", "message": "T", "limits": {"wall_seconds": "9"}} if asks("badly tightened")

warn contains {"code": "w", "message": 7} if asks("badly warned")
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
    return decision.verdict, sorted(r.code for r in decision.reasons), replace(obligations, limits=limits)


@pytest.mark.parametrize("engine", WITH_POLICY)
async def test_the_strictest_rule_wins_and_demands_add_up(engine: str, tmp_path: Path) -> None:
    (tmp_path / "sandboxd.rego").write_text((ROOT / "policies" / "sandboxd.rego").read_text())
    (tmp_path / "rules.rego").write_text(RULES)
    async with WITH_POLICY[engine](tmp_path) as made:
        assert {words: ordered(await made.decide(asked(words))) for words in ANSWERS} == ANSWERS
        for fault in FAULTS:
            decision = await made.decide(asked((fault,)))
            assert decision.verdict is Verdict.DENY, (fault, decision)


@pytest.mark.parametrize("engine", WITH_POLICY)
async def test_an_allow_does_not_outlive_a_secret_read(engine: str, tmp_path: Path) -> None:
    for source in ("policies/sandboxd.rego", "cookbook/reviewed_egress.rego", "cookbook/egress_after_secret.rego"):
        (tmp_path / Path(source).name).write_text((ROOT / source).read_text())
    connect = NetConnect("tcp", "packages.example.org", "192.0.2.1", 443)
    profile = ProfileFacts("mine", "d" * 64, (("sandboxd.io/egress-reviewed", "true"),))
    fresh = SandboxFacts("0" * 32, "process")
    async with WITH_POLICY[engine](tmp_path) as made:
        gate = Gate(made)
        for _ in range(2):
            before = await gate.decide(connect, CALLER, Subject(profile, fresh))
            assert (before.verdict, before.remembered) == (Verdict.ALLOW, False)
        after = await gate.decide(connect, CALLER, Subject(profile, replace(fresh, seen=Seen(secret=True))))
        assert [reason.code for reason in after.reasons] == ["egress_after_secret"]
