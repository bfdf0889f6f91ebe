"""What a call can end in, as exceptions of the SDK's own; the daemon's classes are never imported.

SandboxdError
├── InvalidRequest        INVALID_ARGUMENT      the request is malformed, or its profile or limits are not acceptable
├── NotFound              NOT_FOUND             no such execution or profile, or not yours
├── Denied                PERMISSION_DENIED
│   ├── PolicyDenied                            policy (or its absence) says no
│   └── CallerRefused                           this peer may not call at all
├── Unenforceable         FAILED_PRECONDITION   a required guarantee cannot be enforced on this node
├── Overloaded            RESOURCE_EXHAUSTED    quota, rate, slots, or a message above its cap
├── Unavailable           UNAVAILABLE
│   ├── Unreachable                             nobody answers at the address
│   ├── ConnectionLost                          the daemon went away in the middle of a call
│   ├── Draining                                the node is going down
│   └── AuditUnavailable                        the journal cannot be written, so nothing runs
├── DeadlineExceeded      DEADLINE_EXCEEDED     `timeout_seconds` of the call passed; the execution was killed
├── CallCancelled         CANCELLED             the call was cancelled; the execution was killed
├── RuntimeFailed         INTERNAL and others   launch or supervision broke; details are in the node's log
└── VersionMismatch       -                     client and daemon differ in their major version

`reason` is the stable code of `google.rpc.ErrorInfo`; `message_for_agent` is short and safe to show to a model.
"""

from typing import ClassVar


class SandboxdError(Exception):
    """Base of all errors that this package raises for what the daemon, or its absence, answered."""

    default_reason: ClassVar[str] = "internal"

    def __init__(self, message: str, *, reason: str = "", message_for_agent: str = "", execution_id: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.message_for_agent = message_for_agent
        self.execution_id = execution_id


class InvalidRequest(SandboxdError):
    default_reason = "invalid_request"


class NotFound(SandboxdError):
    default_reason = "not_found"


class Denied(SandboxdError):
    default_reason = "denied"


class PolicyDenied(Denied):
    """`approval_id` is of the approval that the action waits for or was refused by, empty where there is none.

    With reason `approval_required` the identical request may be repeated once that is granted.
    """

    default_reason = "policy_denied"

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        message_for_agent: str = "",
        execution_id: str = "",
        approval_id: str = "",
    ) -> None:
        super().__init__(message, reason=reason, message_for_agent=message_for_agent, execution_id=execution_id)
        self.approval_id = approval_id


class CallerRefused(Denied):
    default_reason = "caller_refused"


class Unenforceable(SandboxdError):
    default_reason = "unenforceable"


class Overloaded(SandboxdError):
    default_reason = "overloaded"


class Unavailable(SandboxdError):
    default_reason = "unavailable"


class Unreachable(Unavailable):
    default_reason = "unreachable"


class ConnectionLost(Unavailable):
    default_reason = "connection_lost"


class Draining(Unavailable):
    default_reason = "draining"


class AuditUnavailable(Unavailable):
    default_reason = "audit_unavailable"


class DeadlineExceeded(SandboxdError):
    default_reason = "deadline_exceeded"


class CallCancelled(SandboxdError):
    default_reason = "cancelled"


class RuntimeFailed(SandboxdError):
    default_reason = "runtime_failed"


class VersionMismatch(SandboxdError):
    default_reason = "version_mismatch"
