"""Events as OpenTelemetry logs, by OTLP over HTTP with protobuf bodies, to a collector or a backend that speaks it.

Never takes an answer for a receipt that is none: only a 2xx whose body is empty or what OTLP says it is. OTLP has an
exporter give up after most errors. This sink does so only where the receiver calls a body bad, and takes an empty one:
what was done on a node is not dropped because a token has expired. Takes long to import (protobuf, aiohttp). Found by
name through `plugin`. Source: https://opentelemetry.io/docs/specs/otlp/
"""

import logging
from collections.abc import Sequence

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceResponse,
)

from sandboxd.outbound.again import seconds_until
from sandboxd.outbound.post import Answer, NoAnswer, Poster
from sandboxd.settings.sinks.otlp import PATH, OtlpSettings
from sandboxd.sink.base import Record, Sink, SinkRefused, SinkUnavailable
from sandboxd.sink.otlp_record import Export
from sandboxd.sink.turns import in_turns

PROTOBUF = "application/x-protobuf"
MOST_BYTES = 512 * 1024  # of log records in a request: receivers take 4 MiB and more by default
MOST_MESSAGE_CHARS = 256
_AGAIN_LATER = (429, 503)
_BAD_BODY = (400, 413, 422)
_NO_RECEIPT = (
    f"it answered POST {PATH} with what is no receipt of OTLP; set url to the base of a receiver for OTLP/HTTP"
)

_log = logging.getLogger(__name__)


class OtlpSink:
    """`dropped` counts what the receiver rejected of batches that it took: its answers do not tell which they were."""

    def __init__(self, settings: OtlpSettings) -> None:
        self._name = settings.name
        self._poster = Poster(f"sinks.{settings.name}", settings, 1)
        self._remark = ""
        self.dropped = 0

    async def send(self, records: Sequence[Record]) -> None:
        """In requests of about MOST_BYTES, one after the other."""
        export = Export()
        async for record in in_turns(records):
            if export.size_bytes >= MOST_BYTES:
                await self._export(export)
                export = Export()
            export.add(record)
        await self._export(export)

    async def close(self) -> None:
        await self._poster.close()

    async def _export(self, export: Export) -> None:
        answer = await self._post(export)
        if answer.status in _BAD_BODY and export.size_bytes and (await self._post(Export())).ok:
            raise SinkRefused(_said(answer))
        if not answer.ok:
            raise SinkUnavailable(
                _said(answer), seconds_until(answer.retry_after) if answer.status in _AGAIN_LATER else 0.0
            )
        self._note(_partial_success(answer.body), export)

    def _note(self, partial: ExportLogsPartialSuccess, export: Export) -> None:
        """What it does not keep is not to be sent again: the rest was taken, and would be there twice."""
        said = repr(partial.error_message[:MOST_MESSAGE_CHARS])
        rejected = min(partial.rejected_log_records, export.count)
        if rejected > 0:
            self.dropped += rejected
            _log.error(
                "sink does not keep some of the records that it took",
                extra={
                    "sink": self._name,
                    "rejected": rejected,
                    "first_seq": export.first_seq,
                    "last_seq": export.last_seq,
                    "error": said,
                },
            )
        elif partial.error_message and said != self._remark:
            self._remark = said
            _log.warning("sink remarks on what it took", extra={"sink": self._name, "remark": said})

    async def _post(self, export: Export) -> Answer:
        try:
            return await self._poster.post(export.request.SerializeToString(), PROTOBUF, PATH)
        except NoAnswer as error:
            raise SinkUnavailable(str(error)) from error


def _partial_success(body: bytes) -> ExportLogsPartialSuccess:
    try:
        response = ExportLogsServiceResponse.FromString(body)
    except DecodeError as error:
        raise SinkUnavailable(_NO_RECEIPT) from error
    if len(UnknownFieldSet(response)):
        raise SinkUnavailable(_NO_RECEIPT)
    return response.partial_success


def _said(answer: Answer) -> str:
    return f"it answered {answer.status} to POST {PATH}"


def create(settings: OtlpSettings, _node: str) -> Sink:
    return OtlpSink(settings)
