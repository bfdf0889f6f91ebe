"""What an approval makes of a decision that asked for one: the same without that demand, or a deny that says why.

Never loosens: of the decision nothing goes but the demand itself. Pure; used by `office` and `gate`.
"""

from dataclasses import replace
from datetime import UTC, datetime

from sandboxd.approval.case import Case, expires_at
from sandboxd.model import Decision, Reason, Verdict

APPROVAL_REQUIRED = "approval_required"  # the reason code of a deny that an approval would turn


def granted(decision: Decision, case: Case) -> Decision:
    """Its other obligations stay, and it is never taken again for an equal question."""
    return replace(
        decision,
        verdict=Verdict.ALLOW if decision.verdict is Verdict.ESCALATE else decision.verdict,
        obligations=replace(decision.obligations, approval=None),
        ttl_seconds=0.0,
        approval_id=case.approval_id,
    )


def pending(decision: Decision, case: Case) -> Decision:
    until = datetime.fromtimestamp(expires_at(case), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return _refused(
        decision,
        APPROVAL_REQUIRED,
        f"approval {case.approval_id} is pending until {until}; once it is granted, repeat the identical request",
        f"This needs approval {case.approval_id}, which is pending. "
        "Once a person has granted it, the identical request may be repeated.",
        case,
    )


def denied(decision: Decision, case: Case) -> Decision:
    comment = case.votes[-1].comment
    said = f": {comment}" if comment else ""
    return _refused(
        decision,
        "approval_denied",
        f"approval {case.approval_id} was denied by {case.votes[-1].approver}{said}",
        f"A person denied this{said or '.'}",
        case,
    )


def flooded(decision: Decision, why: str) -> Decision:
    message = "Too many approvals were asked for. Wait for those that are pending before asking for more."
    return _refused(decision, "approval_flood", why, message)


def unavailable(decision: Decision, why: str) -> Decision:
    return _refused(decision, "approval_unavailable", why, "This needs an approval, and none can be given now.")


def _refused(decision: Decision, code: str, message: str, for_agent: str, case: Case | None = None) -> Decision:
    return replace(
        decision,
        verdict=Verdict.DENY,
        reasons=(Reason(code, message), *decision.reasons),
        message_for_agent=for_agent,
        ttl_seconds=0.0,
        approval_id=case.approval_id if case else "",
    )
