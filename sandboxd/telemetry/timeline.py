"""How long each step of one execution took, noted on its way: names and moments, and nothing else until it is over.

On the way of every execution, so it only notes; never holds a command line, a source or a value of the environment.
Made by `exporter` where traces are configured, called by `execution`, turned into spans by `spans`.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from sandboxd.model import Agent, Decision, EndReason, ExecuteRequest, Outcome, Verdict
from sandboxd.redaction.redaction import Redaction
from sandboxd.trace_context import Headers, TraceContext, headers, traceparent

Value = str | int | bool


class Step(StrEnum):
    """The steps of the line that have a span. One that is not taken has none; one that is taken again has another."""

    ADMISSION = "admission"
    PROFILE = "profile"
    ANALYSIS = "analysis"
    DECISION = "decision"
    APPROVAL = "approval"  # it waits for people, and holds no slot
    ACQUIRE = "acquire"
    RUN = "run"


@dataclass(slots=True)
class Mark:
    """One step. Moments are of the monotonic clock, in nanoseconds."""

    step: Step
    span_id: str
    began: int
    ended: int = 0
    attributes: tuple[tuple[str, Value], ...] = ()


@dataclass(frozen=True, slots=True)
class Ending:
    """How it ended. `refused` is the reason code of an error before anything ran; `redaction` is of its texts."""

    request: ExecuteRequest
    tenant: str
    sandbox_id: str
    revision: str
    outcome: Outcome
    refused: str
    redaction: Redaction | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is told of it, already redacted. `error_type` is empty if all went well."""

    agent: Agent
    profile: str
    tenant: str
    execution_id: str
    sandbox_id: str
    revision: str
    verdict: str
    end_reason: str
    exit_code: int | None
    error_type: str


class Trace(Protocol):
    """What an execution tells as it goes. `begin` ends the step before."""

    def begin(self, step: Step) -> None: ...

    def decided(self, decision: Decision, engine: str) -> None:
        """The step under way ended so."""

    def stop(self) -> None:
        """The last step is over, whatever is still tidied up."""

    def close(self, ending: Ending) -> None:
        """Nothing of it is left."""

    @property
    def headers(self) -> Headers:
        """For whoever is asked on its behalf now."""

    @property
    def environment(self) -> Headers:
        """Variables for the program."""


class Untraced:
    """Nothing is noted. What the caller sent is handed on as it came: there is no span of ours in between."""

    __slots__ = ("_context",)

    def __init__(self, context: TraceContext) -> None:
        self._context = context

    def begin(self, step: Step) -> None:
        pass

    def decided(self, decision: Decision, engine: str) -> None:
        pass

    def stop(self) -> None:
        pass

    def close(self, ending: Ending) -> None:
        pass

    @property
    def headers(self) -> Headers:
        context = self._context
        return headers(context, context.parent_id or span_id(), sampled=context.sampled)

    @property
    def environment(self) -> Headers:
        context = self._context
        if not context.parent_id:
            return ()
        return (("TRACEPARENT", traceparent(context.trace_id, context.parent_id, sampled=context.sampled)),)


class Timeline:
    """One that becomes spans. `done` is given it when it is over."""

    __slots__ = ("_done", "_run_id", "began", "began_unix", "context", "ended", "facts", "marks", "root_id", "verdict")

    def __init__(self, context: TraceContext, done: Callable[["Timeline"], None]) -> None:
        self.context = context
        self.root_id = span_id()
        self.began_unix = time.time_ns()
        self.began = time.monotonic_ns()
        self.ended = 0
        self.marks: list[Mark] = []
        self.verdict = ""
        self.facts: Facts
        self._run_id = span_id()  # known before it runs: its program is told
        self._done = done

    def begin(self, step: Step) -> None:
        now = time.monotonic_ns()
        if self.marks:
            self.marks[-1].ended = now
        self.marks.append(Mark(step, self._run_id if step is Step.RUN else span_id(), now))

    def decided(self, decision: Decision, engine: str) -> None:
        self.verdict = str(decision.verdict)
        self.marks[-1].attributes = (
            ("opa.verdict", self.verdict),
            ("opa.engine", engine),
            ("opa.revision", decision.revision),
            ("opa.remembered", decision.remembered),
        )

    def stop(self) -> None:
        if not self.ended:
            self.ended = time.monotonic_ns()

    def close(self, ending: Ending) -> None:
        self.stop()
        self.facts = _facts(ending, self.verdict)
        if self.marks:
            self.marks[-1].ended = self.ended
        self._done(self)

    @property
    def headers(self) -> Headers:
        return headers(self.context, self.marks[-1].span_id if self.marks else self.root_id, sampled=True)

    @property
    def environment(self) -> Headers:
        return (("TRACEPARENT", traceparent(self.context.trace_id, self._run_id, sampled=True)),)


def _facts(ending: Ending, verdict: str) -> Facts:
    """A request is large, so of it only this is kept."""
    outcome, agent, profile = ending.outcome, ending.request.agent, ending.request.profile
    if (redaction := ending.redaction) is not None:
        agent = Agent(*map(redaction.text, (agent.name, agent.session_id, agent.tool_name, agent.tool_use_id)))
        profile = redaction.text(profile)
    denied = outcome.end_reason is EndReason.POLICY_DENIED
    reason = "" if ending.refused else str(outcome.end_reason)
    return Facts(
        agent=agent,
        profile=profile,
        tenant=ending.tenant,
        execution_id=outcome.execution_id,
        sandbox_id=ending.sandbox_id,
        revision=ending.revision,
        verdict=verdict or (str(Verdict.DENY) if denied else ""),
        end_reason=reason,
        exit_code=outcome.exit_code,
        error_type=ending.refused or ("" if outcome.end_reason is EndReason.EXITED else reason),
    )


def span_id() -> str:
    return f"{random.getrandbits(64) or 1:016x}"
