"""How a policy comes into force on this node: loaded, proved, no older than the last one; and what is tried beside it.

Never lets go of the policy in force for one that is wrong, and never lets the shadow near a decision. Used by `daemon`;
what it knows is shown by `rpc.policy`.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from sandboxd import plugin
from sandboxd.errors import AuditUnavailable, SandboxdError
from sandboxd.event import Event, PolicyReloaded, PolicyReloadFailed, PolicyShadowFailed
from sandboxd.gate import Gate
from sandboxd.model import Decision
from sandboxd.policy import rego
from sandboxd.policy.base import PolicyEngine
from sandboxd.policy.bundle_versions import Versions
from sandboxd.policy.document import PolicyInput
from sandboxd.policy.rego_rules import Rule, holding
from sandboxd.settings.policy import Policy
from sandboxd.shadow import Counts, Shadow

log = logging.getLogger(__name__)

_NODE = ("", "", "", "")  # an event that concerns no execution


@dataclass(frozen=True, slots=True)
class ShadowFacts:
    """`error` says why there is none although one is configured; then it has no revision."""

    revision: str
    counts: Counts
    error: str


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """What decides here. `files` has SHA-256 by path in the bundle; `since` is Unix time, as `last_error_at`."""

    engine: str
    revision: str
    version: int
    files: tuple[tuple[str, str], ...]
    since: float
    last_error: str
    last_error_at: float
    shadow: ShadowFacts | None
    breaker: str = ""  # as of `policy.opa_breaker.State`
    breaker_trips: int = 0


class Rollout:
    """`load` gives the first engine, for a gate; `attach` begins with it; `reload` and `replace` are one change."""

    def __init__(
        self,
        settings: Policy,
        state_dir: Path,
        record: Callable[[Event], Awaitable[int]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._versions = Versions(state_dir)
        self._record = record
        self._clock = clock
        self._shadow: Shadow | None = None
        self._shadow_error = ""
        self._last_error, self._last_error_at = "", 0.0
        self._since = 0.0

    async def load(self) -> PolicyEngine:
        """The configured engine, once it has answered its samples, and its bundle is no older than one before it."""
        engine: PolicyEngine = await plugin.implementation("policy", self._settings.engine).create(self._settings)
        try:
            if isinstance(engine, rego.RegoEngine) and engine.bundle.release is not None:
                self._versions.admit(engine.bundle.release)
        except BaseException:
            await engine.close()
            raise
        return engine

    async def attach(self, gate: Gate) -> None:
        """The engine of `gate` is in force from now on, and the shadow beside it."""
        self._gate = gate
        self._since = self._clock()
        await self._begin_shadow()

    async def reload(self) -> PolicyEngine:
        """As `load`; what is wrong is told and on record, and changes nothing."""
        try:
            return await self.load()
        except (SandboxdError, OSError) as error:
            self._last_error, self._last_error_at = str(error), self._clock()
            reason = error.reason if isinstance(error, SandboxdError) else "policy_unreadable"
            revision = self._gate.engine.revision
            log.error("the policy cannot be taken, the last good one decides on", extra={"error": str(error)})
            await self._tell(PolicyReloadFailed(*_NODE, revision, "", reason, str(error)))
            raise

    async def replace(self, engine: PolicyEngine) -> PolicyEngine:
        """It decides from now on, with a new shadow beside it; the former one, for the caller to close."""
        former = self._gate.replace(engine)
        self._since, self._last_error, self._last_error_at = self._clock(), "", 0.0
        version = _version(engine)
        log.info("policy reloaded", extra={"revision": engine.revision, "former_revision": former.revision})
        await self._tell(PolicyReloaded(*_NODE, engine.revision, "", engine.name, former.revision, version))
        await self._end_shadow()
        await self._begin_shadow()
        return former

    def facts(self) -> PolicyFacts:
        engine, shadow = self._gate.engine, None
        if self._settings.shadow is not None:
            running = self._shadow
            shadow = ShadowFacts(
                "" if running is None else running.revision,
                Counts() if running is None else running.counts,
                self._shadow_error,
            )
        return PolicyFacts(
            engine=engine.name,
            revision=engine.revision,
            version=_version(engine),
            files=engine.bundle.digests if isinstance(engine, rego.RegoEngine) else (),
            since=self._since,
            last_error=self._last_error,
            last_error_at=self._last_error_at,
            shadow=shadow,
            breaker=str(getattr(engine, "breaker", "")),  # of an engine that asks a server
            breaker_trips=getattr(engine, "breaker_trips", 0),
        )

    async def explain(self, document: bytes) -> tuple[Decision, tuple[Rule, ...]]:
        """What the policy in force decides for that input, and which of its rules hold; nothing comes of it."""
        engine = self._gate.engine
        decision = await self._gate.judge(engine, PolicyInput(document))
        if not isinstance(engine, rego.RegoEngine):
            return decision, ()
        bundle = engine.bundle
        return decision, await asyncio.to_thread(holding, bundle.modules, bundle.data_json, document)

    async def close(self) -> None:
        """The shadow; the engine is the gate's."""
        await self._end_shadow()

    async def _begin_shadow(self) -> None:
        configured = self._settings.shadow
        if configured is None:
            return
        # It may be of any release: it is tried, not in force.
        settings = self._settings.model_copy(
            update={"engine": "rego", "opa": None, "paths": configured.paths, "shadow": None}
        )
        try:
            engine = await rego.create(settings)
        except (SandboxdError, OSError) as error:
            self._shadow_error = str(error)
            log.error("the shadow policy cannot be loaded, nothing is compared", extra={"error": str(error)})
            await self._tell(PolicyShadowFailed(*_NODE, "", "", "", str(error)))
            return
        self._shadow_error = ""
        self._shadow = Shadow(engine, self._gate.judge, self._record, configured.queue)
        self._gate.observe(self._shadow.offer)

    async def _end_shadow(self) -> None:
        self._gate.observe(None)
        if self._shadow is not None:
            shadow, self._shadow = self._shadow, None
            await shadow.close()

    async def _tell(self, event: Event) -> None:
        try:
            await self._record(event)
        except AuditUnavailable as error:
            log.error("a change of policy is not on record", extra={"error": str(error)})


def _version(engine: PolicyEngine) -> int:
    release = engine.bundle.release if isinstance(engine, rego.RegoEngine) else None
    return 0 if release is None else release.version
