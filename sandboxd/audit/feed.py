"""Feeds one sink from the journal: its own task, its own place in the journal on disk, its own retries.

Never holds up the journal or another sink. Never skips a record silently: what a sink was not given is counted, logged
and on record; after a crash it sends again from the last place that it saved (at least once). One `Feed` per sink, made
by the daemon.
"""

import asyncio
import contextlib
import logging
import random
import time
from calendar import timegm
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sandboxd.audit.choice import Choice
from sandboxd.audit.condition import NODE_EVENT, Condition, State
from sandboxd.audit.cursor import Batch, Cursor, Readable, Reader, load, save
from sandboxd.audit.line import LineDamaged
from sandboxd.errors import AuditUnavailable
from sandboxd.event import Event, SinkLagged, SinkSkipped
from sandboxd.settings.sinks.base import SinkSettings
from sandboxd.sink.base import Loses, Record, Sink, SinkRefused, SinkUnavailable

LINGER_SECONDS = 0.1  # records come close together: sent together they cost less, and none of it while a caller waits
SAVE_SECONDS = 1.0
RETRY_FIRST_SECONDS = 0.5
RETRY_MOST_SECONDS = 60.0
RETRY_NAMED_SECONDS = 300.0  # by the receiver: more is not believed
STUCK_SECONDS = 30.0
REFUSED_ATTEMPTS = 4  # of one record alone, by a sink that is not required

_log = logging.getLogger(__name__)


class Source(Readable, Protocol):
    """What a feed needs of `audit.recorder.Recorder`."""

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]: ...

    async def record(self, event: Event) -> int: ...


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """How one sink does, since the daemon started. Times are Unix time, 0 where it has not happened yet."""

    name: str
    type: str
    required: bool
    state: State
    sent_records: int
    filtered_records: int  # that its filter left out
    lag_records: int  # on record, and not taken yet
    lag_seconds: float  # age of the oldest of them
    retries: int  # attempts that it refused
    failures: int  # of these, the last ones in a row: 0 when it is well
    lost_records: int  # gone from the journal before it took them, or taken by the sink, and nobody got them
    refused_records: int  # that it refused for good, and was not given again
    last_error: str
    last_error_at: float
    last_success_at: float


