"""Turns what a caller of the SDK passes into messages of `sandboxd.v1`.

Checks only what would otherwise be lost in the conversion; everything else is for the daemon to judge.
"""

import math
from collections.abc import Mapping, Sequence

from sandboxd.client.errors import InvalidRequest
from sandboxd.client.model import Agent, Code, InputFile, Options
from sandboxd.rpc.v1 import enforcement_pb2, sandbox_pb2

LIMIT_NAMES: tuple[str, ...] = tuple(enforcement_pb2.Limits.DESCRIPTOR.fields_by_name)
_OPTION_NAMES = frozenset(Options.__optional_keys__)

Program = Sequence[str] | Code


def execute_request(program: Program, options: Options) -> sandbox_pb2.ExecuteRequest:
    """The request for `program`; `InvalidRequest` for an unknown limit or isolation or a value that does not fit."""
    if unknown := set(options) - _OPTION_NAMES:
        raise TypeError(f"unknown option {sorted(unknown)[0]!r}; known are {', '.join(sorted(_OPTION_NAMES))}")
    try:
        request = sandbox_pb2.ExecuteRequest(
            profile=options.get("profile", ""),
            stdin=options.get("stdin", b""),
            env=options.get("env", {}),
            cwd=options.get("cwd", ""),
            files=[_input_file(path, file) for path, file in options.get("files", {}).items()],
            collect=_texts("collect", options.get("collect", ())),
            network=options.get("network", ""),
            labels=options.get("labels", {}),
            isolation=_isolation(options.get("isolation", "")),
            agent=_agent(options.get("agent", Agent())),
            traceparent=options.get("traceparent", ""),
        )
        if isinstance(program, Code):
            request.code.language = program.language
            request.code.source = program.source
        else:
            request.argv.argv.extend(_texts("argv", program))
    except ValueError as error:  # protobuf's own, e.g. for a surrogate that UTF-8 cannot hold
        raise InvalidRequest(f"the request cannot be encoded: {error}") from error
    if limits := options.get("limits", {}):
        request.limits.CopyFrom(_limits(limits))
    return request


def _texts(what: str, values: Sequence[str]) -> Sequence[str]:
    if isinstance(values, str | bytes):
        raise InvalidRequest(f"{what} is one string {values!r}; pass a list of strings, there is no shell")
    return values


def _input_file(path: str, file: bytes | InputFile) -> sandbox_pb2.InputFile:
    if isinstance(file, InputFile):
        return sandbox_pb2.InputFile(path=path, content=file.content, mode=file.mode)
    return sandbox_pb2.InputFile(path=path, content=file)


def _agent(agent: Agent) -> sandbox_pb2.Agent:
    return sandbox_pb2.Agent(
        name=agent.name,
        session_id=agent.session_id,
        tool_name=agent.tool_name,
        tool_use_id=agent.tool_use_id,
    )


def _isolation(name: str) -> enforcement_pb2.Isolation.ValueType:
    match name:
        case "":
            return enforcement_pb2.ISOLATION_UNSPECIFIED
        case "process":
            return enforcement_pb2.ISOLATION_PROCESS
        case "gvisor":
            return enforcement_pb2.ISOLATION_GVISOR
        case "kata":
            return enforcement_pb2.ISOLATION_KATA
        case _:
            raise InvalidRequest(f"unknown isolation {name!r}; one of process, gvisor, kata")


def _limits(limits: Mapping[str, float]) -> enforcement_pb2.Limits:
    message = enforcement_pb2.Limits()
    for name, value in limits.items():
        if name not in LIMIT_NAMES:
            raise InvalidRequest(f"unknown limit {name!r}; one of {', '.join(LIMIT_NAMES)}", reason="override_unknown")
        field = enforcement_pb2.Limits.DESCRIPTOR.fields_by_name[name]
        whole = field.type == field.TYPE_UINT64
        if whole and not (math.isfinite(value) and value == int(value)):
            raise InvalidRequest(f"limit {name!r} is {value!r}; pass a whole number")
        try:
            setattr(message, name, int(value) if whole else float(value))
        except ValueError as error:
            raise InvalidRequest(f"limit {name!r} is {value!r}, out of range; pass 0 to 2^64-1") from error
    return message
