"""What operators do about incidents: the part of NodeService that freezes, kills, quarantines and looks into sandboxes.

Decides nothing itself. Its methods are bound to gRPC by `server` as those of NodeService.
"""

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import asdict

from sandboxd.errors import InvalidRequest, Unenforceable
from sandboxd.lifecycle import ExecutionRecord
from sandboxd.model import Isolation
from sandboxd.response.demand import Demand, Effect, Kind, Measure, Target
from sandboxd.response.responder import Responder, require_operator
from sandboxd.rpc import convert
from sandboxd.rpc.interceptors import Call, Method, Streaming, Unary
from sandboxd.rpc.v1 import node_pb2
from sandboxd.runtime.base import Runtime
from sandboxd.suspension import Suspension
from sandboxd.trace_context import trace_id_of

MAX_COMMENT_CHARS = 512
WORKSPACE_BYTES = 256 * 1024 * 1024
MAX_WORKSPACE_BYTES = 16 * 1024**3
_PIECE_BYTES = 64 * 1024

_MEASURES = {
    node_pb2.MEASURE_FREEZE: Measure.FREEZE,
    node_pb2.MEASURE_THAW: Measure.THAW,
    node_pb2.MEASURE_KILL: Measure.KILL,
    node_pb2.MEASURE_QUARANTINE: Measure.QUARANTINE,
    node_pb2.MEASURE_LIFT: Measure.LIFT,
}
_EFFECTS = {
    Effect.FROZEN: node_pb2.EFFECT_FROZEN,
    Effect.THAWED: node_pb2.EFFECT_THAWED,
    Effect.KILLED: node_pb2.EFFECT_KILLED,
    Effect.UNCHANGED: node_pb2.EFFECT_UNCHANGED,
    Effect.HELD: node_pb2.EFFECT_HELD,
    Effect.FAILED: node_pb2.EFFECT_FAILED,
}
_KINDS = {
    "sandbox_id": Kind.SANDBOX,
    "execution_id": Kind.EXECUTION,
    "tenant": Kind.TENANT,
    "subject": Kind.SUBJECT,
}


class Responses:
    def __init__(self, responder: Responder, runtimes: Mapping[Isolation, Runtime], ids: Callable[[], str]) -> None:
        self._responder = responder
        self._runtimes = runtimes
        self._ids = ids

    def methods(self) -> dict[str, Method]:
        return {
            "Respond": Unary(node_pb2.RespondRequest, self._respond),
            "ListQuarantines": Unary(node_pb2.ListQuarantinesRequest, self._list),
            "Examine": Streaming(node_pb2.ExamineRequest, self._examine),
        }

    async def _respond(self, message: node_pb2.RespondRequest, call: Call) -> node_pb2.RespondResponse:
        measure = _MEASURES.get(message.measure)
        if measure is None:
            raise InvalidRequest("the request names no measure; set measure")
        if len(message.comment) > MAX_COMMENT_CHARS:
            raise InvalidRequest(f"comment has {len(message.comment)} characters; say it in {MAX_COMMENT_CHARS}")
        demand = Demand(measure, _target(message.target), comment=message.comment)
        taken = await self._responder.respond(demand, call.caller, trace_id_of(call.traceparent, self._ids))
        return node_pb2.RespondResponse(
            effects=[
                node_pb2.ExecutionEffect(execution_id=execution_id, effect=_EFFECTS[effect])
                for execution_id, effect in taken.effects
            ]
        )

    async def _list(self, _message: node_pb2.ListQuarantinesRequest, call: Call) -> node_pb2.ListQuarantinesResponse:
        require_operator(call.caller)
        return node_pb2.ListQuarantinesResponse(
            quarantines=[
                node_pb2.Quarantine(
                    tenant=convert.text(one.tenant),
                    subject=convert.text(one.subject),
                    since=convert.timestamp(one.since),
                    by=convert.text(one.by),
                    rule=convert.text(one.rule),
                    comment=convert.text(one.comment),
                )
                for one in self._responder.quarantines
            ]
        )

    async def _examine(
        self, message: node_pb2.ExamineRequest, call: Call
    ) -> AsyncGenerator[node_pb2.ExamineResponse, None]:
        if message.workspace_bytes > MAX_WORKSPACE_BYTES:
            raise InvalidRequest(f"workspace_bytes is {message.workspace_bytes}; {MAX_WORKSPACE_BYTES} are the most")
        trace_id = trace_id_of(call.traceparent, self._ids)
        record, suspension = await self._responder.examined(_target(message.target), call.caller, trace_id)
        runtime = self._runtimes.get(record.report.runtime) if record.report is not None else None
        if runtime is None:
            raise Unenforceable("it is being launched; try again once it runs", reason="not_running")
        for name, data in _known(record, suspension):
            for start in range(0, len(data), _PIECE_BYTES):
                yield node_pb2.ExamineResponse(name=name, data=data[start : start + _PIECE_BYTES])
        room = message.workspace_bytes or WORKSPACE_BYTES
        async with aclosing(runtime.examine(record.sandbox_id, room)) as pieces:
            async for name, data in pieces:
                yield node_pb2.ExamineResponse(name=name, data=data)


def _target(message: node_pb2.ResponseTarget) -> Target:
    field = message.WhichOneof("target")
    if field is None or not (value := getattr(message, field)):
        raise InvalidRequest("the request names no target; set one of sandbox_id, execution_id, tenant and subject")
    return Target(_KINDS[field], value)


def _known(record: ExecutionRecord, suspension: Suspension) -> list[tuple[str, bytes]]:
    """What the daemon itself has of it."""
    dossier = suspension.dossier
    execution = {
        "execution_id": record.execution_id,
        "sandbox_id": record.sandbox_id,
        "tenant": record.tenant,
        "subject": record.subject,
        "profile": record.profile,
        "profile_digest": dossier.subject.profile.digest,
        "trace_id": dossier.subject.trace_id,
        "command": record.command,
        "labels": dict(record.labels),
        "state": record.state,
        "requested_at": record.requested_at,
        "started_at": record.started_at,
        "frozen": suspension.frozen,
        "held": suspension.held,
    }
    report = asdict(record.report) if record.report is not None else {}
    documents = (("execution.json", execution), ("limits.json", asdict(dossier.limits)), ("enforcement.json", report))
    return [(name, json.dumps(document, indent=1).encode()) for name, document in documents]
