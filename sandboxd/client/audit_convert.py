"""Messages of AuditService as the SDK's own data, and the SDK's filter as a message. Pure. Called by `question`."""

from collections.abc import Iterable
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from sandboxd.client.audit import (
    AuditBadRecord,
    AuditDamage,
    AuditFilter,
    AuditKey,
    AuditNews,
    AuditPage,
    AuditRecord,
    AuditSink,
    AuditVerification,
)
from sandboxd.client.convert import moment
from sandboxd.rpc.v1 import audit_pb2


def filter_message(wanted: AuditFilter) -> audit_pb2.AuditFilter:
    return audit_pb2.AuditFilter(
        since=_timestamp(wanted.since),
        until=_timestamp(wanted.until),
        tenant=wanted.tenant,
        execution_id=wanted.execution_id,
        sandbox_id=wanted.sandbox_id,
        rule=wanted.rule,
        verdict=wanted.verdict,
        minimum_priority=wanted.minimum_priority,
        text=wanted.text,
    )


def page(message: audit_pb2.AuditServiceQueryResponse) -> AuditPage:
    return AuditPage(_records(message.records), _damages(message.damages), message.next_page_token)


def news(message: audit_pb2.AuditServiceTailResponse) -> AuditNews:
    return AuditNews(
        records=_records(message.records),
        damages=_damages(message.damages),
        next_seq=message.next_seq,
        missing=message.missing,
        caught_up=message.caught_up,
    )


def verification(message: audit_pb2.AuditServiceVerifyResponse) -> AuditVerification:
    bad = message.first_bad
    return AuditVerification(
        ok=message.ok,
        records=message.records,
        first_bad=AuditBadRecord(bad.segment, bad.line, bad.seq, bad.fault, bad.reason)
        if message.HasField("first_bad")
        else None,
        torn_bytes=message.torn_bytes,
        first_seq=message.first_seq,
        last_seq=message.last_seq,
        checkpoints=message.checkpoints,
        sealed_seq=message.sealed_seq,
        sealed_at=moment(message.sealed_at) if message.HasField("sealed_at") else None,
        key_id=message.key_id,
    )


def sinks(message: audit_pb2.AuditServiceListSinksResponse) -> tuple[AuditSink, ...]:
    return tuple(map(_sink, message.sinks))


def key(message: audit_pb2.AuditServiceGetKeyResponse) -> AuditKey:
    return AuditKey(message.public_key_pem, message.key_id)


def _records(messages: Iterable[audit_pb2.AuditRecord]) -> tuple[AuditRecord, ...]:
    return tuple(
        AuditRecord(
            seq=m.seq,
            time=moment(m.time) if m.HasField("time") else None,
            rule=m.rule,
            priority=m.priority,
            sha256=m.sha256,
            line=m.line,
        )
        for m in messages
    )


def _damages(messages: Iterable[audit_pb2.AuditDamage]) -> tuple[AuditDamage, ...]:
    return tuple(AuditDamage(m.seq, m.segment, m.offset, m.reason) for m in messages)


def _sink(message: audit_pb2.AuditSink) -> AuditSink:
    return AuditSink(
        name=message.name,
        type=message.type,
        required=message.required,
        state=message.state,
        sent_records=message.sent_records,
        filtered_records=message.filtered_records,
        lag_records=message.lag_records,
        lag_seconds=message.lag_seconds,
        retries=message.retries,
        failures=message.failures,
        lost_records=message.lost_records,
        refused_records=message.refused_records,
        last_error=message.last_error,
        last_error_at=moment(message.last_error_at) if message.HasField("last_error_at") else None,
        last_success_at=moment(message.last_success_at) if message.HasField("last_success_at") else None,
    )


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time)
    return message
