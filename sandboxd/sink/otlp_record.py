"""Records as OpenTelemetry log records: the protobuf messages of OTLP, as an exporter of logs sends them.

Pure. Tenant text becomes an attribute's value, never its name, an event's name or a body. Attributes have the names of
OpenTelemetry's semantic conventions where one means the same, else `sandboxd.NAME`. Called by `sink.otlp`.
Source: https://opentelemetry.io/docs/specs/otel/logs/data-model/
"""

import re

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber

from sandboxd import __version__
from sandboxd.sink.base import FieldValue, Record
from sandboxd.sink.falco_event import time_ns
from sandboxd.trace_context import is_trace_id

SCOPE = "sandboxd.audit"
_LARGEST = 2**63
_EMPTY = (None, "", ())  # tells no more than the attribute's absence
_ID = re.compile("[0-9a-f]{1,64}", re.ASCII)
_SHOWN = (("execution", "execution_id"), ("sandbox", "sandbox_id"))

# As the data model maps syslog's severities (appendix B), which these are.
_SEVERITIES = {
    "Debug": SeverityNumber.SEVERITY_NUMBER_DEBUG,
    "Informational": SeverityNumber.SEVERITY_NUMBER_INFO,
    "Notice": SeverityNumber.SEVERITY_NUMBER_INFO2,
    "Warning": SeverityNumber.SEVERITY_NUMBER_WARN,
    "Error": SeverityNumber.SEVERITY_NUMBER_ERROR,
    "Critical": SeverityNumber.SEVERITY_NUMBER_ERROR2,
    "Alert": SeverityNumber.SEVERITY_NUMBER_ERROR3,
    "Emergency": SeverityNumber.SEVERITY_NUMBER_FATAL,
}

_NAMES = {
    "agent_name": "gen_ai.agent.name",
    "agent_session_id": "gen_ai.conversation.id",
    "caller_method": "rpc.method",
    "caller_roles": "user.roles",
    "command": "process.command_line",
    "cwd": "process.working_directory",
    "exit_code": "process.exit.code",
    "host_uid": "process.user.id",
    "image": "process.executable.path",
    "pid": "process.vpid",
    "sandbox_id": "container.id",
    "subject": "user.id",
    "tool_name": "gen_ai.tool.name",
    "tool_use_id": "gen_ai.tool.call.id",
}


class Export:
    """A request in the making, to which records are added in their order."""

    def __init__(self) -> None:
        self.request = ExportLogsServiceRequest()
        self.size_bytes = 0  # of its records
        self.count = 0
        self.first_seq = 0
        self.last_seq = 0
        self._node: str | None = None
        self._scope: ScopeLogs

    def add(self, record: Record) -> None:
        if record.node != self._node:
            self._node = record.node
            self._scope = _scope(self.request.resource_logs.add(), record.node)
        self.first_seq = self.first_seq or record.seq
        self.last_seq = record.seq
        self.count += 1
        made = self._scope.log_records.add()
        _fill(made, record)
        self.size_bytes += made.ByteSize()


def _scope(resource: ResourceLogs, node: str) -> ScopeLogs:
    """Where the records of that node go."""
    about = (("service.name", "sandboxd"), ("service.version", __version__), ("host.name", node))
    for name, value in about:
        _put(resource.resource.attributes, name, value)
    made = resource.scope_logs.add()
    made.scope.name = SCOPE
    made.scope.version = __version__
    return made


def _fill(made: LogRecord, record: Record) -> None:
    ids = dict(record.ids)
    made.time_unix_nano = made.observed_time_unix_nano = time_ns(record.time)
    made.severity_number = _SEVERITIES.get(record.priority, SeverityNumber.SEVERITY_NUMBER_UNSPECIFIED)
    made.severity_text = record.priority
    made.event_name = record.rule
    made.body.string_value = _sentence(record.rule, ids)
    if is_trace_id(ids.get("trace_id", "")):
        made.trace_id = bytes.fromhex(ids.pop("trace_id"))
    attributes = made.attributes
    # The same whenever it is sent again, so that a receiver can leave it out the second time.
    _put(attributes, "log.record.uid", f"{record.boot}-{record.seq}")
    _put(attributes, "sandboxd.journal.seq", record.seq)
    _put(attributes, "sandboxd.journal.boot", record.boot)
    _put(attributes, "sandboxd.journal.prev", record.prev)
    _put(attributes, "sandboxd.journal.digest", record.digest)
    for name, value in (*ids.items(), *record.fields):
        if value not in _EMPTY:
            _put(attributes, _NAMES.get(name) or f"sandboxd.{name}", value)


def _sentence(rule: str, ids: dict[str, str]) -> str:
    shown = " ".join(f"{name}={ids[key]}" for name, key in _SHOWN if _ID.fullmatch(ids.get(key, "")))
    return f"{rule} ({shown})" if shown else rule


def _put(attributes: RepeatedCompositeFieldContainer[KeyValue], name: str, value: FieldValue) -> None:
    made = attributes.add()
    made.key = name
    _set(made.value, value)


def _set(made: AnyValue, value: FieldValue) -> None:
    match value:
        case bool():
            made.bool_value = value
        case int() if -_LARGEST <= value < _LARGEST:
            made.int_value = value
        case float():
            made.double_value = value
        case tuple():
            made.array_value.SetInParent()
            for item in value:
                made.array_value.values.add().string_value = _text(_item(item))
        case _:
            made.string_value = _text(str(value))


def _item(item: object) -> str:
    """An item of a list; of a list of pairs, `name=value`."""
    return "=".join(map(str, item)) if isinstance(item, tuple) else str(item)


def _text(text: str) -> str:
    """What protobuf takes as text: half of a surrogate pair, which is none, is written out."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
