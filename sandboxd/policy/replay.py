"""Decides recorded actions again, under another policy, and tells what would change. Decides nothing that happens.

A document of which something was redacted is decided only if the policy reads none of that. Called by
`sandboxctl policy replay`.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sandboxd.model import Decision, Verdict
from sandboxd.policy.base import PolicyEngine
from sandboxd.policy.document import PolicyInput
from sandboxd.policy.rego_reads import reads
from sandboxd.redaction.document import REDACTED

# Said by the daemon where no policy answered, so there is nothing to compare with.
NO_POLICY = frozenset({"policy_unavailable", "policy_timeout"})
_APPROVAL = "approval_"  # begins what the daemon says where policy left the action to people
APPROVAL = "approval"


class Outcome(StrEnum):
    SAME = "same"
    CHANGED = "changed"
    UNDECIDABLE = "undecidable"  # the policy reads what was redacted, or could not answer
    MISSING = "missing"  # its document is not in the store, or was changed there
    UNDECIDED = "undecided"  # no policy decided it then


@dataclass(frozen=True, slots=True)
class Past:
    """A decision on record: an action by its type, the digest of its input, and what was answered."""

    action: str
    input_sha256: str
    verdict: str
    reason_codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """`count` is how often it is on record. `then` and `now` are verdicts, or APPROVAL; `now` is empty without one."""

    past: Past
    count: int
    outcome: Outcome
    then: str
    now: str = ""
    reason_codes: tuple[str, ...] = ()


async def replay(
    engine: PolicyEngine,
    modules: Sequence[tuple[str, str]],
    past: Counter[Past],
    documents: Iterable[tuple[str, bytes]],
) -> tuple[Result, ...]:
    """One result for each of `past`. `modules` are the engine's, `documents` come by digest, each once."""
    by_digest: dict[str, list[Past]] = {}
    for item in past:
        by_digest.setdefault(item.input_sha256, []).append(item)
    results: list[Result] = []
    for digest, document in documents:
        decision = None if reads_redacted(modules, document) else await engine.decide(PolicyInput(document))
        results.extend(_result(item, past[item], decision) for item in by_digest.pop(digest, ()))
    for absent in by_digest.values():
        results.extend(Result(item, past[item], Outcome.MISSING, _then(item)) for item in absent)
    return tuple(results)


def reads_redacted(modules: Sequence[tuple[str, str]], document: bytes) -> bool:
    """Whether the policy may read what is not there any more. Errs to yes."""
    if REDACTED.encode() not in document:
        return False
    try:
        places = tuple(_redacted(json.loads(document)))
    except (ValueError, RecursionError):
        return True
    return reads(modules, places)


def _redacted(value: object) -> Iterator[tuple[str, ...]]:
    """The path of each value that was taken out; within a list, the path of the list."""
    match value:
        case dict():
            if value.keys() == {REDACTED}:
                yield ()
                return
            for key, item in value.items():
                yield from ((key, *path) for path in _redacted(item))
        case list():
            if any(True for item in value for _ in _redacted(item)):
                yield ()
        case _:
            return


def _result(past: Past, count: int, decision: Decision | None) -> Result:
    then = _then(past)
    if NO_POLICY & set(past.reason_codes):
        return Result(past, count, Outcome.UNDECIDED, then)
    codes = () if decision is None else tuple(reason.code for reason in decision.reasons)
    if decision is None or NO_POLICY & set(codes):
        return Result(past, count, Outcome.UNDECIDABLE, then, reason_codes=codes)
    now = _now(decision)
    return Result(past, count, Outcome.SAME if now == then else Outcome.CHANGED, then, now, codes)


def _then(past: Past) -> str:
    return APPROVAL if any(code.startswith(_APPROVAL) for code in past.reason_codes[:1]) else past.verdict


def _now(decision: Decision) -> str:
    asks = decision.verdict is not Verdict.DENY and decision.obligations.approval is not None
    return APPROVAL if asks or decision.verdict is Verdict.ESCALATE else decision.verdict.value
