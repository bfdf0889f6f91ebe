"""What a failed call brings beside its status: the daemon's `google.rpc.Status` as the SDK reads it."""

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from bench.soak import protobuf
from bench.soak.target import Broken, Shape, Target
from sandboxd.client.errors import SandboxdError
from sandboxd.client.failure import Progress, translated

CODES = tuple(grpc.StatusCode)


def run(data: bytes) -> object:
    """Framed as a message, so that it stays one while it is changed: the field's number says the code, and how far."""
    number, details = next(((field.number, field.payload) for field in protobuf.fields(data) or ()), (3, data))
    code = CODES[number % len(CODES)]
    told = grpc.aio.Metadata(("x-other", "y"), ("grpc-status-details-bin", details))
    progress = Progress()
    progress.started = number > len(CODES)
    try:
        with translated("unix:/nonexistent", progress):
            raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), told, "x")
    except SandboxdError as error:
        found = error
    if not str(found):
        raise Broken(f"{found!r}")
    return (found.reason, found.message_for_agent, found.execution_id) if found.reason else None


def target() -> Target:
    info = error_details_pb2.ErrorInfo(reason="draining", domain="sandboxd.io")
    info.metadata["message_for_agent"] = "later"
    info.metadata["execution_id"] = "e"
    packed, foreign = any_pb2.Any(), any_pb2.Any()
    packed.Pack(info)
    foreign.Pack(error_details_pb2.ErrorInfo(reason="x", domain="elsewhere"))
    whole = status_pb2.Status(code=14, message="m", details=[foreign, packed]).SerializeToString()
    seeds = (*(protobuf.Field(number, 2, whole).encoded() for number in range(1, 1 + len(CODES))), b"", b"\0")
    words = (b"caller_refused", b"audit_unavailable", b"sandboxd.io", b"\xff")
    return Target("details", ("sandboxd.client.failure",), run, (), seeds, words, Shape.PROTOBUF)
