"""An Execute request from protobuf to `model.ExecuteRequest`, and the bounds on what one may hold.

Must never pass on what it did not look at: a value out of shape is `InvalidRequest`. What is well formed but not served
yet is refused by `execution`, on record. Knows no policy and no profile. Used by `sandbox`.
"""

import math
from collections.abc import Sequence
from typing import TypeVar, assert_never

from sandboxd.errors import InvalidRequest
from sandboxd.model import Agent, ArgvProgram, CodeProgram, ExecuteRequest, InputFile, Isolation, Program
from sandboxd.rpc.v1 import enforcement_pb2, sandbox_pb2
from sandboxd.trace_context import is_traceparent

T = TypeVar("T")

MAX_ARGV = 4096
MAX_ENV = 1024
MAX_FILES = 1024
MAX_COLLECT = 256
MAX_LABELS = 64
MAX_STRING_BYTES = 128 * 1024 - 1  # MAX_ARG_STRLEN of execve(2), less the NUL
MAX_ARGV_ENV_BYTES = 1536 * 1024  # execve(2) takes a quarter of the stack limit, usually 2 MiB
MAX_PATH_BYTES = 4096
MAX_NAME_BYTES = 256
MAX_LABEL_BYTES = 1024
_MODE_BITS = 0o777
DEFAULT_FILE_MODE = 0o644
_ISOLATIONS = {
    enforcement_pb2.ISOLATION_UNSPECIFIED: None,
    enforcement_pb2.ISOLATION_PROCESS: Isolation.PROCESS,
    enforcement_pb2.ISOLATION_GVISOR: Isolation.GVISOR,
    enforcement_pb2.ISOLATION_KATA: Isolation.KATA,
}


def execute_request(message: sandbox_pb2.ExecuteRequest, traceparent: str, tracestate: str = "") -> ExecuteRequest:
    """The last two are of the call's metadata; the request's own `traceparent` goes before them."""
    if message.isolation not in _ISOLATIONS:
        raise InvalidRequest(f"isolation {message.isolation} is unknown to this version; leave it out")
    program = _program(message)
    env = tuple(sorted(message.env.items()))
    _bound_env(program, env)
    return ExecuteRequest(
        program=program,
        profile=_text("profile", message.profile, MAX_NAME_BYTES) or "default",
        stdin=message.stdin,
        env=env,
        cwd=_text("cwd", message.cwd, MAX_PATH_BYTES),
        files=_files(message.files),
        collect=tuple(
            _text("collect", pattern, MAX_PATH_BYTES) for pattern in _bounded("collect", message.collect, MAX_COLLECT)
        ),
        limits=_limits(message.limits),
        network=_text("network", message.network, MAX_NAME_BYTES),
        labels=_labels(tuple(sorted(message.labels.items()))),
        isolation=_ISOLATIONS[message.isolation],
        agent=_agent(message.agent),
        sandbox_id=_text("sandbox_id", message.sandbox_id, MAX_NAME_BYTES),
        context_id=_text("context_id", message.context_id, MAX_NAME_BYTES),
        idempotency_key=_text("idempotency_key", message.idempotency_key, MAX_NAME_BYTES),
        detach=message.detach,
        workspace_mode=_text("workspace_mode", message.workspace_mode, MAX_NAME_BYTES),
        traceparent=_traceparent(message.traceparent, traceparent),
        tracestate=tracestate if message.traceparent in ("", traceparent) else "",  # it belongs to that one
    )


def signal_number(message: sandbox_pb2.KillExecutionRequest) -> int | None:
    """None: kill the whole tree."""
    if not message.HasField("signal"):
        return None
    if not 1 <= message.signal <= 64:
        raise InvalidRequest(f"signal {message.signal} does not exist; send 1 to 64, or none to kill the tree")
    return message.signal


def execution_id(value: str) -> str:
    return _text("execution_id", value, MAX_NAME_BYTES)


