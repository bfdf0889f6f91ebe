from datetime import UTC, datetime

from sandboxd.client import audit_convert
from sandboxd.client.audit import AuditFilter
from sandboxd.rpc.v1 import audit_pb2


def test_what_is_not_asked_for_is_not_in_the_message() -> None:
    assert audit_convert.filter_message(AuditFilter()) == audit_pb2.AuditFilter()


def test_a_time_without_a_zone_is_utc() -> None:
    naive = audit_convert.filter_message(AuditFilter(since=datetime(2026, 1, 2, 3, 4, 5, 6))).since
    aware = audit_convert.filter_message(AuditFilter(since=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC))).since
    assert naive == aware and naive.nanos == 6000


def test_a_time_that_is_not_told_is_none() -> None:
    page = audit_convert.page(audit_pb2.AuditServiceQueryResponse(records=[audit_pb2.AuditRecord(seq=1)]))
    assert page.records[0].time is None
    (sink,) = audit_convert.sinks(audit_pb2.AuditServiceListSinksResponse(sinks=[audit_pb2.AuditSink(name="x")]))
    assert (sink.last_error_at, sink.last_success_at) == (None, None)
