"""What a node tells of its record: frozen data, no I/O. Given back by calls of both clients, for operators alone."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """All conditions together, an empty one is none. A time without a zone is UTC; `until` itself is left out.

    `rule` may end in `*`; `minimum_priority` is that one and the more urgent; `text` is contained in one of the values,
    capitals or not.
    """

    since: datetime | None = None
    until: datetime | None = None
    tenant: str = ""
    execution_id: str = ""
    sandbox_id: str = ""
    rule: str = ""
    verdict: str = ""
    minimum_priority: str = ""
    text: str = ""


EVERYTHING = AuditFilter()


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One record. `line` is the journal's own, JSON, and `sha256` its digest, which the next record names."""

    seq: int
    time: datetime | None
    rule: str
    priority: str
    sha256: str
    line: str


@dataclass(frozen=True, slots=True)
class AuditDamage:
    """A place that does not hold what was written there; `verify_audit` tells more."""

    seq: int
    segment: str
    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class AuditPage:
    """`next_page_token` leads on, and is empty where there is nothing more."""

    records: tuple[AuditRecord, ...]
    damages: tuple[AuditDamage, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class AuditNews:
    """What comes next of a followed journal. `missing` records before these are gone, by retention.

    Everything before `next_seq` has been looked at: go on from there. `caught_up`: what follows is new.
    """

    records: tuple[AuditRecord, ...]
    damages: tuple[AuditDamage, ...]
    next_seq: int
    missing: int
    caught_up: bool


@dataclass(frozen=True, slots=True)
class AuditBadRecord:
    """The first record that is not as it was written. `line` counts from 1 within the segment."""

    segment: str
    line: int
    seq: int
    fault: str
    reason: str


@dataclass(frozen=True, slots=True)
class AuditVerification:
    """`sealed_seq` is the last record that a signed checkpoint covers: what is newer could have been changed."""

    ok: bool
    records: int
    first_bad: AuditBadRecord | None
    torn_bytes: int
    first_seq: int
    last_seq: int
    checkpoints: int
    sealed_seq: int
    sealed_at: datetime | None
    key_id: str


@dataclass(frozen=True, slots=True)
class AuditSink:
    """How one sink does, since the daemon started. `state` is ok, failing, stuck or damaged."""

    name: str
    type: str
    required: bool
    state: str
    sent_records: int
    filtered_records: int
    lag_records: int
    lag_seconds: float
    retries: int
    failures: int
    lost_records: int
    refused_records: int
    last_error: str
    last_error_at: datetime | None
    last_success_at: datetime | None


@dataclass(frozen=True, slots=True)
class AuditKey:
    """What checkpoints are signed with: its public half, and what they name it by."""

    public_key_pem: str
    key_id: str
