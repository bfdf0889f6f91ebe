"""Events as syslog messages (RFC 5424), on this node or over a network.

Never blocks the event loop. Found by name through `plugin`.
"""

from collections.abc import Sequence
from functools import partial
from urllib.parse import unquote, urlsplit

from sandboxd.outbound.tls import client_context
from sandboxd.settings.sinks.syslog import FACILITIES, SyslogSettings
from sandboxd.sink.base import Record, Sink
from sandboxd.sink.syslog_line import DatagramLine, Line, StreamLine, confirm, confirm_tls, tcp, tls, unix_stream
from sandboxd.sink.syslog_message import Form, message
from sandboxd.sink.worker import Worker


class SyslogSink:
    """Sending nothing connects, so that a required one proves itself."""

    def __init__(self, line: Line, form: Form) -> None:
        self._line = line
        self._form = form
        self._worker = Worker("sink-syslog")

    async def send(self, records: Sequence[Record]) -> None:
        messages = [partial(message, record, self._form) for record in records]
        await self._worker.run(lambda: self._line.send(messages))

    async def close(self) -> None:
        self._worker.close(self._line.close)


def create(settings: SyslogSettings, _node: str) -> Sink:
    facility = dict(FACILITIES)[settings.facility]
    form = Form(facility, settings.app_name, settings.enterprise, text=settings.message == "text")
    return SyslogSink(_line(settings), form)


def _line(settings: SyslogSettings) -> Line:
    split = urlsplit(settings.url)
    path, host, port = unquote(split.path), split.hostname or "", split.port or 0
    most_bytes, timeout_seconds = settings.max_bytes, settings.timeout_seconds
    match split.scheme:
        case "unixgram":
            return DatagramLine(path, most_bytes, timeout_seconds)
        case "unix":
            return StreamLine(unix_stream(path), confirm, most_bytes, timeout_seconds)
        case "tcp":
            return StreamLine(tcp(host, port), confirm, most_bytes, timeout_seconds)
        case _:
            context = client_context(f"sinks.{settings.name}", settings)
            end = partial(confirm_tls, signed_end=settings.signed_end)
            return StreamLine(tls(host, port, context), end, most_bytes, timeout_seconds)
