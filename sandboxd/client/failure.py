"""Turns a failed gRPC call into the SDK's exceptions, by status code and `google.rpc.ErrorInfo`, never by its text."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import grpc
import grpc.aio

from sandboxd.client import errors
from sandboxd.client.address import socket_path

_DOMAIN = "sandboxd.io"
_DETAILS_KEY = "grpc-status-details-bin"

_BY_CODE: Mapping[grpc.StatusCode, type[errors.SandboxdError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequest,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.PERMISSION_DENIED: errors.PolicyDenied,
    grpc.StatusCode.UNAUTHENTICATED: errors.CallerRefused,
    grpc.StatusCode.FAILED_PRECONDITION: errors.Unenforceable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Overloaded,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.CANCELLED: errors.CallCancelled,
    grpc.StatusCode.UNIMPLEMENTED: errors.VersionMismatch,
}
_BY_REASON: Mapping[str, type[errors.SandboxdError]] = {
    "caller_refused": errors.CallerRefused,
    "draining": errors.Draining,
    "audit_unavailable": errors.AuditUnavailable,
}


class Progress:
    """How far a call came, so that a failure can tell a daemon that is not there from one that went away."""

    __slots__ = ("execution_id", "started")

    def __init__(self) -> None:
        self.started = False
        self.execution_id = ""


@contextmanager
def translated(address: str, progress: Progress) -> Iterator[None]:
    """Within it, a failure of grpc comes out as a `SandboxdError`."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc(error, address, progress) from error


def from_rpc(error: grpc.RpcError, address: str, progress: Progress) -> errors.SandboxdError:
    """The exception for a failed call, for both flavours of grpc."""
    if not isinstance(error, grpc.aio.AioRpcError | grpc.Call):
        return errors.RuntimeFailed(f"the call to {address!r} failed: {error!r}")
    code, message = error.code(), error.details() or ""
    reason, metadata = _error_info(error)
    if not reason and code is grpc.StatusCode.UNAVAILABLE:
        return _no_daemon(message, address, progress)
    if not reason and code is grpc.StatusCode.DEADLINE_EXCEEDED:
        message = "the deadline of the call passed; what it started was killed"
    if not reason and code is grpc.StatusCode.UNIMPLEMENTED:
        message = (
            f"what listens at {address!r} does not serve this call of sandboxd.v1; update it or use its own client"
        )
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code, errors.RuntimeFailed)
    failure = kind(
        message or f"the daemon answered {code.name}",
        reason=reason,
        message_for_agent=metadata.get("message_for_agent", ""),
        execution_id=metadata.get("execution_id", progress.execution_id),
    )
    if isinstance(failure, errors.PolicyDenied):
        failure.approval_id = metadata.get("approval_id", "")
    return failure


def _no_daemon(details: str, address: str, progress: Progress) -> errors.SandboxdError:
    if progress.started:
        return errors.ConnectionLost(
            f"the daemon at {address!r} went away before the result: {details}; what ran was killed with it",
            execution_id=progress.execution_id,
        )
    path = socket_path(address)
    if path is not None and not path.exists():
        details = "there is no such socket"
    return errors.Unreachable(f"no sandboxd answers at {address!r}: {details}; start one with: sandboxd serve")


def _error_info(error: grpc.aio.AioRpcError | grpc.Call) -> tuple[str, Mapping[str, str]]:
    """Reason and metadata of the daemon's ErrorInfo; empty if the failure is not the daemon's own."""
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            return _decode(value)
    return "", {}


def _decode(details: bytes) -> tuple[str, Mapping[str, str]]:
    # imported here since only a failure needs them, and start-up time of the command line matters
    from google.protobuf.message import DecodeError
    from google.rpc.error_details_pb2 import ErrorInfo
    from google.rpc.status_pb2 import Status

    status, info = Status(), ErrorInfo()
    try:
        status.ParseFromString(details)
        for detail in status.details:
            if detail.Unpack(info) and info.domain == _DOMAIN:
                return info.reason, dict(info.metadata)
    except DecodeError:
        return "", {}
    return "", {}
