import inspect
import re

import grpc
import pytest

from sandboxd import errors
from sandboxd.errors import Overloaded, SandboxdError

LEAVES = [
    leaf for _, leaf in inspect.getmembers(errors, inspect.isclass) if issubclass(leaf, SandboxdError)
    and leaf is not SandboxdError
]  # fmt: skip
ROW = re.compile(r"[├└]── (\w+) +([A-Z_]+) ")


def test_tree_drawn_in_the_docstring_is_the_tree() -> None:
    drawn = dict(ROW.findall(errors.__doc__ or ""))
    assert drawn == {leaf.__name__: leaf.status for leaf in LEAVES}


@pytest.mark.parametrize("leaf", LEAVES)
def test_leaf_has_a_grpc_status_and_a_reason_of_its_own(leaf: type[SandboxdError]) -> None:
    assert grpc.StatusCode[leaf.status] is not grpc.StatusCode.OK
    assert [other for other in LEAVES if other.default_reason == leaf.default_reason] == [leaf]
    error = leaf("no")
    assert (error.reason, error.message, error.message_for_agent, str(error)) == (leaf.default_reason, "no", "", "no")


def test_reason_of_the_place_goes_before_that_of_the_kind() -> None:
    assert Overloaded("no", reason="slots").reason == "slots"


def test_overload_tells_when_to_try_again() -> None:
    error = Overloaded("no", message_for_agent="Later.", retry_after_seconds=1.5)
    assert (error.retry_after_seconds, error.message_for_agent) == (1.5, "Later.")
