"""Errors as callers see them: a gRPC status with `google.rpc.ErrorInfo` in its details.

Must never show what is only for the node's log: the text of an unexpected exception, or of a failure inside the node
(it may hold host paths), stays behind an incident id. Used by `interceptors`.
"""

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from sandboxd.errors import AuditUnavailable, PolicyDenied, RuntimeFailed, SandboxdError
from sandboxd.rpc.convert import text

DOMAIN = "sandboxd.io"
DETAILS_KEY = "grpc-status-details-bin"
_MESSAGE_CHARS = 1024  # trailing metadata is bounded on the caller's side (8 KiB by default), and this goes in twice
_INTERNAL = (RuntimeFailed, AuditUnavailable)
_CODES: dict[str, grpc.StatusCode] = {code.name: code for code in grpc.StatusCode}


def is_internal(error: Exception) -> bool:
    """Whether its text is for the node's log alone."""
    return not isinstance(error, SandboxdError) or isinstance(error, _INTERNAL)


def code_of(error: Exception) -> grpc.StatusCode:
    return _CODES[error.status] if isinstance(error, SandboxdError) else grpc.StatusCode.INTERNAL


def message_of(error: Exception, incident: str) -> str:
    """One sentence for the caller. `incident` is the id under which an internal error stands in the log."""
    if isinstance(error, SandboxdError) and not is_internal(error):
        return text(error.message)[:_MESSAGE_CHARS]
    what = "the audit journal cannot be written" if isinstance(error, AuditUnavailable) else "the node failed"
    return f"{what}; its log has the details under incident {incident!r}"


def details_of(error: Exception, incident: str) -> bytes:
    """A serialized `google.rpc.Status`."""
    metadata = {"incident": incident} if incident else {}
    reason = SandboxdError.default_reason
    if isinstance(error, SandboxdError):
        reason = error.reason
        if error.message_for_agent:
            metadata["message_for_agent"] = text(error.message_for_agent)[:_MESSAGE_CHARS]
    if isinstance(error, PolicyDenied) and error.approval_id:
        metadata["approval_id"] = error.approval_id
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata))
    number: int = code_of(error).value[0]
    told = status_pb2.Status(code=number, message=message_of(error, incident), details=[info])
    serialized: bytes = told.SerializeToString()
    return serialized
