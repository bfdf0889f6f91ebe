"""PolicyService: which policy decides here, and what it would decide. Changes nothing. Bound to gRPC by `server`."""

import asyncio
import json
from dataclasses import asdict
from typing import Protocol

from sandboxd.errors import CallerRefused
from sandboxd.model import OPERATOR, Decision
from sandboxd.policy.rego_rules import Rule
from sandboxd.rollout import PolicyFacts, ShadowFacts
from sandboxd.rpc import convert
from sandboxd.rpc.interceptors import Call, Method, Unary
from sandboxd.rpc.v1 import policy_pb2


class InForce(Protocol):
    """What the service needs of `rollout.Rollout`."""

    def facts(self) -> PolicyFacts: ...

    async def explain(self, document: bytes) -> tuple[Decision, tuple[Rule, ...]]: ...


class PolicyService:
    NAME = policy_pb2.DESCRIPTOR.services_by_name["PolicyService"].full_name

    def __init__(self, policy: InForce) -> None:
        self._policy = policy
        self._explaining = asyncio.Lock()  # it takes a process and some tenths of a second each

    def methods(self) -> dict[str, Method]:
        return {
            "GetPolicy": Unary(policy_pb2.GetPolicyRequest, self._get),
            "CheckPolicy": Unary(policy_pb2.CheckPolicyRequest, self._check),
        }

    async def _get(self, _message: policy_pb2.GetPolicyRequest, call: Call) -> policy_pb2.GetPolicyResponse:
        facts = self._policy.facts()
        policy = policy_pb2.Policy(
            engine=facts.engine,
            revision=convert.text(facts.revision),
            version=facts.version,
            since=convert.timestamp(facts.since),
            breaker=facts.breaker,
        )
        if OPERATOR in call.caller.roles:
            policy.files.extend(policy_pb2.PolicyFile(path=path, sha256=digest) for path, digest in facts.files)
            if facts.last_error:
                policy.reload_error = convert.text(facts.last_error)
                policy.reload_failed_at.CopyFrom(convert.timestamp(facts.last_error_at))
            if facts.shadow is not None:
                policy.shadow.CopyFrom(_shadow(facts.shadow))
        return policy_pb2.GetPolicyResponse(policy=policy)

    async def _check(self, message: policy_pb2.CheckPolicyRequest, call: Call) -> policy_pb2.CheckPolicyResponse:
        if OPERATOR not in call.caller.roles:
            raise CallerRefused("explaining decisions is for operators; call as root or as the daemon's own user")
        async with self._explaining:
            document = await asyncio.to_thread(_read, message.input_json.encode())
            decision, rules = await self._policy.explain(document)
        return policy_pb2.CheckPolicyResponse(
            verdict=decision.verdict,
            reasons=[
                policy_pb2.PolicyReason(code=convert.text(reason.code), message=convert.text(reason.message))
                for reason in decision.reasons
            ],
            message_for_agent=convert.text(decision.message_for_agent),
            obligations_json=json.dumps(asdict(decision.obligations), sort_keys=True, separators=(",", ":")),
            revision=convert.text(decision.revision),
            rules=[policy_pb2.PolicyRule(path=rule.path, line=rule.line, name=rule.full_name) for rule in rules],
        )


def _read(document: bytes) -> bytes:
    """Of a large one it takes seconds."""
    from sandboxd.policy.input_check import read_input  # its library takes a while, and few ask

    return read_input("input_json", document)


def _shadow(shadow: ShadowFacts) -> policy_pb2.ShadowPolicy:
    return policy_pb2.ShadowPolicy(
        revision=convert.text(shadow.revision),
        compared=shadow.counts.compared,
        differed=shadow.counts.differed,
        failed=shadow.counts.failed,
        dropped=shadow.counts.dropped,
        error=convert.text(shadow.error),
    )
