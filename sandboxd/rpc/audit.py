"""AuditService: the record of what happened here, for operators alone. Changes nothing. Bound to gRPC by `server`.

What it answers with are the journal's own lines. A filter is data: it is compared, and never a pattern or a statement.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from sandboxd.audit.feed import SinkStatus
from sandboxd.audit.history import Damage, Found
from sandboxd.audit.key import key_id, parse_public
from sandboxd.audit.line import timestamp
from sandboxd.audit.lookup import Page, Query
from sandboxd.audit.search import MAX_TEXT_CHARS, PRIORITIES, Search
from sandboxd.audit.tail import Slice
from sandboxd.audit.verify import VerifyResult
from sandboxd.errors import CallerRefused, InvalidRequest
from sandboxd.model import OPERATOR
from sandboxd.rpc import convert
from sandboxd.rpc.interceptors import Call, Method, Streaming, Unary
from sandboxd.rpc.v1 import audit_pb2

PAGE_RECORDS, MAX_PAGE_RECORDS = 100, 1000
MAX_FILTER_CHARS = 256
_LAST_SECOND = 253_402_300_799  # of the year 9999
_MAX_SEQ = (1 << 64) - 1


class Audit(Protocol):
    """What the service needs of `audit.reader.AuditReader`."""

    async def query(self, query: Query) -> Page: ...

    def tail(self, search: Search, from_seq: int | None) -> AsyncGenerator[Slice, None]: ...

    async def verify(self) -> VerifyResult: ...

    @property
    def public_pem(self) -> bytes: ...


class AuditService:
    NAME = audit_pb2.DESCRIPTOR.services_by_name["AuditService"].full_name

    def __init__(self, audit: Audit, sinks: Callable[[], Sequence[SinkStatus]]) -> None:
        self._audit = audit
        self._sinks = sinks

    def methods(self) -> dict[str, Method]:
        return {
            "Query": Unary(audit_pb2.AuditServiceQueryRequest, self._query),
            "Tail": Streaming(audit_pb2.AuditServiceTailRequest, self._tail),
            "Verify": Unary(audit_pb2.AuditServiceVerifyRequest, self._verify),
            "ListSinks": Unary(audit_pb2.AuditServiceListSinksRequest, self._list_sinks),
            "GetKey": Unary(audit_pb2.AuditServiceGetKeyRequest, self._get_key),
        }

    async def _query(
        self, message: audit_pb2.AuditServiceQueryRequest, call: Call
    ) -> audit_pb2.AuditServiceQueryResponse:
        _refuse_others(call)
        query = Query(
            search=_search(message.filter),
            newest_first=not message.oldest_first,
            size=min(message.page_size or PAGE_RECORDS, MAX_PAGE_RECORDS),
            after=_position(message.page_token),
        )
        page = await self._audit.query(query)
        return audit_pb2.AuditServiceQueryResponse(
            records=map(_record, page.found),
            damages=map(_damage, page.damages),
            next_page_token="" if page.next is None else str(page.next),
        )

    async def _tail(
        self, message: audit_pb2.AuditServiceTailRequest, call: Call
    ) -> AsyncGenerator[audit_pb2.AuditServiceTailResponse, None]:
        _refuse_others(call)
        from_seq = message.from_seq if message.HasField("from_seq") else None
        async with aclosing(self._audit.tail(_search(message.filter), from_seq)) as slices:
            async for piece in slices:
                yield audit_pb2.AuditServiceTailResponse(
                    records=map(_record, piece.found),
                    damages=map(_damage, piece.damages),
                    next_seq=piece.next_seq,
                    missing=min(piece.missing, _MAX_SEQ),
                    caught_up=piece.caught_up,
                )

    async def _verify(
        self, _message: audit_pb2.AuditServiceVerifyRequest, call: Call
    ) -> audit_pb2.AuditServiceVerifyResponse:
        _refuse_others(call)
        result = await self._audit.verify()
        answer = audit_pb2.AuditServiceVerifyResponse(
            ok=result.ok,
            records=result.records,
            torn_bytes=result.torn_bytes,
            first_seq=min(result.first_seq, _MAX_SEQ),
            last_seq=min(result.last_seq, _MAX_SEQ),
            checkpoints=result.checkpoints,
            sealed_seq=min(result.sealed_seq, _MAX_SEQ),
            sealed_at=_moment(result.sealed_time),
            key_id=convert.text(result.key_id),
        )
        if (bad := result.first_bad) is not None:
            answer.first_bad.segment = convert.text(bad.segment)
            answer.first_bad.line = bad.line
            answer.first_bad.seq = min(bad.seq, _MAX_SEQ)
            answer.first_bad.fault = bad.fault
            answer.first_bad.reason = convert.text(bad.reason)
        return answer

    async def _list_sinks(
        self, _message: audit_pb2.AuditServiceListSinksRequest, call: Call
    ) -> audit_pb2.AuditServiceListSinksResponse:
        _refuse_others(call)
        return audit_pb2.AuditServiceListSinksResponse(sinks=map(_sink, self._sinks()))

    async def _get_key(
        self, _message: audit_pb2.AuditServiceGetKeyRequest, call: Call
    ) -> audit_pb2.AuditServiceGetKeyResponse:
        _refuse_others(call)
        pem = self._audit.public_pem
        return audit_pb2.AuditServiceGetKeyResponse(public_key_pem=pem.decode(), key_id=key_id(parse_public(pem)))


def _refuse_others(call: Call) -> None:
    """Records tell what every caller did, with what, and what policy thought of it."""
    if OPERATOR not in call.caller.roles:
        raise CallerRefused("reading the audit is for operators; call as root or as the daemon's own user")


def _search(message: audit_pb2.AuditFilter) -> Search:
    for name in ("tenant", "execution_id", "sandbox_id", "rule", "verdict"):
        if len(getattr(message, name)) > MAX_FILTER_CHARS:
            raise InvalidRequest(f"{name} has more than {MAX_FILTER_CHARS} characters; no record holds that")
    if len(message.text) > MAX_TEXT_CHARS:
        raise InvalidRequest(f"text has {len(message.text)} characters; look for {MAX_TEXT_CHARS} at most")
    if message.minimum_priority not in ("", *PRIORITIES):
        raise InvalidRequest(f"unknown priority {message.minimum_priority[:32]!r}; one of {', '.join(PRIORITIES)}")
    return Search(
        since=_time("since", message.since) if message.HasField("since") else "",
        until=_time("until", message.until) if message.HasField("until") else "",
        tenant=message.tenant,
        execution_id=message.execution_id,
        sandbox_id=message.sandbox_id,
        rule=message.rule,
        verdict=message.verdict,
        minimum_priority=message.minimum_priority,
        text=message.text,
    )


def _time(name: str, moment: Timestamp) -> str:
    """As the journal writes times."""
    if not 0 <= moment.seconds <= _LAST_SECOND or not 0 <= moment.nanos < 1_000_000_000:
        raise InvalidRequest(f"{name} is no time between 1970 and 9999")
    return timestamp(moment.seconds * 1_000_000_000 + moment.nanos)


def _position(token: str) -> int | None:
    if not token:
        return None
    if not (token.isascii() and token.isdecimal() and len(token) <= len(str(_MAX_SEQ))):
        raise InvalidRequest(f"page_token {token[:32]!r} is none of ours; give the next_page_token of the page before")
    return int(token)


def _record(found: Found) -> audit_pb2.AuditRecord:
    record = found.record
    return audit_pb2.AuditRecord(
        seq=min(record.seq, _MAX_SEQ),
        time=_moment(record.time),
        rule=convert.text(record.rule),
        priority=convert.text(record.priority),
        sha256=record.digest,
        line=found.line.decode(errors="backslashreplace"),
    )


def _moment(time: str) -> Timestamp | None:
    """None for what is no time."""
    try:
        whole = datetime.fromisoformat(time[:19]).replace(tzinfo=UTC)
        return Timestamp(seconds=int(whole.timestamp()), nanos=int(time[20:29]))
    except (ValueError, OverflowError):
        return None


def _damage(damage: Damage) -> audit_pb2.AuditDamage:
    return audit_pb2.AuditDamage(
        seq=min(damage.seq, _MAX_SEQ),
        segment=damage.segment,
        offset=damage.offset,
        reason=convert.text(damage.reason),
    )


def _sink(status: SinkStatus) -> audit_pb2.AuditSink:
    return audit_pb2.AuditSink(
        name=status.name,
        type=status.type,
        required=status.required,
        state=status.state,
        sent_records=status.sent_records,
        filtered_records=status.filtered_records,
        lag_records=status.lag_records,
        lag_seconds=status.lag_seconds,
        retries=status.retries,
        failures=status.failures,
        lost_records=status.lost_records,
        refused_records=status.refused_records,
        last_error=convert.text(status.last_error),
        last_error_at=convert.timestamp(status.last_error_at) if status.last_error_at else None,
        last_success_at=convert.timestamp(status.last_success_at) if status.last_success_at else None,
    )
