import grpc
import grpc.aio
import pytest

from sandboxd.client import errors
from sandboxd.client.failure import Progress, from_rpc


def failed(code: grpc.StatusCode, *trailing: tuple[str, bytes]) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details="why")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNIMPLEMENTED, errors.VersionMismatch),
        (grpc.StatusCode.UNAUTHENTICATED, errors.CallerRefused),
        (grpc.StatusCode.UNKNOWN, errors.RuntimeFailed),
        (grpc.StatusCode.CANCELLED, errors.CallCancelled),
        (grpc.StatusCode.UNAVAILABLE, errors.Unreachable),
    ],
)
def test_status_without_details_still_finds_its_error(code: grpc.StatusCode, kind: type[errors.SandboxdError]) -> None:
    assert type(from_rpc(failed(code), "unix:/x", Progress())) is kind


def test_garbled_details_do_not_hide_the_status() -> None:
    error = from_rpc(
        failed(grpc.StatusCode.NOT_FOUND, ("grpc-status-details-bin", b"\xff\xff\xff")), "unix:/x", Progress()
    )
    assert type(error) is errors.NotFound
    assert error.reason == "not_found"


def test_error_that_tells_nothing_is_still_ours() -> None:
    assert isinstance(from_rpc(grpc.RpcError("odd"), "unix:/x", Progress()), errors.RuntimeFailed)
