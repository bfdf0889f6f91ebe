"""The straight line of one vote on an approval: see it, ask policy, record, count it.

Each vote is an action of its own (`approval.decide`), decided by policy and on record before it counts; what the daemon
enforces whatever policy says, `approval.desk` does. Called by `rpc`; composed in `daemon`.
"""

from sandboxd.action import ApprovalDecide
from sandboxd.approval.case import Case, Update
from sandboxd.approval.office import Approvals
from sandboxd.errors import InvalidRequest, NotFound, PolicyDenied
from sandboxd.event import ApprovalRefused
from sandboxd.gate import Gate, Subject, require_allowed
from sandboxd.model import Caller
from sandboxd.policy.document import SandboxFacts
from sandboxd.span import EventLog, Span


class Voting:
    def __init__(self, gate: Gate, approvals: Approvals, log: EventLog) -> None:
        self._gate = gate
        self._approvals = approvals
        self._log = log

    async def vote(self, approval_id: str, caller: Caller, trace_id: str, *, approve: bool, comment: str) -> Update:
        """The case with that vote counted; an error of `errors` if it does not count."""
        case = self._approvals.case(approval_id, caller)
        asked = case.asked
        action = ApprovalDecide(
            approval_id=approval_id,
            approve=approve,
            action_type=asked.action_type,
            action_sha256=asked.binding,
            requester=asked.requester,
        )
        subject = Subject(asked.profile, SandboxFacts(asked.sandbox_id, asked.runtime), trace_id=trace_id)
        engine = self._gate.engine.name
        decision = await self._gate.decide(action, caller, subject)
        await Span(self._log, caller, asked.execution_id, asked.sandbox_id, trace_id).decided(
            action.type, decision, engine
        )
        require_allowed(decision)
        try:
            return await self._approvals.vote(approval_id, caller, approve=approve, comment=comment)
        except (InvalidRequest, NotFound, PolicyDenied) as refusal:
            await self._refused(case, caller, trace_id, approve=approve, reason=refusal.reason)
            raise

    async def _refused(self, case: Case, caller: Caller, trace_id: str, *, approve: bool, reason: str) -> None:
        asked = case.asked
        await self._log.record(
            ApprovalRefused(
                *(caller.tenant, caller.subject, asked.execution_id, asked.sandbox_id, asked.revision, trace_id),
                approval_id=case.approval_id,
                action=asked.action_type,
                requester=asked.requester,
                approve=approve,
                reason=reason,
            )
        )
