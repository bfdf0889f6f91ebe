"""Every error of the tree has its status and details, and nothing of the node's inside leaves it."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from sandboxd import errors
from sandboxd.rpc import status

SECRET = "/var/lib/sandboxd/journal: permission denied"
LEAVES = [
    leaf
    for leaf in vars(errors).values()
    if isinstance(leaf, type) and issubclass(leaf, errors.SandboxdError) and leaf is not errors.SandboxdError
]


def details(error: Exception, incident: str = "") -> tuple[status_pb2.Status, error_details_pb2.ErrorInfo]:
    told = status_pb2.Status.FromString(status.details_of(error, incident))
    info = error_details_pb2.ErrorInfo()
    assert told.details[0].Unpack(info)
    return told, info


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_error_has_the_status_that_it_names(leaf: type[errors.SandboxdError]) -> None:
    error = leaf("what", message_for_agent="do otherwise")
    told, info = details(error)
    assert status.code_of(error).name == leaf.status
    assert told.code == status.code_of(error).value[0]
    assert (info.reason, info.domain) == (leaf.default_reason, "sandboxd.io")
    assert info.metadata["message_for_agent"] == "do otherwise"


def test_reason_of_the_raise_goes_before_the_default() -> None:
    assert details(errors.InvalidRequest("x", reason="unknown_field"))[1].reason == "unknown_field"


@pytest.mark.parametrize("error", [OSError(SECRET), errors.RuntimeFailed(SECRET), errors.AuditUnavailable(SECRET)])
def test_inside_of_the_node_stays_behind_an_incident(error: Exception) -> None:
    assert status.is_internal(error)
    told, info = details(error, "0123")
    assert SECRET not in told.message
    assert SECRET not in status.message_of(error, "0123")
    assert "0123" in told.message
    assert info.metadata["incident"] == "0123"


def test_unexpected_error_is_internal() -> None:
    assert status.code_of(ValueError("x")) is grpc.StatusCode.INTERNAL
    assert details(ValueError("x"))[1].reason == "internal"


def test_long_and_broken_texts_fit_a_trailer() -> None:
    error = errors.InvalidRequest("\udcff" * 5000, message_for_agent="x" * 5000)
    assert len(status.details_of(error, "")) < 4096
