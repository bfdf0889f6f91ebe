"""Events as Falco JSON to falcosidekick, or to the collector plugin of Falco itself: one POST for each.

Never sends an event before the one before it of the same execution was taken; those of no execution keep their order
as well. What was taken is not sent again while the daemon lives. Found by name through `plugin`.
"""

from collections.abc import Sequence

from sandboxd.outbound.again import seconds_until
from sandboxd.outbound.post import Answer, NoAnswer, Poster
from sandboxd.settings.sinks.falcosidekick import FalcosidekickSettings
from sandboxd.sink.base import Record, Sink, SinkRefused, SinkUnavailable
from sandboxd.sink.by_execution import ByExecution
from sandboxd.sink.falco_event import falco_line

JSON = "application/json"
_AGAIN_LATER = (429, 503)
# What falcosidekick says of an event that it does not take; another 400 is not of the event, so the event is kept.
_REFUSAL = b"Please send a valid request body"
# How GET /ping is answered: by falcosidekick, by the same where its chart has that path on another port, and by Falco.
_THERE = (
    (200, b"pong"),
    (400, b"Please send with post http method"),
    (405, b"Only POST allowed"),
)


class FalcosidekickSink:
    def __init__(self, settings: FalcosidekickSettings) -> None:
        self._poster = Poster(f"sinks.{settings.name}", settings, settings.connections)
        self._each = ByExecution(settings.connections, self._send)
        self._compressed = settings.compression
        self._ping = ("" if settings.url.endswith("/") else "/") + "ping"

    async def send(self, records: Sequence[Record]) -> None:
        if records:
            await self._each.send(records)
        else:
            await self._prove()

    async def close(self) -> None:
        await self._poster.close()

    async def _send(self, record: Record) -> None:
        body = falco_line(record)[:-1]
        answer = await self._post(body, plain=not self._compressed)
        if answer.status in (400, 415):  # also what falcosidekick says to a compressed event, and to a damaged one
            answer = await self._post(body, plain=True)
            self._compressed = self._compressed and not answer.ok
        if answer.ok:
            return
        said = f"it answered {answer.status}"
        if answer.status == 400 and answer.body.startswith(_REFUSAL):
            raise SinkRefused(f"{said}: {_REFUSAL.decode()!r}", record.seq)
        raise SinkUnavailable(said, seconds_until(answer.retry_after) if answer.status in _AGAIN_LATER else 0.0)

    async def _post(self, body: bytes, *, plain: bool) -> Answer:
        try:
            return await self._poster.post(body, JSON, plain=plain)
        except NoAnswer as error:
            raise SinkUnavailable(str(error)) from error

    async def _prove(self) -> None:
        try:
            answer = await self._poster.get(self._ping)
        except NoAnswer as error:
            raise SinkUnavailable(str(error)) from error
        if not any(answer.status == status and answer.body.startswith(body) for status, body in _THERE):
            raise SinkUnavailable(
                f"it answered {answer.status} to GET /ping, and not as falcosidekick does; set url to where "
                "falcosidekick or Falco's collector plugin listens"
            )


def create(settings: FalcosidekickSettings, _node: str) -> Sink:
    return FalcosidekickSink(settings)
