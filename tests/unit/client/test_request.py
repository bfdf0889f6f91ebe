import pytest

from sandboxd.client import Code, InvalidRequest
from sandboxd.client.model import Options
from sandboxd.client.request import execute_request


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(limits={"memory": 1}), "unknown limit 'memory'"),
        (Options(limits={"pids": 1.5}), "whole number"),
        (Options(limits={"pids": -1}), "out of range"),
        (Options(limits={"memory_bytes": float("inf")}), "whole number"),
        (Options(limits={"memory_bytes": float("nan")}), "whole number"),
        (Options(isolation="docker"), "unknown isolation 'docker'"),
        (Options(env={"A": "\udce9"}), "cannot be encoded"),
        (Options(collect="*.txt"), "pass a list"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_its_value(options: Options, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        execute_request(["x"], options)


def test_command_line_as_one_string_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="there is no shell"):
        execute_request("rm -rf /", Options())


def test_whole_float_is_accepted_for_a_counted_limit() -> None:
    assert execute_request(["x"], Options(limits={"pids": 4.0})).limits.pids == 4


def test_option_with_a_typing_error_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="unknown option 'profil'"):
        execute_request(Code("1"), {"profil": "x"})  # type: ignore[typeddict-unknown-key]
