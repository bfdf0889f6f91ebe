"""Asks a second policy what the first one was asked, and tells where the two differ. Decides nothing.

Never on the way of a request: what does not fit its queue is dropped and counted, and whatever is wrong with the second
policy is told and changes no decision. Given every fresh decision by `gate`; made by `rollout`.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

from sandboxd.errors import AuditUnavailable
from sandboxd.event import Event, PolicyShadowDiffered, PolicyShadowFailed
from sandboxd.model import Caller, Decision
from sandboxd.policy.base import PolicyEngine
from sandboxd.policy.document import PolicyInput

log = logging.getLogger(__name__)

# What the second policy did not say: its engine did.
MAX_WAITING_BYTES = 16 * 1024 * 1024  # of inputs: a queue of large ones is full before its places are
_NO_ANSWER = frozenset({"policy_unavailable", "policy_timeout"})


@dataclass(slots=True)
class Counts:
    """Of decisions: compared and how many of these differed; not compared because it failed, or had no place left."""

    compared: int = 0
    differed: int = 0
    failed: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class _Asked:
    document: PolicyInput
    action: str
    caller: Caller
    sandbox_id: str
    decision: Decision


class Shadow:
    """`judge` asks an engine as the gate does, within a deadline; `record` puts an event on record."""

    def __init__(
        self,
        engine: PolicyEngine,
        judge: Callable[[PolicyEngine, PolicyInput], Awaitable[Decision]],
        record: Callable[[Event], Awaitable[int]],
        queue: int,
    ) -> None:
        self.counts = Counts()
        self._engine = engine
        self._judge = judge
        self._record = record
        self._queue: asyncio.Queue[_Asked] = asyncio.Queue(queue)
        self._waiting_bytes = 0
        self._failing = False
        self._task = asyncio.create_task(self._run())

    @property
    def revision(self) -> str:
        return self._engine.revision

    def offer(self, document: PolicyInput, action: str, caller: Caller, sandbox_id: str, decision: Decision) -> None:
        """Returns at once, whatever is the matter with the second policy."""
        size = len(document.document)
        if self._queue.full() or self._waiting_bytes + size > MAX_WAITING_BYTES:
            if self.counts.dropped == 0:
                log.warning("the shadow policy is too slow: decisions go uncompared", extra={"revision": self.revision})
            self.counts.dropped += 1
            return
        self._waiting_bytes += size
        self._queue.put_nowait(_Asked(document, action, caller, sandbox_id, decision))

    async def settled(self) -> None:
        """Until what was offered by now is compared."""
        await self._queue.join()

    async def close(self) -> None:
        """Lets go of what is still to be compared."""
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._engine.close()

    async def _run(self) -> None:
        while True:
            asked = await self._queue.get()
            self._waiting_bytes -= len(asked.document.document)
            try:
                await self._compare(asked)
            except AuditUnavailable as error:
                log.error("a difference of the shadow policy is not on record", extra={"error": str(error)})
            finally:
                self._queue.task_done()

    async def _compare(self, asked: _Asked) -> None:
        answer = await self._judge(self._engine, asked.document)
        if _NO_ANSWER & {reason.code for reason in answer.reasons}:
            await self._failed(answer)
            return
        self._failing = False
        self.counts.compared += 1
        if _essence(answer) == _essence(asked.decision):
            return
        self.counts.differed += 1
        decision, caller = asked.decision, asked.caller
        await self._record(
            PolicyShadowDiffered(
                caller.tenant,
                caller.subject,
                "",
                asked.sandbox_id,
                decision.revision,
                "",
                action=asked.action,
                input_sha256=hashlib.sha256(asked.document.document).hexdigest(),
                verdict=decision.verdict,
                reason_codes=_codes(decision),
                obligations=_obligations(decision),
                shadow_verdict=answer.verdict,
                shadow_reason_codes=_codes(answer),
                shadow_obligations=_obligations(answer),
                shadow_revision=self.revision,
            )
        )

    async def _failed(self, answer: Decision) -> None:
        """Told once, until it answers again."""
        self.counts.failed += 1
        if self._failing:
            return
        self._failing = True
        why = "; ".join(reason.message for reason in answer.reasons)
        log.error("the shadow policy does not answer", extra={"revision": self.revision, "error": why})
        await self._record(PolicyShadowFailed("", "", "", "", "", "", self.revision, why))


def _essence(decision: Decision) -> tuple[object, ...]:
    """What of a decision changes what happens, or what its caller is told the reason is."""
    return decision.verdict, decision.obligations, sorted(_codes(decision))


def _codes(decision: Decision) -> tuple[str, ...]:
    return tuple(reason.code for reason in decision.reasons)


def _obligations(decision: Decision) -> str:
    return json.dumps(asdict(decision.obligations), sort_keys=True)
