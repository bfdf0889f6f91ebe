"""AuditService from a script, for tests of the client and of the command line. Bound by `server`."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import grpc
from google.protobuf import timestamp_pb2

from sandboxd.rpc.v1 import audit_pb2, audit_pb2_grpc

EVIL = "evil\x1b]0;title\x07\x7f\u202e"


def record(seq: int, line: str = "") -> audit_pb2.AuditRecord:
    """What the fields say is in the line as well, unless it is given."""
    text = (
        '{"boot":"b","fields":{"command":"evil\\u001b]0;title\\u0007","command_sha256":"%s","labels":[["a","b"]],'
        '"verdict":"deny"},"ids":{"execution_id":"%s","tenant":"acme"},"node":"n","prev":"%s","priority":"Warning",'
        '"rule":"policy.decided","seq":%d,"time":"2026-01-02T03:04:05.000000006Z","v":1}'
    )
    return audit_pb2.AuditRecord(
        seq=seq,
        time=timestamp_pb2.Timestamp(seconds=1_767_323_045, nanos=6000),
        rule="policy.decided",
        priority="Warning",
        sha256="d" * 64,
        line=line or text % ("c" * 64, "e" * 32, "f" * 64, seq),
    )


@dataclass
class FakeAudit(audit_pb2_grpc.AuditServiceServicer):
    """What it answers with, and what it was asked. A page has two records."""

    records: tuple[audit_pb2.AuditRecord, ...] = ()
    damages: tuple[audit_pb2.AuditDamage, ...] = ()
    news: tuple[audit_pb2.AuditServiceTailResponse, ...] = ()
    verification: audit_pb2.AuditServiceVerifyResponse = field(default_factory=audit_pb2.AuditServiceVerifyResponse)
    sinks: tuple[audit_pb2.AuditSink, ...] = ()
    public_key_pem: str = "-----BEGIN PUBLIC KEY-----\n"
    queries: list[audit_pb2.AuditServiceQueryRequest] = field(default_factory=list)
    tails: list[audit_pb2.AuditServiceTailRequest] = field(default_factory=list)
    tail_ends: bool = False
    left: threading.Event = field(default_factory=threading.Event)

    def Query(
        self, request: audit_pb2.AuditServiceQueryRequest, context: grpc.ServicerContext
    ) -> audit_pb2.AuditServiceQueryResponse:
        self.queries.append(request)
        start = int(request.page_token or 0)
        end = start + min(request.page_size, 2)
        return audit_pb2.AuditServiceQueryResponse(
            records=self.records[start:end],
            damages=self.damages if start == 0 else (),
            next_page_token=str(end) if end < len(self.records) else "",
        )

    def Tail(
        self, request: audit_pb2.AuditServiceTailRequest, context: grpc.ServicerContext
    ) -> Iterator[audit_pb2.AuditServiceTailResponse]:
        self.tails.append(request)
        context.add_callback(self.left.set)
        yield from self.news
        if self.tail_ends:
            context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
        self.left.wait(30)  # a test that fails must not hang

    def Verify(
        self, request: audit_pb2.AuditServiceVerifyRequest, context: grpc.ServicerContext
    ) -> audit_pb2.AuditServiceVerifyResponse:
        return self.verification

    def ListSinks(
        self, request: audit_pb2.AuditServiceListSinksRequest, context: grpc.ServicerContext
    ) -> audit_pb2.AuditServiceListSinksResponse:
        return audit_pb2.AuditServiceListSinksResponse(sinks=self.sinks)

    def GetKey(
        self, request: audit_pb2.AuditServiceGetKeyRequest, context: grpc.ServicerContext
    ) -> audit_pb2.AuditServiceGetKeyResponse:
        return audit_pb2.AuditServiceGetKeyResponse(public_key_pem=self.public_key_pem, key_id="9" * 64)
