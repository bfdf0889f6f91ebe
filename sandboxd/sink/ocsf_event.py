"""One record as an event of the Open Cybersecurity Schema Framework: a JSON object of the class that it belongs to.

Pure. Whatever has no place in its class stands in `unmapped` by its own name, so nothing of a record is lost. Tenant
text is only ever a value. What cannot be known of a required attribute is told as `Unknown`. Called by `sink.ocsf`.
Source: https://schema.ocsf.io/1.9.0/; profiles host, container, security_control, record_integrity, trace.
"""

import json
from collections.abc import Callable, Mapping

from sandboxd import __version__
from sandboxd.audit.line import FIRST_PREV
from sandboxd.sink.base import FieldValue, Record
from sandboxd.sink.falco_event import time_ns
from sandboxd.sink.file import journal_line
from sandboxd.sink.ocsf_kinds import (
    ACTION_NAMES,
    API,
    BASE,
    DISPOSITION_NAMES,
    FILE,
    FINDING,
    LIFECYCLE,
    NETWORK,
    PROCESS,
    SEVERITIES,
    VERSION,
    EventClass,
    Kind,
    control_of,
    kind_of,
)

PROFILES = ("host", "container", "security_control", "record_integrity")
SERIALIZATION = "sandboxd journal line, version 1"
PRODUCT: Mapping[str, object] = {"name": "sandboxd", "vendor_name": "sandboxd", "version": __version__}
_FAILED = ("failed", "refused", "denied", "expired", "lagged", "skipped", "gap", "repaired")
_LARGEST = 2**63
_YEARS = 1e9  # longer than anything runs, in seconds

Attributes = dict[str, object]


class _Fields:
    """Of a record. What is taken has found its place; the rest is left for `unmapped`."""

    def __init__(self, record: Record) -> None:
        self.left = {
            name: _clean(value) for name, value in (*record.ids, *record.fields) if value not in (None, "", ())
        }

    def see(self, name: str) -> str:
        value = self.left.get(name)
        return value if isinstance(value, str) else ""

    def text(self, name: str) -> str:
        value = self.see(name)
        if value:
            del self.left[name]
        return value

    def number(self, name: str) -> int | None:
        value = self.left.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            del self.left[name]
            return value
        return None


