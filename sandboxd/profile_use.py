"""The question whether a caller may use a profile at all: before policy is asked about what is to run under it.

An answer that is remembered and plain is not on record again: the first one is, and what runs tells its revision. Never
lets anything through whose first answer could not be recorded. Called by `execution`.
"""

from collections.abc import Container

from sandboxd.action import ProfileUse
from sandboxd.errors import AuditUnavailable
from sandboxd.gate import Gate, Subject, on_record_before, require_allowed
from sandboxd.model import Caller, Decision, ExecuteRequest, Verdict
from sandboxd.profile.resolve import ResolvedProfile
from sandboxd.span import Span


async def use_profile(
    gate: Gate, span: Span, caller: Caller, subject: Subject, action: ProfileUse, redactable: Container[str] = ()
) -> Decision:
    """The decision, which lets it be used; `PolicyDenied` where it does not. `redactable` as for `require_allowed`."""
    engine = gate.engine.name
    decision = await gate.decide(action, caller, subject)
    if on_record_before(action, decision):
        span.policy_revision = decision.revision
    else:
        try:
            if decision.verdict is Verdict.ALLOW and decision.ttl_seconds > 0:
                await span.release()  # it may be taken again without a record, so it is on record whatever comes
            await span.decided(action.type, decision, engine)
        except AuditUnavailable:
            gate.forget()
            raise
    require_allowed(decision, redactable)
    return decision


def asked_of(request: ExecuteRequest, profile: ResolvedProfile, named: ResolvedProfile) -> ProfileUse:
    """`profile` is `named` with the request's overrides."""
    overrides = {name for name, _ in request.limits}
    if profile.network != named.network:
        overrides.add("network")
    if profile.isolation != named.isolation:
        overrides.add("isolation")
    return ProfileUse(profile.isolation, profile.network, tuple(sorted(overrides)))
