"""What a node tells about the policy that decides there: frozen data, no I/O. Given back by calls of both clients."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class ShadowPolicy:
    """A policy that is tried beside the one that decides; counts are of decisions. `error`: it cannot be loaded."""

    revision: str
    compared: int
    differed: int
    failed: int
    dropped: int
    error: str


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy in force. `version` is 0 unless its bundle is signed; `files` are path and SHA-256.

    `files`, `reload_error`, `reload_failed_at` and `shadow` are told to operators alone.
    """

    engine: str
    revision: str
    version: int
    since: datetime | None
    files: tuple[tuple[str, str], ...]
    reload_error: str
    reload_failed_at: datetime | None
    shadow: ShadowPolicy | None
    breaker: str = ""  # before a policy server: closed, open or half_open


@dataclass(frozen=True, slots=True)
class PolicyCheck:
    """What the policy in force would decide. `reasons` are code and message; `rules` hold: path, line and name."""

    verdict: str
    reasons: tuple[tuple[str, str], ...]
    message_for_agent: str
    obligations_json: str
    revision: str
    rules: tuple[tuple[str, int, str], ...]
