"""The one error tree. Each leaf has a reason code, a gRPC status name and a sentence that a person can act on.

SandboxdError
├── InvalidRequest        INVALID_ARGUMENT      the request is malformed
├── NotFound              NOT_FOUND             no such thing, or not yours
├── PolicyDenied          PERMISSION_DENIED     policy (or its absence) says no
├── CallerRefused         PERMISSION_DENIED     this peer may not call at all
├── Unenforceable         FAILED_PRECONDITION   a required guarantee cannot be enforced, or a verb the runtime lacks
├── Overloaded            RESOURCE_EXHAUSTED    quota, rate, slots
├── Draining              UNAVAILABLE           the node is going down
├── ApprovalUnavailable   UNAVAILABLE           approvals cannot be kept, so none is given
├── AuditUnavailable      UNAVAILABLE           the journal cannot be written, so nothing runs
├── RuntimeFailed         INTERNAL              launch or supervision broke; details are in the node's log
├── ProfileInvalid        INVALID_ARGUMENT      a profile, at load or after overrides
├── PolicyInvalid         INVALID_ARGUMENT      a policy bundle, at load
└── ConfigInvalid         INVALID_ARGUMENT      the configuration file

`message_for_agent` is short and safe to show to a model. Kernel failures stay `OSError`, with syscall and path.
"""

from typing import ClassVar


class SandboxdError(Exception):
    """Base of all errors that reach a caller. `reason` is the stable code in `google.rpc.ErrorInfo`."""

    status: ClassVar[str] = "INTERNAL"
    default_reason: ClassVar[str] = "internal"

    def __init__(self, message: str, *, reason: str = "", message_for_agent: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.message_for_agent = message_for_agent


class InvalidRequest(SandboxdError):
    status = "INVALID_ARGUMENT"
    default_reason = "invalid_request"


class NotFound(SandboxdError):
    status = "NOT_FOUND"
    default_reason = "not_found"


class PolicyDenied(SandboxdError):
    """`approval_id` is of the approval that the action waits for or was refused by, empty where there is none."""

    status = "PERMISSION_DENIED"
    default_reason = "policy_denied"

    def __init__(self, message: str, *, reason: str = "", message_for_agent: str = "", approval_id: str = "") -> None:
        super().__init__(message, reason=reason, message_for_agent=message_for_agent)
        self.approval_id = approval_id


class CallerRefused(SandboxdError):
    status = "PERMISSION_DENIED"
    default_reason = "caller_refused"


class Unenforceable(SandboxdError):
    status = "FAILED_PRECONDITION"
    default_reason = "unenforceable"


class Overloaded(SandboxdError):
    """`retry_after_seconds` is a hint for the client, 0 where there is none."""

    status = "RESOURCE_EXHAUSTED"
    default_reason = "overloaded"

    def __init__(
        self, message: str, *, reason: str = "", message_for_agent: str = "", retry_after_seconds: float = 0.0
    ) -> None:
        super().__init__(message, reason=reason, message_for_agent=message_for_agent)
        self.retry_after_seconds = retry_after_seconds


class Draining(SandboxdError):
    status = "UNAVAILABLE"
    default_reason = "draining"


class ApprovalUnavailable(SandboxdError):
    status = "UNAVAILABLE"
    default_reason = "approval_unavailable"


class AuditUnavailable(SandboxdError):
    status = "UNAVAILABLE"
    default_reason = "audit_unavailable"


class RuntimeFailed(SandboxdError):
    status = "INTERNAL"
    default_reason = "runtime_failed"


class ProfileInvalid(SandboxdError):
    status = "INVALID_ARGUMENT"
    default_reason = "profile_invalid"


class PolicyInvalid(SandboxdError):
    status = "INVALID_ARGUMENT"
    default_reason = "policy_invalid"


class ConfigInvalid(SandboxdError):
    status = "INVALID_ARGUMENT"
    default_reason = "config_invalid"
