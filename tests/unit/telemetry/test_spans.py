import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from sandboxd.model import Agent, EndReason
from sandboxd.telemetry import spans
from sandboxd.telemetry.timeline import Ending, Step, Timeline
from sandboxd.trace_context import TraceContext
from tests.unit.telemetry.timelines import CALLED, PARENT, TRACE, ended, ending, timeline

WHO = spans.resource("1.2.3", "node-a")


def told(*timelines: Timeline) -> list[Span]:
    message = ExportTraceServiceRequest.FromString(spans.request_of(WHO, timelines))
    (resource,) = message.resource_spans
    (scope,) = resource.scope_spans
    return list(scope.spans)


def attributes(span: Span) -> dict[str, object]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "") for pair in span.attributes}


def root(of: Ending) -> Span:
    return told(ended(of))[0]


def test_an_execution_is_one_span_with_its_steps_as_children() -> None:
    top, *steps = told(ended(ending()))
    assert (top.trace_id.hex(), top.parent_span_id.hex(), top.trace_state) == (TRACE, PARENT, "vendor=1")
    assert top.name == "execute_tool python" and top.kind == Span.SPAN_KIND_INTERNAL
    assert [step.name for step in steps] == ["admission", "decision", "acquire", "run"]
    assert {step.parent_span_id for step in steps} == {top.span_id} and {step.trace_id for step in steps} == {
        top.trace_id
    }
    assert len({span.span_id for span in (top, *steps)}) == 5
    assert top.start_time_unix_nano <= steps[0].start_time_unix_nano
    assert steps[-1].end_time_unix_nano == top.end_time_unix_nano >= top.start_time_unix_nano > 0


def test_one_of_a_caller_in_no_trace_is_the_first_of_its_own() -> None:
    top, *_ = told(ended(ending(), TraceContext(TRACE)))
    assert (top.trace_id.hex(), top.parent_span_id, top.flags) == (TRACE, b"", 0x101)
    assert told(ended(ending()))[0].flags == 0x301  # its parent is elsewhere


def test_it_is_told_by_the_names_of_the_conventions() -> None:
    assert attributes(root(ending(exit_code=3))) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "python",
        "gen_ai.tool.call.id": "call_1",
        "gen_ai.agent.name": "bot",
        "gen_ai.conversation.id": "s1",
        "sandboxd.execution.id": "e" * 32,
        "sandboxd.sandbox.id": "5" * 32,
        "sandboxd.tenant": "local",
        "sandboxd.profile": "default",
        "opa.revision": "r1",
        "opa.verdict": "allow",
        "sandboxd.end_reason": "EXITED",
        "process.exit.code": 3,
    }


def test_the_decision_is_told_with_its_span() -> None:
    _, _, decision, *_ = told(ended(ending()))
    assert attributes(decision) == {
        "opa.verdict": "allow", "opa.engine": "rego", "opa.revision": "r1", "opa.remembered": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("of", "error"),
    [
        (ending(EndReason.WALL_TIMEOUT, None), "WALL_TIMEOUT"),
        (ending(EndReason.POLICY_DENIED, None), "POLICY_DENIED"),
        (ending(EndReason.RUNTIME_FAILED, None, refused="slots"), "slots"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_went_wrong_is_an_error_of_the_whole_and_of_its_last_step(of: Ending, error: str) -> None:
    top, *steps = told(ended(of))
    assert attributes(top)["error.type"] == error
    assert [span.status.code for span in (top, *steps)] == [2, 0, 0, 0, 2]
    assert root(ending()).status.code == Status.STATUS_CODE_UNSET and "error.type" not in attributes(root(ending()))


def test_a_program_that_fails_is_no_error_of_the_tool() -> None:
    assert root(ending(EndReason.EXITED, 1)).status.code == Status.STATUS_CODE_UNSET


def test_one_that_was_refused_at_once_has_no_step() -> None:
    made = timeline(steps=())
    made.close(ending(EndReason.RUNTIME_FAILED, None, refused="audit_unavailable"))
    (top,) = told(made)
    assert attributes(top)["error.type"] == "audit_unavailable"


def test_a_step_that_is_taken_again_is_told_again() -> None:
    made = timeline(steps=(Step.ADMISSION, Step.DECISION, Step.APPROVAL, Step.ADMISSION, Step.DECISION))
    made.close(ending())
    names = [span.name for span in told(made)[1:]]
    assert names == ["admission", "decision", "approval", "admission", "decision"]


def test_text_of_a_tenant_is_cut_and_printable_and_can_be_sent_whatever_it_is() -> None:
    hostile = "a\r\n\x00\x1b[31m\u202e\udcff" + "x" * 10_000
    top = root(ending(agent=Agent(hostile, hostile, hostile, hostile), profile=hostile))
    texts = [top.name, *(str(value) for value in attributes(top).values())]
    assert all(text.isprintable() and len(text) <= len("execute_tool ") + 128 for text in texts)
    assert "a\ufffd\ufffd" in top.name


def test_nothing_of_the_program_is_told() -> None:
    assert b"secret-argument" not in spans.request_of(WHO, [ended(ending())])


def test_many_are_told_in_one_request_with_who_tells() -> None:
    timelines = [ended(ending(), CALLED) for _ in range(3)]
    message = ExportTraceServiceRequest.FromString(spans.request_of(WHO, timelines))
    pairs = {pair.key: pair.value.string_value for pair in message.resource_spans[0].resource.attributes}
    assert pairs == {"service.name": "sandboxd", "service.version": "1.2.3", "host.name": "node-a"}
    assert len(told(*timelines)) == 15
