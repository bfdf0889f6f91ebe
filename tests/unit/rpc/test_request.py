"""An Execute request's way in: everything arrives, nothing out of shape does."""

import pytest

from sandboxd.errors import InvalidRequest
from sandboxd.model import Agent, ArgvProgram, CodeProgram, ExecuteRequest, InputFile, Isolation
from sandboxd.rpc import request
from sandboxd.rpc.v1 import enforcement_pb2, sandbox_pb2

TRACEPARENT = f"00-{'a' * 32}-{'b' * 16}-01"
ARGV = sandbox_pb2.ArgvProgram(argv=["sh", "-c", ""])


def converted(message: sandbox_pb2.ExecuteRequest, traceparent: str = "") -> ExecuteRequest:
    return request.execute_request(message, traceparent)


def refused(message: sandbox_pb2.ExecuteRequest) -> str:
    with pytest.raises(InvalidRequest) as caught:
        converted(message)
    return caught.value.message


def test_every_field_arrives() -> None:
    message = sandbox_pb2.ExecuteRequest(
        argv=ARGV,
        profile="python",
        stdin=b"\0\xff",
        env={"B": "2", "A": "1"},
        cwd="sub",
        files=[
            sandbox_pb2.InputFile(path="a/b", content=b"x", mode=0o755),
            sandbox_pb2.InputFile(path="..c"),
            sandbox_pb2.InputFile(path="d", mode=0),
        ],
        collect=["*.txt"],
        limits=enforcement_pb2.Limits(wall_seconds=1.5, memory_bytes=1 << 30, idle_seconds=0.0),
        network="none",
        labels={"job": "1"},
        isolation=enforcement_pb2.ISOLATION_GVISOR,
        agent=sandbox_pb2.Agent(name="n", session_id="s", tool_name="t", tool_use_id="u"),
        traceparent=TRACEPARENT,
    )
    assert converted(message) == ExecuteRequest(
        program=ArgvProgram(("sh", "-c", "")),
        profile="python",
        stdin=b"\0\xff",
        env=(("A", "1"), ("B", "2")),
        cwd="sub",
        files=(InputFile("a/b", b"x", 0o755), InputFile("..c", b"", 0o644), InputFile("d", b"", 0)),
        collect=("*.txt",),
        limits=(("wall_seconds", 1.5), ("idle_seconds", 0.0), ("memory_bytes", 1 << 30)),
        network="none",
        labels=(("job", "1"),),
        isolation=Isolation.GVISOR,
        agent=Agent("n", "s", "t", "u"),
        traceparent=TRACEPARENT,
    )


def test_what_is_not_set_is_the_default() -> None:
    assert converted(sandbox_pb2.ExecuteRequest(argv=ARGV)) == ExecuteRequest(ArgvProgram(("sh", "-c", "")))


def test_code_arrives_as_code() -> None:
    code = sandbox_pb2.CodeProgram(language="python", source="print('\0')")
    assert converted(sandbox_pb2.ExecuteRequest(code=code)).program == CodeProgram("python", "print('\0')")


def test_every_field_of_the_message_is_read() -> None:
    """A field added to the API and forgotten here would be ignored silently."""
    of_metadata = {"tracestate"}
    read = set(ExecuteRequest.__dataclass_fields__) - {"program"} - of_metadata | {"argv", "code"}
    assert set(sandbox_pb2.ExecuteRequest.DESCRIPTOR.fields_by_name) == read


def test_reserved_fields_arrive_for_the_line_to_refuse() -> None:
    message = sandbox_pb2.ExecuteRequest(
        argv=ARGV, sandbox_id="s", context_id="c", idempotency_key="i", workspace_mode="keep", detach=True
    )
    assert converted(message) == ExecuteRequest(
        ArgvProgram(("sh", "-c", "")),
        sandbox_id="s",
        context_id="c",
        idempotency_key="i",
        workspace_mode="keep",
        detach=True,
    )


