"""Counts what goes on record, and how long policy takes: plain numbers, read when somebody asks for them.

On the way of every execution, so it only adds; never keeps an id or a tenant's text: what is not of a closed set counts
as `other`. Given each event by `audit.recorder` and each wait for policy by `gate`; read by `collectors`.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, Final, get_args

from sandboxd.action import Action
from sandboxd.event import (
    ApprovalConsumed,
    ApprovalDenied,
    ApprovalExpired,
    ApprovalGranted,
    ApprovalRequested,
    Event,
    ExecutionEnded,
    ExecutionRefused,
    ExecutionStarted,
    PolicyDecided,
    ProcessExecDecided,
)
from sandboxd.model import EndReason, Verdict

OTHER: Final = "other"
ACTIONS = frozenset(kind.type for kind in get_args(Action))
VERDICTS = frozenset(map(str, Verdict))
END_REASONS = tuple(map(str, EndReason))
# Denies that no policy gave: its absence, its silence or its shape did.
FAILURES = ("policy_unavailable", "policy_timeout", "policy_malformed", "policy_undefined")
# Why executions are refused that policy did not deny; the codes of `errors`.
REFUSALS = (
    *("slots", "rate", "draining"),
    *("profile_unknown", "override_unknown", "override_not_tighter", "obligation_loosens", "obligation_unsupported"),
    *("unenforceable", "not_supported", "runtime_missing", "above_ceiling"),
    *("runtime_failed", "launch_failed", "overloaded", "confinement_failed", "sandbox_lost", "spawner_lost"),
)
APPROVALS: dict[type[Event], str] = {
    ApprovalRequested: "requested",
    ApprovalGranted: "granted",
    ApprovalDenied: "denied",
    ApprovalExpired: "expired",
    ApprovalConsumed: "consumed",
}
BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

_FAILURES, _REFUSALS, _END_REASONS = frozenset(FAILURES), frozenset(REFUSALS), frozenset(END_REASONS)


class Durations:
    """How many took up to each of BOUNDS, in seconds."""

    def __init__(self) -> None:
        self.total_seconds = 0.0
        self._counts = [0] * (len(BOUNDS) + 1)

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self.total_seconds += seconds

    def cumulative(self) -> Iterator[tuple[str, int]]:
        """As Prometheus writes a histogram: each bound, and how many took no longer."""
        return zip((*map(str, BOUNDS), "+Inf"), accumulate(self._counts), strict=True)


class Tally:
    """Since the daemon started."""

    def __init__(self) -> None:
        self.decisions: Counter[tuple[str, str, bool]] = Counter()  # action, verdict, remembered
        self.failures: Counter[str] = Counter()
        self.asked = Durations()
        self.started = 0
        self.ended: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.approvals: Counter[str] = Counter()
        self._of: dict[type[Event], Callable[[Any], None]] = {
            PolicyDecided: lambda event: self._decided(event.action, event),
            ProcessExecDecided: lambda event: self._decided("process.exec", event),
            ExecutionStarted: self._started,
            ExecutionEnded: self._ended,
            ExecutionRefused: self._refused,
            **dict.fromkeys(APPROVALS, self._approval),
        }

    def count(self, event: Event) -> None:
        if (counted := self._of.get(type(event))) is not None:
            counted(event)

    def _decided(self, action: str, event: PolicyDecided | ProcessExecDecided) -> None:
        verdict = event.verdict if event.verdict in VERDICTS else OTHER
        count = event.count if isinstance(event, ProcessExecDecided) else 1
        self.decisions[action if action in ACTIONS else OTHER, verdict, event.remembered] += count
        if not _FAILURES.isdisjoint(event.reason_codes):
            self.failures.update(_FAILURES.intersection(event.reason_codes))

    def _started(self, _event: ExecutionStarted) -> None:
        self.started += 1

    def _ended(self, event: ExecutionEnded) -> None:
        self.ended[event.end_reason if event.end_reason in _END_REASONS else OTHER] += 1

    def _refused(self, event: ExecutionRefused) -> None:
        self.refused[event.reason if event.reason in _REFUSALS else OTHER] += event.count

    def _approval(self, event: Event) -> None:
        self.approvals[APPROVALS[type(event)]] += 1
