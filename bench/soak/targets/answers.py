"""What a daemon answers, as the SDK reads it: field 1 is an event of Execute, the next ones are answers to the rest."""

from typing import Any

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from bench.soak import protobuf
from bench.soak.target import Shape, Target
from sandboxd.client import errors, question
from sandboxd.client.failure import Progress
from sandboxd.client.stream import EventReader, Whole
from sandboxd.rpc.v1 import enforcement_pb2, node_pb2, profile_pb2, sandbox_pb2

QUESTIONS: tuple[question.Question[Any, Any], ...] = (
    question.capabilities(),
    question.profiles(),
    question.profile("x"),
    question.executions(living_only=False, page_token=""),
    question.execution("x"),
    question.kill("x", None),
)
LOGS = question.logs("x")


def run(data: bytes) -> object:
    reader, whole = EventReader(Progress()), Whole()
    pieces: list[sandbox_pb2.GetLogsResponse] = []
    found: list[object] = []
    for field in protobuf.fields(data) or ():
        try:
            if field.number == 1:
                event = reader.read(sandbox_pb2.ExecuteEvent.FromString(field.payload))
                if event is not None:
                    whole.add(event)
            elif field.number == 2:
                pieces.append(LOGS.answer.FromString(field.payload))
            elif field.number < len(QUESTIONS) + 3:
                asked = QUESTIONS[field.number - 3]
                found.append(asked.value(asked.answer.FromString(field.payload)))
        except DecodeError:  # grpc's to tell, before anything of the SDK sees it
            continue
    LOGS.value(pieces)
    if not found:
        reader.finish()
        found.append(whole.result())
    return found


def target() -> Target:
    enforced, out = enforcement_pb2.ENFORCEMENT_STATE_ENFORCED, sandbox_pb2.OUTPUT_STREAM_STDOUT
    row = enforcement_pb2.EnforcementRow(guarantee="limit.wall", state=enforced, layers=["a"], reason="r")
    report = enforcement_pb2.EnforcementReport(runtime=enforcement_pb2.ISOLATION_PROCESS, rows=[row], warnings=["w"])
    result = sandbox_pb2.ExecutionResult(
        execution_id="e",
        end_reason=sandbox_pb2.END_REASON_EXITED,
        exit_code=3,
        usage=sandbox_pb2.Usage(wall_seconds=1.5, peak_pids=2),
        limits_hit=["pids"],
        violations=[sandbox_pb2.Violation(layer="seccomp", code="c", detail="d")],
        files=[sandbox_pb2.OutputFile(path="a/b", content=b"x", mode=0o644)],
        files_skipped=[sandbox_pb2.SkippedFile(path="c", reason="r")],
        message_for_agent="m",
    )
    events = (
        sandbox_pb2.ExecuteEvent(accepted=sandbox_pb2.Accepted(execution_id="e", enforcement=report)),
        sandbox_pb2.ExecuteEvent(chunk=sandbox_pb2.OutputChunk(stream=out, offset=0, data=b"out")),
        sandbox_pb2.ExecuteEvent(result=result),
    )
    known = sandbox_pb2.Execution(
        execution_id="e",
        labels={"a": "b"},
        state=sandbox_pb2.EXECUTION_STATE_ENDED,
        started_at=Timestamp(seconds=1),
        ended_at=Timestamp(seconds=2, nanos=5),
    )
    known.result.CopyFrom(result)
    profile = profile_pb2.Profile(name="p", digest="d", env={"A": "b"}, env_allowed=["C"], labels={"l": "m"})
    profile.limits.wall_seconds = 5
    profile.interpreters.add(language="python", argv=["x"])
    profile.requirements.add(guarantee="limit.wall", level=profile_pb2.ENFORCEMENT_LEVEL_REQUIRE)
    capable = node_pb2.GetCapabilitiesResponse(version="1", api_versions=["v1"], node="n", kernel="6.1", mode="root")
    capable.runtimes.add(isolation=enforcement_pb2.ISOLATION_PROCESS, mode="root", rows=[row])
    answers: tuple[Message, ...] = (
        sandbox_pb2.GetLogsResponse(chunk=sandbox_pb2.OutputChunk(stream=out, data=b"err")),
        capable,
        profile_pb2.ListProfilesResponse(profiles=[profile]),
        profile_pb2.GetProfileResponse(profile=profile),
        sandbox_pb2.ListExecutionsResponse(executions=[known], next_page_token="t"),
        sandbox_pb2.GetExecutionResponse(execution=known),
        sandbox_pb2.KillExecutionResponse(),
    )
    seeds = (
        _framed(*((1, event) for event in events)),
        *(_framed((number, answer)) for number, answer in enumerate(answers, start=2)),
        b"",
    )
    modules = ("sandboxd.client.convert", "sandboxd.client.stream", "sandboxd.client.question")
    outside = ("question.capabilities", "question.logs")  # ask
    words = (b"\xff", b"x")
    return Target("answers", modules, run, (errors.RuntimeFailed,), seeds, words, Shape.PROTOBUF, outside=outside)


def _framed(*messages: tuple[int, Message]) -> bytes:
    return b"".join(protobuf.Field(number, 2, message.SerializeToString()).encoded() for number, message in messages)