@pytest.mark.parametrize(
    "message",
    [
        sandbox_pb2.ExecuteRequest(),
        sandbox_pb2.ExecuteRequest(argv=sandbox_pb2.ArgvProgram()),
        sandbox_pb2.ExecuteRequest(argv=sandbox_pb2.ArgvProgram(argv=["", "x"])),
        sandbox_pb2.ExecuteRequest(code=sandbox_pb2.CodeProgram(source="x")),
    ],
    ids=["nothing", "no-argv", "empty-name", "no-language"],
)
def test_no_program_is_refused(message: sandbox_pb2.ExecuteRequest) -> None:
    refused(message)


@pytest.mark.parametrize(
    "message",
    [
        sandbox_pb2.ExecuteRequest(argv=sandbox_pb2.ArgvProgram(argv=["a", "b\0c"])),
        sandbox_pb2.ExecuteRequest(code=sandbox_pb2.CodeProgram(language="p\0")),
        sandbox_pb2.ExecuteRequest(argv=ARGV, env={"A": "b\0"}),
        sandbox_pb2.ExecuteRequest(argv=ARGV, env={"A\0": "b"}),
        sandbox_pb2.ExecuteRequest(argv=ARGV, cwd="/\0"),
        sandbox_pb2.ExecuteRequest(argv=ARGV, files=[sandbox_pb2.InputFile(path="a\0b")]),
        sandbox_pb2.ExecuteRequest(argv=ARGV, collect=["\0"]),
        sandbox_pb2.ExecuteRequest(argv=ARGV, profile="\0"),
        sandbox_pb2.ExecuteRequest(argv=ARGV, network="\0"),
        sandbox_pb2.ExecuteRequest(argv=ARGV, labels={"a": "\0"}),
        sandbox_pb2.ExecuteRequest(argv=ARGV, agent=sandbox_pb2.Agent(name="\0")),
    ],
)
def test_nul_is_refused_and_shown_escaped(message: sandbox_pb2.ExecuteRequest) -> None:
    text = refused(message)
    assert "NUL" in text
    assert "\0" not in text


@pytest.mark.parametrize("name", ["", "A=B", "="])
def test_env_name_that_is_none_is_refused(name: str) -> None:
    refused(sandbox_pb2.ExecuteRequest(argv=ARGV, env={name: "x"}))


@pytest.mark.parametrize("path", ["", "/etc/passwd", "..", "../x", "a/../../x", "a/.."])
def test_file_path_out_of_the_workspace_is_refused(path: str) -> None:
    refused(sandbox_pb2.ExecuteRequest(argv=ARGV, files=[sandbox_pb2.InputFile(path=path)]))


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1777, 0o100644, 1 << 31])
def test_file_mode_beyond_permission_bits_is_refused(mode: int) -> None:
    refused(sandbox_pb2.ExecuteRequest(argv=ARGV, files=[sandbox_pb2.InputFile(path="a", mode=mode)]))


def test_file_sent_twice_is_refused() -> None:
    refused(sandbox_pb2.ExecuteRequest(argv=ARGV, files=[sandbox_pb2.InputFile(path="a")] * 2))


def test_isolation_of_a_later_version_is_refused() -> None:
    message = sandbox_pb2.ExecuteRequest.FromString(
        sandbox_pb2.ExecuteRequest(argv=ARGV).SerializeToString() + b"\x60\x63"
    )
    assert "99" in refused(message)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -1.0])
def test_limit_that_is_no_amount_is_refused(value: float) -> None:
    refused(sandbox_pb2.ExecuteRequest(argv=ARGV, limits=enforcement_pb2.Limits(wall_seconds=value)))