class Feed:
    """`run` it as a task; to cancel it ends it with its place saved. `directory` holds one file per sink."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        settings: SinkSettings,
        directory: Path,
        *,
        jitter: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._sink = sink
        self._settings = settings
        self._directory = directory
        self._jitter = jitter
        self._sleep = sleep
        self._clock = clock
        self._news = asyncio.Event()
        self._news.set()
        saved = load(directory, settings.name)
        self._reader = Reader(source, Choice(settings.filter), saved)
        self._saved = saved
        self._saved_at = 0.0
        self._saving: asyncio.Future[None] | None = None
        self._untold: list[Event] = []  # of what happened before the place of the cursor
        self._untold_at = -1  # the last record when the journal did not take one of them
        self._condition = Condition(settings, clock)
        self._oldest = ""  # time of the oldest record of the batch under way
        self._sent = self._left_out = self._lost = self._refused = 0

    @property
    def name(self) -> str:
        return self._settings.name

    @property
    def required(self) -> bool:
        return self._settings.required

    @property
    def confirmed(self) -> int:
        """Up to this record the sink has taken everything, and will not ask for it again: so it is on disk."""
        return 0 if self._saved is None else self._saved.seq

    @property
    def status(self) -> SinkStatus:
        condition, lag = self._condition, max(0, self._source.readable.link.seq - self._reader.cursor.seq)
        return SinkStatus(
            name=self._settings.name,
            type=self._settings.type,
            required=self._settings.required,
            state=condition.state,
            sent_records=self._sent,
            filtered_records=self._left_out,
            lag_records=lag,
            lag_seconds=max(0.0, self._clock() - self._waiting_since) if lag else 0.0,
            retries=condition.retries,
            failures=condition.failures,
            lost_records=self._lost + (self._sink.dropped if isinstance(self._sink, Loses) else 0),
            refused_records=self._refused,
            last_error=condition.last_error,
            last_error_at=condition.last_error_at,
            last_success_at=condition.last_success_at,
        )

    @property
    def _waiting_since(self) -> float:
        """Unix time of the oldest record that is not taken; of one that cannot be read, since when that is so."""
        if self._oldest:
            return _seconds(self._oldest)
        return self._clock() if self._condition.state == "ok" else self._condition.failing_since

    async def run(self) -> None:
        """Until cancelled. A damaged journal ends it, on record."""
        unsubscribe = self._source.subscribe(self._news.set)
        try:
            await self._save()
            while True:
                await self._wait()
                await self._sleep(LINGER_SECONDS)
                self._news.clear()
                while (batch := await self._read()) is not None:
                    await self._take(batch)
        except LineDamaged as error:
            _log.error("sink feed stopped at a damaged record", extra=self._extra(error=str(error)))
            await self._tell(self._condition.damaged(f"the journal is damaged: {error}"))
        finally:
            unsubscribe()
            await self._save_last()
            await self._sink.close()

    async def _wait(self) -> None:
        """For news; a place that is not saved yet is saved once it has been quiet for a moment."""
        while self._reader.cursor != self._saved or self._untold:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SAVE_SECONDS):
                    await self._news.wait()
                return
            await self._tell(None)
            await self._save()
        await self._news.wait()

    async def _read(self) -> Batch | None:
        while True:
            try:
                return self._reader.read()
            except OSError as error:
                await self._again(f"the journal cannot be read: {error.strerror or error}")

    async def _take(self, batch: Batch) -> None:
        self._oldest = batch.oldest
        if batch.missing:
            await self._count_lost(batch)
        if batch.records:
            await self._deliver(batch.records)
        else:
            await asyncio.sleep(0)  # whatever else waits has its turn
        self._left_out += batch.left_out
        self._reader.cursor = batch.after
        self._oldest = ""
        if abs(self._clock() - self._saved_at) >= SAVE_SECONDS:
            await self._save()

    async def _deliver(self, records: Sequence[Record]) -> None:
        """All of them, in order, however long it takes; but what a sink that is not required refuses for good."""
        refused = 0
        while True:
            try:
                await self._attempt(records)
            except SinkRefused as error:
                if len(records) > 1:
                    for part in _around(records, error.seq):
                        await self._deliver(part)
                    return
                refused += 1
                await self._again(f"it refuses record {records[0].seq}: {error}")
                if refused >= REFUSED_ATTEMPTS and not self._settings.required:
                    await self._pass_over(records[0], str(error))
                    return
            except (OSError, SinkUnavailable) as error:
                after_seconds = error.after_seconds if isinstance(error, SinkUnavailable) else 0.0
                await self._again(str(error), after_seconds)
            except Exception as error:  # noqa: BLE001  foreign code: a mistake in it must not end the feed unseen
                _log.exception("sink failed", extra=self._extra())
                await self._again(f"{type(error).__name__} in the sink; see the log")
            else:
                self._sent += len(records)
                await self._tell(self._condition.accepted())
                return

    async def _attempt(self, records: Sequence[Record]) -> None:
        """One `send`. It may take as long as it takes, but not without a word."""
        sending = asyncio.ensure_future(self._sink.send(records))
        waited = 0.0
        try:
            while not (await asyncio.wait((sending,), timeout=STUCK_SECONDS))[0]:
                waited += STUCK_SECONDS
                await self._tell(self._condition.stuck(waited))
        except asyncio.CancelledError:
            if not sending.done():
                sending.cancel()
                await asyncio.wait((sending,))
                raise
            # It has taken them: that is kept, and what ends this feed comes with its next wait.
            if (feed := asyncio.current_task()) is not None:
                feed.cancel()
        sending.result()

    async def _again(self, message: str, after_seconds: float = 0.0) -> None:
        """Waits before the next attempt."""
        event = self._condition.refused(message)
        failures = self._condition.failures
        if failures == 1:
            _log.warning("sink does not accept", extra=self._extra(error=message))
        await self._tell(event)
        most = min(RETRY_FIRST_SECONDS * 2.0 ** min(failures - 1, 16), RETRY_MOST_SECONDS)
        await self._sleep(max(most * (0.5 + self._jitter() / 2), min(after_seconds, RETRY_NAMED_SECONDS)))

    async def _pass_over(self, record: Record, message: str) -> None:
        """Of the events about sinks that are refused themselves there is none: it would be refused as well."""
        self._refused += 1
        self._condition.passed_over()
        _log.error("sink refused a record for good", extra=self._extra(seq=record.seq, rule=record.rule, error=message))
        if not record.rule.startswith("sink."):
            settings = self._settings
            await self._tell(
                SinkSkipped(*NODE_EVENT, settings.name, settings.type, record.seq, record.rule, record.digest, message)
            )

    async def _count_lost(self, batch: Batch) -> None:
        self._lost += batch.missing
        _log.error("records are gone that a sink never had", extra=self._extra(records=batch.missing))
        settings = self._settings
        await self._tell(SinkLagged(*NODE_EVENT, settings.name, settings.type, batch.missing_from, batch.missing))

    async def _tell(self, event: Event | None) -> None:
        """Put it on record. What the journal does not take now is told once it has taken anything; no place behind it
        is saved before."""
        if event is not None:
            self._untold.append(event)
        while self._untold and self._source.readable.link.seq != self._untold_at:
            try:
                await self._source.record(self._untold[0])
            except AuditUnavailable:
                self._untold_at = self._source.readable.link.seq
                return
            del self._untold[0]

    async def _save(self) -> None:
        """Failing is no harm but records sent again after a crash."""
        cursor = self._reader.cursor
        self._saved_at = self._clock()
        if cursor != self._saved and not self._untold:
            with contextlib.suppress(OSError):
                if self._settings.required:
                    # Retention goes by it, so it has to outlive a power cut; that takes a while.
                    self._saving = asyncio.ensure_future(asyncio.to_thread(self._save_at, cursor))
                    await asyncio.shield(self._saving)
                else:
                    self._save_at(cursor)
                self._saved = cursor

    async def _save_last(self) -> None:
        if self._saving is not None:
            await asyncio.wait((self._saving,))  # never two at once
        cursor = self._reader.cursor
        if cursor != self._saved and not self._untold:
            with contextlib.suppress(OSError):
                self._save_at(cursor)
                self._saved = cursor

    def _save_at(self, cursor: Cursor) -> None:
        save(self._directory, self._settings.name, cursor, durable=self._settings.required)

    def _extra(self, **fields: object) -> dict[str, object]:
        return {"sink": self._settings.name, **fields}


def _around(records: Sequence[Record], seq: int | None) -> Iterator[Sequence[Record]]:
    """Parts in order: that record alone and what is before and behind it; two halves, if it is not known which."""
    places = [place for place, record in enumerate(records) if record.seq == seq]
    cuts = (places[0], places[0] + 1) if places else (len(records) // 2,)
    for begin, end in zip((0, *cuts), (*cuts, len(records)), strict=True):
        if begin < end:
            yield records[begin:end]


def _seconds(text: str) -> float:
    """Unix time of a record's `time`."""
    return timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) + float(f"0{text[19:-1]}")