def ocsf_line(record: Record, *, raw_data: bool) -> bytes:
    """The event on one line: printable ASCII whatever a tenant wrote."""
    event = ocsf_event(record, raw_data=raw_data)
    return json.dumps(event, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def ocsf_event(record: Record, *, raw_data: bool) -> Attributes:
    """`raw_data`: with the line of the journal, so that its digest can be checked without the journal."""
    fields = _Fields(record)
    kind = kind_of(record.rule, fields.see("action"))
    severity_id, severity = SEVERITIES.get(record.priority, (0, "Unknown"))
    made: Attributes = {
        "class_uid": kind.of.uid,
        "class_name": kind.of.name,
        "category_uid": kind.of.category_uid,
        "category_name": kind.of.category,
        "activity_id": kind.activity,
        "activity_name": kind.activity_name if kind.activity_name != "Other" else record.rule,
        "type_uid": kind.of.uid * 100 + kind.activity,
        "type_name": f"{kind.of.name}: {kind.activity_name}",
        "time": time_ns(record.time) // 1_000_000,
        "severity_id": severity_id,
        "severity": severity,
        "is_alert": severity_id >= 3,
        "message": record.rule,
        "metadata": _metadata(record, kind.of, fields),
    }
    made |= _control(record.rule, fields)
    made |= _status(record.rule, kind, fields)
    made |= _OF_CLASS[kind.of.uid](record, fields)
    made |= _where(record, fields)
    made |= _integrity(record, raw_data=raw_data)
    made["unmapped"] = {
        **fields.left,
        "journal": {"seq": record.seq, "boot": record.boot, "prev": record.prev, "digest": record.digest},
    }
    return made


def _metadata(record: Record, of: EventClass, fields: _Fields) -> Attributes:
    """`uid` is the digest of the record's line: the same whenever it is sent again, and what the next one refers to."""
    return _given(
        version=VERSION,
        product=PRODUCT,
        profiles=(*PROFILES, "trace") if of is API else PROFILES,
        uid=record.digest,
        sequence=record.seq,
        event_code=record.rule,
        log_level=record.priority,
        log_name="journal",
        log_provider="sandboxd",
        logged_time=time_ns(record.time) // 1_000_000,
        original_time=record.time,
        tenant_uid=fields.text("tenant"),
        correlation_uid=fields.see("execution_id"),
    )


def _control(rule: str, fields: _Fields) -> Attributes:
    control = control_of(rule, fields.see("verdict"), fields.see("measure"))
    made: Attributes = {
        "action_id": control.action,
        "action": ACTION_NAMES[control.action],
        "disposition_id": control.disposition,
        "disposition": DISPOSITION_NAMES[control.disposition],
    }
    if revision := fields.text("policy_revision"):
        made["policy"] = _given(uid=revision, name=fields.text("engine"), type="Rego", is_applied=True)
    return made


def _status(rule: str, kind: Kind, fields: _Fields) -> Attributes:
    if kind.of is FINDING:
        status = (1, "New")
    elif _failed(rule, fields):
        status = (2, "Failure")
    else:
        status = (1, "Success")
    code = fields.text("reason") or fields.text("end_reason") or fields.text("code")
    detail = fields.text("message") or fields.text("detail")
    return _given(
        status_id=status[0], status=status[1], status_code=code, status_detail=detail, count=fields.number("count")
    )


def _failed(rule: str, fields: _Fields) -> bool:
    if rule == "execution.ended":
        return fields.see("end_reason") != "exited" or fields.left.get("exit_code") != 0
    if rule == "config.reloaded":
        return fields.left.get("ok") is not True
    return rule.endswith(_FAILED) or fields.see("verdict") in ("deny", "escalate")


def _where(record: Record, fields: _Fields) -> Attributes:
    """Who asked, or that nobody but the daemon did; and on which node, in which sandbox."""
    user: Attributes = {"uid": fields.text("subject")} if fields.see("subject") else {}
    session: Attributes = {"uid": fields.text("agent_session_id")} if fields.see("agent_session_id") else {}
    daemon: Attributes = {} if user or session else {"name": "sandboxd", "uid": record.boot}
    sandbox: Attributes = {"uid": fields.text("sandbox_id")} if fields.see("sandbox_id") else {}
    return {
        "actor": _given(user=user, session=session, process=daemon),
        "device": _given(hostname=_text(record.node), type_id=0, type="Unknown", container=sandbox),
    }


def _integrity(record: Record, *, raw_data: bool) -> Attributes:
    """The journal's chain: each fingerprint is of a line as the daemon wrote it, which names the line before."""
    line = journal_line(record)[:-1]
    before: Attributes = {}
    if record.prev != FIRST_PREV:
        before = {"uid": record.prev, "fingerprint": _fingerprint(record.prev)}
    return _given(
        attestation_list=[
            _given(
                uid=record.digest,
                chain_uid=_text(record.node),
                prev_event=before,
                fingerprint=_fingerprint(record.digest),
            )
        ],
        raw_data=line.decode() if raw_data else None,
        raw_data_hash={"algorithm_id": 3, "algorithm": "SHA-256", "value": record.digest},
        raw_data_size=len(line),
    )


def _fingerprint(digest: str) -> Attributes:
    return {
        "algorithm_id": 3,
        "algorithm": "SHA-256",
        "encoding_id": 1,
        "encoding": "Hex",
        "serialization_id": 99,
        "serialization": SERIALIZATION,
        "value": digest,
    }


def _process(_record: Record, fields: _Fields) -> Attributes:
    execution, pid = fields.text("execution_id"), fields.number("pid")
    wall_seconds = fields.left.get("wall_seconds")
    host_uid = fields.number("host_uid")
    image = fields.text("image")
    process = _given(
        uid=_inside(execution, pid),
        namespace_pid=pid,
        cmd_line=fields.text("command"),
        working_directory=fields.text("cwd"),
        sandbox=fields.see("sandbox_id"),
        user={} if host_uid is None else {"uid": str(host_uid)},
        file={"name": image.rpartition("/")[2] or image, "path": image, "type_id": 8} if image else {},
    )
    parent = fields.number("parent_pid")
    if parent is not None:
        process["parent_process"] = {"uid": _inside(execution, parent), "namespace_pid": parent}
    return _given(
        process=process,
        exit_code=fields.number("exit_code"),
        duration=round(wall_seconds * 1000) if isinstance(wall_seconds, float) and 0 <= wall_seconds < _YEARS else None,
        launch_type_id=3 if image else None,
        launch_type="Exec" if image else None,
    )


def _file(_record: Record, _fields: _Fields) -> Attributes:
    """The record does not name it: the policy input does, which `input_sha256` names."""
    return {"file": {"name": "Unknown", "type_id": 0}}


def _network(record: Record, fields: _Fields) -> Attributes:
    return {"src_endpoint": _given(hostname=_text(record.node), instance_uid=fields.see("sandbox_id"))}


def _api(record: Record, fields: _Fields) -> Attributes:
    execution, trace = fields.text("execution_id"), fields.text("trace_id")
    operation = fields.text("caller_method") or fields.see("action") or record.rule
    return _given(
        api=_given(operation=operation, service={"name": "sandboxd"}, request={"uid": execution} if execution else {}),
        src_endpoint={"name": "Unknown"},
        resources=_resources(fields),
        trace={"uid": trace} if trace else {},
    )


def _finding(record: Record, fields: _Fields) -> Attributes:
    execution, pid = fields.text("execution_id"), fields.number("pid")
    layer = fields.text("layer")
    return _given(
        finding_info={
            "uid": record.digest,
            "title": record.rule,
            "analytic": {"type_id": 1, "type": "Rule", "uid": record.rule, "name": layer or record.rule},
        },
        evidences=[{"process": _given(uid=_inside(execution, pid), namespace_pid=pid)}],
        resources=_resources(fields),
    )


def _lifecycle(_record: Record, _fields: _Fields) -> Attributes:
    return {"app": PRODUCT}


def _base(_record: Record, _fields: _Fields) -> Attributes:
    return {}


_OF_CLASS: dict[int, Callable[[Record, _Fields], Attributes]] = {
    FILE.uid: _file,
    PROCESS.uid: _process,
    FINDING.uid: _finding,
    NETWORK.uid: _network,
    LIFECYCLE.uid: _lifecycle,
    API.uid: _api,
    BASE.uid: _base,
}


def _resources(fields: _Fields) -> list[Attributes]:
    """What it was done to."""
    named = (
        (fields.see("sandbox_id"), "sandbox"),
        (fields.text("approval_id"), "approval"),
        (fields.text("target_id"), fields.see("target")),
    )
    return [_given(uid=uid, type=kind) for uid, kind in named if uid]


def _inside(execution: str, pid: int | None) -> str:
    """A process of an execution; the execution itself where no pid is told."""
    return (execution or "Unknown") if pid is None else f"{execution or 'Unknown'}:{pid}"


def _given(**attributes: object) -> Attributes:
    """Without those that tell nothing."""
    return {name: value for name, value in attributes.items() if value not in (None, "", {}, [])}


def _clean(value: FieldValue) -> object:
    match value:
        case str():
            return _text(value)
        case tuple():
            return [_clean(item) if isinstance(item, str | tuple) else item for item in value]
        case int() if not -_LARGEST <= value < _LARGEST:
            return str(value)
        case _:
            return value


def _text(text: str) -> str:
    """Half of a surrogate pair is no text to strict readers of JSON: it is written out."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
