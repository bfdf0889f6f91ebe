"""A policy engine's answer: any JSON value at all gives a decision, and only a well-shaped one allows."""

import json
import math

from bench.soak.target import Broken, Target
from sandboxd.model import Decision, Obligations, Verdict
from sandboxd.policy.base import UNDEFINED, decode_decision

FULL = {
    "verdict": "transform",
    "reasons": [{"code": "c", "message": "m"}],
    "message_for_agent": "no",
    "obligations": {
        "limits": {"wall_seconds": 1, "memory_bytes": 4194304},
        "runtime_floor": "gvisor",
        "redact": ["x"],
        "approval": {"ttl_seconds": 60, "approvers": ["a"], "quorum": 2},
    },
    "ttl_seconds": 5,
}


def run(data: bytes) -> object:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    decision = decode_decision(UNDEFINED if value == "undefined" else value, "r1")
    if decision.verdict is not Verdict.DENY and not (value is True or isinstance(value, dict)):
        raise Broken(f"{value!r} does not deny")
    _hold(decision)
    refused = any(reason.code in ("policy_malformed", "policy_undefined") for reason in decision.reasons)
    return None if refused else decision


def _hold(decision: Decision) -> None:
    if not all(0 < limit < math.inf for _, limit in decision.obligations.limits):
        raise Broken(f"{decision.obligations.limits!r} has what is no limit")
    if decision.verdict is Verdict.TRANSFORM and decision.obligations == Obligations():
        raise Broken("a transform that transforms nothing")


def target() -> Target:
    seeds = (
        b"true",
        b"false",
        b"null",
        b'"undefined"',
        b"[]",
        b'{"verdict":"allow"}',
        json.dumps(FULL).encode(),
        b'{"verdict":"allow","message_for_agent":"x"}',
    )
    words = (b"1e999", b"NaN", b"-0.0", b"9" * 320, b'"deny"', b'"warn"', b'"escalate"', b'"kata"', b'"obligations":{')
    return Target("decision", ("sandboxd.policy.base",), run, (), seeds, words)
