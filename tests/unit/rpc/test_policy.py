"""PolicyService shows what decides, and explains it to operators alone."""

import asyncio
import json
from dataclasses import replace

import grpc
import pytest

from sandboxd.errors import CallerRefused
from sandboxd.model import LOCAL_TENANT, OPERATOR, Caller, Decision, Obligations, Reason, Verdict
from sandboxd.policy.rego_rules import Rule
from sandboxd.rollout import PolicyFacts, ShadowFacts
from sandboxd.rpc.interceptors import Call, Unary
from sandboxd.rpc.policy import PolicyService
from sandboxd.rpc.v1 import policy_pb2
from sandboxd.shadow import Counts
from tests.fakes.policy import question
from tests.unit.rpc.conftest import PolicyInForce, Served


async def test_policy_in_force_is_shown_with_its_files(served: Served) -> None:
    policy = (await served.policies.GetPolicy(policy_pb2.GetPolicyRequest())).policy
    assert (policy.engine, policy.revision, policy.version) == ("fake", "r1", 7)
    assert policy.since.ToNanoseconds() == 1_700_000_000_500_000_000
    assert [(file.path, file.sha256) for file in policy.files] == [("p.rego", "ab" * 32)]
    assert not policy.HasField("shadow") and not policy.HasField("reload_failed_at") and policy.reload_error == ""


async def test_failed_reload_and_shadow_are_shown(served: Served) -> None:
    shadow = ShadowFacts("r2", Counts(5, 4, 3, 2), "")
    served.policy.told = replace(served.policy.told, last_error="older", last_error_at=9.0, shadow=shadow)
    policy = (await served.policies.GetPolicy(policy_pb2.GetPolicyRequest())).policy
    assert (policy.reload_error, policy.reload_failed_at.seconds) == ("older", 9)
    told = policy.shadow
    assert (told.revision, told.compared, told.differed, told.failed, told.dropped) == ("r2", 5, 4, 3, 2)


async def test_decision_is_explained(served: Served) -> None:
    served.policy.decision = Decision(
        Verdict.DENY, (Reason("c", "why"),), "r1", "no", Obligations(limits=(("pids", 3.0),), redact=("stdout",))
    )
    served.policy.rules = (Rule("p.rego", 7, ("sandboxd",), "deny", "", True, False, False, True),)
    asked = question().document.decode()
    answer = await served.policies.CheckPolicy(policy_pb2.CheckPolicyRequest(input_json=asked))
    assert (answer.verdict, answer.message_for_agent, answer.revision) == ("deny", "no", "r1")
    assert [(reason.code, reason.message) for reason in answer.reasons] == [("c", "why")]
    assert json.loads(answer.obligations_json)["redact"] == ["stdout"]
    assert [(rule.path, rule.line, rule.name) for rule in answer.rules] == [("p.rego", 7, "sandboxd.deny")]
    assert [json.loads(document) for document in served.policy.asked] == [json.loads(asked)]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"action": {"type": "file.get"}}'])
async def test_input_that_is_none_is_refused_and_not_decided(served: Served, text: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await served.policies.CheckPolicy(policy_pb2.CheckPolicyRequest(input_json=text))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (refused.value.details() or "").startswith("input_json: ")
    assert served.policy.asked == []


async def test_the_loop_goes_on_while_an_input_is_read() -> None:
    policy, turns = PolicyInForce(), 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    method = PolicyService(policy).methods()["CheckPolicy"]
    assert isinstance(method, Unary)
    request = policy_pb2.CheckPolicyRequest(input_json=question().document.decode())
    await method.answer(request, Call(Caller(LOCAL_TENANT, "uid:7", (OPERATOR,), ""), ""))
    turning.cancel()
    assert len(policy.asked) == 1
    assert turns > 0


def as_seen_by(roles: tuple[str, ...], policy: PolicyInForce) -> tuple[Unary[policy_pb2.GetPolicyRequest], Call]:
    method = PolicyService(policy).methods()["GetPolicy"]
    assert isinstance(method, Unary)
    return method, Call(Caller(LOCAL_TENANT, "uid:7", roles, ""), "")


async def test_who_does_not_run_the_node_sees_no_files_and_no_failures() -> None:
    policy = PolicyInForce()
    policy.told = PolicyFacts("rego", "r1", 7, (("p", "q"),), 1.0, "secret", 1.0, ShadowFacts("r2", Counts(), "bad"))
    policy.told = replace(policy.told, breaker="open")
    for roles in ((OPERATOR,), ()):
        method, call = as_seen_by(roles, policy)
        answer = await method.answer(policy_pb2.GetPolicyRequest(), call)
        assert isinstance(answer, policy_pb2.GetPolicyResponse)
        shown = answer.policy
        assert (shown.revision, shown.breaker) == ("r1", "open")
        for present in (bool(shown.files), bool(shown.reload_error), shown.HasField("shadow")):
            assert present is (OPERATOR in roles)


async def test_who_does_not_run_the_node_gets_nothing_explained() -> None:
    policy = PolicyInForce()
    method = PolicyService(policy).methods()["CheckPolicy"]
    assert isinstance(method, Unary)
    request = policy_pb2.CheckPolicyRequest(input_json=question().document.decode())
    with pytest.raises(CallerRefused, match="for operators"):
        await method.answer(request, Call(Caller(LOCAL_TENANT, "uid:7", (), ""), ""))
    assert policy.asked == []
