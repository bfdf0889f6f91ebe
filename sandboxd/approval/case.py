"""The nouns of approvals: what was asked, who voted, and what follows from both. Frozen data, pure functions, no I/O.

A state is never stored: it follows from the votes and the time, so that no file can say "granted" without its votes.
Used by every other module of this package, and by `rpc`.
"""

from dataclasses import dataclass
from enum import StrEnum

from sandboxd.model import OPERATOR, Approval, Caller
from sandboxd.policy.document import ProfileFacts

MAX_TTL_SECONDS = 7 * 24 * 3600.0
MAX_SHOWN_BYTES = 32 * 1024
MAX_COMMENT_CHARS = 512
MAX_REASONS = 16
MAX_REASON_CHARS = 512


class State(StrEnum):
    PENDING = "pending"
    GRANTED = "granted"
    DENIED = "denied"
    EXPIRED = "expired"
    CONSUMED = "consumed"


@dataclass(frozen=True, slots=True)
class Asked:
    """One question that policy leaves to people. `binding` is the digest of all that a grant is good for.

    `shown` is what an approver reads, as JSON text; cut if `shown_bytes` is more. `shown_sha256` names the whole.
    """

    binding: str
    tenant: str
    requester: str
    method: str
    action_type: str
    revision: str
    rule: Approval
    reasons: tuple[str, ...]
    profile: ProfileFacts
    runtime: str
    sandbox_id: str
    execution_id: str
    trace_id: str
    shown: str
    shown_bytes: int
    shown_sha256: str


@dataclass(frozen=True, slots=True)
class Vote:
    """One approver's word. `at` is seconds since the epoch."""

    approver: str
    approve: bool
    comment: str
    at: float


@dataclass(frozen=True, slots=True)
class Case:
    """A question and its votes so far."""

    approval_id: str
    asked: Asked
    requested_at: float
    votes: tuple[Vote, ...] = ()


@dataclass(frozen=True, slots=True)
class Update:
    """A case as of now. EXPIRED and CONSUMED are the last that is heard of one."""

    case: Case
    state: State


def state(case: Case, now: float) -> State:
    """What the votes make of it. Time ends all but a denial, which is what it is until it is forgotten."""
    if not all(vote.approve for vote in case.votes):
        return State.DENIED
    if now >= expires_at(case):
        return State.EXPIRED
    return State.GRANTED if _granted(case) else State.PENDING


def expires_at(case: Case) -> float:
    """It waits for its approvers as long as the policy says, and a grant waits as long to be used."""
    return (case.votes[-1].at if _granted(case) else case.requested_at) + case.asked.rule.ttl_seconds


def last_change(case: Case) -> float:
    """It has been that late when this was written."""
    return case.votes[-1].at if case.votes else case.requested_at


def may_approve(case: Case, caller: Caller) -> bool:
    """By what the policy says of approvers alone; that nobody decides about himself is asked elsewhere."""
    named = case.asked.rule.approvers or (f"role:{OPERATOR}",)
    return caller.subject in named or any(f"role:{role}" in named for role in caller.roles)


def may_see(case: Case, caller: Caller) -> bool:
    """Who asked, who may approve, and operators; nobody of another tenant."""
    if caller.tenant != case.asked.tenant:
        return False
    return caller.subject == case.asked.requester or OPERATOR in caller.roles or may_approve(case, caller)


def sound(case: Case) -> bool:
    """Whether these votes can have come about: one for each approver, none of the requester, none after the end."""
    approvers = [vote.approver for vote in case.votes]
    decided = [index for index in range(len(approvers)) if _decided(case, index)]
    return (
        len(set(approvers)) == len(approvers)
        and case.asked.requester not in approvers
        and decided in ([], [len(approvers) - 1])
        and all(before.at <= after.at for before, after in zip(case.votes, case.votes[1:], strict=False))
        and all(case.requested_at <= vote.at < case.requested_at + case.asked.rule.ttl_seconds for vote in case.votes)
        and case.asked.rule.quorum >= 1
        and 0 < case.asked.rule.ttl_seconds <= MAX_TTL_SECONDS
    )


def _granted(case: Case) -> bool:
    return len(case.votes) >= case.asked.rule.quorum and all(vote.approve for vote in case.votes)


def _decided(case: Case, index: int) -> bool:
    """Whether nothing was left to decide after the vote at `index`."""
    return not case.votes[index].approve or index + 1 >= case.asked.rule.quorum
