"""Executions as OpenTelemetry spans: the protobuf messages of OTLP, one `execute_tool` and its steps for each.

Pure. Tenant text becomes an attribute's value, or the tool's name in that of a span, cut and without what does not
print. Names of the GenAI conventions are our own constants: they are in development, and change. Called by `exporter`.
Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/#execute-tool-span
"""

from collections.abc import Iterable, MutableSequence

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status

from sandboxd.telemetry.timeline import Facts, Timeline, Value

OPERATION = "execute_tool"
OPERATION_NAME, TOOL_NAME, TOOL_CALL_ID = "gen_ai.operation.name", "gen_ai.tool.name", "gen_ai.tool.call.id"
AGENT_NAME, CONVERSATION_ID, ERROR_TYPE = "gen_ai.agent.name", "gen_ai.conversation.id", "error.type"
MAX_TEXT_CHARS = 128
SCOPE = "sandboxd"
_LOCAL = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK | 1  # sampled
_REMOTE = _LOCAL | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


def resource(version: str, node: str) -> Resource:
    """Who tells."""
    named = Resource()
    _put(named.attributes, (("service.name", "sandboxd"), ("service.version", version), ("host.name", node)))
    return named


def request_of(who: Resource, timelines: Iterable[Timeline]) -> bytes:
    """One ExportTraceServiceRequest."""
    message = ExportTraceServiceRequest()
    told = message.resource_spans.add()
    told.resource.CopyFrom(who)
    scope = told.scope_spans.add()
    scope.scope.name = SCOPE
    for timeline in timelines:
        scope.spans.extend(_spans(timeline))
    return message.SerializeToString()


def _spans(timeline: Timeline) -> Iterable[Span]:
    context = timeline.context
    trace_id, root_id = bytes.fromhex(context.trace_id), bytes.fromhex(timeline.root_id)
    ahead = timeline.began_unix - timeline.began  # of the wall clock, so that steps add up whatever happens to it
    facts = timeline.facts
    root = Span(
        trace_id=trace_id,
        span_id=root_id,
        parent_span_id=bytes.fromhex(context.parent_id),
        trace_state=context.state,
        flags=_REMOTE if context.parent_id else _LOCAL,
        name=f"{OPERATION} {_text(facts.agent.tool_name or SCOPE)}",
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=timeline.began_unix,
        end_time_unix_nano=ahead + timeline.ended,
    )
    _put(root.attributes, _told(facts))
    if facts.error_type:
        root.status.code = Status.STATUS_CODE_ERROR
    yield root
    for mark in timeline.marks:
        span = Span(
            trace_id=trace_id,
            span_id=bytes.fromhex(mark.span_id),
            parent_span_id=root_id,
            trace_state=context.state,
            flags=_LOCAL,
            name=str(mark.step),
            kind=Span.SPAN_KIND_INTERNAL,
            start_time_unix_nano=ahead + mark.began,
            end_time_unix_nano=ahead + mark.ended,
        )
        _put(span.attributes, mark.attributes)
        if facts.error_type and mark is timeline.marks[-1]:
            span.status.code = Status.STATUS_CODE_ERROR
        yield span


def _told(facts: Facts) -> Iterable[tuple[str, Value]]:
    agent = facts.agent
    yield OPERATION_NAME, OPERATION
    yield TOOL_NAME, agent.tool_name or SCOPE
    yield TOOL_CALL_ID, agent.tool_use_id
    yield AGENT_NAME, agent.name
    yield CONVERSATION_ID, agent.session_id
    yield "sandboxd.execution.id", facts.execution_id
    yield "sandboxd.sandbox.id", facts.sandbox_id
    yield "sandboxd.tenant", facts.tenant
    yield "sandboxd.profile", facts.profile
    yield "opa.revision", facts.revision
    yield "opa.verdict", facts.verdict
    yield "sandboxd.end_reason", facts.end_reason
    if facts.exit_code is not None:
        yield "process.exit.code", facts.exit_code
    yield ERROR_TYPE, facts.error_type


def _put(attributes: MutableSequence[KeyValue], pairs: Iterable[tuple[str, Value]]) -> None:
    """What is empty is left out."""
    for name, value in pairs:
        match value:
            case "":
                pass
            case bool():
                attributes.append(KeyValue(key=name, value=AnyValue(bool_value=value)))
            case int():
                attributes.append(KeyValue(key=name, value=AnyValue(int_value=value)))
            case _:
                attributes.append(KeyValue(key=name, value=AnyValue(string_value=_text(value))))


def _text(value: str) -> str:
    if len(value) > MAX_TEXT_CHARS:
        value = value[:MAX_TEXT_CHARS]
    return value if value.isprintable() else "".join(one if one.isprintable() else "\ufffd" for one in value)
