"""Makes of a decision that leaves an action to people the question that is laid before them. Pure; called by `gate`."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from sandboxd.action import Action, ExecutionStart
from sandboxd.approval.binding import Content, binding
from sandboxd.approval.case import MAX_REASON_CHARS, MAX_REASONS, MAX_SHOWN_BYTES, MAX_TTL_SECONDS, Asked
from sandboxd.model import Approval, Caller, Decision, Verdict
from sandboxd.policy.document import PolicyInput, ProfileFacts, SandboxFacts

ANY_OPERATOR = Approval(ttl_seconds=900.0, approvers=())  # where a policy escalates and says no more


class About(Protocol):
    """What is needed of `gate.Subject`."""

    @property
    def profile(self) -> ProfileFacts: ...
    @property
    def sandbox(self) -> SandboxFacts: ...
    @property
    def content(self) -> Callable[[], Content]: ...
    @property
    def execution_id(self) -> str: ...
    @property
    def trace_id(self) -> str: ...


def wanted(decision: Decision) -> bool:
    """Whether it leaves the action to people."""
    return decision.verdict is Verdict.ESCALATE or (
        decision.obligations.approval is not None and decision.verdict is not Verdict.DENY
    )


def asked(decision: Decision, action: Action, caller: Caller, about: About, document: PolicyInput) -> Asked:
    rule = decision.obligations.approval or ANY_OPERATOR
    content = about.content()
    # What comes later in an execution is bound to its contents too, but it is the later action that is to be judged.
    shown = content.shown if isinstance(action, ExecutionStart) and content.shown else document.document
    return Asked(
        binding=binding(document.key, content, decision.revision, rule),
        tenant=caller.tenant,
        requester=caller.subject,
        method=caller.method,
        action_type=action.type,
        revision=decision.revision,
        rule=replace(rule, ttl_seconds=min(rule.ttl_seconds, MAX_TTL_SECONDS)),
        reasons=tuple(
            f"{reason.code}: {reason.message}"[:MAX_REASON_CHARS] for reason in decision.reasons[:MAX_REASONS]
        ),
        profile=about.profile,
        runtime=about.sandbox.runtime,
        sandbox_id=about.sandbox.id,
        execution_id=about.execution_id,
        trace_id=about.trace_id,
        shown=shown[:MAX_SHOWN_BYTES].decode(errors="ignore"),
        shown_bytes=len(shown),
        shown_sha256=hashlib.sha256(shown).hexdigest(),
    )
