"""Whether this node takes work now, and if not why, in a closed set of words: one answer for every way of asking.

Reads what the parts know of themselves; decides nothing, and tells nothing of tenants. A policy engine that failed is
tried when somebody asks, or a node that gets no work would never find out that it is back. Made by `daemon`; asked by
`metrics.endpoint` and by `rpc.health`.
"""

import asyncio
from collections.abc import Coroutine
from enum import StrEnum
from typing import Protocol

from sandboxd.model import Decision
from sandboxd.policy.base import PolicyEngine
from sandboxd.policy.document import PolicyInput
from sandboxd.policy.sample import samples


class Reason(StrEnum):
    DRAINING = "draining"
    JOURNAL = "journal_unavailable"  # the last record could not be written
    POLICY = "policy_unavailable"  # its engine does not answer, so everything is denied


class Gatekeeper(Protocol):
    """What this needs of `admission.Admission`."""

    @property
    def draining(self) -> bool: ...


class Deciding(Protocol):
    """What this needs of `gate.Gate`."""

    @property
    def engine(self) -> PolicyEngine: ...

    def judge(self, engine: PolicyEngine, document: PolicyInput) -> Coroutine[None, None, Decision]: ...


class Journal(Protocol):
    """What this needs of `audit.recorder.Recorder`."""

    def available(self) -> bool: ...


class Readiness:
    """Belongs to one event loop."""

    def __init__(self, admission: Gatekeeper, journal: Journal, gate: Deciding) -> None:
        self._admission = admission
        self._journal = journal
        self._gate = gate
        self._trial: asyncio.Task[object] | None = None

    def reasons(self) -> tuple[Reason, ...]:
        """Why no work is taken; none: it is."""
        answering = self._gate.engine.answering
        if not answering:
            self._try()
        found = (
            (Reason.DRAINING, self._admission.draining),
            (Reason.JOURNAL, not self._journal.available()),
            (Reason.POLICY, not answering),
        )
        return tuple(reason for reason, holds in found if holds)

    async def close(self) -> None:
        if self._trial is not None:
            self._trial.cancel()
            await asyncio.wait({self._trial})

    def _try(self) -> None:
        """A server's breaker lets one question through once its pause is over, and none before."""
        if self._trial is None or self._trial.done():
            asked = self._gate.judge(self._gate.engine, samples()[0].question)
            self._trial = asyncio.get_running_loop().create_task(asked)