def _program(message: sandbox_pb2.ExecuteRequest) -> Program:
    which = message.WhichOneof("program")
    match which:
        case "argv":
            argv = _bounded("argv", message.argv.argv, MAX_ARGV)
            if not argv or not argv[0]:
                raise InvalidRequest("argv is empty; its first element is the program to run")
            return ArgvProgram(tuple(_text("argv", word, MAX_STRING_BYTES) for word in argv))
        case "code":
            language = _text("code.language", message.code.language, MAX_NAME_BYTES)
            if not language:
                raise InvalidRequest("code.language is empty; name an interpreter of the profile")
            return CodeProgram(language, message.code.source)
        case None:
            raise InvalidRequest("the request names no program; set argv or code")
        case _:
            assert_never(which)


def _bound_env(program: Program, env: tuple[tuple[str, str], ...]) -> None:
    _bounded("env", env, MAX_ENV)
    total = 0
    for name, value in env:
        if not name or "=" in name:
            raise InvalidRequest(f"env name {name!r:.80} is not a name; it is not empty and has no '='")
        _text("env name", name, MAX_NAME_BYTES)
        total += len(name) + len(_text(f"env {name}", value, MAX_STRING_BYTES).encode())
    if isinstance(program, ArgvProgram):
        total += sum(len(word.encode()) for word in program.argv)
    if total > MAX_ARGV_ENV_BYTES:
        raise InvalidRequest(
            f"argv and env have {total} bytes together; {MAX_ARGV_ENV_BYTES} are the most, use stdin or files"
        )


def _files(messages: Sequence[sandbox_pb2.InputFile]) -> tuple[InputFile, ...]:
    files = []
    for message in _bounded("files", messages, MAX_FILES):
        path = _text("file path", message.path, MAX_PATH_BYTES)
        if not path or path.startswith("/") or ".." in path.split("/"):
            raise InvalidRequest(f"file path {path!r:.200} is not relative to the workspace; leave out '/' and '..'")
        if message.mode & ~_MODE_BITS:
            raise InvalidRequest(f"mode {message.mode:#o} of file {path!r:.200} has more than permission bits")
        files.append(InputFile(path, message.content, message.mode if message.HasField("mode") else DEFAULT_FILE_MODE))
    if len({file.path for file in files}) < len(files):
        raise InvalidRequest("two files have the same path; send each once")
    return tuple(files)


def _limits(message: enforcement_pb2.Limits) -> tuple[tuple[str, float], ...]:
    limits = tuple((field.name, value) for field, value in message.ListFields())
    for name, value in limits:
        if not (math.isfinite(value) and value >= 0):
            raise InvalidRequest(f"limit {name} is {value!r}; it is a number that is not negative")
    return limits


def _labels(labels: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    for name, value in _bounded("labels", labels, MAX_LABELS):
        if not name:
            raise InvalidRequest("a label has an empty name; name it")
        _text("label name", name, MAX_NAME_BYTES)
        _text(f"label {name}", value, MAX_LABEL_BYTES)
    return labels


def _agent(message: sandbox_pb2.Agent) -> Agent:
    return Agent(
        name=_text("agent.name", message.name, MAX_NAME_BYTES),
        session_id=_text("agent.session_id", message.session_id, MAX_NAME_BYTES),
        tool_name=_text("agent.tool_name", message.tool_name, MAX_NAME_BYTES),
        tool_use_id=_text("agent.tool_use_id", message.tool_use_id, MAX_NAME_BYTES),
    )


def _traceparent(field: str, metadata: str) -> str:
    """A broken one in the request is an error; one in the metadata came from some middle layer and is dropped (W3C)."""
    if field and not is_traceparent(field):
        raise InvalidRequest(f"traceparent {field!r:.80} is not a W3C trace context; leave it out")
    return field or (metadata if is_traceparent(metadata) else "")


def _bounded(what: str, items: Sequence[T], most: int) -> Sequence[T]:
    if len(items) > most:
        raise InvalidRequest(f"{what} has {len(items)} elements; {most} are the most", reason="too_many_elements")
    return items


def _text(what: str, value: str, most_bytes: int) -> str:
    if "\0" in value:
        raise InvalidRequest(f"{what[:80]} {value!r:.80} has a NUL; no path, argument or variable can hold one")
    if len(value) * 4 > most_bytes and len(value.encode()) > most_bytes:
        raise InvalidRequest(f"{what[:80]} has {len(value.encode())} bytes; {most_bytes} are the most")
    return value