def test_more_elements_than_allowed_are_refused() -> None:
    name = sandbox_pb2.InputFile(path="a")
    for message in (
        sandbox_pb2.ExecuteRequest(argv=sandbox_pb2.ArgvProgram(argv=["a"] * (request.MAX_ARGV + 1))),
        sandbox_pb2.ExecuteRequest(argv=ARGV, env={str(n): "" for n in range(request.MAX_ENV + 1)}),
        sandbox_pb2.ExecuteRequest(argv=ARGV, labels={str(n): "" for n in range(request.MAX_LABELS + 1)}),
        sandbox_pb2.ExecuteRequest(argv=ARGV, files=[name] * (request.MAX_FILES + 1)),
        sandbox_pb2.ExecuteRequest(argv=ARGV, collect=["a"] * (request.MAX_COLLECT + 1)),
    ):
        assert "are the most" in refused(message)


@pytest.mark.parametrize(
    "message",
    [
        sandbox_pb2.ExecuteRequest(argv=sandbox_pb2.ArgvProgram(argv=["a", "x" * (request.MAX_STRING_BYTES + 1)])),
        sandbox_pb2.ExecuteRequest(argv=ARGV, env={"A": "é" * (request.MAX_STRING_BYTES // 2 + 1)}),
        sandbox_pb2.ExecuteRequest(argv=ARGV, cwd="x" * (request.MAX_PATH_BYTES + 1)),
        sandbox_pb2.ExecuteRequest(argv=ARGV, profile="é" * (request.MAX_NAME_BYTES // 2 + 1)),
        sandbox_pb2.ExecuteRequest(argv=sandbox_pb2.ArgvProgram(argv=["x" * 100_000] * 20)),
        sandbox_pb2.ExecuteRequest(
            code=sandbox_pb2.CodeProgram(language="p"), env={str(n): "x" * 50_000 for n in range(50)}
        ),
    ],
    ids=["argument", "variable", "cwd", "profile", "arguments-together", "variables-together"],
)
def test_text_longer_than_the_kernel_takes_is_refused(message: sandbox_pb2.ExecuteRequest) -> None:
    text = refused(message)
    assert "are the most" in text
    assert len(text) < 400


def test_longest_argument_that_execve_takes_passes() -> None:
    converted(sandbox_pb2.ExecuteRequest(argv=sandbox_pb2.ArgvProgram(argv=["a", "x" * request.MAX_STRING_BYTES])))


@pytest.mark.parametrize("value", ["x", TRACEPARENT.upper(), TRACEPARENT + "-", f"00-{'0' * 32}-{'b' * 16}-01"])
def test_broken_traceparent_is_refused_in_the_request_and_dropped_from_metadata(value: str) -> None:
    refused(sandbox_pb2.ExecuteRequest(argv=ARGV, traceparent=value))
    assert converted(sandbox_pb2.ExecuteRequest(argv=ARGV), value).traceparent == ""


def test_traceparent_of_the_request_goes_before_that_of_metadata() -> None:
    other = TRACEPARENT.replace("a", "c")
    assert converted(sandbox_pb2.ExecuteRequest(argv=ARGV, traceparent=other), TRACEPARENT).traceparent == other
    assert converted(sandbox_pb2.ExecuteRequest(argv=ARGV), TRACEPARENT).traceparent == TRACEPARENT


@pytest.mark.parametrize(
    ("field", "state"), [("", "a=1"), (TRACEPARENT, "a=1"), (TRACEPARENT.replace("a", "c"), "")], ids=str
)
def test_tracestate_goes_with_its_own_traceparent_only(field: str, state: str) -> None:
    message = sandbox_pb2.ExecuteRequest(argv=ARGV, traceparent=field)
    assert request.execute_request(message, TRACEPARENT, "a=1").tracestate == state


def test_kill_without_signal_kills_the_tree() -> None:
    assert request.signal_number(sandbox_pb2.KillExecutionRequest(execution_id="x")) is None
    assert request.signal_number(sandbox_pb2.KillExecutionRequest(execution_id="x", signal=64)) == 64


def test_execution_id_with_nul_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        request.execution_id("a\0")
