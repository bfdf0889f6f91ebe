"""Events as CloudEvents 1.0 over HTTP, one by one or in batches.

Never sends an event before those before it of the same execution were taken. What was taken is not sent again while the
daemon lives. Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md.
Found by name through `plugin`.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from sandboxd.outbound.again import seconds_until
from sandboxd.outbound.post import Answer, NoAnswer, Poster
from sandboxd.settings.sinks.cloudevents import CloudEventsSettings
from sandboxd.sink.base import Record, Sink, SinkRefused, SinkUnavailable
from sandboxd.sink.by_execution import ByExecution
from sandboxd.sink.cloud_event import cloud_event

STRUCTURED: Final = "application/cloudevents+json; charset=utf-8"
BATCHED: Final = "application/cloudevents-batch+json; charset=utf-8"
_TOO_LARGE = 413
_NOT_THIS_MODE = 415
_REFUSED = (400, 422)  # of what was sent; other 4xx are of the way there, which somebody can mend
_AGAIN_LATER = (429, 503)
_TAKEN_BEFORE_MORE = 100  # batches: then it is tried whether the receiver takes more by now
_NOT_THERE = (401, 403, 404, 407)  # to whoever asks whether it is


class CloudEventsSink:
    """Sends one by one."""

    def __init__(self, settings: CloudEventsSettings) -> None:
        self._poster = Poster(f"sinks.{settings.name}", settings, settings.connections)
        self._each = ByExecution(settings.connections, self._send)

    async def send(self, records: Sequence[Record]) -> None:
        if records:
            await self._each.send(records)
        else:
            await _prove(self._poster)

    async def close(self) -> None:
        await self._poster.close()

    async def _send(self, record: Record) -> None:
        answer = await _post(self._poster, cloud_event(record), STRUCTURED)
        if answer.status in (*_REFUSED, _TOO_LARGE):
            raise SinkRefused(f"it answered {answer.status}", record.seq)
        _see(answer, "structured")


class BatchingCloudEventsSink:
    """Sends up to so many at once, and for a while fewer once the receiver has said that it was too much."""

    def __init__(self, settings: CloudEventsSettings) -> None:
        self._poster = Poster(f"sinks.{settings.name}", settings, 1)
        self._settings = settings
        self._most_events = settings.batch_events
        self._most_bytes = settings.batch_bytes
        self._in_a_row = 0  # batches taken since one was too large
        self._taken: set[tuple[str, int]] = set()  # of the records whose sending has failed as a whole

    async def send(self, records: Sequence[Record]) -> None:
        if not records:
            await _prove(self._poster)
            return
        left = [(record, cloud_event(record)) for record in records if (record.boot, record.seq) not in self._taken]
        while left:
            batch = list(self._next(left))
            answer = await _post(self._poster, b"[" + b",".join(event for _, event in batch) + b"]", BATCHED)
            if answer.status == _TOO_LARGE and len(batch) > 1:
                self._send_less(batch)
                continue
            if answer.status in (*_REFUSED, _TOO_LARGE):
                raise SinkRefused(f"it answered {answer.status}", batch[0][0].seq if len(batch) == 1 else None)
            _see(answer, "batched")
            self._taken.update((record.boot, record.seq) for record, _ in batch)
            del left[: len(batch)]
            self._try_more()
        self._taken.clear()

    async def close(self) -> None:
        await self._poster.close()

    def _next(self, left: Sequence[tuple[Record, bytes]]) -> Iterator[tuple[Record, bytes]]:
        """As many as fit, and one in any case."""
        size = 1
        for number, (record, event) in enumerate(left[: self._most_events]):
            size += len(event) + 1
            if number and size > self._most_bytes:
                return
            yield record, event

    def _send_less(self, batch: Sequence[tuple[Record, bytes]]) -> None:
        """Half of what was too much."""
        self._in_a_row = 0
        self._most_events = len(batch) // 2 or 1
        self._most_bytes = sum(len(event) + 1 for _, event in batch) // 2 + 1

    def _try_more(self) -> None:
        """What was too much once may be what a gateway on the way said, or one that is configured otherwise by now."""
        self._in_a_row += 1
        if self._in_a_row % _TAKEN_BEFORE_MORE == 0:
            self._most_events = min(self._most_events * 2, self._settings.batch_events)
            self._most_bytes = min(self._most_bytes * 2, self._settings.batch_bytes)


async def _post(poster: Poster, body: bytes, content_type: str) -> Answer:
    try:
        return await poster.post(body, content_type)
    except NoAnswer as error:
        raise SinkUnavailable(str(error)) from error


def _see(answer: Answer, mode: str) -> None:
    """SinkUnavailable unless it took what was sent."""
    if answer.ok:
        return
    if answer.status == _NOT_THIS_MODE:
        raise SinkUnavailable(f"it answered 415 to mode {mode}; set mode to the other one, or compression to false")
    after_seconds = seconds_until(answer.retry_after) if answer.status in _AGAIN_LATER else 0.0
    raise SinkUnavailable(f"it answered {answer.status}", after_seconds)


async def _prove(poster: Poster) -> None:
    """Nothing in CloudEvents asks whether a receiver is there: any answer to a GET of its address tells that it is."""
    try:
        answer = await poster.get("")
    except NoAnswer as error:
        raise SinkUnavailable(str(error)) from error
    if answer.status >= 500 or answer.status in _NOT_THERE:
        raise SinkUnavailable(f"it answered {answer.status} to GET; set url to where it takes events, and who we are")


def create(settings: CloudEventsSettings, _node: str) -> Sink:
    return BatchingCloudEventsSink(settings) if settings.mode == "batched" else CloudEventsSink(settings)
