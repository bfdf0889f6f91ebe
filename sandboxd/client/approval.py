"""What a node tells about actions that wait for people: frozen data, no I/O. Given back by calls of both clients."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class ApprovalState(StrEnum):
    PENDING = "pending"
    GRANTED = "granted"
    DENIED = "denied"
    EXPIRED = "expired"
    CONSUMED = "consumed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ApprovalVote:
    """One approver's word."""

    approver: str
    approve: bool
    comment: str
    voted_at: datetime | None


@dataclass(frozen=True, slots=True)
class Approval:
    """One action that policy leaves to people. `shown` is JSON text, and not all of it if `shown_bytes` is more."""

    approval_id: str
    state: ApprovalState
    action_type: str
    requester: str
    method: str
    profile: str
    profile_digest: str
    policy_revision: str
    reasons: tuple[str, ...]
    shown: str
    shown_bytes: int
    shown_sha256: str
    binding_sha256: str
    approvers: tuple[str, ...]
    quorum: int
    votes: tuple[ApprovalVote, ...]
    requested_at: datetime | None
    expires_at: datetime | None
    execution_id: str
