"""What a policy engine is, what it may answer, and the strict decoder of its answers.

An answer is believed only if it has exactly the declared shape; everything else is a deny with a reason code.
Engines are found by name through `plugin`; `gate` alone calls them. The module of each offers
`async def create(settings: config.Policy) -> PolicyEngine`, which returns once the engine has answered its samples. It
raises PolicyInvalid where what is configured is wrong, RuntimeFailed where the engine may work later.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from enum import Enum
from typing import Final, Protocol, TypeVar

from sandboxd.model import Approval, Decision, Isolation, Limits, Obligations, Reason, Verdict
from sandboxd.policy.document import PolicyInput

T = TypeVar("T")
E = TypeVar("E", bound=Enum)
_LARGEST = sys.float_info.max  # an integer beyond it is below infinity, and yet no float
MAX_QUORUM = 16
LIMIT_NAMES = frozenset(field.name for field in fields(Limits))


class Undefined(Enum):
    """The policy has no answer for this input (in OPA's REST answer: there is no `result` key)."""

    UNDEFINED = "undefined"


UNDEFINED: Final = Undefined.UNDEFINED


class PolicyEngine(Protocol):
    """Answers one question at a time or many; `revision` names the bundle that answers, and is never empty."""

    name: str
    revision: str

    @property
    def repeatable(self) -> bool:
        """Whether it can answer now, and would answer two questions of equal `PolicyInput.key` alike."""

    @property
    def answering(self) -> bool:
        """Whether it could answer a question now, as far as is known: while it is false, everything is denied."""

    async def decide(self, document: PolicyInput) -> Decision:
        """The decision. An engine that cannot answer returns a deny of its own (`refusal`) rather than raise."""

    async def close(self) -> None:
        """Let questions under way end, then release everything. Idempotent."""


def refusal(code: str, message: str, revision: str) -> Decision:
    """A deny that no policy gave: its absence, its silence or its shape did."""
    return Decision(
        verdict=Verdict.DENY,
        reasons=(Reason(code, message),),
        revision=revision,
        message_for_agent="this action was not decided by policy, so it was refused",
    )


def decode_decision(value: object, revision: str) -> Decision:
    """The decision that `value` is, exactly; undefined denies `policy_undefined`, another shape `policy_malformed`.

    `True` and `False` are the answers of a simple policy: allow and deny.
    """
    if value is UNDEFINED:
        return refusal("policy_undefined", "the policy has no answer for this input", revision)
    if value is True:
        return Decision(Verdict.ALLOW, (), revision)
    if value is False:
        return Decision(Verdict.DENY, (Reason("policy_denied", "the policy says no"),), revision)
    try:
        return _decision(value, revision)
    except _MalformedError as error:
        # Of what is wrong only the beginning: it may be as long as an answer, and goes on record.
        return refusal("policy_malformed", f"the policy's answer is not a decision: {str(error)[:200]}", revision)


class _MalformedError(Exception):
    pass


def _decision(value: object, revision: str) -> Decision:
    body = _object(
        "decision", value, frozenset({"verdict", "reasons", "message_for_agent", "obligations", "ttl_seconds"})
    )
    verdict = _member("verdict", body.get("verdict"), Verdict)
    obligations = _obligations(body["obligations"]) if "obligations" in body else Obligations()
    if verdict is Verdict.TRANSFORM and obligations == Obligations():
        raise _MalformedError("verdict 'transform' needs obligations")
    return Decision(
        verdict=verdict,
        reasons=_list("reasons", body.get("reasons", []), _reason),
        revision=revision,
        message_for_agent=_text("message_for_agent", body.get("message_for_agent", "")),
        obligations=obligations,
        ttl_seconds=_number("ttl_seconds", body.get("ttl_seconds", 0)),
    )


def _reason(where: str, value: object) -> Reason:
    body = _object(where, value, frozenset({"code", "message"}))
    return Reason(_text(f"{where}.code", body.get("code")), _text(f"{where}.message", body.get("message")))


def _obligations(value: object) -> Obligations:
    body = _object("obligations", value, frozenset({"limits", "runtime_floor", "redact", "approval"}))
    limits = _object("obligations.limits", body.get("limits", {}), LIMIT_NAMES)
    floor = body.get("runtime_floor")
    return Obligations(
        limits=tuple((name, _positive(f"obligations.limits.{name}", number)) for name, number in limits.items()),
        runtime_floor=None if floor is None else _member("obligations.runtime_floor", floor, Isolation),
        redact=_list("obligations.redact", body.get("redact", []), _text),
        approval=_approval(body["approval"]) if "approval" in body else None,
    )


def _approval(value: object) -> Approval:
    body = _object("obligations.approval", value, frozenset({"ttl_seconds", "approvers", "quorum"}))
    return Approval(
        ttl_seconds=_positive("obligations.approval.ttl_seconds", body.get("ttl_seconds")),
        approvers=_list("obligations.approval.approvers", body.get("approvers", []), _text),
        quorum=_quorum(body.get("quorum", 1)),
    )


def _quorum(value: object) -> int:
    if type(value) is not int or not 1 <= value <= MAX_QUORUM:
        raise _MalformedError(f"obligations.approval.quorum is not a whole number from 1 to {MAX_QUORUM}")
    return value


def _object(where: str, value: object, known: frozenset[str]) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise _MalformedError(f"{where} is not an object")
    if unknown := value.keys() - known:
        raise _MalformedError(f"{where} has unknown fields {sorted(map(str, unknown))}")
    return value


def _list(where: str, value: object, item: Callable[[str, object], T]) -> tuple[T, ...]:
    if not isinstance(value, list):
        raise _MalformedError(f"{where} is not a list")
    return tuple(item(f"{where}[{index}]", entry) for index, entry in enumerate(value))


def _text(where: str, value: object) -> str:
    if not isinstance(value, str):
        raise _MalformedError(f"{where} is not a string")
    return value


def _number(where: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LARGEST:
        raise _MalformedError(f"{where} is not a number from 0")
    return float(value)


def _positive(where: str, value: object) -> float:
    number = _number(where, value)
    if number == 0:
        # Zero switches some limits off, so it would loosen.
        raise _MalformedError(f"{where} is 0")
    return number


def _member(where: str, value: object, closed: type[E]) -> E:
    for member in closed:
        if type(value) is str and member.value == value:
            return member
    raise _MalformedError(f"{where} {value!r} is not one of {[member.value for member in closed]}")
