"""The remote engine: asks an OPA server, which has the policy. Found by name through `plugin`.

Never fails open: whatever is wrong with the server, the way to it or its answer is a deny with its own reason code. A
server that keeps failing is left alone for a while by a circuit breaker, and everything is denied meanwhile.
"""

import asyncio
import logging
import time

from sandboxd.errors import ConfigInvalid, PolicyInvalid, RuntimeFailed
from sandboxd.model import Decision
from sandboxd.policy.base import PolicyEngine, refusal
from sandboxd.policy.document import MAX_DOCUMENT_BYTES, PolicyInput
from sandboxd.policy.opa_answer import Heard, decode
from sandboxd.policy.opa_breaker import Breaker, State
from sandboxd.policy.opa_client import NoReply, OpaClient
from sandboxd.policy.sample import samples
from sandboxd.settings.policy import Opa, Policy

log = logging.getLogger(__name__)


class OpaEngine:
    """Bound to the running event loop. Made by `create`. `revision` is the one of the answer to the latest question."""

    name = "opa"

    def __init__(self, settings: Opa, deadline_seconds: float) -> None:
        self.revision = settings.revision or "opa-unknown"
        self._settings = settings
        self._deadline_seconds = deadline_seconds
        self._client = OpaClient(settings)
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_seconds, time.monotonic, self._changed)
        self._asked = self._newest = 0  # questions: how many, and the latest of those that are answered
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    @property
    def breaker(self) -> State:
        return self._breaker.state

    @property
    def breaker_trips(self) -> int:
        return self._breaker.trips

    @property
    def repeatable(self) -> bool:
        """What a remote policy reads cannot be seen from here, so the operator has to say that it reads no moment."""
        return self._settings.cacheable and self.answering

    @property
    def answering(self) -> bool:
        return self.breaker is State.CLOSED and not self._closed

    async def decide(self, document: PolicyInput) -> Decision:
        if self._closed:
            return self._refusal("policy_unavailable", "the policy engine is closed")
        if len(document.document) > MAX_DOCUMENT_BYTES:
            return self._refusal("policy_unavailable", f"the input is over {MAX_DOCUMENT_BYTES} bytes")
        ticket = self._breaker.admit()
        if ticket is None:
            return self._refusal("policy_unavailable", "the OPA server kept failing, and is not asked for a while")
        self._enter()
        heard = None
        try:
            answer = await self.ask(document)
            heard = answer.by_server
        finally:
            self._breaker.settle(ticket, heard=heard)
            self._leave()
        return answer.decision

    async def ask(self, document: PolicyInput) -> Heard:
        """As `decide`, with no breaker in between."""
        self._asked += 1
        number = self._asked
        try:
            async with asyncio.timeout(self._deadline_seconds):
                reply = await self._client.ask(document.document, document.trace)
        except TimeoutError:
            message = f"the OPA server did not answer within {self._deadline_seconds} seconds"
            return Heard(self._refusal("policy_unavailable", message), False)
        except NoReply as error:
            return Heard(self._refusal("policy_unavailable", f"the OPA server does not answer: {error}"), error.heard)
        answer = decode(reply, self._settings.revision, self.revision)
        if number < self._newest:
            return answer  # overtaken: the server may have had another policy since
        self._newest = number
        if answer.decision.revision != self.revision:
            log.info("policy revision", extra={"former": self.revision, "revision": answer.decision.revision})
            self.revision = answer.decision.revision
        return answer

    async def close(self) -> None:
        self._closed = True
        await self._idle.wait()
        await self._client.close()

    def _refusal(self, code: str, message: str) -> Decision:
        return refusal(code, message, self.revision)

    def _enter(self) -> None:
        self._under_way += 1
        self._idle.clear()

    def _leave(self) -> None:
        self._under_way -= 1
        if self._under_way == 0:
            self._idle.set()

    def _changed(self, state: State) -> None:
        told = {"breaker": state, "url": self._settings.url, "pause_seconds": self._settings.breaker_seconds}
        match state:
            case State.OPEN:
                log.error("OPA keeps failing: every action is denied for a while", extra=told)
            case State.HALF_OPEN:
                log.info("OPA is tried again with one question", extra=told)
            case State.CLOSED:
                log.warning("OPA answers again", extra=told)


async def create(settings: Policy) -> PolicyEngine:
    """Once the server has answered the samples. RuntimeFailed if it is not there, PolicyInvalid if its policy is wrong.

    ConfigInvalid for files that cannot be used.
    """
    if settings.opa is None:
        raise ConfigInvalid("engine 'opa' needs a server; set policy.opa: {url: http://127.0.0.1:8181}")
    engine = OpaEngine(settings.opa, settings.deadline_seconds)
    try:
        await _prove(engine, settings.opa)
    except BaseException:
        await engine.close()
        raise
    if not settings.opa.private:
        log.warning(
            "decisions come over plain http: whoever is on the way can change them; use https",
            extra={"url": settings.opa.url},
        )
    return engine


async def _prove(engine: OpaEngine, settings: Opa) -> None:
    for sample in samples():
        answer = await engine.ask(sample.question)
        if not answer.by_server:
            raise RuntimeFailed(
                f"policy.opa.url {settings.url!r}: {answer.decision.reasons[0].message}; start OPA there with "
                "`opa run --server`, or correct policy.opa",
                reason="policy_engine_failed",
            )
        if problem := sample.objection(answer.decision):
            raise PolicyInvalid(
                f"policy.opa.url {settings.url!r}: {problem}; load a policy there that defines "
                f"data.{settings.decision.replace('/', '.')} for every input, or name yours in policy.opa.decision"
            )
