"""An Execute request as bytes: the scan, protobuf, the conversion, the profile's plan, messages to init, the record."""

from functools import cache

from bench.soak.target import Broken, Shape, Target
from sandboxd.audit.line import ORIGIN, body, check, decode, encode
from sandboxd.errors import InvalidRequest, Unenforceable
from sandboxd.event import ExecutionRequested
from sandboxd.model import EnforcementRow, Guarantee, Isolation, RuntimeCapabilities, State
from sandboxd.profile.load import ProfileSet, load_profiles
from sandboxd.profile.plan import plan
from sandboxd.profile.resolve import tighten
from sandboxd.rpc.interceptors import parse
from sandboxd.rpc.request import execute_request
from sandboxd.rpc.v1 import enforcement_pb2, sandbox_pb2
from sandboxd.settings.paths import shipped
from sandboxd.spawner import wire

CAPABILITIES = RuntimeCapabilities(
    Isolation.PROCESS, "root", tuple(EnforcementRow(row, State.ENFORCED, ("fuzz",)) for row in Guarantee)
)
OTHERS = ("request.signal_number", "request.execution_id")  # of the calls beside Execute


@cache
def profiles() -> ProfileSet:
    return load_profiles([shipped("profiles")], filters_proved=True)


def run(data: bytes) -> object:
    message = parse(sandbox_pb2.ExecuteRequest, data)
    request = execute_request(message, "")
    profile = tighten(profiles().get(request.profile), request)
    planned = plan(profile, request, CAPABILITIES, "s" * 32, "e" * 32)
    for name, ceiling in ((name, getattr(profiles().get(request.profile).limits, name)) for name, _ in request.limits):
        if ceiling and getattr(planned.launch.limits, name) > ceiling:
            raise Broken(f"{name} is above the profile's own {ceiling}")
    program = planned.exec
    wire.decode(
        wire.encode(
            wire.Execute("e", program.argv, program.env, program.cwd, 0, 8, 0, program.limits.cpu_seconds, 0, 0)
        )
    )
    wire.decode(wire.encode(wire.Collect(1, program.collect, 1, 1, 0)))
    for file in program.files:
        wire.decode(wire.encode(wire.Put(1, file.path, file.mode, 0)))
    agent = request.agent
    event = ExecutionRequested(
        *("local", "uid:0", "s", "e", "", request.traceparent, profile.name, " ".join(program.argv), "", "", ""),
        *(agent.name, agent.session_id, agent.tool_name, agent.tool_use_id, request.labels, (), "Execute"),
    )
    recorded = encode(body(event), ORIGIN, "b" * 32, "node", 1)
    check(ORIGIN, recorded[:-1])
    decode(recorded[:-1])
    return program


def _seeds() -> tuple[bytes, ...]:
    full = sandbox_pb2.ExecuteRequest(
        profile="python",
        stdin=b"in",
        env={"LANG": "C", "TZ": "UTC"},
        cwd="a/b",
        files=[sandbox_pb2.InputFile(path="d/f.txt", content=b"content", mode=0o600)],
        collect=["out/**/*.txt", "x?"],
        network="none",
        labels={"team": "red"},
        traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
        isolation=enforcement_pb2.ISOLATION_PROCESS,
    )
    full.argv.argv.extend(["/usr/bin/python3", "-c", "print(1)"])
    full.limits.wall_seconds = 2.5
    full.limits.memory_bytes = 16 << 20
    full.agent.name, full.agent.tool_name = "agent", "tool"
    code = sandbox_pb2.ExecuteRequest()
    code.code.language, code.code.source = "python", "print('x')"
    code.limits.pids = 4
    plain = sandbox_pb2.ExecuteRequest()
    plain.argv.argv.append("/bin/true")
    reserved = sandbox_pb2.ExecuteRequest(sandbox_id="x", idempotency_key="k", detach=True)
    # As many as there may be and one more, and names that no file, variable or limit can have.
    many = [sandbox_pb2.ExecuteRequest(argv=plain.argv) for _ in range(4)]
    many[0].files.extend(sandbox_pb2.InputFile(path=str(number)) for number in range(1025))
    many[1].collect.extend(str(number) for number in range(257))
    many[2].env.update({f"A{number}": "" for number in range(1025)})
    many[3].labels.update({str(number): "" for number in range(65)})
    odd = [sandbox_pb2.ExecuteRequest(argv=plain.argv) for _ in range(5)]
    odd[0].files.add(path="/".join("a" * 65), content=b"x")
    odd[1].files.extend([sandbox_pb2.InputFile(path="a"), sandbox_pb2.InputFile(path="a/b")])
    odd[2].env["LD_PRELOAD"] = "x"
    odd[3].cwd = "/a" + "b" * 256
    odd[4].limits.cpus = 0.5
    odd[4].limits.pids = 1 << 40
    return tuple(message.SerializeToString() for message in (full, code, plain, reserved, *many, *odd))


def target() -> Target:
    profiles()  # now, so that no input is blamed for it
    modules = (
        "sandboxd.rpc.scan",
        "sandboxd.rpc.request",
        "sandboxd.profile.program",
        "sandboxd.profile.environment",
        "sandboxd.profile.limits",
    )
    words = (
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"../",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"**/",
        b"\xe2\x80\xa8",
        b"main.py",
        b"LANG",
        b"=",
        b"a" * 300,
    )
    return Target(
        "request", modules, run, (InvalidRequest, Unenforceable), _seeds(), words, Shape.PROTOBUF, 16384, OTHERS
    )
